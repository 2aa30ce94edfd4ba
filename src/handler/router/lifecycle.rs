//! Functions of the application that run besides messages, from the start of a server to its end.

use std::rc::Rc;

use super::Router;
use super::crons::Crons;
use crate::config::{Dialect, Server};
use crate::handler::cron::Schedule;
use crate::handler::{App, LocalFuture, Reply, ShardContext, Stop};
use crate::ids::ShardId;

type Start = Box<dyn Fn(App) -> LocalFuture<Reply<()>>>;
type End = Box<dyn Fn(App) -> LocalFuture<()>>;
type Run = Box<dyn Fn(App, Stop) -> LocalFuture<()>>;
type OnServer = Box<dyn Fn(&App, &Server)>;

/// The functions to call at start, at stop, in the background and for events of servers.
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
    /// Appends the functions of `more`.
    pub(super) fn append(&mut self, mut more: Self) {
        self.on_start.append(&mut more.on_start);
        self.before_stop.append(&mut more.before_stop);
        self.on_server_added.append(&mut more.on_server_added);
        self.on_server_removed.append(&mut more.on_server_removed);
        self.tasks.append(&mut more.tasks);
        self.crons.append(more.crons);
    }

    /// Checks the functions and joins the crons with their times from the configuration.
    pub(super) fn ready(
        &mut self,
        dialect: Dialect,
        crons: &[(Schedule, String)],
        delegates: bool,
    ) -> Result<(), String> {
        self.crons.ready(dialect, crons, delegates)
    }

    /// Calls the functions of `on_start`, one after the other.
    pub(crate) async fn start(&self, context: &Rc<dyn ShardContext>) -> Reply<()> {
        for f in &self.on_start {
            f(App::new(context.clone())).await?;
        }
        Ok(())
    }

    /// Calls the functions of `before_stop`, one after the other.
    pub(crate) async fn end(&self, context: &Rc<dyn ShardContext>) {
        for f in &self.before_stop {
            f(App::new(context.clone())).await;
        }
    }

    /// Starts all tasks of a shard and returns them with their names.
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

    /// Returns the names of the tasks, in the same order. A shard without crons lacks the last ones.
    pub(crate) fn task_names(&self) -> impl Iterator<Item = &str> {
        let names = self.tasks.iter().map(|(name, _)| &**name);
        names.chain(self.crons.names())
    }

    /// Returns true if a function for events of servers is set.
    pub(crate) fn wants_servers(&self) -> bool {
        !(self.on_server_added.is_empty() && self.on_server_removed.is_empty())
    }

    /// Notifies the application of an added or removed server.
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
    /// Calls `f` once on each shard and waits for it before that shard takes clients. Several functions
    /// run in the order in which they were added. Pomelo: `afterStartup` of `lifecycle.js`.
    ///
    /// `f` can reach other shards and servers. With a master, its list of servers may not have arrived
    /// yet; [`on_server_added`](Self::on_server_added) reports each server.
    ///
    /// If `f` fails, panics or takes longer than `start_timeout`, the gateway ends with an
    /// [`Error::Handlers`](crate::Error::Handlers).
    #[must_use]
    pub fn on_start(mut self, f: impl AsyncFn(App) -> Reply<()> + 'static) -> Self {
        let f = Rc::new(f);
        self.life.on_start.push(Box::new(move |app| {
            let f = f.clone();
            Box::pin(async move { f(app).await })
        }));
        self
    }

    /// Calls `f` on each shard when a signal, [`Stopper::stop`](crate::Stopper::stop) or the master
    /// stops the process. After SIGTERM the drain closes the clients first. In each other stop no
    /// client of any shard is closed before all functions have ended. Several functions run in the
    /// order in which they were added. From the moment of the stop the port is closed, so a balancer
    /// sends new clients elsewhere. A second SIGTERM or SIGINT ends the process at once and cuts all
    /// clients. `f` is not called if the start has failed. Pomelo: `beforeShutdown` of `lifecycle.js`,
    /// `app.beforeStopHook`.
    ///
    /// Bound: `stop_timeout`, together with the tasks; after SIGTERM what the drain has left of
    /// `drain.timeout`, at least a quarter. A function that takes longer is dropped, counted as
    /// `tasks_late` and logged. A function that panics has ended and counts as `handler_panics`.
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
    /// before [`on_start`](Self::on_start), those of the master whenever it reports them. A server that
    /// returns with another address or weight is first removed, then added. Pomelo: the event
    /// `add_servers`.
    ///
    /// When `f` runs, the server can be called. A panic counts as `handler_panics`.
    #[must_use]
    pub fn on_server_added(mut self, f: impl Fn(&App, &Server) + 'static) -> Self {
        self.life.on_server_added.push(Box::new(f));
        self
    }

    /// Calls `f` on each shard for every other server that leaves the cluster. Pomelo: the events
    /// `remove_servers` and `replace_servers`.
    #[must_use]
    pub fn on_server_removed(mut self, f: impl Fn(&App, &Server) + 'static) -> Self {
        self.life.on_server_removed.push(Box::new(f));
        self
    }

    /// Runs `f` in the background of each shard, from the time when the shard takes clients until the
    /// process stops. The log uses `name`. For one task in the whole process, check [`App::shard`], or
    /// add the task only to the router of shard 0.
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
    ///         told.expect("the body fits into a package");
    ///     }
    /// }
    ///
    /// let router = Router::new().task("time", tell_time);
    /// # drop(router);
    /// ```
    ///
    /// Bound: after the request to stop, the task has as long as the functions of
    /// [`Router::before_stop`]. Then it is dropped, counted as `tasks_late` and logged. A task that returns has ended; so has a task that panics,
    /// which counts as `handler_panics` and stops nothing else.
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
