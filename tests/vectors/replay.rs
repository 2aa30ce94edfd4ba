//! The calls between frontends and backends, replayed over sockets.
//!
//! A gateway takes the place of each frontend of a transcript. Packet by packet, what a backend sent
//! is sent to it, and what the genuine frontend sent has to come from it, byte for byte; a forward
//! is provoked by a client that asks what the captured one asked. Clients have to see what follows
//! from it: responses, pushes and kicks, and nothing else.
//!
//! The test maps values that differ from one process to the next: ids of sessions, the ids of tangelo's own
//! calls, the time inside an MQTT client id, and where in the code an error was made.

mod frontend;
mod link;
mod odd;

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::Dialect;
use tangelo::wire::pomelo::mqtt;

use self::frontend::Frontend;
use self::link::{Link, accept, frame, payload};
use super::client::Message;
use super::differences::{Differences, Tangelo, matches};
use super::transcript::{Captured, Transcript, transcripts};

/// Backends, in the order of a cluster whose forwards do not say another one.
const BACKENDS: [&str; 2] = ["chat-1", "chat-2"];

/// A session id of the transcripts that no session has.
const NOBODY: u64 = 99_999;

/// Added to the number of a connection it is the id of a session that no transcript has.
const EARLIER: u64 = 1 << 32;

/// Sessions that a transcript does not name, but whose uids it pushes to, or that its broadcasts
/// pass over: transcript, frontend, id, uid.
const BYSTANDERS: &[(&str, &str, u64, Option<&str>)] = &[
    ("*-push-uids", "connector-2", 1, Some("alice")),
    ("*-broadcast", "connector-2", 1, Some("alice")),
    ("*-broadcast", "connector-1", 2, None),
];

#[test]
fn a_pomelo_cluster_does_not_notice_the_difference() {
    replay(Dialect::Pomelo);
}

#[test]
fn a_pinus_cluster_does_not_notice_the_difference() {
    replay(Dialect::Pinus);
}

fn replay(dialect: Dialect) {
    let rules = Rules {
        plain: Differences::of("rpc", Some(dialect)),
        frames: Differences::of("replay", Some(dialect)),
    };
    let mut compared = 0;
    for transcript in transcripts().filter(|transcript| transcript.dialect == dialect) {
        // Shown only when the test fails.
        println!("--- {}", transcript.name);
        let mut cluster = Cluster::start(&transcript, &rules);
        for packet in &transcript.packets {
            cluster.follow(packet);
        }
        compared += cluster.end();
    }
    println!("{compared} packets of tangelo compared");
    rules.plain.all_used();
    rules.frames.all_used();
}

/// Where tangelo sends something else: how frames are written, and which.
struct Rules {
    plain: Differences,
    frames: Differences,
}

/// The captured cluster, with tangelo for its frontends and this test for its backends and clients.
struct Cluster<'a> {
    transcript: &'a Transcript,
    rules: &'a Rules,
    frontends: BTreeMap<&'a str, Frontend>,
    /// By captured connection.
    links: HashMap<u64, Link>,
    /// Forwards without an answer, by connection and captured id.
    asked: HashMap<(u64, u64), Asked>,
    /// Calls of backends without an answer, by connection and id.
    calls: HashMap<(u64, u64), Value>,
    /// Packets of tangelo so far.
    compared: usize,
}

/// A forward on its way: tangelo's id of it, and whom the response is for.
struct Asked {
    id: Value,
    sid: u64,
    message_id: u32,
}

impl<'a> Cluster<'a> {
    /// The cluster at the beginning of the transcript.
    fn start(transcript: &'a Transcript, rules: &'a Rules) -> Self {
        let order = order_of_backends(transcript);
        let pings = |packet: &Captured| packet.kind == "mqtt-pingreq" && packet.is_sent();
        let keepalive = match transcript.packets.iter().any(pings) {
            true => Duration::from_secs(2),
            // Not while this test lasts.
            false => Duration::from_secs(600),
        };
        let mut cluster = Self {
            transcript,
            rules,
            frontends: BTreeMap::new(),
            links: HashMap::new(),
            asked: HashMap::new(),
            calls: HashMap::new(),
            compared: 0,
        };
        for packet in &transcript.packets {
            let start = || Frontend::start(packet.frontend(), transcript.dialect, order, keepalive);
            let frontend = cluster.frontends.entry(packet.frontend());
            frontend.or_insert_with(start);
        }
        cluster.begin_sessions();
        cluster.open_mailboxes(order);
        cluster
    }

