//! A value that one task waits for and another gives.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A slot through which one task gives a value to another task of the same shard.
#[derive(Debug)]
pub(crate) struct Slot<T>(RefCell<(Option<T>, Option<Waker>)>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(RefCell::new((None, None)))
    }
}

impl<T> Slot<T> {
    /// Puts the value into the slot.
    pub(crate) fn put(&self, value: T) {
        let mut slot = self.0.borrow_mut();
        slot.0 = Some(value);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }

    /// Waits for the value.
    pub(crate) async fn take(&self) -> T {
        poll_fn(|cx| {
            let mut slot = self.0.borrow_mut();
            match slot.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    slot.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
