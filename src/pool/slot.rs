//! A slot for the answer to a job: a thread writes it once, one task reads it.
//!
//! The thread wakes by reference, and the waker is dropped on the shard. In glommio 0.9, if another
//! thread drops the last waker of a task, it reads the task once more, although the owner of the join
//! handle may have freed it. Oneshot channels of other crates wake by value, so none is used.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::PoolError;

type Result<T> = std::result::Result<T, PoolError>;

/// Creates both sides of a slot. Cost: one allocation.
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

/// The side of the thread. If it is dropped without an answer, the task gets [`PoolError::Panicked`].
pub(super) struct AnswerSender<T>(Arc<Slot<T>>);

impl<T> AnswerSender<T> {
    /// Returns false if the task no longer waits.
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

/// The side of the task.
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
    // Locked two or three times per job by each side, for a few instructions or one wake-up.
    #[allow(clippy::disallowed_types)]
    state: std::sync::Mutex<State<T>>,
}

struct State<T> {
    answer: Option<Result<T>>,
    waker: Option<Waker>,
    /// True if the task no longer waits.
    left: bool,
}

impl<T> Slot<T> {
    #[allow(clippy::disallowed_types)]
    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Stores the answer, if it is the first.
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
