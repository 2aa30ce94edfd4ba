//! The request to stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The request to stop, for a task. A clone copies one reference.
#[derive(Debug, Clone, Default)]
pub struct Stop(Rc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    is_requested: Cell<bool>,
    /// Tasks that wait. Bound: the futures of [`Stop::requested`] that have not been dropped.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    last: Cell<u64>,
}

impl Stop {
    /// Returns true once the task has to end.
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.get()
    }

    /// Waits until the task has to end.
    pub async fn requested(&self) {
        let signal = &self.0;
        signal.last.set(signal.last.get() + 1);
        let waits = Waits(signal, signal.last.get());
        poll_fn(|cx| {
            if signal.is_requested.get() {
                return Poll::Ready(());
            }
            let mut waiting = signal.waiting.borrow_mut();
            waiting.insert(waits.1, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Returns the result of `work`. If the task has to end first, drops `work` and returns `None`.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut requested, mut work) = (pin!(self.requested()), pin!(work));
        poll_fn(|cx| match requested.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Requests the stop.
    pub(crate) fn request(&self) {
        self.0.is_requested.set(true);
        let waiting = self.0.waiting.take();
        waiting.into_values().for_each(Waker::wake);
    }
}

/// An entry among the waiting tasks.
struct Waits<'a>(&'a Signal, u64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let waker = self.0.waiting.borrow_mut().remove(&self.1);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn whoever_waits_for_the_stop_hears_of_it_and_leaves_nothing_behind() {
        let stop = Stop::default();
        let mut waits = Box::pin(stop.requested());
        assert_eq!(poll(&mut waits), Poll::Pending);
        assert_eq!(poll(&mut waits), Poll::Pending);
        for _ in 0..100 {
            assert_eq!(poll(stop.or(std::future::pending::<()>())), Poll::Pending);
        }
        assert_eq!(
            stop.0.waiting.borrow().len(),
            1,
            "the other waiters have left the list"
        );
        assert_eq!(poll(stop.or(async { 7 })), Poll::Ready(Some(7)));
        stop.clone().request();
        assert!(stop.is_requested());
        assert_eq!(poll(&mut waits), Poll::Ready(()));
        assert_eq!(poll(stop.or(async { 7 })), Poll::Ready(None));
        drop(waits);
        assert!(stop.0.waiting.borrow().is_empty());
    }
}
