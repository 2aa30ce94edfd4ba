//! Calls between servers: MQTT packets used as a pipe for JSON. This is only the part that a backend
//! needs, and the call with which a frontend forwards a message.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::wire::{refused, shown, to_varint, varint, varint_bytes};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PING: u8 = 0xc0;
const PONG: u8 = 0xd0;
pub(crate) const DISCONNECT: u8 = 0xe0;

const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes whole packets off the front of the bytes of one read.
pub(crate) struct Packets<'a> {
    bytes: &'a [u8],
}

impl<'a> Packets<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next packet's first byte and rest; `None` when it is not whole yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u8, &'a [u8])>> {
        let Some((&kind, rest)) = self.bytes.split_first() else {
            return Ok(None);
        };
        let Some(length_bytes) = varint_bytes(rest) else {
            return match rest.len() {
                ..5 => Ok(None),
                _ => Err(refused("a packet without a length")),
            };
        };
        let (length, rest) = rest.split_at(length_bytes);
        let Some((body, rest)) = rest.split_at_checked(varint(length) as usize) else {
            return Ok(None);
        };
        self.bytes = rest;
        Ok(Some((kind, body)))
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The payload of a PUBLISH on whatever topic.
pub(crate) fn payload(packet: &[u8]) -> io::Result<&[u8]> {
    let payload = packet.split_first_chunk::<2>().and_then(|(length, rest)| {
        let topic_bytes = usize::from(u16::from_be_bytes(*length));
        rest.get(topic_bytes..)
    });
    payload.ok_or_else(|| refused("a PUBLISH without a topic"))
}

fn packet(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(4 + length);
    let (bytes, count) = to_varint(length as u32);
    out.extend_from_slice(&bytes[..count]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn connect_packet(out: &mut Vec<u8>, client: &[u8]) {
    let client_bytes = [0, client.len() as u8];
    let head = b"\x00\x04MQTT\x04\x02\x00\x00";
    packet(out, CONNECT, &[head, &client_bytes, client]);
}

fn publish(out: &mut Vec<u8>, topic: &[u8], payload: &[&[u8]]) {
    let topic_bytes = [0, topic.len() as u8];
    let parts = [&[&topic_bytes[..], topic], payload].concat();
    packet(out, PUBLISH, &parts);
}

pub(crate) fn pong(out: &mut Vec<u8>) {
    packet(out, PONG, &[]);
}

/// A call of a frontend: what a client sent, and the client's session.
#[derive(Debug, Deserialize)]
pub(crate) struct Forward<'a> {
    pub(crate) id: u64,
    #[serde(borrow)]
    msg: ForwardCall<'a>,
}

#[derive(Debug, Deserialize)]
struct ForwardCall<'a> {
    method: &'a str,
    #[serde(borrow)]
    args: (ClientMessage<'a>, &'a RawValue),
}

#[derive(Debug, Deserialize)]
struct ClientMessage<'a> {
    id: u64,
    route: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl<'a> Forward<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> io::Result<Self> {
        let call: Self = serde_json::from_slice(payload)
            .map_err(|error| refused(format!("{error} in {}", shown(payload))))?;
        if call.msg.method != "forwardMessage" {
            return Err(refused(format!("a call of the method {}", call.msg.method)));
        }
        Ok(call)
    }

    /// Appends the answer: the body as it came, or the session to `…session`; to a notify nothing.
    /// Both frameworks read this form.
    pub(crate) fn answer(&self, out: &mut Vec<u8>) {
        let (message, session) = &self.msg.args;
        let head = format!(r#"{{"id":{},"resp":["#, self.id);
        let value = match message {
            ClientMessage { id: 0, .. } => "null",
            ClientMessage { route, .. } if route.ends_with(".session") => session.get(),
            ClientMessage { body, .. } => body.get(),
        };
        let parts = [head.as_bytes(), b"null,", value.as_bytes(), b"]}"];
        publish(out, b"rpc", &parts);
    }
}

#[derive(Deserialize)]
struct Notice<'a> {
    id: u64,
    #[serde(borrow)]
    msg: NoticeCall<'a>,
}

#[derive(Deserialize)]
struct NoticeCall<'a> {
    service: &'a str,
}

