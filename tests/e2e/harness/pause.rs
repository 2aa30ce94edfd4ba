//! A wait inside a handler, which can be shorter than a tick of the shard.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

/// Waits until another thread has slept for `time`.
pub(crate) async fn pause(time: Duration) {
    let pause = Arc::<Mutex<Pause>>::default();
    let of_thread = pause.clone();
    thread::spawn(move || {
        thread::sleep(time);
        let mut pause = of_thread.lock().unwrap_or_else(PoisonError::into_inner);
        pause.is_over = true;
        if let Some(waker) = pause.waker.take() {
            waker.wake();
        }
    });
    poll_fn(|cx| {
        let mut pause = pause.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.is_over {
            return Poll::Ready(());
        }
        pause.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

#[derive(Default)]
struct Pause {
    is_over: bool,
    waker: Option<Waker>,
}
