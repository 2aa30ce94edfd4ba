//! Handles the messages of a session one at a time, in order of arrival.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;

use super::{Filter, Step};
use crate::handler::clock::Alarm;
use crate::handler::{Failure, Incoming, Outcome, Slot, log_line};
use crate::ids::Sid;
use crate::metrics::Counter;

/// Passes the messages of a session one at a time, in order of arrival.
///
/// A message that takes longer than the timeout is logged and counted, and the next one starts beside
/// it. Its own response is still sent, with code 500 unless its handler sets another error.
///
/// Bound: a waiting message is one of the messages in flight of its session
/// (`client.calls_in_flight_max`). When the session closes, its waiting messages do not reach their
/// handler: they end with an error that the error handler and the after filters see, and they are
/// counted.
///
/// Source: `filters/handler/serial.js`, `common/manager/taskManager.js`, `seq-queue`
pub struct Serial(Rc<Inner>);

struct Inner {
    timeout: Duration,
    timeout_response: Option<Bytes>,
    queues: RefCell<HashMap<Sid, Queue>>,
    last: Cell<u64>,
}

/// The messages of one session. A session without a message in progress has no queue.
struct Queue {
    running: u64,
    waiting: VecDeque<(u64, Rc<Slot<bool>>)>,
}

/// Passes messages one at a time. Pomelo: `pomelo.filters.serial(timeout)`, 3 s by default.
///
/// With a `timeout_response` (JSON text), a late message is answered with it at once and with code 500;
/// the result of its handler is dropped. Pinus: `timeOutResponse`. Unlike in Pinus, no error handler
/// sees that answer, and the client gets only one response.
pub fn serial(timeout: Duration, timeout_response: Option<Bytes>) -> Serial {
    Serial(Rc::new(Inner {
        timeout,
        timeout_response,
        queues: RefCell::default(),
        last: Cell::new(0),
    }))
}

impl Filter for Serial {
    type Mark = Task;

    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<Task, Outcome<'static>>> {
        let (mut task, turn) = self.0.enter(incoming.session.id());
        let Some(turn) = turn else {
            task.start(incoming);
            return Step::Ready(Ok(task));
        };
        let incoming = incoming.clone();
        Step::Later(Box::pin(async move {
            if !turn.take().await {
                incoming.session.context().count(Counter::SerialDropped);
                return Err(Outcome::error("the session has closed"));
            }
            task.start(&incoming);
            Ok(task)
        }))
    }

    fn after(
        &self,
        task: Task,
        error: Option<Failure>,
        incoming: &Rc<Incoming>,
    ) -> Option<Failure> {
        let late = task.late.get();
        drop(task);
        let text = || format!("task time out. msg:{}", log_line::args(incoming));
        error.or_else(|| late.then(|| Failure::new(text())))
    }

    fn closed(&self, sid: Sid) {
        let queue = self.0.queues.borrow_mut().remove(&sid);
        for (_, turn) in queue.into_iter().flat_map(|queue| queue.waiting) {
            turn.put(false);
        }
    }
}

impl Inner {
    /// Adds a message to the queue of its session. Returns the place, and for any message but the first
    /// a slot to wait for.
    fn enter(self: &Rc<Self>, sid: Sid) -> (Task, Option<Rc<Slot<bool>>>) {
        self.last.set(self.last.get() + 1);
        let task = Task {
            filter: self.clone(),
            sid,
            number: self.last.get(),
            late: Rc::default(),
            alarm: None,
        };
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(&sid) else {
            let queue = Queue {
                running: task.number,
                waiting: VecDeque::new(),
            };
            queues.insert(sid, queue);
            return (task, None);
        };
        let turn = Rc::new(Slot::default());
        queue.waiting.push_back((task.number, turn.clone()));
        (task, Some(turn))
    }

    /// Removes a finished message. If it was its turn, the next message starts.
    fn leave(&self, sid: Sid, number: u64) {
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(&sid) else {
            return;
        };
        if queue.running != number {
            queue.waiting.retain(|(waiting, _)| *waiting != number);
            return;
        }
        match queue.waiting.pop_front() {
            Some((next, turn)) => {
                queue.running = next;
                turn.put(true);
            }
            None => {
                queues.remove(&sid);
            }
        }
    }

    fn timed_out(&self, number: u64, late: &Cell<bool>, incoming: &Incoming) {
        late.set(true);
        let (sid, args) = (incoming.session.id(), log_line::args(incoming));
        incoming.session.context().count(Counter::SerialTimeouts);
        tracing::error!(
            session = %sid,
            route = &*incoming.route,
            "[serial filter] msg timeout, msg:{args}"
        );
        if let Some(response) = &self.timeout_response {
            incoming.answer(Outcome::json(&**response).with_error("msg timeout"));
        }
        self.leave(sid, number);
    }
}

/// The place of a message in the queue of its session. Dropping it starts the next message.
pub struct Task {
    filter: Rc<Inner>,
    sid: Sid,
    number: u64,
    late: Rc<Cell<bool>>,
    alarm: Option<Alarm>,
}