    /// Sessions as they were when the transcript first names them.
    fn begin_sessions(&mut self) {
        for packet in &self.transcript.packets {
            let frontend = self.frontend(packet);
            for call in packet.objects() {
                let args = &call["msg"]["args"];
                match args[0].as_u64() {
                    _ if is_forward(call) => {
                        let session = &args[1];
                        let sid = session["id"].as_u64().expect("an id");
                        frontend.begin(sid, &session["uid"], &session["settings"]);
                    }
                    Some(sid) if call["msg"]["service"] == "sessionRemote" && sid != NOBODY => {
                        frontend.begin(sid, &Value::Null, &json!({}));
                    }
                    _ => {}
                }
            }
        }
        for (transcripts, frontend, sid, uid) in BYSTANDERS {
            if matches(transcripts, self.transcript.name) {
                let frontend = self
                    .frontends
                    .get_mut(frontend)
                    .expect("the frontend is in the transcript");
                frontend.begin(*sid, &json!(uid), &json!({}));
            }
        }
    }

    /// Mailboxes that were open before the transcript begins, and that do not begin with a forward
    /// there: somebody has to ask something first.
    fn open_mailboxes(&mut self, order: [&str; 2]) {
        let mut seen = Vec::new();
        for packet in &self.transcript.packets {
            if seen.contains(&packet.conn) {
                continue;
            }
            seen.push(packet.conn);
            let place = order.iter().position(|backend| *backend == packet.peer());
            let Some(place) = place else { continue };
            if packet.kind == "tcp-syn" || packet.objects().iter().any(is_forward) {
                continue;
            }
            let sid = EARLIER + packet.conn;
            // Uids that lead there by the default route.
            let uid = [Value::Null, json!("1")][place].clone();
            self.frontend(packet).begin(sid, &uid, &json!({}));
            let message = json!({"id": 1, "type": 0, "route": "chat.chatHandler.x", "body": {}});
            self.ask(packet, sid, &message);
            let id = payload(&self.link(packet).next())["id"].clone();
            let asked = Asked {
                id,
                sid,
                message_id: 1,
            };
            let captured = packet.objects()[0]["id"].as_u64().unwrap_or_default();
            self.asked.insert((packet.conn, captured), asked);
        }
    }

    /// Does what was captured, or sees it done.
    fn follow(&mut self, packet: &Captured) {
        match (&*packet.kind, packet.is_sent()) {
            // With the first forward it is time for them.
            ("tcp-syn" | "mqtt-connect", true) => {}
            ("tcp-syn", false) => {
                self.link(packet);
            }
            ("mqtt-publish", sent) => {
                let [object] = packet.objects() else {
                    panic!("{}: one object in each packet", packet.transcript);
                };
                match (is_answer(object), sent) {
                    (false, true) => self.see_forward(packet, object),
                    (true, true) => self.see_answer(packet, object),
                    (false, false) => self.send_call(packet, object),
                    (true, false) => self.send_answer(packet, object),
                }
            }
            (_, true) => {
                let got = self.link(packet).next();
                self.compare(packet, &got, packet.bytes());
            }
            (_, false) => self.link(packet).send(packet.bytes()),
        }
    }

    fn see_forward(&mut self, packet: &Captured, call: &Value) {
        let [message, session] = &call["msg"]["args"].as_array().expect("a list")[..] else {
            panic!("{call}: a message and a session");
        };
        let sid = session["id"].as_u64().expect("an id");
        let message_id = self.ask(packet, sid, message);
        let got = self.link(packet).next();
        let asked = Asked {
            id: payload(&got)["id"].clone(),
            sid,
            message_id,
        };
        assert!(asked.id.is_u64(), "{}", got.escape_ascii());
        let expected = self.mapped(packet, |call| call["id"] = asked.id.clone());
        self.compare(packet, &got, &expected);
        self.asked.insert((packet.conn, id_of(call)), asked);
    }

