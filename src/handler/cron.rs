//! What the application does at fixed times of the day.

use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;

use super::{App, LocalFuture, Router, Stop, outcome};
use crate::config::Config;
use crate::limits::CRONS_MAX;
use crate::metrics::Counter;

mod schedule;

pub use schedule::Schedule;

/// Longest distance between two looks at the clock on the wall: after that time it is noticed that it
/// has been set.
const LOOK: Duration = Duration::from_secs(60);
/// A clock that is set back by less than that makes a cron wait until it shows again what it has shown; by
/// more, the cron's times come again.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(1);

type Run = Rc<dyn Fn(App) -> LocalFuture<()>>;

/// The crons of a router.
#[derive(Default)]
pub(super) struct Crons {
    functions: Vec<(Rc<str>, Run)>,
    /// Of `cron_at`: text and name.
    times: Vec<(Box<str>, Rc<str>)>,
    /// Those that have a time, once all is known.
    scheduled: Vec<(Rc<str>, Rc<Schedule>, Run)>,
    /// Actions of `crons.json` that have no function here.
    unknown: Vec<String>,
}

impl Crons {
    pub(super) fn append(&mut self, more: Self) {
        for (name, run) in more.functions {
            self.function(name, run);
        }
        self.times.extend(more.times);
    }

    fn function(&mut self, name: Rc<str>, run: Run) {
        self.functions.retain(|(known, _)| *known != name);
        self.functions.push((name, run));
    }

    fn find(&self, name: &str) -> Option<(Rc<str>, Run)> {
        let mut functions = self.functions.iter();
        functions.find(|(known, _)| **known == *name).cloned()
    }

    /// Brings functions and times together.
    pub(super) fn ready(&mut self, config: &Config) -> Result<(), String> {
        let at = self.times.iter().map(|(time, name)| (&**time, &**name));
        let in_file = config.crons.iter();
        let in_file = in_file.map(|cron| (&*cron.time, &*cron.action));
        for (time, name) in at.chain(in_file) {
            let schedule = Schedule::parse(time, config.dialect)
                .map_err(|what| format!("cron {name:?}: {what}"))?;
            match self.find(name) {
                Some((name, run)) => self.scheduled.push((name, Rc::new(schedule), run)),
                None => self.unknown.push(name.to_owned()),
            }
        }
        if let [first, ..] = &*self.unknown
            && !self.functions.is_empty()
        {
            return Err(format!(
                "crons.json names the action {first:?}, but no function is registered for it; add it \
                 with Router::cron"
            ));
        }
        if self.scheduled.len() > CRONS_MAX {
            let count = self.scheduled.len();
            return Err(format!("{count} crons; accepted: up to {CRONS_MAX}"));
        }
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.scheduled.iter().map(|(name, ..)| &**name)
    }

    /// A task for each of them, and its name.
    pub(super) fn tasks(
        &self,
        app: &App,
        stop: &Stop,
    ) -> impl Iterator<Item = (Rc<str>, LocalFuture<()>)> {
        for action in &self.unknown {
            tracing::warn!(
                action,
                "a cron of crons.json does not run, because no function is registered for its action; \
                 add it with Router::cron"
            );
        }
        self.scheduled.iter().map(|(name, schedule, run)| {
            let work = keep(
                name.clone(),
                schedule.clone(),
                run.clone(),
                app.clone(),
                stop.clone(),
            );
            let work: LocalFuture<()> = Box::pin(work);
            (name.clone(), work)
        })
    }
}

impl Router {
    /// Gives the function of a cron; `crons.json` of the project says when it runs, by its `action`:
    ///
    /// ```json
    /// {"connector": [{"id": 1, "time": "0 30 10 * * *", "action": "moneyCron.sendMoney"}]}
    /// ```
    ///
    /// ```
    /// use serde_json::json;
    /// use tangelo::handler::{App, Router};
    ///
    /// async fn send_money(app: App) {
    ///     let told = app.broadcast("onMoney", &json!({ "coins": 10 }));
    ///     told.expect("it fits into a package");
    /// }
    ///
    /// let router = Router::new().cron("moneyCron.sendMoney", send_money);
    /// # drop(router);
    /// ```
    ///
    /// It runs once in the process, on shard 0, by the local time, from the moment that shard takes
    /// clients until the process is told to end; the crons of the other shards' routers never do. The
    /// time is read as [`Schedule`] says. It begins up to 50 ms late, or as late as the shard is.
    ///
    /// Unlike Pomelo, where runs may overlap and missed ones are made up for all at once: what comes
    /// while it still runs, or while the shard stood still, is left out; the former is counted as
    /// `crons_skipped` and logged. So a clock that is set ahead leads to one run at most. After one that
    /// is set back by up to an hour no time comes twice.
    ///
    /// A panic costs the run, and counts as `handler_panics`. A run that is not done `stop_timeout` after
    /// the stop is dropped, like a [`task`](Self::task). The same name again replaces the function. Where a
    /// router has crons, an action in the file without a function is an error at start; without any it
    /// is logged, as the binary does.
    ///
    /// Bound: `limits::CRONS_MAX` times of crons.
    #[must_use]
    pub fn cron(mut self, action: &str, f: impl AsyncFn(App) + 'static) -> Self {
        let f = Rc::new(f);
        let run: Run = Rc::new(move |app| {
            let f = f.clone();
            Box::pin(async move { f(app).await })
        });
        self.life.crons.function(action.into(), run);
        self
    }

    /// A [`cron`](Self::cron) that comes at this time, whatever a file says:
    /// `.cron_at("0 30 10 * * *", "money", send_money)` at half past ten. The second field is the
    /// minute, and months begin at 0: see [`Schedule`].
    ///
    /// A time that is none is an error at start.
    #[must_use]
    pub fn cron_at(mut self, time: &str, name: &str, f: impl AsyncFn(App) + 'static) -> Self {
        self.life.crons.times.push((time.into(), name.into()));
        self.cron(name, f)
    }
}

/// Runs a cron when its time has come, over and over until the stop.
async fn keep(name: Rc<str>, schedule: Rc<Schedule>, run: Run, app: App, stop: Stop) {
    let wall_clock = || app.context().wall_clock();
    // Up to when nothing is left to be done.
    let mut done = wall_clock();
    while let Some(due) = schedule.next(&done) {
        let now = wall_clock();
        let set_back = done.duration_since(&now);
        if now < due && set_back < SET_BACK_MAX {
            let wait = now.duration_until(&due).unsigned_abs().min(LOOK);
            if stop.or(app.sleep(wait)).await.is_none() {
                return;
            }
            continue;
        }
        done = now;
        if done < due {
            continue;
        }
        run_once(&name, run(app.clone()), &app).await;
        let now = wall_clock();
        if schedule.next(&done).is_some_and(|next| next <= now) {
            app.context().count(Counter::CronsSkipped);
            tracing::warn!(
                cron = &*name,
                "a cron is skipped, because its last run has not ended"
            );
            done = now;
        }
        if stop.is_requested() {
            return;
        }
    }
}

async fn run_once(name: &str, work: LocalFuture<()>, app: &App) {
    if outcome::caught(work).await.is_err() {
        app.context().count(Counter::Panics);
        tracing::error!(cron = name, "a cron panicked");
    }
}
