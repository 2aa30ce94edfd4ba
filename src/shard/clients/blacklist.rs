//! The blacklist of every shard: the coordinator follows the file, the delegate and the console, and tells the others.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::Clients;
use crate::client::host_filter::{BadExpression, HostFilter};
use crate::ids::Sid;
use crate::limits::BLACKLIST_BYTES_MAX;
use crate::metrics::Counter;
use crate::net::UNIX_CLIENT;
use crate::net::blocking;
use crate::net::clock;
use crate::net::task;
use crate::shard::parcel::Parcel;
use crate::shard::{Core, Shard};

/// Distance between two looks at the file, and between two questions to the delegate.
const LOOK: Duration = Duration::from_secs(1);

impl Clients {
    /// Returns whether an address is on the blacklist. No list has that of a unix socket's client.
    pub(super) fn refuses_address(&self, address: SocketAddr) -> bool {
        let filter = self.host_filter.borrow();
        !filter.is_empty() && address != UNIX_CLIENT && filter.refuses(&address.ip().to_string())
    }

    /// Returns whether a client is refused whose address a proxy may have told.
    pub(in crate::shard) fn refuses(&self, sid: Sid) -> bool {
        !self.host_filter.borrow().is_empty()
            && self
                .socket_address(sid)
                .is_some_and(|address| self.refuses_address(address))
    }

    /// Uses another blacklist.
    pub(in crate::shard) fn set_host_filter(&self, filter: Arc<HostFilter>) {
        *self.host_filter.borrow_mut() = filter;
    }

    /// Changes the blacklist of all shards. Compiling it takes a while, so another thread does that.
    async fn change_host_filter(
        &self,
        core: &Core,
        change: impl Fn(&HostFilter) -> Result<HostFilter, BadExpression> + Clone + Send + 'static,
    ) -> io::Result<()> {
        loop {
            let before = self.host_filter.borrow().clone();
            let (from, change) = (before.clone(), change.clone());
            let changed = blocking::run("blacklist", move || change(&from)).await;
            let changed = changed?.map_err(|bad| io::Error::other(bad.to_string()))?;
            let changed = Arc::new(changed);
            // Somebody else may have changed it meanwhile.
            if Arc::ptr_eq(&before, &self.host_filter.borrow()) {
                self.set_host_filter(changed.clone());
                core.broadcast_parcel(|| Parcel::HostFilter(changed.clone()));
                return Ok(());
            }
        }
    }
}

/// Replaces the expressions of `client.blacklist`, which have passed their check.
pub(in crate::shard) async fn replace_configured(
    shard: Rc<Shard>,
    list: Vec<String>,
) -> Result<(), String> {
    let change = move |filter: &HostFilter| filter.with_configured(&list);
    let changed = shard.clients.change_host_filter(&shard.core, change).await;
    changed.map_err(|error| error.to_string())
}

/// Adds expressions of the console to the blacklist.
pub(in crate::shard) fn add_from_console(shard: &Rc<Shard>, more: Vec<String>) {
    if !shard.core.config.client.blacklist_console {
        tracing::warn!("the console's blacklist is not used: client.blacklist_console is false");
        return;
    }
    let shard = shard.clone();
    task::spawn(async move {
        let count = more.len();
        let change = move |filter: &HostFilter| {
            let (filter, bad) = filter.with_console(&more);
            for error in bad {
                tracing::warn!(%error, "a part of the console's blacklist is not used");
            }
            filter
        };
        match shard.clients.change_host_filter(&shard.core, change).await {
            Ok(()) => tracing::info!(count, "the console has added to the blacklist"),
            Err(error) => tracing::warn!(%error, "the console's blacklist is not used"),
        }
    })
    .detach();
}

/// Adds expressions of an operator to the blacklist: all of them, or none.
pub(in crate::shard) async fn add_from_operator(
    shard: Rc<Shard>,
    more: Vec<String>,
) -> Result<(), String> {
    let change = move |filter: &HostFilter| {
        let (filter, mut bad) = filter.with_console(&more);
        bad.pop().map_or(filter, Err)
    };
    let changed = shard.clients.change_host_filter(&shard.core, change).await;
    changed.map_err(|error| error.to_string())
}

