//! The other end of tangelo's and everybody's connections inside a cluster, without a framework:
//! calls to the RPC port of any server, and questions to the master.
//!
//! Blocking, with a deadline on every wait. Written from the protocol and from nothing in the
//! gateway, for the same reason as `client`.

use std::collections::VecDeque;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tangelo::config::Master;

use crate::harness::client::{HANG_GUARD, connect_from};

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const CONNACK: u8 = 0x20;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;

/// A connection of MQTT packets.
pub(crate) struct Mqtt {
    stream: TcpStream,
}

/// A packet from the other end.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Connect,
    Publish { topic: String, payload: Vec<u8> },
    ConnAck,
    PingReq,
    PingResp,
    Disconnect,
}

impl Mqtt {
    /// Connects, and nothing is sent yet.
    fn open(address: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&address, HANG_GUARD)?)
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG_GUARD))?;
        stream.set_write_timeout(Some(HANG_GUARD))?;
        Ok(Self { stream })
    }

    /// Connects and says so, as the first packet must.
    fn connect(address: SocketAddr, client: &str) -> io::Result<Self> {
        let mut mqtt = Self::open(address)?;
        mqtt.greet(client)?;
        Ok(mqtt)
    }

    fn greet(&mut self, client: &str) -> io::Result<()> {
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        push_text(&mut body, client);
        self.stream.write_all(&packet(CONNECT, &body))
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&publish(topic, payload))
    }

    /// The next packet; `None` when the server has closed.
    fn next(&mut self) -> io::Result<Option<Packet>> {
        let mut head = [0];
        if self.stream.read(&mut head)? == 0 {
            return Ok(None);
        }
        let mut body = vec![0; self.read_length()?];
        self.stream.read_exact(&mut body)?;
        Ok(Some(match head[0] {
            PUBLISH => {
                let (length, rest) = body.split_first_chunk().expect("a topic has a length");
                let (topic, payload) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
                Packet::Publish {
                    topic: String::from_utf8(topic.to_vec()).expect("topics are UTF-8"),
                    payload: payload.to_vec(),
                }
            }
            CONNECT => Packet::Connect,
            CONNACK => Packet::ConnAck,
            kind if kind == PINGREQ[0] => Packet::PingReq,
            PINGRESP => Packet::PingResp,
            DISCONNECT => Packet::Disconnect,
            other => panic!("nobody sends packet {other:#x}: {body:02x?}"),
        }))
    }

    fn read_length(&mut self) -> io::Result<usize> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(length);
            }
        }
        panic!("a length of more than four bytes");
    }
}

/// A packet of a kind, with the length of its body in front of it.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut length = body.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    push_text(&mut body, topic);
    body.extend_from_slice(payload);
    packet(PUBLISH, &body)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// A caller of one server, as another server of the cluster is.
pub(crate) struct Rpc {
    mqtt: Mqtt,
    next_id: u64,
    answers: VecDeque<Value>,
}

