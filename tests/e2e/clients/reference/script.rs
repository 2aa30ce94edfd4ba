//! The actions of clients, server by server: one line for each step.

use std::time::Duration;

use crate::harness::client::{DATA, HANDSHAKE, encode_message, encode_package};

mod options;
mod plain;

/// Whole routes of all handlers of the application.
pub(super) fn handlers() -> Vec<String> {
    let entry =
        include_str!("../../../genuine/reference/app/servers/connector/handler/entryHandler.js");
    let chat = include_str!("../../../genuine/reference/app/servers/chat/handler/chatHandler.js");
    // `  name(m, ...) {` in the one file, `Handler.prototype.name = ` in the other.
    let entry = entry.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("  ")?.split_once('(')?;
        let is_head = rest.ends_with(" {") || rest.ends_with(" {},");
        let is_name = name.chars().all(char::is_alphanumeric);
        (is_head && is_name).then(|| format!("connector.entryHandler.{name}"))
    });
    let chat = chat.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("Handler.prototype.")?.split_once(' ')?;
        Some(format!("chat.chatHandler.{name}"))
    });
    entry.chain(chat).collect()
}

/// Code of a route: those of the handlers in their order, then the user's dictionary.
fn code(route: &str) -> u16 {
    let mut routes = handlers();
    routes.sort();
    let user = include_str!("../../../genuine/reference/config/dictionary.json");
    routes.extend(serde_json::from_str::<Vec<String>>(user).expect("a list of routes"));
    let at = routes.iter().position(|known| known == route);
    u16::try_from(1 + at.expect("a known route")).expect("a code has two bytes")
}

/// Steps on one server.
pub(super) struct Script {
    pub(super) server: &'static str,
    pub(super) fence: Fence,
    pub(super) steps: Vec<Step>,
}

