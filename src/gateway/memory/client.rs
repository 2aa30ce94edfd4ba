//! A client of a gateway in memory, with the functions of a game's client library.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use serde::Serialize;
use serde_json::{Value, json};

use super::World;
use crate::limits::PACKAGE_BODY_BYTES_MAX;
use crate::net::memory::MemoryStream;
use crate::wire::message::{self, Message, MessageKind, MessageRoute};
use crate::wire::package::{self, PackageKind};

/// The options of a client. [`InMemory::connect`](super::InMemory::connect) uses the default.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// The shard that accepts the client, from 0; by default the next in turn.
    pub shard: Option<usize>,
    /// The address of the client; by default a port of 127.0.0.1.
    pub address: Option<SocketAddr>,
    /// The body of the handshake; by default that of a client without a cache,
    /// `{"sys":{"type":"memory","version":"0.0.0"},"user":{}}`.
    pub handshake: Option<Value>,
}

/// A client over raw TCP framing.
///
/// Each function runs the shards until they have no work left at this time of the clock, then reads the
/// received bytes. A function that waits panics if the message does not arrive within [the
/// patience](super::InMemory::set_patience), or cannot arrive any more. Dictionary codes and protobuf
/// bodies are used in both directions if the handshake says so.
///
/// Bound: received messages stay until the test takes them. If the client stops reading,
///        `limits::MEMORY_SOCKET_BYTES` are in transit and the gateway keeps the rest, up to
///        `client.outbox_bytes_max`
pub struct Client {
    world: Rc<World>,
    stream: MemoryStream,
    handshake: Value,
    last_id: u32,
    /// Routes of requests without an answer, by id.
    asked: HashMap<u32, String>,
    /// Route codes of the handshake, and whether it has protos.
    codes: HashMap<String, u16>,
    uses_protos: bool,
    inbox: Inbox,
}

/// Received messages.
#[derive(Default)]
struct Inbox {
    /// The start of an incomplete package.
    bytes: Vec<u8>,
    greeting: Option<Value>,
    answers: HashMap<u32, Value>,
    pushes: VecDeque<(String, Value)>,
    heartbeats: usize,
    kicked: Option<String>,
}

impl Client {
    pub(super) fn new(world: Rc<World>, stream: MemoryStream, handshake: Option<Value>) -> Self {
        let sys = json!({ "type": "memory", "version": "0.0.0" });
        Self {
            world,
            stream,
            handshake: handshake.unwrap_or_else(|| json!({ "sys": sys, "user": {} })),
            last_id: 0,
            asked: HashMap::new(),
            codes: HashMap::new(),
            uses_protos: false,
            inbox: Inbox::default(),
        }
    }

