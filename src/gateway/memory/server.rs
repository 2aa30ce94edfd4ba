//! A server of the cluster that a test stands in for: gets the gateway's calls and answers them, or not.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use super::World;
use crate::config;
use crate::net::drive::{self, ReadBuffer, Receiver};
use crate::net::memory::MemoryListener;
use crate::net::socket::Socket;
use crate::peer::pomelo::acceptor::{self, Event};
use crate::wire::json;
use crate::wire::pomelo::{mqtt, rpc};

/// A server of the configuration, played by the test.
///
/// ```
/// # use serde_json::json;
/// # use tangelo::{Config, Gateway, config};
/// # fn main() -> tangelo::Result<()> {
/// # let chat = config::Server { id: "chat-1".into(), server_type: "chat".into(),
/// #     host: "chat.example".into(), port: 1, ..config::Server::default() };
/// # let config = Config { servers: vec![chat], ..Config::default() };
/// let gateway = Gateway::new(config).in_memory()?;
/// let mut chat = gateway.server("chat-1");
/// let mut client = gateway.connect();
///
/// let id = client.ask("chat.chatHandler.send", &json!({ "text": "hello" }));
/// let call = chat.next_call();
/// assert_eq!(call.message(), Some(("chat.chatHandler.send", &json!({ "text": "hello" }))));
/// chat.answer(&call, &json!({ "code": 200 }));
/// assert_eq!(client.answer(id), Some(json!({ "code": 200 })));
/// # gateway.stop()
/// # }
/// ```
///
/// Like a [`Client`](super::Client) it runs the shards with each function, and panics when something
/// does not come. It keeps links alive by itself; it makes no calls of its own.
///
/// Bound: as many calls wait as the gateway has in flight, `rpc.calls_in_flight_max` for each shard
pub struct Server {
    world: Rc<World>,
    host: String,
    port: u16,
    desk: Rc<Desk>,
    /// `None` once it is over.
    accepting: Option<glommio::Task<()>>,
}

/// What lies between the tasks of a server and its test.
#[derive(Default)]
struct Desk {
    /// What the links have brought: payloads whose calls nobody has looked at.
    payloads: RefCell<VecDeque<(Rc<Socket>, Vec<u8>)>>,
    /// Calls of payloads that somebody has looked at.
    calls: RefCell<VecDeque<ServerCall>>,
    links: RefCell<Vec<Rc<Socket>>>,
    /// Bytes that the links have brought.
    received: RefCell<Vec<u8>>,
}

/// A call that the gateway has made.
#[derive(Debug, Clone)]
pub struct ServerCall {
    /// `user` for a remote of the application, `sys` for one of the framework.
    pub namespace: String,
    /// The remote; `msgRemote` for a client's message.
    pub service: String,
    /// Its method; `forwardMessage` for a client's message.
    pub method: String,
    /// What it is called with; for a client's message that and its session.
    pub args: Vec<Value>,
    link: Rc<Socket>,
    id: Vec<u8>,
}

impl Desk {
    /// Takes the oldest call. The test pays for the parsing, not the shard that has sent the call.
    fn next_call(&self) -> Option<ServerCall> {
        let mut calls = self.calls.borrow_mut();
        while calls.is_empty() {
            let (link, payload) = self.payloads.borrow_mut().pop_front()?;
            for call in rpc::calls(&payload) {
                let call = call.expect("a gateway sends calls that can be read");
                let args = json::parse(call.args).unwrap_or_default();
                calls.push_back(ServerCall {
                    namespace: call.namespace.into(),
                    service: call.service.into(),
                    method: call.method.into(),
                    args: args.as_array().cloned().unwrap_or_default(),
                    link: link.clone(),
                    id: call.id.into(),
                });
            }
        }
        calls.pop_front()
    }
}

impl ServerCall {
    /// Route and body of a client's message; `None` for any other call.
    pub fn message(&self) -> Option<(&str, &Value)> {
        let message = self.args.first().filter(|_| self.service == "msgRemote")?;
        Some((message["route"].as_str()?, &message["body"]))
    }

