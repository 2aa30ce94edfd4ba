//! The service manager, such as systemd, that has started this process: it hears of the start, of reloads and of the
//! stop, and gets a sign of life while all shards tick (`sd_notify`).
//!
//! A thread of its own writes to the socket of the supervisor, because such a write may wait.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

use super::cannot_start;
use crate::error::Result;
use crate::limits::NOTICES_MAX;
use crate::metrics::{self, Counter};
use crate::shard::activity::Activity;

/// Environment variable with the socket of the supervisor.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Shortest time of a watchdog; a shorter one is a mistake, and would keep a core busy.
const WATCHDOG_MIN: Duration = Duration::from_millis(10);
/// Time that the supervisor must give a start for each notice that it still waits for the master.
const WAIT: Duration = Duration::from_secs(30);
/// Longest time that the ending process waits for its last news to be sent: a supervisor that does not read would hold it.
const END: Duration = Duration::from_secs(1);
/// Time between two looks at the shards without a watchdog of the supervisor.
const LOOK: Duration = Duration::from_secs(3600);

/// News for the supervisor.
pub(super) enum News {
    /// The start waits for the master; the text says so.
    Waiting(String),
    /// The gateway serves clients.
    Ready(String),
    /// The configuration is read again. [`News::Reloaded`] follows.
    Reloading,
    /// The reload is over.
    Reloaded,
    /// The gateway ends within this time.
    Stopping(String, Duration),
}

/// The supervisor; without one nothing is sent.
#[derive(Clone)]
pub(super) struct Supervisor(Option<SyncSender<News>>);

/// The end of the thread for the supervisor.
pub(super) struct Told(Option<Receiver<()>>);

impl Told {
    /// Waits until all news are sent, but not for long.
    pub(super) fn wait(self) {
        if let Some(ended) = self.0 {
            let _ = ended.recv_timeout(END);
        }
    }
}

impl Supervisor {
    /// Starts the thread for the supervisor, if there is one. The thread ends when the supervisor is dropped.
    pub(super) fn follow(shards: Vec<Arc<Activity>>) -> Result<(Self, Told)> {
        if std::env::var_os(SOCKET).is_none() {
            return Ok((Self(None), Told(None)));
        }
        let (sender, news) = sync_channel(NOTICES_MAX);
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("notify".into())
            .spawn(move || {
                run(&news, &shards);
                drop(end);
            })
            .map_err(|error| cannot_start("notify", &error))?;
        Ok((Self(Some(sender)), Told(Some(ended))))
    }

    /// Tells the supervisor. It never waits: where too many news wait already, these are dropped.
    pub(super) fn tell(&self, news: News) {
        let Some(sender) = &self.0 else { return };
        if sender.try_send(news).is_err() {
            metrics::count_for_process(Counter::NoticesDropped);
        }
    }
}

/// Sends all news until nobody has any more, and signs of life in between.
fn run(news: &Receiver<News>, shards: &[Arc<Activity>]) {
    // The supervisor advises half of its time.
    let watchdog = sd_notify::watchdog_enabled().filter(|time| *time >= WATCHDOG_MIN);
    let watchdog = watchdog.map(|time| time / 2);
    let (mut is_ready, mut is_stopping) = (false, false);
    loop {
        match news.recv_timeout(watchdog.unwrap_or(LOOK)) {
            Ok(news) => {
                is_ready |= matches!(news, News::Ready(_));
                is_stopping |= matches!(news, News::Stopping(..));
                // Before the start is over, the news of a reload would say that clients are served; so they would in a stop.
                let is_true = match news {
                    News::Stopping(..) => true,
                    News::Waiting(_) | News::Ready(_) => !is_stopping,
                    News::Reloading | News::Reloaded => is_ready && !is_stopping,
                };
                if is_true {
                    send(&news);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if watchdog.is_some() && !shards.iter().any(|shard| shard.is_stalled()) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn send(news: &News) {
    match news {
        News::Waiting(text) => notify(&[extend(WAIT), NotifyState::Status(text)]),
        News::Ready(text) => notify(&[NotifyState::Ready, NotifyState::Status(text)]),
        News::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        },
        News::Reloaded => {
            let text = "has read its configuration again";
            notify(&[NotifyState::Ready, NotifyState::Status(text)]);
        }
        News::Stopping(text, within) => {
            let states = [
                NotifyState::Stopping,
                extend(*within),
                NotifyState::Status(text),
            ];
            notify(&states);
        }
    }
}

/// Returns the request for more time.
fn extend(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager ({SOCKET}) cannot be told");
    }
}
