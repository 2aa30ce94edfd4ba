//! Bytes of other servers: packets, calls and answers, and the messages of a master.

use std::time::Duration;

use serde_json::{Value, json};

use super::formats::{check_prefixes, print};
use super::input::{Choices, Input};
use crate::dialect::Dialect;
use crate::limits::{RPC_FRAME_BYTES_MAX, SERVERS_MAX};
use crate::net::clock;
use crate::peer::pomelo::mailbox::{Mailbox, MailboxEvent};
use crate::peer::pomelo::master::{
    Figures, MachineUsage, MasterConfig, MasterEvent, Monitor, ServerList, Statistics,
};
use crate::peer::pomelo::sysrpc::{self, SessionRequest};
use crate::peer::pomelo::{acceptor, acceptor::AcceptorEvent};
use crate::time::ShardTime;
use crate::wire::json as text;
use crate::wire::pomelo::admin::{self, AdminMessage};
use crate::wire::pomelo::mqtt::{self, Packet};
use crate::wire::pomelo::rpc;

/// Packets have one meaning as soon as they are whole, both machines of links see the same ones, and a payload is written
/// as it was read.
pub fn mqtt(bytes: &[u8]) {
    let mut mailbox = Mailbox::new(clock::real_now(), SECOND, SECOND);
    let mut rest = bytes;
    loop {
        check_prefixes(rest, |input| {
            mqtt::decode(input, RPC_FRAME_BYTES_MAX).transpose()
        });
        let decoded = mqtt::decode(rest, RPC_FRAME_BYTES_MAX);
        let called = acceptor::receive(rest);
        let answered = mailbox.receive(rest);
        let Ok(Some((packet, used))) = decoded else {
            assert_eq!(called.is_err(), decoded.is_err());
            assert_eq!(answered.is_err(), decoded.is_err());
            return;
        };
        assert!(used <= rest.len());
        assert!(
            called.is_ok_and(|received| received.is_some_and(|(bytes, event)| {
                bytes == used && payload_of(event) == payload_of_packet(packet)
            }))
        );
        let Ok(answered) = answered else {
            return assert!(matches!(
                packet,
                Packet::Publish {
                    topic: mqtt::MQTT2_TOPIC,
                    ..
                }
            ));
        };
        assert!(answered.is_some_and(|(bytes, event)| {
            let payload = match event {
                Some(MailboxEvent::Payload(payload)) => Some(payload),
                _ => None,
            };
            bytes == used && payload == payload_of_packet(packet)
        }));
        if let Packet::Publish { topic, payload } = packet {
            let mut again = Vec::new();
            mqtt::write_publish_on(&mut again, topic, |out| out.extend_from_slice(payload));
            assert!(
                again.len() <= used,
                "a length takes more bytes than it needs"
            );
            let read = mqtt::decode(&again, RPC_FRAME_BYTES_MAX);
            assert_eq!(read, Ok(Some((packet, again.len()))));
        }
        rest = &rest[used..];
    }
}

fn payload_of<'a>(event: Option<AcceptorEvent<'a>>) -> Option<&'a [u8]> {
    match event {
        Some(AcceptorEvent::Payload(payload)) => Some(payload),
        _ => None,
    }
}

fn payload_of_packet(packet: Packet<'_>) -> Option<&[u8]> {
    match packet {
        Packet::Publish { topic, payload } if topic == mqtt::RPC_TOPIC => Some(payload),
        _ => None,
    }
}