    /// A client sends a message. Its id; 0 for a notify.
    fn ask(&mut self, packet: &Captured, sid: u64, message: &Value) -> u32 {
        let client = &mut self.frontend(packet).session(sid).client;
        let route = message["route"].as_str().expect("a text");
        let body = message["body"].to_string();
        let id = u32::try_from(message["id"].as_u64().expect("a number")).expect("a small one");
        match message["type"].as_u64() {
            Some(0) => client.request(id, route, body),
            Some(1) => client.notify(route, body),
            other => panic!("no client sends type {other:?}"),
        }
        id
    }

    fn send_answer(&mut self, packet: &Captured, answer: &Value) {
        let asked = self.asked.remove(&(packet.conn, id_of(answer)));
        let asked = asked.unwrap_or_else(|| panic!("{answer}: an answer to an unknown call"));
        let bytes = self.frame(packet, |answer| answer["id"] = asked.id.clone());
        self.link(packet).send(&bytes);
        if asked.message_id != 0 {
            let response = Message::Response {
                id: asked.message_id,
                body: response(&answer["resp"]).to_string().into_bytes(),
            };
            let client = &mut self.frontend(packet).session(asked.sid).client;
            assert_eq!(client.next_message(), response, "{}", packet.transcript);
        }
    }

    fn send_call(&mut self, packet: &Captured, call: &Value) {
        let bytes = self.frame(packet, |_| {});
        self.link(packet).send(&bytes);
        self.calls.insert((packet.conn, id_of(call)), call.clone());
    }

    fn see_answer(&mut self, packet: &Captured, answer: &Value) {
        let call = self.calls.remove(&(packet.conn, id_of(answer)));
        let msg = &call.unwrap_or_else(|| panic!("{answer}: an answer to an unknown call"))["msg"];
        let expected = self.mapped(packet, |answer| {
            if let Some(stack) = answer.pointer_mut("/resp/0/stack") {
                let text = stack.as_str().expect("a text");
                let first = text.lines().next().expect("a line");
                *stack = format!("{first}\n    at tangelo").into();
            }
        });
        let got = self.link(packet).next();
        self.compare(packet, &got, &expected);
        if payload(&got)["resp"][0].is_null() {
            let dialect = self.transcript.dialect;
            self.frontend(packet).see_done(msg, dialect);
        }
    }

    /// The packet of the reference as it has to come from tangelo.
    fn mapped(&self, packet: &Captured, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let difference = self.rules.plain.find(packet.transcript);
        match difference.map(|row| row.tangelo) {
            None => self.frame(packet, change),
            Some(Tangelo::WritesPlain) => {
                let mut plain = packet.objects()[0].clone();
                let object = plain.as_object_mut().expect("an object");
                object.retain(|key, _| ["id", "msg", "resp"].contains(&&**key));
                assert_ne!(frame(&plain), packet.bytes(), "listed, but it is plain");
                self.map_sids(packet, &mut plain);
                change(&mut plain);
                frame(&plain)
            }
            Some(other) => panic!("a frame cannot do {other:?}"),
        }
    }

    /// The packet with the ids of sessions as they are here, and a change.
    fn frame(&self, packet: &Captured, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut payload = packet.json.clone();
        let is_same = frame(&payload) == packet.bytes();
        assert!(
            is_same,
            "the payload is not written as it was read: {payload}"
        );
        let object = match &mut payload {
            Value::Array(objects) => &mut objects[0],
            object => object,
        };
        self.map_sids(packet, object);
        change(object);
        frame(&payload)
    }

    fn map_sids(&self, packet: &Captured, object: &mut Value) {
        let sessions = &self.frontends[packet.frontend()].sessions;
        let map = |id: &mut Value| {
            if let Some(session) = id.as_u64().and_then(|id| sessions.get(&id)) {
                *id = session.sid.into();
            }
        };
        let map_session = |session: &mut Value| {
            let is_one = session.get("frontendId").is_some();
            if let Some(id) = session.get_mut("id").filter(|_| is_one) {
                map(id);
            }
        };
        if object["msg"]["service"] == "sessionRemote" {
            map(&mut object["msg"]["args"][0]);
        }
        for place in ["/msg/args/1", "/resp/1"] {
            match object.pointer_mut(place) {
                Some(Value::Array(list)) => list.iter_mut().for_each(map_session),
                Some(session) => map_session(session),
                None => {}
            }
        }
    }

