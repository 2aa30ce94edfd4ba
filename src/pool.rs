//! Pools of threads for blocking work: databases, files, long calculations.
//!
//! A shard must never block, so blocking work goes to a [`Pool`]: named threads, each with its own
//! connection, behind one bounded queue. A handler awaits the result while its shard does other work.
//!
//! ```
//! use std::collections::HashMap;
//! use tangelo::handler::{Json, Reply, Router, State};
//! use tangelo::pool::Pool;
//! use tangelo::{Config, Gateway};
//!
//! // In place of a database.
//! type Connection = HashMap<String, u32>;
//!
//! async fn level_of(
//!     State(database): State<Pool<Connection>>,
//!     Json(name): Json<String>,
//! ) -> Reply<Json<Option<u32>>> {
//!     let level = database.run(move |connection| connection.get(&name).copied()).await?;
//!     Ok(Json(level))
//! }
//!
//! # fn main() -> tangelo::Result<()> {
//! let connect = || Ok::<_, std::io::Error>(Connection::from([("ann".into(), 12)]));
//! let database = Pool::builder("database", connect).threads(4).queue(100).start()?;
//! let gateway = Gateway::new(Config::default()).handlers(move |_shard| {
//!     Router::new()
//!         .route("playerHandler.levelOf", level_of)
//!         .with_state(database.clone())
//! });
//! # drop(gateway);
//! # Ok(())
//! # }
//! ```
//!
//! A pool belongs to the process: start it before the gateway, and give a clone to the state of each
//! shard. Data of a single core needs no pool; keep it in the state. `examples/redis_login.rs` uses a
//! real store.
//!
//! **Invariants**: a job is answered exactly once, by its result or by a [`PoolError`]; a connection
//! never leaves its thread; the data of a task is dropped only on the task's shard.
//!
//! **Absent**: shards, sockets, futures on the threads.

use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{
    Receiver, RecvTimeoutError, Sender, TrySendError, after, bounded, never, select,
};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::limits::{POOL_JOBS_MAX, POOL_THREADS_MAX};
use crate::metrics::{Counter, count_for_process};

mod slot;
#[cfg(test)]
mod tests;

use slot::{AnswerSender, slot};

/// Pause after a failed connection; it doubles with each failure.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Longest time that the last handle waits for running jobs.
const END_MAX: Duration = Duration::from_secs(2);

/// Threads that run blocking jobs, each with its own connection `C`. See [the module](self).
///
/// A clone is another handle on the same threads. Dropping the last handle ends the pool: it waits for
/// running jobs, two seconds at most, and leaves a thread running whose job takes longer.
///
/// **Writers and readers**: every handle puts jobs into one queue, every thread takes from it.
/// **When full**: [`PoolError::Full`] at once; `pool_full` counts them.
pub struct Pool<C> {
    threads: Arc<Threads<C>>,
}

impl<C: 'static> Pool<C> {
    /// Prepares a pool of threads named `name` and a number. Each thread calls `connect` when it
    /// starts, and again when its connection is no longer valid.
    pub fn builder<E: Display>(
        name: &str,
        connect: impl Fn() -> std::result::Result<C, E> + Send + Sync + 'static,
    ) -> Builder<C> {
        Builder {
            name: name.into(),
            threads: 4,
            queue: 1024,
            connect: Arc::new(move || connect().map_err(|error| error.to_string())),
            is_valid: Arc::new(|_| true),
        }
    }

    /// Runs a job on the next free thread and returns its result.
    ///
    /// The job is queued when the future is first polled. A waiting job whose caller is gone does not
    /// run. A running job is not stopped, so set timeouts on the connection.
    ///
    /// Cost: two allocations, two wake-ups of threads (some 100 µs where both sleep).
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut C) -> T + Send + 'static,
    ) -> std::result::Result<T, PoolError> {
        let (answer, waiting) = slot();
        self.threads.put(Box::new(Job { work: job, answer }))?;
        waiting.await
    }

    /// Returns the number of waiting jobs.
    pub fn waiting(&self) -> usize {
        self.threads.jobs.as_ref().map_or(0, Sender::len)
    }
}

impl<C> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self {
            threads: self.threads.clone(),
        }
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.threads.name).finish()
    }
}

type Connect<C> = Arc<dyn Fn() -> std::result::Result<C, String> + Send + Sync>;
type IsValid<C> = Arc<dyn Fn(&mut C) -> bool + Send + Sync>;

/// The settings of a pool.
#[must_use = "a pool begins with `start`"]
pub struct Builder<C> {
    name: Arc<str>,
    threads: usize,
    queue: usize,
    connect: Connect<C>,
    is_valid: IsValid<C>,
}