/// Appends the answer to a notice of a frontend for its delegate; `None`: it is none.
pub(crate) fn answer_notice(payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let notice: Notice<'_> = serde_json::from_slice(payload).ok()?;
    (notice.msg.service == "tangelo").then(|| {
        let answer = format!(r#"{{"id":{},"resp":[null]}}"#, notice.id);
        publish(out, b"rpc", &[answer.as_bytes()]);
    })
}

/// Appends the call with which a frontend forwards a request of a client.
pub(crate) fn forward(
    out: &mut Vec<u8>,
    id: u64,
    message_id: u32,
    route: &[u8],
    body: &[u8],
    session: u64,
) {
    let mut digits = [itoa::Buffer::new(); 3];
    let [id_digits, message_digits, session_digits] = &mut digits;
    let parts: [&[u8]; 11] = [
        b"\0\x03rpc{\"id\":",
        id_digits.format(id).as_bytes(),
        br#","msg":{"namespace":"sys","serverType":"chat","service":"msgRemote","method":"forwardMessage","args":[{"id":"#,
        message_digits.format(message_id).as_bytes(),
        br#","type":0,"compressRoute":0,"route":""#,
        route,
        br#"","body":"#,
        body,
        br#","compressGzip":0},{"id":"#,
        session_digits.format(session).as_bytes(),
        br#","frontendId":"connector-1","uid":null,"settings":{}}]}}"#,
    ];
    packet(out, PUBLISH, &parts);
}

/// The value in the answer to call `id` of the synthetic backend; `None`: something else came.
pub(crate) fn value(payload: &[u8], id: u64) -> Option<&[u8]> {
    let rest = payload.strip_prefix(br#"{"id":"#)?;
    let rest = rest.strip_prefix(itoa::Buffer::new().format(id).as_bytes())?;
    rest.strip_prefix(br#","resp":[null,"#)?.strip_suffix(b"]}")
}

/// Connects to another server to call it. That server never answers the first packet, so calls may
/// follow at once.
pub(crate) fn connect_to_server(address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = connect(address)?;
    let mut out = Vec::new();
    connect_packet(&mut out, b"MQTT_RPC_1");
    socket.write_all(&out)?;
    Ok(socket)
}

/// Appends a call of a frontend's own remotes.
pub(crate) fn call(out: &mut Vec<u8>, id: u32, service: &str, method: &str, args: &str) {
    let text = format!(
        r#"{{"id":{id},"msg":{{"namespace":"sys","service":"{service}","method":"{method}","args":{args}}}}}"#
    );
    publish(out, b"rpc", &[text.as_bytes()]);
}

/// The ids of the calls that these packets answer, and the start of a packet behind them.
pub(crate) fn answers(bytes: &[u8]) -> io::Result<(Vec<u32>, &[u8])> {
    let mut ids = Vec::new();
    let mut packets = Packets::new(bytes);
    while let Some((kind, body)) = packets.next()? {
        if kind != PUBLISH {
            return Err(refused(format!("packet {kind:#04x} from the frontend")));
        }
        ids.push(answered(payload(body)?)?);
    }
    Ok((ids, packets.rest()))
}

#[derive(Deserialize)]
struct CallAnswer<'a> {
    id: u32,
    #[serde(borrow)]
    resp: Vec<&'a RawValue>,
}

/// The id of a call that was answered without an error.
fn answered(payload: &[u8]) -> io::Result<u32> {
    let wrong = || refused(format!("a call answered with {}", shown(payload)));
    let answer: CallAnswer<'_> = serde_json::from_slice(payload).map_err(|_| wrong())?;
    let mut resp = answer.resp.iter().map(|value| value.get());
    // An error, and for pushMessage those who were not found.
    let (error, failed) = (resp.next(), resp.next());
    if error.is_some_and(|e| e != "null") || failed.is_some_and(|f| f != "null" && f != "[]") {
        return Err(wrong());
    }
    Ok(answer.id)
}

/// Registers a backend with a genuine master, which tells the frontends. It stays listed as long as
/// the socket lives.
pub(crate) fn register(
    master: SocketAddr,
    id: &str,
    listen: SocketAddr,
    remotes: Option<&Path>,
) -> io::Result<TcpStream> {
    let mut socket = connect(master)?;
    let mut out = Vec::new();
    connect_packet(&mut out, b"MQTT_ADMIN_1");
    socket.write_all(&out)?;
    let (kind, _) = next_packet(&socket)?;
    if kind != CONNACK {
        return Err(refused(format!(
            "the master answered with packet {kind:#04x}"
        )));
    }
    let (server_type, _) = id.split_once('-').unwrap_or((id, ""));
    let mut info = json!({
        "id": id,
        "host": listen.ip().to_string(),
        "port": listen.port(),
        "serverType": server_type,
    });
    if let Some(path) = remotes {
        let system = json!({"namespace": "sys", "serverType": server_type, "path": path});
        info["remoterPaths"] = json!([system]);
    }
    let request = json!({
        "id": id,
        "type": "monitor",
        "serverType": server_type,
        "pid": std::process::id(),
        "info": info,
        // A server without adminServer.json sends this token.
        "token": "ok",
    });
    out.clear();
    publish(&mut out, b"register", &[request.to_string().as_bytes()]);
    socket.write_all(&out)?;
    let (_, packet) = next_packet(&socket)?;
    let answer: Value = serde_json::from_slice(payload(&packet)?)?;
    if answer["code"] != 1 {
        return Err(refused(format!("the master answered with {answer}")));
    }
    Ok(socket)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, STEP_TIMEOUT)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(STEP_TIMEOUT))?;
    socket.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(socket)
}