    #[track_caller]
    fn compare(&mut self, packet: &Captured, got: &[u8], expected: &[u8]) {
        let [got, expected] = [got, expected].map(|bytes| bytes.escape_ascii().to_string());
        assert_eq!(got, expected, "{} {}", packet.transcript, packet.conn);
        self.compared += 1;
    }

    fn frontend(&mut self, packet: &Captured) -> &mut Frontend {
        let frontend = self.frontends.get_mut(packet.frontend());
        frontend.expect("all are there")
    }

    /// The connection of a packet, opened when it is first asked for.
    fn link(&mut self, packet: &Captured) -> &mut Link {
        if !self.links.contains_key(&packet.conn) {
            let link = self.open(packet);
            self.links.insert(packet.conn, link);
        }
        self.links.get_mut(&packet.conn).expect("the link is open")
    }

    fn open(&mut self, packet: &Captured) -> Link {
        let of_it = |other: &&Captured| other.conn == packet.conn && other.kind == "mqtt-connect";
        let captured = self.transcript.packets.iter().find(of_it);
        let frontend = self.frontend(packet);
        let Some(listener) = frontend.backends.get(packet.peer()) else {
            let stream = TcpStream::connect(frontend.rpc).expect("the gateway listens for calls");
            let mut link = Link::new(stream);
            if captured.is_none() {
                let mut connect = Vec::new();
                mqtt::write_connect(&mut connect, "MQTT_RPC_1795412817444");
                link.send(&connect);
            }
            return link;
        };
        let mut link = Link::new(accept(listener));
        let got = link.next();
        assert_eq!(got[0], 0x10, "a mailbox begins with CONNECT");
        if let Some(captured) = captured {
            let mut expected = captured.bytes().to_vec();
            // Milliseconds since 1970.
            if let Some((_, time)) = got.split_last_chunk::<13>()
                && time.iter().all(u8::is_ascii_digit)
            {
                expected.splice(expected.len() - time.len().., *time);
            }
            self.compare(captured, &got, &expected);
        }
        let case = format!("{} mailbox", packet.transcript);
        match self.rules.frames.find(&case).map(|row| row.tangelo) {
            None => {}
            Some(Tangelo::PingsFirst) => {
                assert_eq!(link.next(), mqtt::PINGREQ, "{case}");
                link.send(&mqtt::PINGRESP);
            }
            Some(other) => panic!("a mailbox cannot do {other:?}"),
        }
        link
    }

    /// Shows that all was sent, and nothing more. How many packets of tangelo that were.
    fn end(self) -> usize {
        let packets = self.transcript.packets.iter();
        let sent = packets.filter(|packet| packet.is_sent() && !packet.bytes().is_empty());
        assert_eq!(self.compared, sent.count(), "{}", self.transcript.name);
        assert!(self.calls.is_empty(), "no answer: {:?}", self.calls);
        for frontend in self.frontends.into_values() {
            frontend.end();
        }
        for link in self.links.into_values() {
            link.end();
        }
        self.compared
    }
}

/// The order in which the captured frontends knew the backends, as their forwards show: by the
/// default route the first one has the sessions without a uid, and the second one has `alice`.
fn order_of_backends(transcript: &Transcript) -> [&'static str; 2] {
    let [first, second] = BACKENDS;
    let forward = transcript.packets.iter().find_map(|packet| {
        let call = packet.objects().iter().find(|object| is_forward(object))?;
        Some((&*packet.to, &call["msg"]["args"][1]["uid"]))
    });
    match forward {
        Some((to, uid)) if (to == first) != uid.is_null() => [second, first],
        _ => [first, second],
    }
}

/// Returns the response that a client gets.
fn response(resp: &Value) -> Value {
    let (error, mut body) = (&resp[0], resp[1].clone());
    if body.is_null() {
        body = json!({});
    }
    if !error.is_null() && body["code"].is_null() {
        body["code"] = json!(500);
    }
    body
}

fn id_of(object: &Value) -> u64 {
    object["id"].as_u64().expect("a number")
}

fn is_forward(object: &Value) -> bool {
    object["msg"]["method"] == "forwardMessage"
}

fn is_answer(object: &Value) -> bool {
    object.get("resp").is_some()
}
