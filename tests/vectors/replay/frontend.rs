//! Tangelo in the place of a captured frontend.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::{self, Config, Dialect};
use tangelo::handler::{Answer, Outcome, RemoteCall, Request, Router};
use tangelo::session::Uid;
use tangelo::{Gateway, Running};

use super::link::listen;
use crate::client::{Client, KICK, Message, Package};
use crate::server::start_gateway;

/// Makes a new session what a captured one was, and says its id.
const STAND_IN: &str = "connector.replay.standIn";

/// A gateway, the backends as it knows them, and its clients.
pub(super) struct Frontend {
    running: Running,
    pub(super) rpc: SocketAddr,
    pub(super) backends: BTreeMap<&'static str, TcpListener>,
    /// By captured id.
    pub(super) sessions: BTreeMap<u64, Session>,
}

/// A session of tangelo in the place of a captured one.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) sid: u64,
    uid: Value,
}

impl Frontend {
    pub(super) fn start(
        id: &str,
        dialect: Dialect,
        order: [&'static str; 2],
        keepalive: Duration,
    ) -> Self {
        let mut config = Config {
            id: id.into(),
            dialect,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            shards: Some(2),
            ..Config::default()
        };
        config.rpc.keepalive = keepalive;
        // Nothing else uses that address, so the port is still free when the gateway takes it.
        let rpc = listen(Ipv4Addr::new(127, 0, 0, 2))
            .local_addr()
            .expect("the listener is bound");
        config.rpc.listen = Some(rpc);
        let backends = order.map(|id| (id, listen(Ipv4Addr::LOCALHOST)));
        config.servers = backends
            .iter()
            .map(|(id, listener)| {
                let address = listener.local_addr().expect("the listener is bound");
                config::Server {
                    id: (*id).into(),
                    server_type: "chat".into(),
                    host: address.ip().to_string(),
                    port: address.port(),
                    ..config::Server::default()
                }
            })
            .collect();
        let router = |_| {
            // The transcripts have the answer of this remote.
            let router = Router::new().remote("infoRemote.count", async |call: RemoteCall| {
                json!({"tag": call.arg(0), "server": call.app().server_id(), "sessions": 1})
            });
            router.raw_route(STAND_IN, stand_in)
        };
        Self {
            running: start_gateway(Gateway::new(config).handlers(router)),
            rpc,
            backends: backends.into(),
            sessions: BTreeMap::new(),
        }
    }

    /// Begins a session, unless it is there.
    pub(super) fn begin(&mut self, captured: u64, uid: &Value, settings: &Value) {
        if self.sessions.contains_key(&captured) {
            return;
        }
        let mut client = Client::tcp(self.running.address()).open();
        let body = json!({"uid": uid, "settings": settings});
        let sid = client.request_text(STAND_IN, body.to_string());
        let session = Session {
            client,
            sid: sid.parse().expect("a number"),
            uid: uid.clone(),
        };
        self.sessions.insert(captured, session);
    }

    pub(super) fn session(&mut self, captured: u64) -> &mut Session {
        self.sessions
            .get_mut(&captured)
            .expect("the session is connected")
    }

    /// Applies a call without an error to sessions and clients.
    pub(super) fn see_done(&mut self, msg: &Value, dialect: Dialect) {
        let args = &msg["args"];
        match msg["method"].as_str().expect("a text") {
            "bind" => self.session(args[0].as_u64().expect("an id")).uid = args[1].clone(),
            "pushMessage" => {
                // A value that is not a list has no uids.
                for uid in args[2].as_array().into_iter().flatten() {
                    self.see_push(args, |session| session.uid == *uid);
                }
            }
            "broadcast" => {
                let bound_only = args[2]["userOptions"]["binded"] == true;
                self.see_push(args, |session| !bound_only || !session.uid.is_null());
            }
            "kickBySid" | "kickByUid" => {
                let reason = match (args.get(1), dialect) {
                    (None, Dialect::Pomelo) => Some("kick"),
                    (reason, _) => reason.and_then(Value::as_str),
                };
                let kicked = |id: &u64, session: &mut Session| match &args[0] {
                    Value::Number(sid) => sid.as_u64() == Some(*id),
                    uid => session.uid == *uid,
                };
                for (_, session) in self.sessions.extract_if(.., kicked) {
                    session.see_kick(reason);
                }
            }
            _ => {}
        }
    }

    fn see_push(&mut self, args: &Value, is_for: impl Fn(&Session) -> bool) {
        let route = args[0].as_str().expect("a text");
        for session in self.sessions.values_mut().filter(|session| is_for(session)) {
            let push = Message::Push {
                route: route.into(),
                body: args[1].to_string().into_bytes(),
            };
            assert_eq!(session.client.next_message(), push);
        }
    }

    /// Shows that no client got anything more, and stops.
    pub(super) fn end(mut self) {
        for session in self.sessions.values_mut() {
            session.client.request(1, STAND_IN, "{}");
            let body = session.sid.to_string().into_bytes();
            let last = Message::Response { id: 1, body };
            assert_eq!(session.client.next_message(), last);
        }
        self.running.stopper().stop();
        self.running.join().expect("the gateway stops");
    }
}

impl Session {
    /// Shows that the connection ends now: with a kick before it, or with none.
    fn see_kick(mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            let body = json!({"reason": reason}).to_string().into_bytes();
            let kick = Package { kind: KICK, body };
            assert_eq!(self.client.next_package(), Some(kick));
        }
        assert_eq!(self.client.next_package(), None);
    }
}

fn stand_in<'a>(request: &Request<'a>) -> Answer<'a> {
    let mut session = request.session.clone();
    let message: Value = serde_json::from_slice(request.body).expect("JSON");
    Answer::later(async move {
        if let Some(uid) = Uid::from_json(&message["uid"]) {
            session.bind(uid).await.expect("the uid is free");
        }
        for (key, value) in message["settings"].as_object().into_iter().flatten() {
            session.set(key, value.clone());
            session.push_setting(key).expect("the session is connected");
        }
        Outcome::value(&json!(session.id().get()))
    })
}