impl Task {
    /// Starts the timeout of the message.
    fn start(&mut self, incoming: &Rc<Incoming>) {
        let context = incoming.session.context();
        let (filter, late) = (Rc::downgrade(&self.filter), self.late.clone());
        let (number, incoming) = (self.number, Rc::downgrade(incoming));
        let call = move || {
            let there = Weak::upgrade(&filter).zip(Weak::upgrade(&incoming));
            if let Some((filter, incoming)) = there {
                filter.timed_out(number, &late, &incoming);
            }
        };
        let timeout = self.filter.timeout;
        self.alarm = Some(context.call_at_timeout(timeout, Box::new(call)));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.filter.leave(self.sid, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{World, answer};
    use super::*;
    use crate::route::Target;

    const TIMEOUT: Duration = Duration::from_millis(300);

    fn world(timeout_response: Option<&'static str>) -> (World, Rc<Inner>) {
        let filter = serial(TIMEOUT, timeout_response.map(Bytes::from));
        let inner = filter.0.clone();
        (World::new(|filters| filters.filter(filter)), inner)
    }

    #[test]
    fn messages_of_a_session_are_handled_one_after_the_other() {
        let (world, inner) = world(None);
        for id in 1..=3 {
            world.send(1, id);
        }
        world.send(2, 4);
        assert_eq!(world.handled(), [1, 4], "another session does not wait");
        world.finish(1, "{}");
        world.finish(2, "{}");
        world.finish(4, "{}");
        assert_eq!(world.handled(), [1, 4, 2, 3]);
        world.finish(3, "{}");
        let expected = [1, 2, 4, 3].map(|id| answer(id, "{}"));
        assert_eq!(world.answers(), expected);
        assert!(world.is_idle() && inner.queues.borrow().is_empty());
    }

    #[test]
    fn a_late_message_lets_the_next_one_go_on_and_its_response_has_an_error() {
        let (world, inner) = world(None);
        world.send(1, 1);
        world.send(1, 2);
        world.pass(299);
        assert_eq!(world.handled(), [1]);
        world.pass(1);
        assert_eq!(world.handled(), [1, 2]);
        assert_eq!(world.answers(), []);
        world.finish(2, "{}");
        world.finish(1, r#"{"slow":600,"tag":"a"}"#);
        let late = answer(1, r#"{"slow":600,"tag":"a","code":500}"#);
        assert_eq!(world.answers(), [answer(2, "{}"), late]);
        assert_eq!(world.counted(Counter::SerialTimeouts), 1);
        assert!(world.is_idle() && inner.queues.borrow().is_empty());
    }

    #[test]
    fn the_time_of_a_message_begins_with_its_turn() {
        let (world, _) = world(None);
        world.send(1, 1);
        world.send(1, 2);
        world.pass(200);
        world.finish(1, "{}");
        world.pass(200);
        world.finish(2, "{}");
        assert_eq!(world.answers(), [answer(1, "{}"), answer(2, "{}")]);
        assert_eq!(world.counted(Counter::SerialTimeouts), 0);
    }

    #[test]
    fn a_late_message_is_answered_at_once_and_only_once_where_there_is_a_response_for_it() {
        let (world, _) = world(Some(r#"{"msg":"late"}"#));
        world.send(1, 1);
        world.pass(300);
        let late = answer(1, r#"{"msg":"late","code":500}"#);
        assert_eq!(world.answers(), [late]);
        world.finish(1, r#"{"msg":"done"}"#);
        assert_eq!(world.answers(), []);
        assert_eq!(world.counted(Counter::AnswersRepeated), 1);
        assert!(world.is_idle());
    }

    #[test]
    fn messages_that_wait_when_the_session_closes_are_never_handled() {
        let (world, inner) = world(None);
        for id in 1..=3 {
            world.send(1, id);
        }
        world.close(1);
        assert!(inner.queues.borrow().is_empty());
        assert_eq!(world.counted(Counter::SerialDropped), 2);
        world.finish(1, "{}");
        assert_eq!(world.handled(), [1]);
        // A message that arrives after its session has closed finds no queue and creates none.
        world.send(1, 4);
        world.finish(4, "{}");
        assert!(world.is_idle() && inner.queues.borrow().is_empty());
    }

    #[test]
    fn a_global_one_makes_forwarded_messages_wait_too() {
        let filter = serial(TIMEOUT, None);
        let world = World::new(|filters| filters.global_filter(filter));
        world.send(1, 1);
        world.send_to(1, 2, Target::Remote);
        assert_eq!(world.answers(), []);
        world.finish(1, "{}");
        let expected = [answer(1, "{}"), answer(2, r#"{"n":2}"#)];
        assert_eq!(world.answers(), expected);
        assert!(world.is_idle());
    }

    #[test]
    fn two_of_them_do_not_wait_for_each_other() {
        let world = World::new(|filters| {
            filters.global_filter(serial(TIMEOUT, None));
            filters.filter(serial(TIMEOUT, None));
        });
        world.send(1, 1);
        world.send(1, 2);
        world.finish(1, "{}");
        world.finish(2, "{}");
        assert_eq!(world.answers(), [answer(1, "{}"), answer(2, "{}")]);
        assert!(world.is_idle());
    }
}
