//! From the start of a server to its end: what runs besides the messages.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::cron::Crons;
use super::{App, LocalFuture, Reply, Router, ShardContext};
use crate::config::{Config, Server};
use crate::ids::ShardId;

type Start = Box<dyn Fn(App) -> LocalFuture<Reply<()>>>;
type End = Box<dyn Fn(App) -> LocalFuture<()>>;
type Run = Box<dyn Fn(App, Stop) -> LocalFuture<()>>;
type OnServer = Box<dyn Fn(&App, &Server)>;

/// What is to be called, when.
#[derive(Default)]
pub(crate) struct Lifecycle {
    on_start: Vec<Start>,
    before_stop: Vec<End>,
    on_server_added: Vec<OnServer>,
    on_server_removed: Vec<OnServer>,
    tasks: Vec<(Rc<str>, Run)>,
    pub(super) crons: Crons,
}

impl Lifecycle {
    /// Adds those of another behind these.
    pub(super) fn append(&mut self, mut more: Self) {
        self.on_start.append(&mut more.on_start);
        self.before_stop.append(&mut more.before_stop);
        self.on_server_added.append(&mut more.on_server_added);
        self.on_server_removed.append(&mut more.on_server_removed);
        self.tasks.append(&mut more.tasks);
        self.crons.append(more.crons);
    }

    /// Checks what was given, and brings it together with the configuration.
    pub(super) fn ready(&mut self, config: &Config) -> Result<(), String> {
        self.crons.ready(config)
    }

    /// Calls what `on_start` was given, one after the other.
    pub(crate) async fn start(&self, context: &Rc<dyn ShardContext>) -> Reply<()> {
        for f in &self.on_start {
            f(App::new(context.clone())).await?;
        }
        Ok(())
    }

    /// Calls what `before_stop` was given, one after the other.
    pub(crate) async fn end(&self, context: &Rc<dyn ShardContext>) {
        for f in &self.before_stop {
            f(App::new(context.clone())).await;
        }
    }

    /// Begins all tasks of a shard, and gives their names.
    pub(crate) fn tasks(
        &self,
        context: &Rc<dyn ShardContext>,
        stop: &Stop,
    ) -> Vec<(Rc<str>, LocalFuture<()>)> {
        let app = App::new(context.clone());
        let begin = |(name, run): &(Rc<str>, Run)| (name.clone(), run(app.clone(), stop.clone()));
        let mut tasks: Vec<_> = self.tasks.iter().map(begin).collect();
        if app.shard() == ShardId(0) {
            tasks.extend(self.crons.tasks(&app, stop));
        }
        tasks
    }

    /// Their names, in the same order; a shard without crons lacks the last ones.
    pub(crate) fn task_names(&self) -> impl Iterator<Item = &str> {
        let names = self.tasks.iter().map(|(name, _)| &**name);
        names.chain(self.crons.names())
    }

    /// True when somebody wants to know of servers that come and go.
    pub(crate) fn wants_servers(&self) -> bool {
        !(self.on_server_added.is_empty() && self.on_server_removed.is_empty())
    }

    /// Tells of a server that is there now, or no longer.
    pub(crate) fn server(&self, context: &Rc<dyn ShardContext>, server: &Server, is_there: bool) {
        let whom = if is_there {
            &self.on_server_added
        } else {
            &self.on_server_removed
        };
        let app = App::new(context.clone());
        whom.iter().for_each(|f| f(&app, server));
    }
}

impl Router {
    /// Calls `f` once on each shard, and awaits it before that shard takes clients; several in the order in
    /// which they were added. Pomelo: `afterStartup` of `lifecycle.js`.
    ///
    /// Other shards and servers can be reached from here. With a master its list of servers may not
    /// have come yet; [`on_server_added`](Self::on_server_added) tells when.
    ///
    /// An error, a panic, or taking longer than `start_timeout` ends the start: the gateway then ends
    /// with an [`Error::Handlers`](crate::Error::Handlers).
    #[must_use]
    pub fn on_start(mut self, f: impl AsyncFn(App) -> Reply<()> + 'static) -> Self {
        let f = Rc::new(f);
        self.life.on_start.push(Box::new(move |app| {
            let f = f.clone();
            Box::pin(async move { f(app).await })
        }));
        self
    }