/// Calls and answers in a payload are those of its tree, an answer is read as it was written, and any call about a session
/// is understood or has an error with a text.
pub fn rpc(bytes: &[u8]) {
    for call in rpc::calls(bytes).flatten() {
        check_call(&call);
        let mut answer = Vec::new();
        rpc::write_answer(&mut answer, call.id, |out| {
            rpc::write_error(out, &call.service)
        });
        let payload = published(&answer);
        let mut replies = rpc::answers(payload);
        let reply = replies.next().expect("one answer").expect("it is JSON");
        assert_eq!(
            reply.id,
            str::from_utf8(call.id).ok().and_then(|id| id.parse().ok())
        );
        assert!(reply.result().is_ok_and(|result| result.error.is_some()));
    }
    for reply in rpc::answers(bytes).flatten() {
        let is_whole = text::validate(reply.resp).is_ok();
        assert!(is_whole || reply.result().is_err() || text::elements(reply.resp).is_ok());
        assert_eq!(rpc::checked_resp(reply.resp).is_ok(), is_array(reply.resp));
        if let Ok(result) = reply.result() {
            for part in [result.error, result.value].into_iter().flatten() {
                assert_eq!(text::validate(part), Ok(()));
            }
        }
    }
    let Some(tree) = text::parse(bytes) else {
        return;
    };
    // Printed from its tree, a payload has each name once and without escapes.
    let printed = print(&tree);
    let tree = text::parse(&printed).expect("it was printed");
    let objects = match &tree {
        Value::Array(items) => &items[..],
        one => std::slice::from_ref(one),
    };
    let calls: Vec<_> = rpc::calls(&printed).collect();
    let replies: Vec<_> = rpc::answers(&printed).collect();
    let good = objects.iter().take_while(|object| object.is_object());
    assert!(calls.len() >= good.count().min(1));
    for (object, call) in objects.iter().zip(calls) {
        let Ok(call) = call else { continue };
        let message = &object["msg"];
        assert_eq!(text::parse(call.id).unwrap_or_default(), object["id"]);
        for (name, read) in [
            ("namespace", call.namespace),
            ("service", call.service),
            ("method", call.method),
        ] {
            assert_eq!(read, message[name].as_str().unwrap_or_default(), "{name}");
        }
        if let Some(args) = message.get("args") {
            assert_eq!(text::parse(call.args).as_ref(), Some(args));
        }
    }
    for (object, reply) in objects.iter().zip(replies) {
        let Ok(reply) = reply else { continue };
        // A tree has doubles, which know no larger number.
        let is_exact = |id: u64| id < 1 << 53;
        assert_eq!(reply.id.filter(|id| is_exact(*id)), object["id"].as_u64());
        if let (Ok(result), Some(resp)) = (reply.result(), object["resp"].as_array()) {
            let part = |raw: Option<&[u8]>| raw.and_then(text::parse).unwrap_or_default();
            let of = |index: usize| resp.get(index).cloned().unwrap_or_default();
            assert_eq!([part(result.error), part(result.value)], [of(0), of(1)]);
        }
    }
}

fn is_array(raw: &[u8]) -> bool {
    text::parse(raw).is_some_and(|tree| tree.is_array())
}

/// Reads a call about sessions. Its parts are bounded by the call.
fn check_call(call: &rpc::PeerCall<'_>) {
    match SessionRequest::parse(call) {
        Ok(SessionRequest::PushMessage { message, uids, .. }) => {
            assert!(text::is_truthy(message));
            let uids = sysrpc::uids(uids);
            assert!(uids.len() <= call.args.len());
            for (raw, _) in &uids {
                assert_eq!(text::validate(raw), Ok(()));
            }
        }
        Ok(SessionRequest::Broadcast { filter_param, .. }) => {
            assert_eq!(text::validate(filter_param), Ok(()));
        }
        Ok(SessionRequest::SessionBySid(sid) | SessionRequest::KickBySid(sid, _)) => {
            assert!(
                sid.number
                    .is_none_or(|number| number.to_string() == sid.text)
            );
        }
        Ok(_) => assert_eq!(call.namespace, "sys"),
        Err(error) => assert!(!error.is_empty()),
    }
}

/// Returns the payload of the one packet in `bytes`.
fn published(bytes: &[u8]) -> &[u8] {
    let packet = mqtt::decode(bytes, RPC_FRAME_BYTES_MAX).expect("a packet");
    match packet {
        Some((Packet::Publish { payload, .. }, used)) if used == bytes.len() => payload,
        other => panic!("one packet with a payload: {other:?}"),
    }
}