impl Rpc {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            mqtt: Mqtt::connect(address, "MQTT_RPC_e2e")?,
            next_id: 0,
            answers: VecDeque::new(),
        })
    }

    /// The same from an address of this machine.
    pub(crate) fn connect_from(address: SocketAddr, from: [u8; 4]) -> io::Result<Self> {
        let mut mqtt = Mqtt::of(connect_from(address, IpAddr::from(from)))?;
        mqtt.greet("MQTT_RPC_e2e")?;
        Ok(Self {
            mqtt,
            next_id: 0,
            answers: VecDeque::new(),
        })
    }

    /// The same without the CONNECT that begins a connection.
    pub(crate) fn connect_silently(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            mqtt: Mqtt::open(address)?,
            next_id: 0,
            answers: VecDeque::new(),
        })
    }

    /// Where its server takes calls.
    pub(crate) fn address(&self) -> SocketAddr {
        self.mqtt.stream.peer_addr().expect("it is connected")
    }

    /// Bytes as they are, instead of a call.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mqtt.stream.write_all(bytes)
    }

    /// The bytes of one frame with this payload.
    pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
        publish("rpc", payload)
    }

    /// The payload of a call of the namespace `sys`.
    pub(crate) fn request(id: u64, service: &str, method: &str, args: &Value) -> Value {
        json!({"id": id, "msg": {
            "namespace": "sys", "service": service, "method": method, "args": args,
        }})
    }

    /// Calls and waits for the answer, which must be the next one: the list that the caller's
    /// callback gets.
    pub(crate) fn call(&mut self, service: &str, method: &str, args: &Value) -> io::Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let request = Self::request(id, service, method, args);
        self.mqtt.publish("rpc", request.to_string().as_bytes())?;
        let answer = self
            .next_answer()?
            .ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
        assert_eq!(answer["id"], id, "{answer}");
        Ok(answer["resp"].clone())
    }

    /// The text of the next answer behind its id, which must be this one.
    pub(crate) fn next_text(&mut self, id: u64) -> String {
        let packet = self.mqtt.next().expect("the server is there");
        let Some(Packet::Publish { payload, .. }) = packet else {
            panic!("instead of an answer: {packet:?}");
        };
        let text = String::from_utf8(payload).expect("answers are UTF-8");
        let text = text.strip_prefix(&format!("{{\"id\":{id},\"resp\":"));
        let text = text.and_then(|text| text.strip_suffix('}'));
        text.expect("the form of an answer").to_owned()
    }

    /// The next answer, whole; `None` when the server closed, with or without a DISCONNECT.
    pub(crate) fn next_answer(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            let payload = match self.mqtt.next()? {
                Some(Packet::Publish { topic, payload }) if topic == "rpc" => payload,
                Some(Packet::PingResp) => continue,
                Some(Packet::Disconnect) | None => return Ok(None),
                other => panic!("not sent to a caller: {other:?}"),
            };
            match serde_json::from_slice(&payload).map_err(Error::other)? {
                Value::Array(answers) => self.answers.extend(answers),
                answer => self.answers.push_back(answer),
            }
        }
    }

    /// Whether the server still answers on this connection, be it to a ping only.
    pub(crate) fn is_open(&mut self) -> bool {
        let ping = self.mqtt.stream.write_all(&PINGREQ);
        ping.is_ok() && matches!(self.mqtt.next(), Ok(Some(Packet::PingResp)))
    }

    /// Waits for the end and tells whether a DISCONNECT came before it. It passes
    /// over all other packets.
    pub(crate) fn wait_end(&mut self) -> bool {
        let mut disconnected = false;
        loop {
            match self.mqtt.next() {
                Ok(Some(packet)) => disconnected |= packet == Packet::Disconnect,
                Ok(None) => return disconnected,
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return disconnected,
                Err(e) => panic!("waited for the end of an RPC connection: {e}"),
            }
        }
    }
}

/// A server that a gateway has dialled, played by the test.
pub(crate) struct Callee(Mqtt);