/// Asks the delegate for its list once a second, for ever. The last list counts while it does not answer.
pub(in crate::shard) async fn ask(shard: Rc<Shard>) {
    let core = &shard.core;
    let Some(remote) = &core.config.delegate_blacklist else {
        return;
    };
    let args = format!("[{{\"frontendId\":{}}}]", core.own.id_json);
    let mut last = Vec::new();
    let mut is_missing = false;
    loop {
        clock::sleep(LOOK).await;
        let results = shard.ask_delegate(remote, None, args.as_bytes()).await;
        let list = match results.map(expressions) {
            Ok(Some(list)) => list,
            unusable => {
                core.counters().add(Counter::BlacklistsMissed, 1);
                if !is_missing {
                    let error = unusable.err().map(tracing::field::display);
                    tracing::warn!(
                        error,
                        "the delegate sends no blacklist: the last one counts"
                    );
                }
                is_missing = true;
                continue;
            }
        };
        if is_missing {
            tracing::info!("the delegate sends a blacklist again");
            is_missing = false;
        }
        if list == last {
            continue;
        }
        let (count, new) = (list.len(), list.clone());
        let change = move |filter: &HostFilter| {
            let (filter, bad) = filter.with_delegate(&new);
            for error in bad {
                tracing::warn!(%error, "a part of the delegate's blacklist is not used");
            }
            filter
        };
        match shard.clients.change_host_filter(core, change).await {
            Ok(()) => {
                tracing::info!(count, "the delegate has changed the blacklist");
                last = list;
            }
            Err(error) => tracing::warn!(%error, "the delegate's blacklist is not used"),
        }
    }
}

/// Reads the list in an answer of the delegate.
fn expressions(results: Vec<Value>) -> Option<Vec<String>> {
    let list = results.first()?.as_array()?;
    list.iter()
        .map(|it| it.as_str().map(String::from))
        .collect()
}

/// Reads `client.blacklist_file` again whenever it has changed, and when `reread` asks for it, for ever.
pub(in crate::shard) async fn watch(shard: Rc<Shard>, path: PathBuf, reread: Arc<AtomicBool>) {
    let mut seen = None;
    let mut complaint = String::new();
    loop {
        clock::sleep(LOOK).await;
        if reread.swap(false, Ordering::AcqRel) {
            // A line answers each request, even if nothing has changed.
            seen = None;
            complaint.clear();
        }
        let file = path.clone();
        let read = blocking::run("blacklist", move || read(&file, seen)).await;
        let problem = match read.flatten() {
            Ok(None) => continue,
            Ok(Some((changed, text))) => {
                seen = Some(changed);
                let change = move |filter: &HostFilter| filter.with_file(&text);
                let outcome = shard.clients.change_host_filter(&shard.core, change);
                outcome.await.err().map(|error| error.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        let problem = problem.unwrap_or_default();
        let file = path.display();
        match (problem.is_empty(), problem == complaint) {
            (true, _) => tracing::info!(%file, "the blacklist has been read"),
            (false, false) => tracing::warn!(%file, problem, "the blacklist stays as it was"),
            (false, true) => {}
        }
        complaint = problem;
    }
}

/// When the file was changed and what is in it; `None` when that was `seen` before.
pub(crate) fn read(
    path: &Path,
    seen: Option<SystemTime>,
) -> std::io::Result<Option<(SystemTime, String)>> {
    let metadata = std::fs::metadata(path)?;
    let changed = metadata.modified()?;
    if Some(changed) == seen {
        return Ok(None);
    }
    if !metadata.is_file() {
        // A pipe may never end, and a device has no length.
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if metadata.len() > BLACKLIST_BYTES_MAX as u64 {
        let text = format!(
            "{} bytes; expected up to {BLACKLIST_BYTES_MAX}",
            metadata.len()
        );
        return Err(std::io::Error::other(text));
    }
    Ok(Some((changed, std::fs::read_to_string(path)?)))
}
