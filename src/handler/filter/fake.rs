//! A shard context without sockets, with a clock that the test moves.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use jiff::Zoned;
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::Filters;
use crate::config::{Dialect, Server};
use crate::error::Panic;
use crate::handler::clock::{Alarm, Alarms, Clock, DelayedCall};
use crate::handler::{
    Answer, BroadcastOptions, CallError, ClientAddr, Failure, Incoming, Invocation, LocalFuture,
    OnClose, Outcome, Request, Router, Sent, Session, SessionEvent, ShardContext, Slot, States,
    reply,
};
use crate::ids::{ShardId, Sid};
use crate::metrics::Counter;
use crate::route::Target;
use crate::session::{Identity, Uid};
use crate::time::ShardTime;

pub(super) struct Fake {
    now: Cell<Instant>,
    pub(super) lag: Cell<Duration>,
    alarms: Alarms,
    closed: RefCell<BTreeSet<u64>>,
    counted: RefCell<Vec<Counter>>,
    answers: RefCell<Vec<(u32, String)>>,
    states: States,
}

#[allow(clippy::disallowed_methods)]
fn any_time() -> Instant {
    Instant::now()
}

impl Clock for Fake {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn wall_clock(&self) -> Zoned {
        let shown = date(2026, 11, 23).at(5, 42, 30, 0);
        shown
            .to_zoned(TimeZone::UTC)
            .expect("the time is in the range of the calendar")
    }

    fn lag(&self) -> Duration {
        self.lag.get()
    }

    fn call_after(&self, wait: Duration, call: DelayedCall) -> Alarm {
        self.alarms.set(self.now.get() + wait, Duration::ZERO, call)
    }

    fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm {
        self.alarms.set(self.now.get() + timeout, timeout, call)
    }
}

impl ShardContext for Fake {
    fn server_id(&self) -> &str {
        "connector-1"
    }

    fn shard(&self) -> ShardId {
        ShardId(0)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Pomelo
    }

    fn export(&self, _: Sid, _: &Identity) -> Vec<u8> {
        Vec::new()
    }

    fn bind(self: Rc<Self>, _: Sid, _: Uid) -> LocalFuture<Result<Rc<Identity>, Failure>> {
        Box::pin(async { Err(Failure::new("nobody is bound here")) })
    }

    fn unbind(self: Rc<Self>, _: Sid, _: &Uid) -> Result<Rc<Identity>, Failure> {
        Err(Failure::new("nobody is bound here"))
    }

    fn import(self: Rc<Self>, _: Sid, _: &[(&str, serde_json::Value)]) -> Result<(), Failure> {
        Ok(())
    }

    fn remove(self: Rc<Self>, _: Sid, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn push(self: Rc<Self>, _: Sid, _: &str, _: &[u8]) -> Result<bool, Failure> {
        Ok(false)
    }

    fn broadcast(self: Rc<Self>, _: &str, _: &[u8], _: BroadcastOptions) -> Result<(), Failure> {
        Ok(())
    }

    fn kick(self: Rc<Self>, _: Sid, _: Option<&str>) {}

    fn kick_uid(self: Rc<Self>, _: &str, _: Option<&str>) -> LocalFuture<()> {
        Box::pin(async {})
    }

    fn client_address(&self, _: Sid) -> Option<ClientAddr> {
        None
    }

    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        Box::pin(async { Vec::new() })
    }

    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        Box::pin(async { Vec::new() })
    }

    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>) {
        if let Some(body) = reply::compose(incoming.id, &outcome) {
            let body = String::from_utf8_lossy(&body).into_owned();
            self.answers.borrow_mut().push((incoming.id, body));
        }
    }

    fn call(self: Rc<Self>, _: &Invocation<'_>) -> Sent {
        Err(CallError::NotSent("nobody is there".into()))
    }

    fn servers(&self, _: &str) -> Option<Vec<Server>> {
        None
    }

    fn states(&self) -> &States {
        &self.states
    }

    fn handshake(&self, _: Sid) -> Option<Rc<serde_json::Value>> {
        None
    }

    fn on_close(&self, _: Sid, _: OnClose) -> Result<(), Failure> {
        Ok(())
    }

    fn push_to(self: Rc<Self>, _: &[Sid], _: &str, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn push_to_uids(
        self: Rc<Self>,
        _: Vec<u8>,
        _: &str,
        _: &[u8],
    ) -> LocalFuture<Result<Vec<u8>, Failure>> {
        Box::pin(async { Ok(b"[]".to_vec()) })
    }

    fn json_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn count(&self, counter: Counter) {
        self.counted.borrow_mut().push(counter);
    }

    fn panicked(self: Rc<Self>, _: Panic<'_>) {
        self.count(Counter::Panics);
    }

    fn is_open(&self, sid: Sid) -> bool {
        !self.closed.borrow().contains(&sid.get())
    }
}