/// A message of a master has the parts of its tree, and is read as it was written.
pub fn admin(bytes: &[u8]) {
    if let Ok(outcome) = admin::decode_outcome(bytes) {
        let tree = tree_of(bytes).expect("it was read");
        assert_eq!(outcome.accepted, tree["code"] == 1);
        assert_eq!(outcome.message, tree["msg"].as_str().unwrap_or_default());
    }
    let message = admin::decode(bytes);
    let tree = tree_of(bytes).filter(Value::is_object);
    assert_eq!(message.is_ok(), tree.is_some());
    let (Ok(message), Some(tree)) = (message, tree) else {
        return;
    };
    let mut out = Vec::new();
    match &message {
        AdminMessage::Command => return assert!(admin::is_truthy(&tree["command"])),
        AdminMessage::Response { id, error, body } => {
            assert_eq!(
                [id, error, body],
                [&tree["respId"], &tree["error"], &tree["body"]]
            );
            admin::write_response(&mut out, id, &print(error), Some(&print(body)));
        }
        AdminMessage::Notify(call) => {
            admin::write_notify(&mut out, &call.module, |out| {
                text::write_value(out, &call.body)
            });
        }
        AdminMessage::Request { id, call } => match id.as_u64() {
            Some(id) => admin::write_request(&mut out, id, &call.module, &call.body),
            None => return,
        },
    }
    let again = admin::decode(published(&out)).expect("it was written");
    assert_eq!(again, message);
}

