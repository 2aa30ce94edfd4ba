//! Calls of the application: those that its handlers make, and those that its remotes serve.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use serde_json::Value;

use super::writer::Pipe;
use crate::config::Dialect;
use crate::handler::filter::Slot;
use crate::handler::{
    CallError, CallResult, Failure, Invocation, RemoteCall, Sent, Session, remote_parts,
};
use crate::ids::{PeerIndex, Sid};
use crate::limits::{CALL_TIMEOUT_MAX, RPC_FRAME_BYTES_MAX};
use crate::metrics::Counter;
use crate::peer::directory::Cluster;
use crate::peer::pending::Refused;
use crate::peer::pomelo::sysrpc::javascript_text;
use crate::session::Uid;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::shard::dispatch::{Origin, owner};
use crate::wire::json;
use crate::wire::pomelo::rpc;

/// A handler that waits for what its call comes to.
#[derive(Debug)]
pub(in crate::shard) struct Caller {
    slot: Rc<Slot<CallResult>>,
    /// The session in whose messages in flight it counts.
    sid: Option<Sid>,
}

impl Shard {
    /// The server of a type for a session.
    #[inline]
    pub(in crate::shard) fn choose(
        &self,
        cluster: &Cluster,
        server_type: &[u8],
        session: Option<&Session>,
    ) -> Result<PeerIndex, &'static str> {
        let server_type = cluster
            .of_type(server_type)
            .ok_or("no server of this type")?;
        let uid = session.and_then(Session::uid);
        let chosen = self.peers.balancers.borrow_mut()[server_type.index].choose(
            &cluster.candidates(server_type),
            uid.map_or("", Uid::text),
            |key| session?.get(key).map(|value| javascript_text(value).into()),
        );
        let chosen = chosen.ok_or("routing chose no server")?;
        Ok(server_type.servers[chosen])
    }

    /// Begins a call and writes its frame into the batch of the shard that owns the link.
    #[inline]
    pub(in crate::shard) fn begin_call(
        &self,
        peer: PeerIndex,
        timeout: Option<Duration>,
        origin: Origin,
        write: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<(), &'static str> {
        let owner = owner(peer, self.core.shards);
        let mut mesh = self.core.mesh.borrow_mut();
        if owner != self.core.id && mesh.batch_for_work(owner).is_none() {
            self.counters().add(Counter::MeshFull, 1);
            return Err("too much waits for another shard");
        }
        let calls = &mut self.peers.calls.borrow_mut()[peer.index()];
        let now = self.core.time.get().now;
        let begun = match timeout {
            None => calls.begin(now, origin),
            Some(timeout) => calls.begin_within(timeout, now, origin),
        };
        let id = begun.map_err(|refused| {
            let (counter, text) = match refused {
                Refused::Full => (Counter::PeerCallsFull, "too many calls in flight"),
                Refused::Down => (Counter::LinkCallsFailed, "the server is not reachable"),
            };
            self.counters().add(counter, 1);
            text
        })?;
        self.counters().add(Counter::Calls, 1);
        match &self.peers.links.borrow()[peer.index()] {
            Some(link) => {
                self.send_to_peer(&link.pipe, |out| write(out, id));
                link.want();
            }
            None => {
                mesh.batch(owner)
                    .frames(peer, calls.epoch(), |out| write(out, id));
                self.core.turn.request();
            }
        }
        Ok(())
    }

    /// Sends a handler's call.
    pub(in crate::shard) fn invoke(&self, call: &Invocation<'_>) -> Sent {
        let not_sent = |text: &'static str| CallError::NotSent(text.into());
        if call.args.len() > RPC_FRAME_BYTES_MAX {
            return Err(not_sent("the arguments are too large"));
        }
        let cluster = self.peers.cluster.borrow();
        let peer = match call.server {
            Some(id) => listed(&cluster, call.server_type, id)?,
            None => self
                .choose(&cluster, call.server_type.as_bytes(), call.session)
                .map_err(not_sent)?,
        };
        // A session that has closed has no messages in flight to count with.
        let counted = |session: &Session| (session.id(), self.begin_in_flight(session.id()));
        let sid = match call.session.map(counted) {
            Some((_, Some(false))) => return Err(not_sent("too many calls in flight")),
            Some((sid, Some(true))) => Some(sid),
            Some((_, None)) | None => None,
        };
        let slot: Rc<Slot<CallResult>> = Rc::default();
        let caller = Caller {
            slot: slot.clone(),
            sid,
        };
        let frame = rpc::Invoke {
            server_type: &cluster.peer(peer).type_json,
            service: call.service,
            method: call.method,
            args: call.args,
        };
        let timeout = call.timeout.map(|timeout| timeout.min(CALL_TIMEOUT_MAX));
        let write = |out: &mut Vec<u8>, id| rpc::write_invoke(out, id, &frame);
        let begun = self.begin_call(peer, timeout, Origin::Call(Box::new(caller)), write);
        begun.map_err(|text| {
            sid.inspect(|sid| self.end_in_flight(*sid));
            not_sent(text)
        })?;
        Ok(slot)
    }

    /// A message goes to the delegate. What it costs is paid only where that is told of closes.
    pub(in crate::shard) fn note_delegated(&self, sid: Sid) {
        if self.core.config.delegate_closed.is_some() {
            self.connection(sid, |connection| connection.delegated = true);
        }
    }

    /// Tells the delegate that a session has closed.
    pub(in crate::shard) fn tell_delegate(&self, session: &Session) {
        let told = self.call_delegate(session);
        if let Some(Err(error)) = told {
            self.counters().add(Counter::DelegateUntold, 1);
            tracing::debug!(session = %session.id(), %error, "the delegate is not told of a close");
        }
    }

    /// Unlike a handler's call it does not count among those of the session, which may have no room.
    fn call_delegate(&self, session: &Session) -> Option<Sent> {
        let server_type = self.core.config.delegate.as_deref()?;
        let (service, method) = remote_parts(self.core.config.delegate_closed.as_deref()?)?;
        let cluster = self.peers.cluster.borrow().clone();
        let peer = match self.choose(&cluster, server_type.as_bytes(), Some(session)) {
            Ok(peer) => peer,
            Err(text) => return Some(Err(CallError::NotSent(text.into()))),
        };
        let mut args = session.export();
        args.insert(0, b'[');
        args.push(b']');
        Some(self.invoke(&Invocation {
            server_type,
            server: Some(&cluster.peer(peer).server.id),
            service,
            method,
            args: &args,
            timeout: None,
            session: None,
        }))
    }

    /// Hands a handler what its call came to.
    pub(in crate::shard) fn called(&self, caller: &Caller, result: CallResult) {
        if let Some(sid) = caller.sid {
            self.end_in_flight(sid);
        }
        caller.slot.put(result);
    }

    /// A call of a peer for a remote of the application.
    pub(in crate::shard) fn serve_remote(self: &Rc<Self>, pipe: &Rc<Pipe>, call: &rpc::Call<'_>) {
        let refuse = |counter, text: &str| {
            self.counters().add(counter, 1);
            self.answer_remote(pipe, call.id, Err(Failure::new(text.to_owned())));
        };
        let found =
            self.app
                .router
                .find_remote(&call.service, &call.method, self.core.config.dialect);
        let index = match found {
            Ok(index) => index,
            Err(text) => return refuse(Counter::BadCalls, &text),
        };
        let Some(Value::Array(args)) = json::parse(call.args) else {
            return refuse(Counter::BadCalls, "args is not an array");
        };
        if pipe.in_progress.get() >= self.core.config.rpc.calls_in_flight_max {
            return refuse(Counter::PeerCallsRefused, "too many calls in progress");
        }
        pipe.in_progress.update(|calls| calls + 1);
        let (shard, pipe, id) = (self.clone(), pipe.clone(), Box::<[u8]>::from(call.id));
        let name = format!("{}.{}", call.service, call.method);
        glommio::spawn_local(async move {
            let result = shard.run_remote(index, &name, args).await;
            pipe.in_progress.update(|calls| calls - 1);
            shard.answer_remote(&pipe, &id, result);
        })
        .detach();
    }

    /// Runs a remote to its end, its panic or its deadline.
    async fn run_remote(
        self: &Rc<Self>,
        index: usize,
        name: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Failure> {
        let work = async {
            let call = RemoteCall::new(args, self.clone());
            self.app.router.call_remote(index, call).await
        };
        let work = async { self.app.activity.run(Work::Remote(index), work).await.ok() };
        let late = async {
            self.timeout(self.core.config.rpc.timeout).await;
            self.counters().add(Counter::RemoteTimeouts, 1);
            tracing::warn!(remote = name, "a remote did not answer in time");
            Some(Err(Failure::new("the remote did not answer in time")))
        };
        future::or(work, late).await.unwrap_or_else(|| {
            self.counters().add(Counter::Panics, 1);
            tracing::error!(remote = name, "a remote panicked");
            Err(Failure::new("the remote panicked"))
        })
    }

    /// Answers the call of a peer; one whose link has ended gets nothing.
    fn answer_remote(
        self: &Rc<Self>,
        pipe: &Rc<Pipe>,
        id: &[u8],
        result: Result<Vec<Value>, Failure>,
    ) {
        if !pipe.is_open() {
            return;
        }
        let resp = result.map(|results| response(&results, self.core.config.dialect));
        let resp = resp.and_then(|resp| {
            let fits = resp.len() <= RPC_FRAME_BYTES_MAX;
            fits.then_some(resp)
                .ok_or(Failure::new("the results are too large"))
        });
        self.send_to_peer(pipe, |out| {
            rpc::write_answer(out, id, |out| match &resp {
                Ok(resp) => out.extend_from_slice(resp),
                Err(failure) => rpc::write_error(out, &failure.0),
            });
        });
    }
}