/// A shard with one handler, `connector.h.wait`, which answers when the test tells it to.
pub(super) struct World {
    pub(super) context: Rc<Fake>,
    router: Rc<Router>,
    handled: Rc<RefCell<Vec<u32>>>,
    gates: Rc<RefCell<BTreeMap<u32, Rc<Slot<Outcome<'static>>>>>>,
    running: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl World {
    pub(super) fn new(add: impl FnOnce(&mut Filters)) -> Self {
        let context = Fake {
            now: Cell::new(any_time()),
            lag: Cell::default(),
            alarms: Alarms::default(),
            closed: RefCell::default(),
            counted: RefCell::default(),
            answers: RefCell::default(),
            states: States::default(),
        };
        let (handled, gates) = (Rc::default(), Rc::default());
        let (seen, of_handler): (Rc<RefCell<Vec<u32>>>, Rc<RefCell<BTreeMap<_, _>>>) =
            (Rc::clone(&handled), Rc::clone(&gates));
        let router = Router::new().raw_route("connector.h.wait", move |request| {
            seen.borrow_mut().push(request.id);
            let gate: Rc<Slot<Outcome<'static>>> = Rc::default();
            of_handler.borrow_mut().insert(request.id, gate.clone());
            Answer::later(async move { gate.take().await })
        });
        Self {
            context: Rc::new(context),
            router: Rc::new(router.filters(add)),
            handled,
            gates,
            running: RefCell::default(),
        }
    }

    /// Sends a request of a session.
    pub(super) fn send(&self, session: u32, id: u32) {
        self.send_to(session, id, Target::Local(0));
    }

    pub(super) fn send_to(&self, session: u32, id: u32, target: Target) {
        let session = Session::new(sid(session), Rc::default(), self.context.clone());
        let incoming = Rc::new(Incoming::new(&Request {
            id,
            kind: 0,
            compressed: false,
            gzip: false,
            route: "connector.h.wait",
            body: format!("{{\"n\":{id}}}").as_bytes(),
            session: &session,
        }));
        let forward = async |incoming: Rc<Incoming>| Outcome::json(incoming.body.to_vec());
        let message = self.router.clone().handle(incoming, target, forward);
        self.running.borrow_mut().push(Box::pin(message));
        self.turn();
    }

    /// Lets the handler of a request answer.
    pub(super) fn finish(&self, id: u32, response: &'static str) {
        let gate = self
            .gates
            .borrow_mut()
            .remove(&id)
            .expect("the message is with its handler");
        gate.put(Outcome::json(response.as_bytes()));
        self.turn();
    }

    pub(super) fn close(&self, session: u32) {
        let sid = sid(session);
        self.context.closed.borrow_mut().insert(sid.get());
        let session = Session::new(sid, Rc::default(), self.context.clone());
        self.router.happened(&session, &SessionEvent::Close);
        self.turn();
    }

    /// Moves the clock.
    pub(super) fn pass(&self, milliseconds: u64) {
        let now = self.context.now.get() + Duration::from_millis(milliseconds);
        self.context.now.set(now);
        let alarms = &self.context.alarms;
        alarms.ring(ShardTime::new(now), |call| call());
        self.turn();
    }

    /// Runs all tasks until each of them waits.
    fn turn(&self) {
        let context = &mut Context::from_waker(Waker::noop());
        // The end of one task may wake another.
        let tasks = self.running.borrow().len();
        for _ in 0..tasks {
            let is_pending = |task: &mut Pin<Box<dyn Future<Output = ()>>>| {
                task.as_mut().poll(context).is_pending()
            };
            self.running.borrow_mut().retain_mut(is_pending);
        }
    }

    /// Returns the requests whose handlers have begun, in that order.
    pub(super) fn handled(&self) -> Vec<u32> {
        self.handled.borrow().clone()
    }

    /// Returns the responses since the last call.
    pub(super) fn answers(&self) -> Vec<(u32, String)> {
        self.context.answers.take()
    }

    pub(super) fn counted(&self, counter: Counter) -> usize {
        let counted = self.context.counted.borrow();
        counted.iter().filter(|seen| **seen == counter).count()
    }

    /// Returns true if no task runs and no alarm is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.running.borrow().is_empty() && self.context.alarms.is_empty()
    }
}

fn sid(session: u32) -> Sid {
    Sid::new(ShardId(0), session, 1)
}

pub(super) fn answer(id: u32, body: &str) -> (u32, String) {
    (id, body.into())
}