/// Returns the tree that a payload is or, as a string, contains.
fn tree_of(payload: &[u8]) -> Option<Value> {
    match text::parse(payload)? {
        Value::String(inner) => text::parse(inner.as_bytes()),
        tree => Some(tree),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const ID: &str = "connector-1";
const QUESTIONS_MAX: usize = 8;

/// Modules and their bodies, which any bytes rarely are.
const CALLS: &[(&str, &str)] = &[
    (
        "__monitorwatcher__",
        r#"{"action":"addServer","server":{"id":"chat-1","serverType":"chat","host":"h","port":1}}"#,
    ),
    (
        "__monitorwatcher__",
        r#"{"action":"addServer","server":{"id":"connector-1","serverType":"chat","host":"h","port":1}}"#,
    ),
    (
        "__monitorwatcher__",
        r#"{"action":"removeServer","id":"chat-1"}"#,
    ),
    (
        "__monitorwatcher__",
        r#"{"action":"removeServer","id":"connector-1"}"#,
    ),
    (
        "__monitorwatcher__",
        r#"{"action":"replaceServer","servers":{"a":{"id":"chat-1","serverType":"chat","host":"h","port":"1"}}}"#,
    ),
    ("__monitorwatcher__", r#"{"action":"startOver"}"#),
    ("__console__", r#"{"signal":"list"}"#),
    ("__console__", r#"{"signal":"stop"}"#),
    ("__console__", r#"{"signal":"kill"}"#),
    ("__console__", r#"{"signal":"restart"}"#),
    (
        "__console__",
        r#"{"signal":"blacklist","blacklist":["a",1]}"#,
    ),
    ("watchServer", r#"{"comd":"servers"}"#),
    ("watchServer", r#"{"comd":"logins"}"#),
    ("onlineUser", "{}"),
    ("nodeInfo", "{}"),
    ("systemInfo", "{}"),
    ("RestartNotifyModule", r#"{"action":"afterStartCallback"}"#),
    ("monitorLog", r#"{"logfile":"x"}"#),
    ("scripts", "{}"),
];

/// Any sequence of connections, messages, times and answers: a request has at most one answer and never on a later
/// connection, `record` goes out once, and nothing counts before the registration or after the end.
pub fn master(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut link = MasterLink::new(*input.pick(&[Dialect::Pomelo, Dialect::Pinus]));
    while !input.is_empty() {
        link.step(&mut input);
        link.check_sent();
    }
}

/// A monitor, and all that the fuzzer knows of its connection.
struct MasterLink {
    monitor: Monitor,
    time: ShardTime,
    out: Vec<u8>,
    is_open: bool,
    is_registered: bool,
    /// Requests of the master on this connection without an answer.
    asked: Vec<Value>,
    /// Questions that the owner of the monitor has not answered.
    questions: Vec<MasterEvent>,
    /// The last request of the monitor.
    subscribed: Value,
    records: usize,
}

impl MasterLink {
    fn new(dialect: Dialect) -> Self {
        let config = MasterConfig {
            id: ID.into(),
            server_type: "connector".into(),
            pid: 4040,
            info: json!({"id": ID, "host": "127.0.0.1", "port": 3150, "frontend": "true"}),
            token: Some(json!("secret")),
            started_ms: 1_795_412_213_934,
            dialect,
        };
        Self {
            monitor: Monitor::new(config),
            time: ShardTime::new(clock::real_now()),
            out: Vec::new(),
            is_open: false,
            is_registered: false,
            asked: Vec::new(),
            questions: Vec::new(),
            subscribed: Value::Null,
            records: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0 => self.open(),
            1 => self.receive(&CONNACK),
            2 | 3 => {
                let answer = input.pick(&[r#"{"code":1,"msg":"ok"}"#, r#"{"code":-1,"msg":"no"}"#]);
                let topic = *input.pick(&[admin::REGISTER, admin::RECONNECT_OK]);
                self.receive(&publish(topic, answer.as_bytes()));
            }
            4 => {
                let topic = *input.pick(&[admin::REGISTER, admin::RECONNECT_OK, b"other"]);
                self.receive(&publish(topic, input.bytes()));
            }
            5 | 6 => {
                let body = text::parse(input.bytes()).unwrap_or_else(|| json!({}));
                let answer = json!({"respId": self.subscribed, "error": null, "body": body});
                self.receive(&publish(admin::MONITOR, &print(&answer)));
            }
            7..=9 => {
                let (module, body) = *input.pick(CALLS);
                let body = match input.one_in(4) {
                    true => text::parse(input.bytes()).unwrap_or_default(),
                    false => text::parse(body.as_bytes()).unwrap_or_default(),
                };
                let id = [json!(null), json!(9), json!("9"), json!(10)];
                let id = input.pick(&id);
                let call = json!({"reqId": id, "moduleId": module, "body": body});
                self.receive(&publish(admin::MONITOR, &print(&call)));
            }
            10 => self.receive(&publish(admin::MONITOR, input.bytes())),
            11 => {
                let packets = [mqtt::PINGREQ, mqtt::PINGRESP, mqtt::DISCONNECT];
                self.receive(&packets[input.below(3)]);
            }
            12 => self.receive_any(input.bytes()),
            13 => {
                let seconds = *input.pick(&[1, 20, 31, 61, 121]);
                self.time.now += seconds * SECOND;
                if self.monitor.tick(self.time, &mut self.out).is_err() {
                    self.end();
                }
            }
            14 => {
                self.monitor.disconnect(&mut self.out);
                self.check_sent();
                self.end();
            }
            _ => self.answer(),
        }
    }

    fn open(&mut self) {
        self.end();
        self.monitor.connected(self.time.now, &mut self.out);
        self.is_open = true;
    }

    fn end(&mut self) {
        self.is_open = false;
        self.is_registered = false;
        self.asked.clear();
    }

    /// Feeds bytes that may be no packet at all, as a link does.
    fn receive_any(&mut self, mut bytes: &[u8]) {
        while let Ok(Some((_, used))) = mqtt::decode(bytes, RPC_FRAME_BYTES_MAX) {
            let packet;
            (packet, bytes) = bytes.split_at(used);
            self.receive(packet);
        }
        if self
            .monitor
            .receive(self.time.now, bytes, &mut self.out)
            .is_err()
        {
            self.end();
        }
    }

    /// Feeds one packet, after a part of it.
    fn receive(&mut self, packet: &[u8]) {
        let sent = self.out.len();
        let part = &packet[..packet.len() / 2];
        assert_eq!(
            self.monitor.receive(self.time.now, part, &mut self.out),
            Ok(None)
        );
        assert_eq!(self.out.len(), sent);
        if self.is_open && self.is_registered {
            self.note_request(packet);
        }
        let Ok(received) = self.monitor.receive(self.time.now, packet, &mut self.out) else {
            assert!(self.is_open, "a closed link ends again");
            // Answers before the fault may have gone out.
            self.check_sent();
            return self.end();
        };
        let (used, event) = received.expect("a whole packet");
        assert_eq!(used, packet.len());
        if let Some(event) = event {
            assert!(self.is_open, "a closed link has an event: {event:?}");
            self.event(event);
        }
    }

    fn note_request(&mut self, packet: &[u8]) {
        let Ok(Some((Packet::Publish { topic, payload }, _))) =
            mqtt::decode(packet, RPC_FRAME_BYTES_MAX)
        else {
            return;
        };
        if topic == admin::MONITOR
            && let Ok(AdminMessage::Request { id, .. }) = admin::decode(payload)
        {
            self.asked.push(id);
        }
    }

    fn event(&mut self, event: MasterEvent) {
        let is_early = matches!(event, MasterEvent::Accepted | MasterEvent::Refused(_));
        let is_ignored = matches!(event, MasterEvent::Ignored(_));
        assert!(
            self.is_registered || is_early || is_ignored,
            "too early: {event:?}"
        );
        match event {
            MasterEvent::Accepted => self.is_registered = true,
            MasterEvent::Refused(_) => self.end(),
            MasterEvent::Subscribed(list) | MasterEvent::Replaced(list) => check_list(&list),
            MasterEvent::Added(server) => assert_ne!(server.id, ID),
            MasterEvent::AddedSelf(server) => assert_eq!(server.id, ID),
            MasterEvent::Removed(id) => assert_ne!(id, ID),
            MasterEvent::AskFigures(_)
            | MasterEvent::AskStatistics(_)
            | MasterEvent::AskUsage(_)
                if self.questions.len() < QUESTIONS_MAX =>
            {
                self.questions.push(event);
            }
            _ => {}
        }
    }

    /// Answers the oldest question, maybe one of an earlier connection.
    fn answer(&mut self) {
        if self.questions.is_empty() {
            return;
        }
        let (monitor, out) = (&self.monitor, &mut self.out);
        match self.questions.remove(0) {
            MasterEvent::AskFigures(question) => {
                monitor.answer_figures(question, &Figures::default(), out);
            }
            MasterEvent::AskStatistics(question) => {
                monitor.answer_statistics(question, &Statistics::default(), out);
            }
            MasterEvent::AskUsage(question) => {
                monitor.answer_usage(&question, &MachineUsage::default(), out);
            }
            other => panic!("not a question: {other:?}"),
        }
    }

    /// Checks the packets that the monitor has sent.
    fn check_sent(&mut self) {
        let out = std::mem::take(&mut self.out);
        let mut rest = &out[..];
        while let Some((packet, used)) =
            mqtt::decode(rest, RPC_FRAME_BYTES_MAX).expect("it sends packets")
        {
            rest = &rest[used..];
            let Packet::Publish { topic, payload } = packet else {
                continue;
            };
            if topic != admin::MONITOR {
                assert!([admin::REGISTER, admin::RECONNECT].contains(&topic));
                assert!(text::parse(payload).is_some_and(|tree| tree["id"] == ID));
                continue;
            }
            match admin::decode(payload).expect("it sends messages") {
                AdminMessage::Response { id, .. } => {
                    let asked = self.asked.iter().position(|asked| *asked == id);
                    let asked = asked.unwrap_or_else(|| panic!("nobody asked with the id {id}"));
                    self.asked.swap_remove(asked);
                }
                AdminMessage::Request { id, .. } => self.subscribed = id,
                AdminMessage::Notify(call) => {
                    self.records += usize::from(call.body["action"] == "record");
                }
                AdminMessage::Command => panic!("it sends no commands"),
            }
        }
        assert!(rest.is_empty(), "a part of a packet");
        assert!(self.records <= 1, "the master counts each record");
    }
}

fn check_list(list: &ServerList) {
    assert!(list.servers.len() <= SERVERS_MAX);
    for (index, server) in list.servers.iter().enumerate() {
        assert!(!server.id.is_empty() && server.port > 0 && server.id != ID);
        assert!(
            list.servers[..index]
                .iter()
                .all(|other| other.id != server.id)
        );
    }
}

fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    mqtt::write_publish_on(&mut packet, topic, |out| out.extend_from_slice(payload));
    packet
}