/// Makes one call and waits for the answer.
pub(crate) fn call_and_wait(mut socket: &TcpStream, call: &[u8]) -> io::Result<()> {
    socket.write_all(call)?;
    let (_, packet) = next_packet(socket)?;
    answered(payload(&packet)?).map(drop)
}

/// The one packet that comes next. Nobody sends a second one unasked where this is used.
fn next_packet(mut socket: &TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((kind, body)) = Packets::new(&bytes).next()? {
            return Ok((kind, body.to_vec()));
        }
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_and_a_cut_waits() {
        for payload_bytes in [0, 100, 122, 123, 20_000] {
            let payload_in = vec![b'x'; payload_bytes];
            let mut out = Vec::new();
            pong(&mut out);
            publish(&mut out, b"rpc", &[&payload_in]);
            for end in 0..out.len() {
                let mut packets = Packets::new(&out[..end]);
                while packets.next().unwrap().is_some() {}
                assert_eq!(packets.rest().is_empty(), end == 0 || end == 2, "{end}");
            }
            let mut packets = Packets::new(&out);
            assert_eq!(packets.next().unwrap(), Some((PONG, &[][..])));
            let (kind, body) = packets.next().unwrap().unwrap();
            assert_eq!((kind, payload(body).unwrap()), (PUBLISH, &payload_in[..]));
            assert!(packets.rest().is_empty());
        }
    }

    #[test]
    fn a_forwarded_message_is_answered_with_its_body() {
        let forward = |id: u32, route: &str| {
            format!(
                r#"{{"id":7,"msg":{{"namespace":"sys","serverType":"chat","service":"msgRemote","method":"forwardMessage","args":[{{"id":{id},"type":0,"compressRoute":0,"route":"chat.chatHandler.{route}","body":{{"n":1}},"compressGzip":0}},{{"id":1,"uid":null}}]}}}}"#
            )
        };
        let answer = |call: &str| {
            let mut out = Vec::new();
            Forward::parse(call.as_bytes()).unwrap().answer(&mut out);
            let (_, body) = Packets::new(&out).next().unwrap().unwrap();
            String::from_utf8(payload(body).unwrap().to_vec()).unwrap()
        };
        assert_eq!(
            answer(&forward(2, "echo")),
            r#"{"id":7,"resp":[null,{"n":1}]}"#
        );
        assert_eq!(
            answer(&forward(2, "session")),
            r#"{"id":7,"resp":[null,{"id":1,"uid":null}]}"#
        );
        assert_eq!(
            answer(&forward(0, "echo")),
            r#"{"id":7,"resp":[null,null]}"#
        );
    }

    #[test]
    fn a_notice_for_a_delegate_is_answered_and_no_other_call() {
        let mut out = Vec::new();
        let call = |service| {
            format!(
                r#"{{"id":7,"msg":{{"namespace":"user","service":"{service}","method":"m","args":[]}}}}"#
            )
        };
        assert_eq!(answer_notice(call("x").as_bytes(), &mut out), None);
        assert!(answer_notice(call("tangelo").as_bytes(), &mut out).is_some());
        let (_, body) = Packets::new(&out).next().unwrap().unwrap();
        assert_eq!(payload(body).unwrap(), br#"{"id":7,"resp":[null]}"#);
    }

    #[test]
    fn an_error_is_not_an_answer() {
        assert_eq!(answered(br#"{"id":3,"resp":[]}"#).unwrap(), 3);
        assert_eq!(answered(br#"{"id":3,"resp":[null,null]}"#).unwrap(), 3);
        assert_eq!(answered(br#"{"id":3,"resp":[null,[]]}"#).unwrap(), 3);
        assert!(answered(br#"{"id":3,"resp":[{"stack":"Error: x"}]}"#).is_err());
        assert!(answered(br#"{"id":3,"resp":[null,["bob"]]}"#).is_err());
    }
}