impl Callee {
    /// Accepts the next link of a gateway.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("the gateway dials");
        Self(Mqtt::of(stream).expect("an open connection"))
    }

    /// Waits for the next call and returns its id and its text behind the id.
    pub(crate) fn next_call(&mut self) -> (u64, String) {
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            // Pings come before each time limit of a read.
            assert!(Instant::now() < deadline, "no call has come");
            match self.0.next().expect("the gateway is there") {
                Some(Packet::Publish { payload, .. }) => {
                    let text = String::from_utf8(payload).expect("calls are UTF-8");
                    let call: Value = serde_json::from_str(&text).expect("calls are JSON");
                    let id = call["id"].as_u64().expect("an id");
                    let text = text
                        .strip_prefix(&format!("{{\"id\":{id},"))
                        .expect("the id is first");
                    return (id, text.to_owned());
                }
                Some(Packet::PingReq) => {
                    let sent = self.0.stream.write_all(&[PINGRESP, 0]);
                    sent.expect("the gateway is there");
                }
                Some(Packet::Connect) => {}
                other => panic!("no gateway sends {other:?}"),
            }
        }
    }

    /// Answers the next packet; `None` once the link has ended.
    fn echo(&mut self) -> Option<()> {
        match self.0.next().ok()?? {
            Packet::Publish { payload, .. } => {
                let call: Value = serde_json::from_slice(&payload).expect("calls are JSON");
                let (id, body) = (&call["id"], &call["msg"]["args"][0]["body"]);
                let answer = format!("{{\"id\":{id},\"resp\":[null,{body}]}}");
                self.0.publish("rpc", answer.as_bytes()).ok()
            }
            Packet::PingReq => self.0.stream.write_all(&[PINGRESP, 0]).ok(),
            _ => Some(()),
        }
    }

    /// Answers a call with this text as its `resp`.
    pub(crate) fn answer(&mut self, id: u64, resp: &str) {
        let answer = format!("{{\"id\":{id},\"resp\":{resp}}}");
        let sent = self.0.publish("rpc", answer.as_bytes());
        sent.expect("the gateway is there");
    }
}

/// Plays a server that answers each message with its own body, over each link that a gateway dials, until the test binary
/// ends.
pub(crate) fn echo(listener: TcpListener) {
    thread::spawn(move || {
        loop {
            let mut callee = Callee::accept(&listener);
            thread::spawn(move || while callee.echo().is_some() {});
        }
    });
}

/// A master that one gateway has joined, played by the test.
pub(crate) struct PlayedMaster(Mqtt);

impl PlayedMaster {
    /// The configuration of a gateway that joins the one at this address.
    pub(crate) fn place(address: SocketAddr) -> Master {
        Master {
            host: address.ip().to_string(),
            port: address.port(),
            token: Some(json!("ok")),
            info: Map::new(),
            env: "development".into(),
        }
    }

    /// Accepts the next gateway and sends it an empty list of servers.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let mut master = Self::greet(listener);
        let (topic, _) = master.next_message();
        if topic == "reconnect" {
            // One that had joined has its list.
            master.send("reconnect_ok", &json!({"code": 1, "msg": "ok"}));
            return master;
        }
        assert_eq!(topic, "register");
        master.send("register", &json!({"code": 1, "msg": "ok"}));
        let subscribe = master.next_of("monitor");
        let list = json!({"respId": subscribe["reqId"], "error": null, "body": {}});
        master.send("monitor", &list);
        master
    }

    /// Accepts the next gateway, and answers nothing.
    pub(crate) fn accept_silently(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().expect("the gateway dials");
        Self(Mqtt::of(stream).expect("an open connection"))
    }

    /// Accepts the next gateway, which may register now.
    pub(crate) fn greet(listener: &TcpListener) -> Self {
        let mut master = Self::accept_silently(listener);
        assert_eq!(master.next(), Packet::Connect);
        master.send_raw(&packet(CONNACK, &[0, 0]));
        master
    }

    /// Accepts the next gateway, and answers its registration with these bytes.
    pub(crate) fn register(listener: &TcpListener, answer: &str) -> Self {
        let mut master = Self::greet(listener);
        master.next_of("register");
        master.send_raw(&publish("register", answer.as_bytes()));
        master
    }

    /// The same for a gateway that is registered, and asks for the list of servers. In the answer `$id` stands for the id of
    /// its request.
    pub(crate) fn list(listener: &TcpListener, answer: &str) -> Self {
        let mut master = Self::register(listener, r#"{"code":1,"msg":"ok"}"#);
        let subscribe = master.next_of("monitor");
        let answer = answer.replace("$id", &subscribe["reqId"].to_string());
        master.send_raw(&publish("monitor", answer.as_bytes()));
        master
    }

    /// Bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let sent = self.0.stream.write_all(bytes);
        sent.expect("the gateway is there");
    }

    /// Tells the gateway of one more server.
    pub(crate) fn add_server(&mut self, server: &Value) {
        let body = json!({"action": "addServer", "server": server});
        let notice = json!({"moduleId": "__monitorwatcher__", "body": body});
        self.send("monitor", &notice);
    }

    /// Stops the gateway, as the console of an administrator asks.
    pub(crate) fn stop_gateway(&mut self) {
        let notice = json!({"moduleId": "__console__", "body": {"signal": "stop"}});
        self.send("monitor", &notice);
    }

    fn next(&mut self) -> Packet {
        let packet = self.0.next().expect("the gateway is there");
        packet.expect("the gateway stays")
    }

    fn next_of(&mut self, topic: &str) -> Value {
        let (of, message) = self.next_message();
        assert_eq!(of, topic);
        message
    }

    fn next_message(&mut self) -> (String, Value) {
        match self.next() {
            Packet::Publish { topic, payload } => {
                let value: Value = serde_json::from_slice(&payload).expect("messages are JSON");
                let inner = value.as_str().map(serde_json::from_str);
                (
                    topic,
                    inner.map_or(value, |inner| inner.expect("JSON in JSON")),
                )
            }
            other => panic!("no gateway sends {other:?} now"),
        }
    }

    fn send(&mut self, topic: &str, message: &Value) {
        let sent = self.0.publish(topic, message.to_string().as_bytes());
        sent.expect("the gateway is there");
    }
}

