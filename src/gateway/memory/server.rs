//! A server of the cluster, played by a test: it gets the calls of the gateway and answers them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use super::World;
use crate::config;
use crate::net::drive::{self, End, ReadBuffer, Receiver};
use crate::net::memory::MemoryListener;
use crate::net::socket::Socket;
use crate::net::task;
use crate::peer::pomelo::acceptor::{self, AcceptorEvent};
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
/// Like a [`Client`](super::Client), each function runs the shards, and panics if a call does not
/// arrive. The server keeps its links alive by itself and makes no calls of its own.
///
/// Bound: the calls that the gateway has in flight, `rpc.calls_in_flight_max` for each shard
pub struct Server {
    world: Rc<World>,
    host: String,
    port: u16,
    desk: Rc<Desk>,
    /// `None` after the end of the server.
    accepting: Option<glommio::Task<()>>,
}

/// The data that the tasks of a server share with the test.
#[derive(Default)]
struct Desk {
    /// Received payloads whose calls have not been taken.
    payloads: RefCell<VecDeque<(Rc<Socket>, Vec<u8>)>>,
    /// Calls of parsed payloads.
    calls: RefCell<VecDeque<ServerCall>>,
    links: RefCell<Vec<Rc<Socket>>>,
    /// Received bytes.
    received: RefCell<Vec<u8>>,
}

/// A call of the gateway.
#[derive(Debug, Clone)]
pub struct ServerCall {
    /// `user` for a remote of the application, `sys` for one of the framework.
    pub namespace: String,
    /// The service; `msgRemote` for a client's message.
    pub service: String,
    /// The method; `forwardMessage` for a client's message.
    pub method: String,
    /// The arguments; for a client's message, the message and its session.
    pub args: Vec<Value>,
    link: Rc<Socket>,
    id: Vec<u8>,
}

impl Desk {
    /// Takes the oldest call. It is parsed here, so that the test and not the shard spends the time.
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
    /// Returns route and body of a client's message, or `None` for another call.
    pub fn message(&self) -> Option<(&str, &Value)> {
        let message = self.args.first().filter(|_| self.service == "msgRemote")?;
        Some((message["route"].as_str()?, &message["body"]))
    }

    /// Returns the session of a client's message in the form for servers: `id`, `frontendId`, `uid`,
    /// `settings`.
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
        let accepting = world.run(async { Some(task::spawn(accepting)) });
        Self {
            world,
            host: known.host.clone(),
            port: known.port,
            desk,
            accepting,
        }
    }

    /// Takes the oldest received call, if any.
    #[track_caller]
    pub fn called(&mut self) -> Option<ServerCall> {
        self.world.rest("receiving");
        self.desk.next_call()
    }

    /// Waits for a call and takes it.
    ///
    /// # Panics
    /// If none arrives.
    #[track_caller]
    pub fn next_call(&mut self) -> ServerCall {
        self.world.wait("a call", || self.desk.next_call())
    }

    /// Takes the bytes received since the last call: complete MQTT packets, in order of arrival.
    #[track_caller]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.world.rest("receiving");
        self.desk.received.take()
    }

    /// Answers a call. The answer is lost if the link has ended.
    ///
    /// # Panics
    /// If `value` cannot be written as JSON.
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

    /// Sends bytes unchanged on the link of a call, as a server that breaks the protocol. They are lost if the link has
    /// ended.
    ///
    /// # Panics
    /// If the gateway does not read them.
    #[track_caller]
    pub fn send_bytes(&mut self, call: &ServerCall, bytes: &[u8]) {
        self.world.send(bytes, |slices| call.link.write(slices));
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
            // The test has failed, and its tasks no longer run.
            drop(accepting.detach());
        } else {
            self.world.run(accepting.cancel());
            self.world.rest("the end of a server");
        }
    }
}

/// Accepts the links of a gateway, without end.
async fn accept(backlog: Rc<MemoryListener>, desk: Rc<Desk>) {
    loop {
        let link = Rc::new(Socket::memory(backlog.accept().await));
        desk.links.borrow_mut().push(link.clone());
        task::spawn(serve(link, desk.clone())).detach();
    }
}

/// Reads one link to its end.
async fn serve(link: Rc<Socket>, desk: Rc<Desk>) {
    let receiver = CallReceiver {
        link: &link,
        desk: &desk,
    };
    drive::read(&link, &ReadBuffer::default(), receiver).await;
    let mut links = desk.links.borrow_mut();
    links.retain(|other| !Rc::ptr_eq(other, &link));
}

struct CallReceiver<'a> {
    link: &'a Rc<Socket>,
    desk: &'a Desk,
}

impl Receiver for CallReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        let received = acceptor::receive(input).map_err(|_| End::Enough)?;
        let Some((used, event)) = received else {
            return Ok(None);
        };
        let packet = &input[..used];
        self.desk.received.borrow_mut().extend_from_slice(packet);
        match event {
            Some(AcceptorEvent::Payload(payload)) => {
                let payload = (self.link.clone(), payload.to_vec());
                self.desk.payloads.borrow_mut().push_back(payload);
            }
            Some(AcceptorEvent::Ping) => {
                let pong = std::io::IoSlice::new(&mqtt::PINGRESP);
                self.link.write(&[pong]).map_err(|_| End::Failed)?;
            }
            Some(AcceptorEvent::Disconnect) => return Err(End::Enough),
            None => {}
        }
        Ok(Some(used))
    }
}
