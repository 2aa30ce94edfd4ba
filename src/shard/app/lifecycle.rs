//! The application from its start to its end: its first and last work, its tasks, and its events of other servers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future;

use super::Application;
use super::activity::Work;
use crate::error::{Error, Panic};
use crate::handler::{LocalFuture, ShardContext};
use crate::metrics::Counter;
use crate::net::clock;
use crate::peer::directory::MemberList;
use crate::shard::{Core, Shard};

/// Time between two looks at the tasks that have not ended.
const LOOK: Duration = Duration::from_millis(2);

impl Application {
    /// Runs the `on_start` functions, before there are clients.
    pub(in crate::shard) async fn start(
        &self,
        core: &Core,
        context: &Rc<dyn ShardContext>,
    ) -> Result<(), Error> {
        let start = self.router.life().start(context);
        let start = self.run(Work::OnStart, start);
        let start = async {
            let started = start.await.map_err(|_| {
                context.clone().panicked(Panic::of("on_start"));
                "on_start panicked".to_owned()
            })?;
            started.map_err(|failure| format!("on_start failed: {}", failure.0))
        };
        let timeout = core.config.start_timeout;
        let late = async {
            core.timeout(timeout).await;
            Err(format!(
                "on_start was not done within start_timeout = {timeout:?}"
            ))
        };
        future::or(start, late)
            .await
            .map_err(|text| Error::Handlers(format!("{text}, on shard {}", core.id.0)))
    }

    /// Calls the handlers that want to hear of servers that left and of new ones. A panic there must not end the
    /// shard.
    pub(in crate::shard) fn notify_servers(
        &self,
        context: &Rc<dyn ShardContext>,
        old: &MemberList,
        new: &MemberList,
    ) {
        if !self.router.life().wants_servers() {
            return;
        }
        let (before, now) = (old.listed(), new.listed());
        let left = before.difference(&now).map(|peer| (peer, false));
        let added = now.difference(&before).map(|peer| (peer, true));
        for (peer, is_there) in left.chain(added) {
            let server = &new.peer(*peer).server;
            let notify = || self.router.life().server(context, server, is_there);
            if self.activity.call(Work::ServerEvent, notify).is_err() {
                context
                    .clone()
                    .panicked(Panic::of("a handler of servers' events").with_name(&server.id));
            }
        }
    }

    /// Counts and logs the tasks that have not ended in time.
    fn report_late_tasks(&self, core: &Core, key: &str) {
        for (_, name) in &*self.tasks.borrow() {
            core.counters().add(Counter::TasksLate, 1);
            tracing::warn!(task = &**name, "a task did not end within {key}");
        }
    }
}

/// Starts the application's tasks.
pub(in crate::shard) fn start_tasks(shard: &Rc<Shard>) {
    let app = &shard.app;
    let tasks = app.router.life().tasks(&shard.context(), &app.stop_request);
    for (index, (name, work)) in tasks.into_iter().enumerate() {
        run_task(shard, Work::Task(index), name, work);
    }
}

fn run_task(shard: &Rc<Shard>, kind: Work, name: Rc<str>, work: LocalFuture<()>) {
    let key = shard.app.tasks.borrow_mut().insert(name.clone());
    let own = shard.clone();
    shard.core.keep(async move {
        if own.app.run(kind, work).await.is_err() {
            own.context().panicked(Panic::of("a task").with_name(&name));
        }
        own.app.tasks.borrow_mut().remove(key);
    });
}

/// Stops the application here, and waits for the other shards that hold an `at_work`. Whatever is late is left behind.
/// `key` is the key of the configuration that sets the deadline.
pub(in crate::shard) async fn stop(
    shard: &Rc<Shard>,
    at_work: Arc<()>,
    deadline: Instant,
    key: &'static str,
) {
    let (core, app) = (&shard.core, &shard.app);
    // The time of the shard needs ticks.
    let _pending = app.futures.clone();
    let timeout = deadline.saturating_duration_since(core.time.get().now);
    let is_late = || core.time.get().is_over(deadline, timeout);
    app.stop_request.request();
    let (router, context) = (app.router.clone(), shard.context());
    let end = async move { router.life().end(&context).await };
    run_task(shard, Work::BeforeStop, "before_stop".into(), Box::pin(end));
    while !app.tasks.borrow().is_empty() && !is_late() {
        clock::sleep(LOOK).await;
    }
    app.report_late_tasks(core, key);
    let others = Arc::downgrade(&at_work);
    drop(at_work);
    while others.strong_count() > 0 && !is_late() {
        clock::sleep(LOOK).await;
    }
}