/// Forwards a message to `chat.chatHandler.<method>` of a backend, as a frontend does, on a
/// connection of its own. The list that the callback gets.
pub(crate) fn forward(address: SocketAddr, method: &str, body: &Value) -> io::Result<Value> {
    let message = json!({
        "id": 1, "type": 0, "compressRoute": 0,
        "route": format!("chat.chatHandler.{method}"),
        "body": body, "compressGzip": 0,
    });
    let session = json!({"id": 9, "frontendId": "connector-1", "uid": null, "settings": {}});
    let args = json!([message, session]);
    Rpc::connect(address)?.call("msgRemote", "forwardMessage", &args)
}

/// A number that no other test of this process got: the master knows its clients by name.
fn fresh() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the status of each server, by id, as `pomelo list` shows it.
pub(crate) fn list(master: SocketAddr) -> io::Result<Value> {
    let answer = ask_master(master, "__console__", &json!({"signal": "list"}))?;
    Ok(answer["msg"].clone())
}

/// Asks a module of the master, as its command line tool does.
pub(crate) fn ask_master(master: SocketAddr, module: &str, body: &Value) -> io::Result<Value> {
    let mut mqtt = Mqtt::connect(master, "MQTT_ADMIN_e2e")?;
    let packet = mqtt.next()?;
    if packet != Some(Packet::ConnAck) {
        return Err(Error::other(format!("instead of a CONNACK: {packet:?}")));
    }
    // The MD5 of the password of adminUser.json.
    let register = json!({
        "type": "client", "id": format!("e2e_client_{}", fresh()), "username": "admin",
        "password": "21232f297a57a5a743894a0e4a801fc3", "md5": true,
    });
    mqtt.publish("register", register.to_string().as_bytes())?;
    let request = json!({"reqId": 1, "moduleId": module, "body": body});
    loop {
        let packet = mqtt.next()?;
        let Some(Packet::Publish { topic, payload }) = packet else {
            return Err(Error::other(format!("instead of an answer: {packet:?}")));
        };
        let mut payload: Value = serde_json::from_slice(&payload)?;
        if let Some(inner) = payload.as_str() {
            payload = serde_json::from_str(inner)?;
        }
        if topic == "register" {
            if payload["code"] != 1 {
                return Err(Error::other(payload.to_string()));
            }
            let text = json!(request.to_string()).to_string();
            mqtt.publish("client", text.as_bytes())?;
        } else if payload["respId"] == 1 {
            return Ok(payload["body"].clone());
        }
    }
}
