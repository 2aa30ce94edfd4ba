//! Messages for server types with the strategy `delegate:session`: the delegate names the server of a session once.

use std::rc::Rc;

use super::Shard;
use crate::checked::Remote;
use crate::handler::{CallError, Failure, Incoming, Outcome, Request, Session};
use crate::ids::PeerIndex;
use crate::metrics::Counter;
use crate::net::task;
use crate::peer::delegate::PACKAGE_REMOTE;
use crate::route;
use crate::shard::clients::route::{Choice, SessionRoute, WaitingMessages};
use crate::shard::origin::Origin;
use crate::wire::json;

impl Shard {
    /// Forwards a message to the server that the delegate has named for the session. While the delegate is asked, the
    /// messages of the session for this type wait in order.
    pub(super) fn forward_by_session(
        self: &Rc<Self>,
        request: &Request<'_>,
        origin: Origin,
    ) -> Result<(), Failure> {
        let (core, clients, peers) = (&self.core, &self.clients, &self.peers);
        let server_type = route::server_type(request.route.as_bytes());
        let type_index = peers.type_index(server_type).map_err(Failure::new)?;
        let (session, sid) = (request.session, request.session.id());
        let (waiting, is_new) = match clients.session_route(sid, type_index) {
            Some(SessionRoute::Chosen(choice)) if choice.is_for(session, peers.generation()) => {
                let forwarded = peers.forward_chosen(core, choice.peer, request, origin);
                return forwarded.map_err(Failure::new);
            }
            Some(SessionRoute::Asked(waiting)) => (waiting, false),
            Some(SessionRoute::Chosen(_)) | None => (WaitingMessages::default(), true),
        };
        let message = (Incoming::new(request), origin);
        core.memory.begin_body(request.body.len());
        waiting.borrow_mut().push_back(message);
        if is_new {
            let asked = SessionRoute::Asked(waiting.clone());
            clients.set_session_route(sid, type_index, Some(asked));
            let server_type = String::from_utf8_lossy(server_type).into_owned();
            let shard = self.clone();
            task::spawn(async move {
                let chosen = shard.send_waiting(&server_type, &waiting).await;
                let route = chosen.map(SessionRoute::Chosen);
                shard.clients.set_session_route(sid, type_index, route);
            })
            .detach();
        }
        Ok(())
    }

    /// Sends the messages that wait to the servers that the delegate names. Messages with the same state of the session
    /// have one answer. Returns the last choice, unless there was none.
    async fn send_waiting(
        self: &Rc<Self>,
        server_type: &str,
        waiting: &WaitingMessages,
    ) -> Option<Choice> {
        let mut last = None;
        loop {
            let session = waiting.borrow().front().map(|(it, _)| it.session.clone());
            let Some(session) = session else {
                return last;
            };
            let generation = self.peers.generation();
            let chosen = self.ask_for_server(server_type, &session).await;
            let choice = |peer| Choice {
                identity: session.identity().clone(),
                generation,
                peer,
            };
            last = chosen.as_ref().ok().copied().map(choice);
            let is_same = |(it, _): &mut (Incoming, Origin)| {
                Rc::ptr_eq(it.session.identity(), session.identity())
            };
            loop {
                let next = waiting.borrow_mut().pop_front_if(is_same);
                let Some((incoming, origin)) = next else {
                    break;
                };
                let request = incoming.request();
                self.core.memory.end_body(request.body.len());
                let send = |peer| {
                    let peers = &self.peers;
                    let sent = peers.forward_chosen(&self.core, peer, &request, origin.clone());
                    sent.map_err(Failure::new)
                };
                if let Err(failure) = chosen.clone().and_then(send) {
                    self.deliver(origin, Outcome::failed(failure));
                }
            }
        }
    }

    /// Asks the delegate for the server of a session.
    async fn ask_for_server(
        &self,
        server_type: &str,
        session: &Session,
    ) -> Result<PeerIndex, Failure> {
        self.core.counters().add(Counter::RoutesAsked, 1);
        let remote = Remote {
            service: PACKAGE_REMOTE.into(),
            method: "route".into(),
        };
        let mut args = b"[".to_vec();
        args.extend_from_slice(&session.export());
        args.push(b',');
        json::write_string(&mut args, server_type);
        args.push(b']');
        let results = self.ask_delegate(&remote, Some(session), &args).await;
        let found = results.and_then(|results| match results.first().and_then(|id| id.as_str()) {
            Some(id) => self.peers.find(server_type, id),
            None => Err(CallError::Lost("the delegate has named no server".into())),
        });
        found.map_err(|error| {
            self.core.counters().add(Counter::RoutesMissed, 1);
            Failure::from(error)
        })
    }
}