impl<C: 'static> Builder<C> {
    /// Sets the number of threads, and so of connections. Default 4; 1 to 256.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the number of jobs that may wait, including those whose caller is gone. Default 1024; 1 to
    /// 16384. A job waits at most about `queue / threads` times the duration of a job.
    pub fn queue(mut self, jobs: usize) -> Self {
        self.queue = jobs;
        self
    }

    /// Sets a check that runs before each job, on its thread. If it returns false or panics, the job
    /// gets a new connection. A query to the server finds a dead connection, at the price of one round
    /// trip. By default a connection is valid until a job on it panics.
    pub fn is_valid(mut self, f: impl Fn(&mut C) -> bool + Send + Sync + 'static) -> Self {
        self.is_valid = Arc::new(f);
        self
    }

    /// Starts the threads and does not wait for their connections. An unreachable server is not an
    /// error: until it is back, jobs fail with [`PoolError::NoConnection`].
    ///
    /// # Errors
    /// [`Error::Handlers`] for a number out of its range or a name without letters,
    /// [`Error::Host`] when a thread cannot be started.
    pub fn start(self) -> Result<Pool<C>> {
        self.check()?;
        let (jobs, taken) = bounded(self.queue);
        let (stop, stopped) = bounded(0);
        let (end, ended) = bounded(0);
        let mut threads = Threads {
            name: self.name.clone(),
            jobs: Some(jobs),
            stop: Some(stop),
            ended,
            handles: Vec::with_capacity(self.threads),
        };
        // Created after the handles: if a thread cannot start, the drop of the handles waits only for
        // the threads.
        let worker = Worker {
            name: self.name.clone(),
            jobs: taken,
            stopped,
            connected: Arc::default(),
            connect: self.connect,
            is_valid: self.is_valid,
            _end: end,
        };
        for index in 0..self.threads {
            let worker = worker.clone();
            let thread = thread::Builder::new().name(format!("{}-{index}", self.name));
            let handle = thread.spawn(move || worker.run());
            let handle = handle.map_err(|error| {
                Error::Host(format!(
                    "pool {}: cannot start a thread: {error}",
                    self.name
                ))
            })?;
            threads.handles.push(handle);
        }
        Ok(Pool {
            threads: Arc::new(threads),
        })
    }

    fn check(&self) -> Result<()> {
        let Self {
            name,
            threads,
            queue,
            ..
        } = self;
        let fault = if !name.contains(char::is_alphanumeric) || name.contains('\0') {
            "invalid name; expected a name with letters or digits, without NUL".into()
        } else if !(1..=POOL_THREADS_MAX).contains(threads) {
            format!("threads: {threads}; expected 1 to {POOL_THREADS_MAX}")
        } else if !(1..=POOL_JOBS_MAX).contains(queue) {
            format!("queue: {queue}; expected 1 to {POOL_JOBS_MAX}")
        } else {
            return Ok(());
        };
        Err(Error::Handlers(format!("pool {name:?}: {fault}")))
    }
}

/// The reason why a job has no result. `?` in a handler turns it into a
/// [`Failure`](crate::handler::Failure) with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The queue is full; the job was not queued.
    Full,
    /// No thread has a connection; the job did not run. Holds the last error of `connect`.
    NoConnection(Arc<str>),
    /// The job panicked; its thread makes a new connection.
    Panicked,
}

impl Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too many jobs wait for the pool"),
            Self::NoConnection(text) => write!(f, "the pool has no connection: {text}"),
            Self::Panicked => f.write_str("a job of the pool panicked"),
        }
    }
}

impl std::error::Error for PoolError {}

/// The shared part of all handles, dropped with the last one.
struct Threads<C> {
    name: Arc<str>,
    /// Closing it, like closing `stop`, tells the threads to end.
    jobs: Option<Sender<Box<dyn Work<C>>>>,
    stop: Option<Sender<()>>,
    /// Closed when all threads have ended.
    ended: Receiver<()>,
    handles: Vec<JoinHandle<()>>,
}

impl<C> Threads<C> {
    fn put(&self, job: Box<dyn Work<C>>) -> std::result::Result<(), PoolError> {
        count_for_process(Counter::PoolJobs);
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Err(TrySendError::Full(_))) => {
                count_for_process(Counter::PoolFull);
                Err(PoolError::Full)
            }
            // The threads run as long as there is a handle.
            _ => Ok(()),
        }
    }
}