    /// Sends the handshake and, after code 200, the acknowledgement. Returns the answer.
    #[track_caller]
    pub fn shake_hands(&mut self) -> Value {
        let body = self.handshake.to_string();
        self.send(PackageKind::Handshake, body.as_bytes());
        let answer = self.wait("the handshake's answer", |inbox| inbox.greeting.take());
        let sys = &answer["sys"];
        if let Some(dict) = sys["dict"].as_object() {
            let code =
                |(route, code): (&String, &Value)| Some((route.clone(), code.as_u64()? as u16));
            self.codes = dict.iter().filter_map(code).collect();
        }
        self.uses_protos = sys["useProto"] == true;
        if answer["code"] == 200 {
            self.send(PackageKind::Ack, b"");
        }
        answer
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// If no answer arrives, or `body` cannot be written as JSON or by its proto.
    #[track_caller]
    pub fn request(&mut self, route: &str, body: &impl Serialize) -> Value {
        let id = self.ask(route, body);
        self.wait(route, |inbox| inbox.answers.remove(&id))
    }

    /// Sends a request without waiting. [`Client::answer`] returns its answer.
    ///
    /// # Panics
    /// If `body` cannot be written as JSON or by its proto.
    #[track_caller]
    pub fn ask(&mut self, route: &str, body: &impl Serialize) -> u32 {
        self.last_id += 1;
        self.asked.insert(self.last_id, route.into());
        self.message(MessageKind::Request, self.last_id, route, body);
        self.last_id
    }

    /// Returns the answer to a request once, if it has arrived. A body that is not JSON is a string.
    #[track_caller]
    pub fn answer(&mut self, id: u32) -> Option<Value> {
        self.look();
        self.inbox.answers.remove(&id)
    }

    /// Sends a notify.
    ///
    /// # Panics
    /// If `body` cannot be written as JSON or by its proto.
    #[track_caller]
    pub fn notify(&mut self, route: &str, body: &impl Serialize) {
        self.message(MessageKind::Notify, 0, route, body);
    }

    /// Takes the oldest received push: its route and body.
    #[track_caller]
    pub fn pushed(&mut self) -> Option<(String, Value)> {
        self.look();
        self.inbox.pushes.pop_front()
    }

    /// Waits for a push and takes it.
    ///
    /// # Panics
    /// If none arrives.
    #[track_caller]
    pub fn next_push(&mut self) -> (String, Value) {
        self.wait("a push", |inbox| inbox.pushes.pop_front())
    }

    /// Sends a heartbeat.
    #[track_caller]
    pub fn heartbeat(&mut self) {
        self.send(PackageKind::Heartbeat, b"");
    }

    /// Returns the number of received heartbeats. The gateway answers the acknowledgement and each
    /// heartbeat with one.
    #[track_caller]
    pub fn heartbeats(&mut self) -> usize {
        self.look();
        self.inbox.heartbeats
    }

    /// Returns the reason of the kick, if the gateway has kicked this client.
    #[track_caller]
    pub fn kicked(&mut self) -> Option<String> {
        self.look();
        self.inbox.kicked.clone()
    }

    /// Returns true if either side has closed the connection.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.look();
        self.stream.has_ended()
    }

    /// Closes the connection. Dropping the client does the same.
    #[track_caller]
    pub fn close(&mut self) {
        self.stream.shutdown();
        self.world.rest("closing");
    }

