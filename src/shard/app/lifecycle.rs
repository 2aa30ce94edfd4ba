//! The application from its start to its end: what it does first and last, its tasks, and what it hears
//! of other servers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;

use crate::error::Error;
use crate::handler::{LocalFuture, ShardContext};
use crate::metrics::Counter;
use crate::net::clock;
use crate::peer::directory::Cluster;
use crate::shard::Shard;
use crate::shard::app::activity::Work;

/// Distance between two looks at who is not done yet.
const LOOK: Duration = Duration::from_millis(2);

impl Shard {
    fn context(self: &Rc<Self>) -> Rc<dyn ShardContext> {
        self.clone()
    }

    /// Does what the application wants done before there are clients.
    pub(in crate::shard) async fn start_application(self: &Rc<Self>) -> Result<(), Error> {
        let context = self.context();
        let start = self.app.router.life().start(&context);
        let start = self.app.activity.run(Work::OnStart, start);
        let start = async {
            let started = start.await.map_err(|_| {
                self.counters().add(Counter::Panics, 1);
                "on_start panicked".to_owned()
            })?;
            started.map_err(|failure| format!("on_start failed: {}", failure.0))
        };
        let timeout = self.core.config.start_timeout;
        let late = async {
            self.timeout(timeout).await;
            Err(format!(
                "on_start was not done within start_timeout = {timeout:?}"
            ))
        };
        future::or(start, late)
            .await
            .map_err(|text| Error::Handlers(format!("{text}, on shard {}", self.core.id.0)))
    }

    /// Begins the application's tasks.
    pub(in crate::shard) fn start_tasks(self: &Rc<Self>) {
        let context = self.context();
        let tasks = self
            .app
            .router
            .life()
            .tasks(&context, &self.app.stop_request);
        for (index, (name, work)) in tasks.into_iter().enumerate() {
            self.run_task(Work::Task(index), name, work);
        }
    }

    fn run_task(self: &Rc<Self>, kind: Work, name: Rc<str>, work: LocalFuture<()>) {
        let shard = self.clone();
        let key = self.app.tasks.borrow_mut().insert(name.clone());
        self.keep(async move {
            if shard.app.activity.run(kind, work).await.is_err() {
                shard.counters().add(Counter::Panics, 1);
                tracing::error!(task = &*name, "a task panicked");
            }
            shard.app.tasks.borrow_mut().remove(key);
        });
    }

    /// Has the application come to its end: here, and on the other shards that hold an `at_work`. What
    /// is late is left behind.
    pub(in crate::shard) async fn stop_application(self: &Rc<Self>, at_work: Arc<()>) {
        let timeout = self.core.config.stop_timeout;
        let deadline = self.core.time.get().now + timeout;
        let is_late = || self.core.time.get().is_over(deadline, timeout);
        self.app.stop_request.request();
        let shard = self.clone();
        let end = async move { shard.app.router.life().end(&shard.context()).await };
        self.run_task(Work::BeforeStop, "before_stop".into(), Box::pin(end));
        while !self.app.tasks.borrow().is_empty() && !is_late() {
            clock::sleep(LOOK).await;
        }
        for (_, name) in &*self.app.tasks.borrow() {
            self.counters().add(Counter::TasksLate, 1);
            tracing::warn!(task = &**name, "a task did not end within stop_timeout");
        }
        let others = Arc::downgrade(&at_work);
        drop(at_work);
        while others.strong_count() > 0 && !is_late() {
            clock::sleep(LOOK).await;
        }
    }

    /// Tells the application which servers have left and which are new. A panic there must not end
    /// the shard.
    pub(in crate::shard) fn tell_servers(self: &Rc<Self>, old: &Cluster, new: &Cluster) {
        if !self.app.router.life().wants_servers() {
            return;
        }
        let context = self.context();
        let (before, now) = (old.listed(), new.listed());
        let left = before.difference(&now).map(|peer| (peer, false));
        let added = now.difference(&before).map(|peer| (peer, true));
        for (peer, is_there) in left.chain(added) {
            let server = &new.peer(*peer).server;
            let tell = || self.app.router.life().server(&context, server, is_there);
            if self.app.activity.call(Work::ServerEvent, tell).is_err() {
                self.counters().add(Counter::Panics, 1);
                tracing::error!(server = server.id, "a handler of servers' events panicked");
            }
        }
    }
}
