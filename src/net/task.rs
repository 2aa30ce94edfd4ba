//! The tasks of a shard, and the count of their polls.
//!
//! glommio runs the ready tasks of a thread in the order of their wake-ups, but it does not say whether one is
//! left. The poller must know this before it sleeps, so each task of a shard counts its polls.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use glommio::LocalExecutor;
use pin_project_lite::pin_project;

thread_local! {
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// Runs the first task of a shard on its executor, to its end.
pub(crate) fn run<T>(executor: &LocalExecutor, task: impl Future<Output = T>) -> T {
    executor.run(Counted { task })
}

/// Starts a task, and polls it once before this function returns.
#[allow(
    clippy::disallowed_methods,
    reason = "the only place that starts tasks"
)]
pub(crate) fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> glommio::Task<T> {
    glommio::spawn_local(Counted { task })
}

/// Starts a task that runs after all ready ones. So it never runs while its starter holds a borrow.
#[allow(
    clippy::disallowed_methods,
    reason = "the only place that starts tasks"
)]
pub(crate) fn spawn_behind(task: impl Future<Output = ()> + 'static) {
    let queue = glommio::executor().current_task_queue();
    let task = glommio::spawn_local_into(Counted { task }, queue);
    task.expect("the queue of a running task exists").detach();
}

/// Lets every other ready task of this shard run once. Returns true if there was none.
///
/// The caller wakes itself, so it runs after all ready tasks. On this thread only a running task wakes another one.
/// So if no other task has run before the caller runs again, none is ready. Wake-ups by other threads do not count
/// here: they ring the doorbell ([`super::bell`]).
pub(super) async fn yield_to_all() -> bool {
    let polls = POLLS.get();
    futures_lite::future::yield_now().await;
    // The one poll is that of the caller.
    POLLS.get() == polls + 1
}

pin_project! {
    /// A future that counts its polls. It also counts its drop: glommio runs a cancelled task once more to drop
    /// the future, and this run can wake the task that cancelled it.
    struct Counted<F> {
        #[pin]
        task: F,
    }
    impl<F> PinnedDrop for Counted<F> {
        fn drop(_this: Pin<&mut Self>) {
            POLLS.set(POLLS.get() + 1);
        }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        POLLS.set(POLLS.get() + 1);
        self.project().task.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    use futures_lite::future::yield_now;
    use glommio::LocalExecutorBuilder;

    #[test]
    fn a_task_is_alone_only_when_no_other_is_ready() {
        let executor = LocalExecutorBuilder::default().make().unwrap();
        let left = Rc::new(Cell::new(0_u32));
        let of_test = left.clone();
        let test = async move {
            assert!(yield_to_all().await);
            // Tasks that wake themselves, and tasks that start others, up to the last one.
            for ready in 0..20 {
                left.set(ready);
                let left = left.clone();
                spawn(async move {
                    while left.get() > 0 {
                        yield_now().await;
                        left.set(left.get().saturating_sub(1));
                        let left = left.clone();
                        spawn_behind(async move { left.set(left.get().saturating_sub(1)) });
                    }
                })
                .detach();
                while !yield_to_all().await {}
                assert_eq!(of_test.get(), 0);
                assert!(yield_to_all().await);
            }
        };
        run(&executor, test);
    }
}