/// The server of an id and a type.
fn listed(cluster: &Cluster, server_type: &str, id: &str) -> Result<PeerIndex, CallError> {
    let known = cluster.of_type(server_type.as_bytes());
    let mut servers = known.iter().flat_map(|known| &known.servers).copied();
    let found = servers.find(|peer| cluster.peer(*peer).server.id == id);
    found.ok_or_else(|| {
        CallError::NotSent(format!("no server {id:?} of type {server_type:?}").into())
    })
}

/// What an answer means to the handler that called.
pub(in crate::shard) fn results(resp: &[u8]) -> CallResult {
    let unreadable = || CallError::Lost("the answer cannot be read".into());
    read(resp).ok_or_else(unreadable)?
}

fn read(resp: &[u8]) -> Option<CallResult> {
    let result = rpc::Answer { id: None, resp }.result().ok()?;
    if let Some(error) = result.error.filter(|error| json::is_truthy(error)) {
        return Some(Err(CallError::Remote(json::parse(error)?)));
    }
    let values = json::elements(resp).ok()?.skip(1);
    let values: Option<Vec<Value>> = values.map(|value| json::parse(value.ok()?)).collect();
    values.map(Ok)
}

/// The `resp` array of a remote's results, as a genuine server of the dialect writes it.
fn response(results: &[Value], dialect: Dialect) -> Vec<u8> {
    let mut out = Vec::new();
    match (results, dialect) {
        ([], Dialect::Pomelo) => out.extend_from_slice(b"[]"),
        ([], Dialect::Pinus) => out.extend_from_slice(b"[null,null]"),
        (results, _) => {
            out.extend_from_slice(b"[null");
            for result in results {
                out.push(b',');
                json::write_value(&mut out, result);
            }
            out.push(b']');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_genuine_servers_are_read() {
        for (resp, results) in [
            ("[]", vec![]),
            ("[null]", vec![]),
            ("[null,null]", vec![json!(null)]),
            ("[null,3]", vec![json!(3)]),
            (
                "[0,{\"a\":1},null,\"x\"]",
                vec![json!({"a": 1}), json!(null), json!("x")],
            ),
        ] {
            assert_eq!(super::results(resp.as_bytes()), Ok(results), "{resp}");
        }
        let stack = json!({"stack": "Error: boom\n    at chatRemote.js:3:7", "code": 418});
        for (resp, error, text) in [
            ("[\"no\",null,null]".to_owned(), json!("no"), "no"),
            (format!("[{stack}]"), stack, "Error: boom"),
            ("[{\"a\":1},2]".to_owned(), json!({"a": 1}), "{\"a\":1}"),
            ("[[\"ann\"]]".to_owned(), json!(["ann"]), "[\"ann\"]"),
        ] {
            let failed = super::results(resp.as_bytes()).unwrap_err();
            assert_eq!(failed.to_string(), text);
            assert_eq!(Failure::from(failed.clone()), Failure::new(text.to_owned()));
            assert_eq!(failed, CallError::Remote(error));
        }
        for resp in ["", "{}", "[", "[null,", "[null,}]"] {
            let lost = super::results(resp.as_bytes());
            assert!(matches!(lost, Err(CallError::Lost(_))), "{resp}: {lost:?}");
        }
    }

    #[test]
    fn results_are_written_as_genuine_servers_write_them() {
        for (results, pomelo, pinus) in [
            (vec![], "[]", "[null,null]"),
            (
                vec![json!({"a": 1})],
                r#"[null,{"a":1}]"#,
                r#"[null,{"a":1}]"#,
            ),
            (
                vec![json!(null), json!(2)],
                "[null,null,2]",
                "[null,null,2]",
            ),
        ] {
            assert_eq!(response(&results, Dialect::Pomelo), pomelo.as_bytes());
            assert_eq!(response(&results, Dialect::Pinus), pinus.as_bytes());
        }
    }
}
