//! Crons: functions of the application that run at fixed times of the day.

use std::rc::Rc;
use std::time::Duration;

use jiff::SignedDuration;

use super::Router;
use crate::config::Dialect;
use crate::error::Panic;
use crate::handler::cron::Schedule;
use crate::handler::{App, LocalFuture, Stop, outcome};
use crate::limits::CRONS_MAX;
use crate::metrics::Counter;

/// Longest sleep of a cron. After it the cron notices that somebody has set the clock.
const LOOK: Duration = Duration::from_secs(60);
/// If the clock is set back by less than this, a cron waits until the clock shows a new time again. If
/// it is set back by more, the times of the cron repeat.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(1);

type Run = Rc<dyn Fn(App) -> LocalFuture<()>>;

/// The crons of a router.
#[derive(Default)]
pub(super) struct Crons {
    functions: Vec<(Rc<str>, Run)>,
    /// Time and name given to `cron_at`.
    times: Vec<(Box<str>, Rc<str>)>,
    /// Functions with their schedule, filled by `ready`.
    scheduled: Vec<(Rc<str>, Rc<Schedule>, Run)>,
    /// Actions of `crons.json` without a function.
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

    fn schedule(&mut self, schedule: Schedule, name: &str) {
        match self.find(name) {
            Some((name, run)) => self.scheduled.push((name, Rc::new(schedule), run)),
            None => self.unknown.push(name.to_owned()),
        }
    }

    /// Joins functions with their times.
    pub(super) fn ready(
        &mut self,
        dialect: Dialect,
        configured: &[(Schedule, String)],
        delegates: bool,
    ) -> Result<(), String> {
        for (time, name) in std::mem::take(&mut self.times) {
            let schedule =
                Schedule::parse(&time, dialect).map_err(|what| format!("cron {name:?}: {what}"))?;
            self.schedule(schedule, &name);
        }
        for (schedule, name) in configured {
            self.schedule(schedule.clone(), name);
        }
        if delegates {
            // The delegate may have their functions.
            self.unknown.clear();
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
            return Err(format!("{count} crons; expected up to {CRONS_MAX}"));
        }
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.scheduled.iter().map(|(name, ..)| &**name)
    }

    /// Returns a task and its name for each cron.
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
    /// Sets the function of a cron. `crons.json` of the project names it in `action` and sets its time:
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
    ///     told.expect("the body fits into a package");
    /// }
    ///
    /// let router = Router::new().cron("moneyCron.sendMoney", send_money);
    /// # drop(router);
    /// ```
    ///
    /// The cron runs once per process, on shard 0, by the local time, from the moment that shard 0
    /// takes clients until the process stops. Shard 0 runs it up to 50 ms late, or as late as the shard
    /// is. [`Schedule`] describes the time.
    ///
    /// A time that passes while the cron still runs is skipped, counted as `crons_skipped` and logged.
    /// Times that passed while the shard stood still are skipped too. So a clock that is set ahead
    /// leads to one run at most, and no time repeats after the clock is set back by up to an hour. In
    /// Pomelo, runs overlap and missed runs follow all at once.
    ///
    /// A panic ends the run and counts as `handler_panics`. A run that has not ended `stop_timeout`
    /// after the stop is dropped, like a [`task`](Self::task). A second function with the same name
    /// replaces the first. If a router has crons, an action of the file without a function is an error
    /// at start; if it has none, as in the plain binary, the action is only logged.
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

    /// Adds a [`cron`](Self::cron) with its time: `.cron_at("0 30 10 * * *", "money", send_money)` runs
    /// at half past ten. The second field is the minute, and months begin at 0: see [`Schedule`].
    ///
    /// An invalid time is an error at start.
    #[must_use]
    pub fn cron_at(mut self, time: &str, name: &str, f: impl AsyncFn(App) + 'static) -> Self {
        self.life.crons.times.push((time.into(), name.into()));
        self.cron(name, f)
    }
}

/// Runs a cron at each of its times until the stop.
async fn keep(name: Rc<str>, schedule: Rc<Schedule>, run: Run, app: App, stop: Stop) {
    let wall_clock = || app.context().wall_clock();
    // The cron has handled all times up to this one.
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
        app.context()
            .clone()
            .panicked(Panic::of("a cron").with_name(name));
    }
}