/// Route and body of a request that is answered at once and leaves no trace.
pub(super) type Fence = (&'static str, String);

pub(super) struct Step {
    pub(super) client: &'static str,
    pub(super) name: String,
    pub(super) act: Act,
    /// The other clients that receive messages, each with the least number of them.
    pub(super) heard: Vec<(&'static str, usize)>,
}

pub(super) enum Act {
    /// Connects, and sends nothing.
    Connect,
    /// Connects, shakes hands with this text and acknowledges. `<dictVersion>` and `<protoVersion>`
    /// in it stand for those that this server has told.
    Open(String),
    /// Sends WebSocket messages and waits.
    Send(Vec<Vec<u8>>, Wait),
    /// Does nothing for a while.
    Rest(Duration),
    /// Is gone without a word.
    Leave,
    /// Waits until the server has this many sessions, and this many of them with a uid.
    Settle(usize, u64),
    /// Sets the blacklist, and waits until it has an effect: whether a client is then served.
    Blacklist(&'static str, bool),
}

/// The condition that ends a step.
pub(super) enum Wait {
    Nothing,
    /// The answer to a request that is sent behind everything.
    Fence,
    /// Answers to these ids, and then a fence.
    Answers(Vec<u32>),
    /// Nothing comes, for a moment.
    Silence,
    /// This number of messages.
    Messages(usize),
    /// The connection.
    End,
    /// As a fence; but the reference answers nothing more on this connection. The client leaves.
    Deaf,
}

impl Step {
    /// Another client receives at least this number of messages.
    fn heard(mut self, client: &'static str, messages: usize) -> Self {
        self.heard.push((client, messages));
        self
    }
}

/// As a number of messages: all until the connection ends.
const TO_THE_END: usize = usize::MAX;

/// The first package of a client.
const HELLO: &str = r#"{"sys":{"type":"reference","version":"1.0.0"},"user":{}}"#;

fn step(client: &'static str, name: impl Into<String>, act: Act) -> Step {
    Step {
        client,
        name: name.into(),
        act,
        heard: Vec::new(),
    }
}

fn open(client: &'static str) -> Step {
    step(client, "opens", Act::Open(HELLO.to_owned()))
}

fn opens_with(client: &'static str, body: &str) -> Step {
    step(
        client,
        format!("opens with {body}"),
        Act::Open(body.to_owned()),
    )
}

fn connect(client: &'static str) -> Step {
    step(client, "connects", Act::Connect)
}

fn leave(client: &'static str) -> Step {
    step(client, "leaves", Act::Leave)
}

fn settle(client: &'static str, sessions: usize, bound: u64) -> Step {
    let act = Act::Settle(sessions, bound);
    step(client, "waits for others to be gone", act)
}

/// A method of the entry handler, or a whole route.
fn route(method: &str) -> String {
    if method.contains('.') {
        method.to_owned()
    } else {
        format!("connector.entryHandler.{method}")
    }
}

fn request(id: u32, method: &str, body: &str) -> Vec<u8> {
    let message = encode_message(Some(id), route(method).as_str().into(), body.as_bytes());
    encode_package(DATA, &message)
}

/// A request that is answered.
fn ask(client: &'static str, method: &str, body: &str) -> Step {
    let act = Act::Send(vec![request(1, method, body)], Wait::Answers(vec![1]));
    step(client, format!("asks {method} {body}"), act)
}

/// Requests sent at once; each gets an answer, in any order.
fn ask_all(client: &'static str, requests: &[(&str, &str)]) -> Step {
    let ids: Vec<u32> = (1..).take(requests.len()).collect();
    let with_ids = requests.iter().zip(&ids);
    let messages = with_ids.map(|((method, body), id)| request(*id, method, body));
    let act = Act::Send(messages.collect(), Wait::Answers(ids.clone()));
    step(client, format!("asks at once {requests:?}"), act)
}

/// A request that is perhaps not answered.
fn try_ask(client: &'static str, route: &str, body: &str) -> Step {
    let message = encode_message(Some(1), route.into(), body.as_bytes());
    let act = Act::Send(vec![encode_package(DATA, &message)], Wait::Fence);
    step(client, format!("tries {route:?} {body}"), act)
}

/// A request that ends the connection.
fn ask_last(client: &'static str, method: &str, body: &str) -> Step {
    let act = Act::Send(vec![request(1, method, body)], Wait::End);
    step(client, format!("asks last {method} {body}"), act)
}

fn notify(client: &'static str, method: &str, body: &str) -> Step {
    let message = encode_message(None, route(method).as_str().into(), body.as_bytes());
    let act = Act::Send(vec![encode_package(DATA, &message)], Wait::Fence);
    step(client, format!("notifies {method} {body}"), act)
}

/// Bytes as they are, in one WebSocket message.
fn send(client: &'static str, what: &str, bytes: impl Into<Vec<u8>>, wait: Wait) -> Step {
    step(
        client,
        format!("sends {what}"),
        Act::Send(vec![bytes.into()], wait),
    )
}

fn data(client: &'static str, what: &str, message: &[u8], wait: Wait) -> Step {
    send(client, what, encode_package(DATA, message), wait)
}

fn handshake(client: &'static str, body: &str, wait: Wait) -> Step {
    let what = format!("handshake {body}");
    send(
        client,
        &what,
        encode_package(HANDSHAKE, body.as_bytes()),
        wait,
    )
}

/// A new client whose handshake is refused.
fn refused(client: &'static str, body: &str) -> [Step; 2] {
    [connect(client), handshake(client, body, Wait::End)]
}

/// A new client that is kicked, or closed, because of its request.
fn opens_and_asks_last(client: &'static str, method: &str, body: &str) -> [Step; 2] {
    [open(client), ask_last(client, method, body)]
}

/// A route that is none: answered before any filter.
fn fence() -> Fence {
    ("a.b", "{}".to_owned())
}

pub(super) fn scripts() -> Vec<Script> {
    let servers = [
        ("c-plain", fence(), plain::steps()),
        ("c-hb", fence(), options::heartbeat()),
        ("c-dist", fence(), options::distinct_host()),
        ("c-dict", fence(), options::dictionary()),
        (
            "c-crypto",
            ("a.b", options::signed("empty object").1),
            options::crypto(),
        ),
        ("c-buffer", fence(), options::buffer()),
        ("c-single", fence(), options::single()),
        ("c-maxc", fence(), options::max_connections()),
        ("c-host", fence(), options::host_filter()),
        ("c-tmo", fence(), options::timeouts()),
        ("c-filter", fence(), options::filters()),
        ("c-err", fence(), options::error_handlers()),
    ];
    let scripts = servers.into_iter().map(|(server, fence, steps)| Script {
        server,
        fence,
        steps,
    });
    scripts.collect()
}