    /// Sends bytes unchanged. They are lost if the connection has ended.
    ///
    /// # Panics
    /// If the gateway does not read them.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.world.send(bytes, |slices| self.stream.write(slices));
    }

    /// Sends the bytes that the gateway takes now. Returns their number: all of them if the connection has ended.
    #[track_caller]
    pub fn offer_bytes(&mut self, bytes: &[u8]) -> usize {
        let sent = self.world.offer(bytes, |slices| self.stream.write(slices));
        sent.unwrap_or(bytes.len())
    }

    /// Takes the received bytes that no other function has read.
    #[track_caller]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.world.rest("receiving");
        let mut bytes = std::mem::take(&mut self.inbox.bytes);
        bytes.extend(self.stream.take());
        bytes
    }

    #[track_caller]
    fn send(&mut self, kind: PackageKind, body: &[u8]) {
        let mut bytes = Vec::new();
        let fits = package::write(&mut bytes, kind, body);
        assert!(fits, "{} bytes are too many for a package", body.len());
        self.send_bytes(&bytes);
    }

    #[track_caller]
    fn message(&mut self, kind: MessageKind, id: u32, route: &str, body: &impl Serialize) {
        let text = serde_json::to_vec(body);
        let text = text
            .unwrap_or_else(|error| panic!("{route}: the body cannot be written as JSON: {error}"));
        let message = Message {
            id,
            kind,
            route: match self.codes.get(route) {
                Some(code) => MessageRoute::Code(*code),
                None => MessageRoute::Text(route.as_bytes()),
            },
            gzip: false,
            body: &self.encoded(route, text),
        };
        let mut bytes = Vec::new();
        let written = message::write(&mut bytes, &message);
        written.unwrap_or_else(|error| panic!("{route}: {}", error.text()));
        self.send(PackageKind::Data, &bytes);
    }

    /// Encodes a body by its proto, if it has one.
    #[track_caller]
    fn encoded(&self, route: &str, text: Vec<u8>) -> Vec<u8> {
        let protos = self.world.protos.client();
        let proto = protos.and_then(|protos| protos.proto(route));
        let Some(proto) = proto.filter(|_| self.uses_protos) else {
            return text;
        };
        let mut out = Vec::new();
        match proto.encode(&text, &mut out) {
            Ok(true) => out,
            Ok(false) => panic!("{route}: the body lacks a required field of its proto"),
            Err(bad) => panic!("{route}: the body does not fit its proto: {bad}"),
        }
    }

    #[track_caller]
    fn wait<T>(&mut self, what: &str, take: impl Fn(&mut Inbox) -> Option<T>) -> T {
        let found = self.world.clone().wait(what, || {
            self.receive();
            let found = take(&mut self.inbox);
            (found.is_some() || self.stream.has_ended()).then_some(found)
        });
        found.unwrap_or_else(|| match &self.inbox.kicked {
            Some(reason) => {
                panic!("{what} did not arrive: the gateway kicked the client: {reason:?}")
            }
            None => panic!("{what} did not arrive: the gateway closed the connection"),
        })
    }

    /// Reads the received bytes.
    #[track_caller]
    fn look(&mut self) {
        self.world.rest("receiving");
        self.receive();
    }

    fn receive(&mut self) {
        self.inbox.bytes.extend(self.stream.take());
        let bytes = std::mem::take(&mut self.inbox.bytes);
        let mut at = 0;
        loop {
            match package::decode(&bytes[at..], PACKAGE_BODY_BYTES_MAX) {
                Ok(Some(package)) => {
                    at += package.bytes();
                    self.package(package.kind, package.body);
                }
                Ok(None) => break,
                Err(error) => panic!("the gateway sent bytes that are not a package: {error:?}"),
            }
        }
        self.inbox.bytes = bytes[at..].into();
    }

    fn package(&mut self, kind: PackageKind, body: &[u8]) {
        match kind {
            PackageKind::Handshake => self.inbox.greeting = Some(value(body)),
            PackageKind::Heartbeat => self.inbox.heartbeats += 1,
            PackageKind::Kick => {
                let reason = &value(body)["reason"];
                let text = reason
                    .as_str()
                    .map_or_else(|| reason.to_string(), Into::into);
                self.inbox.kicked = Some(text);
            }
            PackageKind::Data => match message::decode(body) {
                Ok(message) => self.data(&message),
                Err(error) => panic!("the gateway sent a body that is not a message: {error:?}"),
            },
            PackageKind::Ack => {
                panic!("the gateway sent a handshake acknowledgement, which only clients send")
            }
        }
    }

    fn data(&mut self, message: &Message<'_>) {
        if message.kind == MessageKind::Response {
            let route = self.asked.remove(&message.id);
            let route = route.unwrap_or_else(|| {
                panic!(
                    "the gateway answered request {}, which the client did not send",
                    message.id
                )
            });
            let answer = self.decoded(&route, message.body);
            self.inbox.answers.insert(message.id, answer);
            return;
        }
        let route = match message.route {
            MessageRoute::Text(text) => String::from_utf8_lossy(text).into_owned(),
            MessageRoute::Code(code) => {
                let known = self.codes.iter().find(|(_, known)| **known == code);
                let known = known.map(|(route, _)| route.clone());
                known.unwrap_or_else(|| {
                    panic!("the gateway sent route code {code}, which its handshake did not name")
                })
            }
            MessageRoute::None => panic!(
                "the gateway sent a {:?} message, which only clients send",
                message.kind
            ),
        };
        let body = self.decoded(&route, message.body);
        self.inbox.pushes.push_back((route, body));
    }

    fn decoded(&self, route: &str, body: &[u8]) -> Value {
        let protos = self.world.protos.server();
        let proto = protos.and_then(|protos| protos.proto(route));
        let Some(proto) = proto.filter(|_| self.uses_protos) else {
            return value(body);
        };
        let mut text = Vec::new();
        match proto.decode(body, &mut text) {
            Ok(_) => value(&text),
            Err(error) => panic!("{route}: the body does not fit its proto: {error:?}"),
        }
    }
}

/// Parses a body. A body that is not JSON is a string.
fn value(body: &[u8]) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