    /// The session of a client's message, as servers get it: `id`, `frontendId`, `uid`, `settings`.
    pub fn session(&self) -> Option<&Value> {
        self.args.get(1).filter(|_| self.service == "msgRemote")
    }
}

impl Server {
    #[track_caller]
    pub(super) fn new(world: Rc<World>, known: &config::Server) -> Self {
        let desk = Rc::new(Desk::default());
        let backlog = world.servers.listen(&known.host, known.port);
        let accepting = accept(backlog, desk.clone());
        let accepting = world.run(async { Some(glommio::spawn_local(accepting)) });
        Self {
            world,
            host: known.host.clone(),
            port: known.port,
            desk,
            accepting,
        }
    }

    /// The oldest call that has not been looked at, if one has come.
    #[track_caller]
    pub fn called(&mut self) -> Option<ServerCall> {
        self.world.rest("receiving");
        self.desk.next_call()
    }

    /// The same, and waits for it.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn next_call(&mut self) -> ServerCall {
        self.world.wait("a call", || self.desk.next_call())
    }

    /// Takes the bytes that links have brought since the last look: packets of MQTT. Only whole packets, in the
    /// order in which they came.
    #[track_caller]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.world.rest("receiving");
        self.desk.received.take()
    }

    /// Answers a call. After the end of its link that is lost.
    ///
    /// # Panics
    /// When `value` cannot be written as JSON.
    #[track_caller]
    pub fn answer(&mut self, call: &ServerCall, value: &impl Serialize) {
        let text = serde_json::to_vec(value);
        let text =
            text.unwrap_or_else(|error| panic!("the answer cannot be written as JSON: {error}"));
        self.reply(call, |out| {
            out.extend_from_slice(b"[null,");
            out.extend_from_slice(&text);
            out.push(b']');
        });
    }

    /// Answers a call with an error.
    #[track_caller]
    pub fn fail(&mut self, call: &ServerCall, error: &str) {
        self.reply(call, |out| rpc::write_error(out, error));
    }

    #[track_caller]
    fn reply(&self, call: &ServerCall, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        rpc::write_answer(&mut bytes, &call.id, write);
        self.world.send(&bytes, |slices| call.link.write(slices));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.world.servers.close(&self.host, self.port);
        for link in self.desk.links.take() {
            link.shutdown();
        }
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        if std::thread::panicking() {
            // The test has failed: nothing runs any more.
            drop(accepting.detach());
        } else {
            self.world.run(accepting.cancel());
            self.world.rest("the end of a server");
        }
    }
}

/// Accepts the links of a gateway, for ever.
async fn accept(backlog: Rc<MemoryListener>, desk: Rc<Desk>) {
    loop {
        let link = Rc::new(Socket::memory(backlog.accept().await));
        desk.links.borrow_mut().push(link.clone());
        glommio::spawn_local(serve(link, desk.clone())).detach();
    }
}

/// Reads one link to its end.
async fn serve(link: Rc<Socket>, desk: Rc<Desk>) {
    let receiver = CallReceiver {
        link: &link,
        desk: &desk,
    };
    drive::read(&link, &ReadBuffer::default(), &receiver).await;
    let mut links = desk.links.borrow_mut();
    links.retain(|other| !Rc::ptr_eq(other, &link));
}

struct CallReceiver<'a> {
    link: &'a Rc<Socket>,
    desk: &'a Desk,
}

impl Receiver for CallReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let (used, event) = acceptor::receive(&input[at..]).ok()?;
            let packet = &input[at..at + used];
            self.desk.received.borrow_mut().extend_from_slice(packet);
            at += used;
            match event {
                Some(Event::Payload(payload)) => {
                    let payload = (self.link.clone(), payload.to_vec());
                    self.desk.payloads.borrow_mut().push_back(payload);
                }
                Some(Event::Ping) => {
                    let pong = std::io::IoSlice::new(&mqtt::PINGRESP);
                    self.link.write(&[pong]).ok()?;
                }
                Some(Event::Disconnect) => return None,
                None if used == 0 => return Some(at),
                None => {}
            }
        }
    }
}
