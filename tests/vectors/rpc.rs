//! Calls between servers against transcripts of genuine clusters.

use serde_json::Value;
use tangelo::session::Uid;
use tangelo::wire::json;
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::wire::pomelo::rpc;

use super::differences::{Differences, Tangelo};
use super::file::Hex;
use super::transcript::{BYTES_MAX, Captured, transcripts};

fn packets(kind: &str) -> Vec<Captured> {
    let packets = transcripts().flat_map(|transcript| transcript.packets);
    let packets: Vec<_> = packets.filter(|packet| packet.kind == kind).collect();
    assert!(!packets.is_empty(), "no {kind}");
    packets
}

/// The packet at the front of the bytes, if every shorter piece of them waits for more.
fn decode_at_every_split(captured: &Captured) -> Packet<'_> {
    let (bytes, kind) = (captured.bytes(), &captured.kind);
    for end in 0..bytes.len() {
        let piece = mqtt::decode(&bytes[..end], BYTES_MAX);
        assert_eq!(piece, Ok(None), "{} {kind} at {end}", captured.transcript);
    }
    let (packet, used) = mqtt::decode(bytes, BYTES_MAX)
        .unwrap()
        .expect("the frame is complete");
    assert_eq!(used, bytes.len());
    packet
}

#[test]
fn a_forward_has_the_bytes_of_a_genuine_frontend() {
    let differences = Differences::of("rpc", None);
    let mut forwards = 0;
    for captured in packets("mqtt-publish") {
        let calls = captured.objects().iter();
        for call in calls.filter(|call| call["msg"]["method"] == "forwardMessage") {
            assert_eq!(captured.objects().len(), 1, "{}", captured.transcript);
            let difference = differences.find(captured.transcript);
            let expected = match difference.map(|row| row.tangelo) {
                None => captured.bytes().to_vec(),
                Some(Tangelo::WritesPlain) => plain(captured.payload()),
                Some(other) => panic!("a forward cannot do {other:?}"),
            };
            assert_eq!(Hex(forward(call)), Hex(expected), "{}", captured.transcript);
            forwards += 1;
        }
    }
    assert!(forwards > 30, "{forwards}");
    differences.all_used();
}

/// The frame that tangelo writes for a captured call.
fn forward(call: &Value) -> Vec<u8> {
    let text = |value: &Value| {
        let mut text = Vec::new();
        json::write_value(&mut text, value);
        String::from_utf8(text).unwrap()
    };
    let number = |value: &Value| value.as_u64().expect("a number");
    let [message, session] = &call["msg"]["args"].as_array().expect("arguments")[..] else {
        panic!("{call}: a message and a session");
    };
    let (uid, body) = (Uid::from_json(&session["uid"]), text(&message["body"]));
    let forward = rpc::Forward {
        server_type: &text(&call["msg"]["serverType"]),
        message_id: number(&message["id"]) as u32,
        kind: number(&message["type"]) as u8,
        compressed: message["compressRoute"] == 1,
        route: message["route"].as_str().expect("a text"),
        body: body.as_bytes(),
        gzip: message["compressGzip"] == 1,
        session: rpc::SessionExport {
            id: number(&session["id"]),
            frontend_id: &text(&session["frontendId"]),
            uid: uid.as_ref().map_or("null", Uid::json),
            settings: &text(&session["settings"]),
        },
        address: None,
        frontend: None,
    };
    let mut out = Vec::new();
    rpc::write_forward(&mut out, number(&call["id"]), &forward);
    out
}

/// The same call without brackets around it and without trace keys before its id, in a frame of its
/// own.
fn plain(payload: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(payload).unwrap();
    let text = text
        .strip_prefix('[')
        .map_or(text, |text| text.strip_suffix(']').unwrap());
    let id = text.find("\"id\":").expect("a call has an id");
    let payload = format!("\0\u{3}rpc{{{}", &text[id..]);
    let length = payload.len();
    assert!((128..1 << 14).contains(&length), "two length bytes");
    let head = [0x30, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    [&head, payload.as_bytes()].concat()
}

#[test]
fn the_answers_of_genuine_servers_are_understood_however_they_are_split() {
    let mut answered = 0;
    for captured in packets("mqtt-publish") {
        if captured
            .objects()
            .iter()
            .any(|object| object["resp"].is_null())
        {
            continue;
        }
        let Packet::Publish { topic, payload } = decode_at_every_split(&captured) else {
            panic!("{}: no publish", captured.transcript);
        };
        assert_eq!(topic, mqtt::RPC_TOPIC);
        let answers: Vec<_> = rpc::answers(payload).map(Result::unwrap).collect();
        assert_eq!(answers.len(), captured.objects().len());
        for (answer, object) in answers.iter().zip(captured.objects()) {
            let result = answer.result().unwrap();
            let value = |raw: Option<&[u8]>| {
                raw.map_or(Value::Null, |raw| serde_json::from_slice(raw).unwrap())
            };
            let transcript = captured.transcript;
            assert_eq!(answer.id, object["id"].as_u64(), "{transcript}");
            assert_eq!(value(result.error), object["resp"][0], "{transcript}");
            assert_eq!(value(result.value), object["resp"][1], "{transcript}");
            answered += 1;
        }
    }
    assert!(answered > 30, "{answered}");
}

#[test]
fn the_first_packet_and_the_keep_alive_have_the_bytes_of_the_reference() {
    for captured in packets("mqtt-connect") {
        assert_eq!(decode_at_every_split(&captured), Packet::Connect);
        let mut out = Vec::new();
        let client_id = captured.json["clientId"].as_str().expect("a text");
        mqtt::write_connect(&mut out, client_id);
        assert_eq!(out, captured.bytes());
    }
    for captured in packets("mqtt-pingreq") {
        assert_eq!(decode_at_every_split(&captured), Packet::PingReq);
        assert_eq!(captured.bytes(), mqtt::PINGREQ);
    }
    for captured in packets("mqtt-pingresp") {
        assert_eq!(decode_at_every_split(&captured), Packet::PingResp);
        assert_eq!(captured.bytes(), mqtt::PINGRESP);
    }
}
