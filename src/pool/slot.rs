//! Where the answer to a job goes: a thread writes it, once; one task reads it.
//!
//! The thread wakes by reference, and the waker is dropped on the shard: with glommio 0.9 another thread
//! that drops the last waker of a task looks at the task once more, which whoever holds its join
//! handle may have freed by then. The oneshot channels of packages wake by value, so none is here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::PoolError;

type Result<T> = std::result::Result<T, PoolError>;

/// The two sides of an answer. Cost: one allocation.
pub(super) fn slot<T>() -> (AnswerSender<T>, AnswerReceiver<T>) {
    let state = State {
        answer: None,
        waker: None,
        left: false,
    };
    let slot = Arc::new(Slot {
        state: state.into(),
    });
    (AnswerSender(slot.clone()), AnswerReceiver(slot))
}

/// The thread's side. Dropped without an answer it is [`PoolError::Panicked`].
pub(super) struct AnswerSender<T>(Arc<Slot<T>>);

impl<T> AnswerSender<T> {
    /// False when nobody waits any more.
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.lock().left
    }

    pub(super) fn put(self, answer: Result<T>) {
        self.0.put(answer);
    }
}

impl<T> Drop for AnswerSender<T> {
    fn drop(&mut self) {
        self.0.put(Err(PoolError::Panicked));
    }
}

/// The task's side.
pub(super) struct AnswerReceiver<T>(Arc<Slot<T>>);

impl<T> Future for AnswerReceiver<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut state = self.0.lock();
        if let Some(answer) = state.answer.take() {
            state.left = true;
            return Poll::Ready(answer);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for AnswerReceiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.left = true;
        let rest = (state.answer.take(), state.waker.take());
        drop(state);
        drop(rest);
    }
}

struct Slot<T> {
    // Taken two or three times by each side for a job, for a few instructions or one wake-up.
    #[allow(clippy::disallowed_types)]
    state: std::sync::Mutex<State<T>>,
}

struct State<T> {
    answer: Option<Result<T>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    left: bool,
}

impl<T> Slot<T> {
    #[allow(clippy::disallowed_types)]
    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The first answer counts.
    fn put(&self, answer: Result<T>) {
        let mut state = self.lock();
        if state.answer.is_none() && !state.left {
            state.answer = Some(answer);
            if let Some(waker) = &state.waker {
                waker.wake_by_ref();
            }
        }
    }
}