    /// Calls `f` on each shard when the process is told to end, by a signal, by
    /// [`Stopper::stop`](crate::Stopper::stop) or by the master. No client is closed, on any shard, before all are
    /// done; several are called in the order in which they were added. New clients are refused from
    /// the moment of the stop: their port is closed, so a balancer sends them elsewhere. A second
    /// SIGTERM or SIGINT ends the process at once and cuts all clients. Not called where the start
    /// had failed. Pomelo: `beforeShutdown` of `lifecycle.js`, `app.beforeStopHook`.
    ///
    /// Bound: `stop_timeout`, together with the tasks. What is not done by then is dropped, counted as
    /// `tasks_late` and logged. A panic counts as `handler_panics`, and as being done.
    #[must_use]
    pub fn before_stop(mut self, f: impl AsyncFn(App) + 'static) -> Self {
        let f = Rc::new(f);
        self.life.before_stop.push(Box::new(move |app| {
            let f = f.clone();
            Box::pin(async move { f(app).await })
        }));
        self
    }

    /// Calls `f` on each shard for every other server that becomes known: those of the configuration
    /// before [`on_start`](Self::on_start), those that the master names whenever it does. One that comes back with
    /// another address or weight is removed, then added. Pomelo: the event `add_servers`.
    ///
    /// It is called when calls can go to the server. A panic counts as `handler_panics`.
    #[must_use]
    pub fn on_server_added(mut self, f: impl Fn(&App, &Server) + 'static) -> Self {
        self.life.on_server_added.push(Box::new(f));
        self
    }

    /// Calls `f` on each shard for every other server that has left the cluster. Pomelo: the events
    /// `remove_servers` and `replace_servers`.
    #[must_use]
    pub fn on_server_removed(mut self, f: impl Fn(&App, &Server) + 'static) -> Self {
        self.life.on_server_removed.push(Box::new(f));
        self
    }

    /// Runs `f` in the background of each shard, from the time when it takes clients until the process
    /// is told to end. The name is for the log. For one task in the whole process, look at
    /// [`App::shard`], or add it to the router of shard 0 only.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use serde_json::json;
    /// use tangelo::handler::{App, Router, Stop};
    ///
    /// async fn tell_time(app: App, stop: Stop) {
    ///     let mut minutes = 0;
    ///     while stop.or(app.sleep(Duration::from_secs(60))).await.is_some() {
    ///         minutes += 1;
    ///         let told = app.broadcast("onTime", &json!({ "minutes": minutes }));
    ///         told.expect("it fits into a package");
    ///     }
    /// }
    ///
    /// let router = Router::new().task("time", tell_time);
    /// # drop(router);
    /// ```
    ///
    /// Bound: once `stop` is requested it has `stop_timeout` to come to its end, then it is dropped
    /// where it waits, counted as `tasks_late` and logged. One that returns is over; so is one that
    /// panics, which counts as `handler_panics`: nothing else ends with it.
    #[must_use]
    pub fn task(mut self, name: &str, f: impl AsyncFn(App, Stop) + 'static) -> Self {
        let f = Rc::new(f);
        let run: Run = Box::new(move |app, stop| {
            let f = f.clone();
            Box::pin(async move { f(app, stop).await })
        });
        self.life.tasks.push((name.into(), run));
        self
    }
}

/// Tells a task that the process is to end. Cloning it costs a reference.
#[derive(Debug, Clone, Default)]
pub struct Stop(Rc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    is_requested: Cell<bool>,
    /// Who waits. Bound: the futures of [`Stop::requested`] that have not been dropped.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    last: Cell<u64>,
}

impl Stop {
    /// True once the task is to end.
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.get()
    }

    /// Waits until the task is to end.
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

    /// What `work` comes to; `None` when the task is to end before that, and `work` is dropped.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut requested, mut work) = (pin!(self.requested()), pin!(work));
        poll_fn(|cx| match requested.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Requests it.
    pub(crate) fn request(&self) {
        self.0.is_requested.set(true);
        let waiting = self.0.waiting.take();
        waiting.into_values().for_each(Waker::wake);
    }
}

/// A place among those who wait.
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
        assert_eq!(stop.0.waiting.borrow().len(), 1, "others gave up waiting");
        assert_eq!(poll(stop.or(async { 7 })), Poll::Ready(Some(7)));
        stop.clone().request();
        assert!(stop.is_requested());
        assert_eq!(poll(&mut waits), Poll::Ready(()));
        assert_eq!(poll(stop.or(async { 7 })), Poll::Ready(None));
        drop(waits);
        assert!(stop.0.waiting.borrow().is_empty());
    }
}