impl<C> Drop for Threads<C> {
    fn drop(&mut self) {
        (self.jobs, self.stop) = (None, None);
        let current = thread::current().id();
        if self
            .handles
            .iter()
            .any(|handle| handle.thread().id() == current)
        {
            return; // A job had the last handle: its thread cannot wait for itself.
        }
        if self.ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            warn!(
                "pool {}: a job has not ended in time; its thread is left running",
                self.name
            );
            return;
        }
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

/// A job in the queue. If it is dropped before it has finished, the caller gets
/// [`PoolError::Panicked`].
trait Work<C>: Send {
    /// Returns false if the caller no longer awaits the result.
    fn is_wanted(&self) -> bool;
    /// Runs it. May panic.
    fn run(self: Box<Self>, connection: &mut C);
    /// Answers with an error.
    fn fail(self: Box<Self>, error: PoolError);
}

struct Job<F, T> {
    work: F,
    answer: AnswerSender<T>,
}

impl<C, T, F> Work<C> for Job<F, T>
where
    T: Send,
    F: FnOnce(&mut C) -> T + Send,
{
    fn is_wanted(&self) -> bool {
        self.answer.is_wanted()
    }

    fn run(self: Box<Self>, connection: &mut C) {
        let Self { work, answer } = *self;
        answer.put(Ok(work(connection)));
    }

    fn fail(self: Box<Self>, error: PoolError) {
        self.answer.put(Err(error));
    }
}

/// One thread of a pool.
struct Worker<C> {
    name: Arc<str>,
    jobs: Receiver<Box<dyn Work<C>>>,
    stopped: Receiver<()>,
    /// Number of threads with a connection.
    connected: Arc<AtomicUsize>,
    connect: Connect<C>,
    is_valid: IsValid<C>,
    _end: Sender<()>,
}

/// The next step of a thread.
enum Next<C> {
    /// Connect, for this job if any.
    Connect(Option<Box<dyn Work<C>>>),
    End,
}

impl<C> Worker<C> {
    fn run(&self) {
        let mut job = None;
        let mut retry = RETRY_MIN;
        let mut told = false;
        loop {
            let next = match self.connect() {
                Ok(connection) => {
                    if std::mem::take(&mut told) {
                        info!("pool {}: connected", self.name);
                    }
                    retry = RETRY_MIN;
                    self.serve(connection, job.take())
                }
                Err(text) => {
                    // Logged once, and not at the first failure: a restarting server is normal.
                    if retry > RETRY_MIN && !std::mem::replace(&mut told, true) {
                        warn!("pool {}: cannot connect: {text}; it tries again", self.name);
                    }
                    if let Some(job) = job.take() {
                        fail(job, &text);
                    }
                    let next = self.refuse(&text, retry);
                    retry = (2 * retry).min(RETRY_MAX);
                    next
                }
            };
            match next {
                Next::Connect(waiting) => job = waiting,
                Next::End => return,
            }
        }
    }

    fn connect(&self) -> std::result::Result<C, Arc<str>> {
        let made = catch_unwind(AssertUnwindSafe(|| (self.connect)()));
        made.unwrap_or_else(|_| Err("the function that connects panicked".into()))
            .map_err(Arc::from)
    }

    /// Runs jobs as long as the connection is valid.
    fn serve(&self, mut connection: C, first: Option<Box<dyn Work<C>>>) -> Next<C> {
        self.connected.fetch_add(1, Ordering::AcqRel);
        let next = catch_unwind(AssertUnwindSafe(move || {
            if let Some(job) = first {
                job.run(&mut connection);
            }
            for job in &self.jobs {
                if !job.is_wanted() {
                    count_for_process(Counter::PoolDropped);
                } else if self.is_valid(&mut connection) {
                    job.run(&mut connection);
                } else {
                    return Next::Connect(Some(job));
                }
            }
            Next::End
        }));
        self.connected.fetch_sub(1, Ordering::AcqRel);
        next.unwrap_or_else(|_| {
            count_for_process(Counter::PoolPanics);
            Next::Connect(None)
        })
    }

    fn is_valid(&self, connection: &mut C) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.is_valid)(connection))).unwrap_or_default()
    }

    /// Fails jobs until the next attempt to connect. If other threads have a connection, the jobs are
    /// left to them: failing is fast and would take all jobs.
    fn refuse(&self, text: &Arc<str>, retry: Duration) -> Next<C> {
        let (retry, nothing) = (after(retry), never());
        let others = || self.connected.load(Ordering::Acquire) > 0;
        loop {
            let jobs = if others() { &nothing } else { &self.jobs };
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) if others() => return Next::Connect(Some(job)),
                    Ok(job) => fail(job, text),
                    Err(_) => return Next::End,
                },
                recv(self.stopped) -> _ => return Next::End,
                recv(retry) -> _ => return Next::Connect(None),
            }
        }
    }
}

// Written by hand, because a connection need not be `Clone`.
impl<C> Clone for Worker<C> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            jobs: self.jobs.clone(),
            stopped: self.stopped.clone(),
            connected: self.connected.clone(),
            connect: self.connect.clone(),
            is_valid: self.is_valid.clone(),
            _end: self._end.clone(),
        }
    }
}

fn fail<C>(job: Box<dyn Work<C>>, text: &Arc<str>) {
    count_for_process(Counter::PoolFailed);
    job.fail(PoolError::NoConnection(text.clone()));
}
