//! Work that blocks, on a thread of its own.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};
use std::thread;

use crossbeam_channel::{TryRecvError, bounded};

use super::bell::AnyThread;

/// Runs `work` on a new thread, and waits for its result. In a gateway in memory, runs it at once on this thread.
///
/// Errors: the system refuses the thread, or `work` panicked.
/// Cost:   a thread: for rare work only.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let mut any_thread = AnyThread::default();
    if !any_thread.is_kernel() {
        return Ok(work());
    }
    let (sender, result) = bounded(1);
    let mut job = Some((sender, work));
    poll_fn(|cx| {
        any_thread.poll(cx, |cx| {
            if let Some((sender, work)) = job.take() {
                let wake = WakeOnDrop(cx.waker().clone());
                thread::Builder::new().name(name.into()).spawn(move || {
                    let _wake = wake;
                    // `sender` is dropped before `_wake`, also when `work` panics. So the task that wakes up sees the
                    // result or a closed channel.
                    let sender = sender;
                    let _ = sender.send(work());
                })?;
            }
            Poll::Ready(match result.try_recv() {
                Ok(result) => Ok(result),
                Err(TryRecvError::Empty) => return Poll::Pending,
                Err(TryRecvError::Disconnected) => {
                    Err(io::Error::other("the thread of the work panicked"))
                }
            })
        })
    })
    .await
}

struct WakeOnDrop(Waker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake_by_ref();
    }
}
