//! Notices for delegates: the state of a session after each change, its end, and all sessions for a delegate that may
//! have missed a notice.
//!
//! A notice leaves after what the shard has sent to the delegate before: so a delegate gets the states of a session and
//! its messages in their order.

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use crate::handler::{CallError, Outcome, Session, Slot};
use crate::ids::{PeerIndex, Sid};
use crate::metrics::Counter;
use crate::net::task;
use crate::peer::delegate::DelegateMark;
use crate::peer::pending::Knowledge;
use crate::session::Identity;
use crate::shard::clients::connection::ToDelegate;
use crate::shard::origin::{Caller, Origin};
use crate::wire::pomelo::rpc::SessionState;

/// Pause before a list that could not be sent is sent again.
const LIST_PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Tells all delegates the state of a session after a change.
    pub(super) fn tell_change(&self, sid: Sid, change: Option<&[u8]>) {
        if self.core.config.delegate_notices {
            self.tell_delegates("changed", |to, args| {
                self.clients.write_change(&self.core, sid, change, to, args)
            });
        }
    }

    /// Tells the delegates that a session has closed.
    pub(super) fn tell_end(self: &Rc<Self>, sid: Sid, identity: Rc<Identity>, mark: DelegateMark) {
        let config = &self.core.config;
        if config.delegate_notices {
            self.tell_delegates("closed", |to, args| {
                let state = SessionState {
                    session: self.core.session_export(sid, &identity),
                    own: to.is_own(Some(mark), sid),
                    address: None,
                    change: None,
                };
                state.write(args);
                true
            });
        } else if let Some(remote) = &config.delegate_closed {
            let session = Session::new(sid, identity, self.clone());
            let mut args = session.export();
            args.insert(0, b'[');
            args.push(b']');
            if let Err(error) = self.call_delegate(remote, Some(&session), &args) {
                self.count_untold();
                tracing::debug!(session = %sid, %error, "the delegate is not told of a close");
            }
        }
    }

    /// Sends all delegates a notice, unless `write` returns false.
    fn tell_delegates(&self, method: &str, write: impl Fn(ToDelegate<'_>, &mut Vec<u8>) -> bool) {
        let delegates = self.peers.delegates(&self.core);
        let mut args = Vec::new();
        for peer in delegates.iter().copied() {
            args.clear();
            args.push(b'[');
            let to = ToDelegate {
                peer,
                delegates: &delegates,
            };
            if !write(to, &mut args) {
                return;
            }
            args.push(b']');
            let told = self
                .peers
                .tell(&self.core, peer, method, &args, Origin::Notice);
            if let Err(error) = told {
                self.peers.note(peer, Knowledge::miss);
                self.count_untold();
                tracing::debug!(method, error, "a delegate misses a notice");
            }
        }
    }

    /// Notes the outcome of a notice.
    pub(super) fn noticed(&self, outcome: &Outcome<'_>) {
        if outcome.error.is_some() {
            self.count_untold();
        }
    }

    fn count_untold(&self) {
        self.core.counters().add(Counter::DelegateUntold, 1);
    }

    /// Begins to send all sessions to the delegates that may have missed a notice.
    pub(in crate::shard) fn list_sessions(self: &Rc<Self>) {
        for peer in self.peers.lists_due(&self.core) {
            self.peers.note(peer, Knowledge::begin);
            task::spawn(self.clone().list_sessions_for(peer)).detach();
        }
    }

    async fn list_sessions_for(self: Rc<Self>, peer: PeerIndex) {
        match self.send_list(peer).await {
            Ok(()) => self.core.counters().add(Counter::DelegateLists, 1),
            Err(CallError::Remote(error)) => {
                self.count_untold();
                let server = self.peers.id_of(peer);
                tracing::warn!(
                    server,
                    %error,
                    "a delegate does not take the list of sessions: delegate_notices needs tangelo/delegate in it"
                );
            }
            Err(error) => {
                self.count_untold();
                self.peers.note(peer, Knowledge::miss);
                tracing::debug!(%error, "a list of sessions for a delegate is not complete");
                self.core.timeout(LIST_PAUSE).await;
            }
        }
        self.peers.note(peer, Knowledge::end);
    }

    /// Sends all sessions that a delegate has to know, a few in each call; each call waits for the answer to the one
    /// before.
    async fn send_list(&self, peer: PeerIndex) -> Result<(), CallError> {
        let mut next = Some(0);
        while let Some(first) = next {
            let mut states = Vec::new();
            let delegates = self.peers.delegates(&self.core);
            let to = ToDelegate {
                peer,
                delegates: &delegates,
            };
            next = self
                .clients
                .write_states(&self.core, first, to, &mut states);
            let head = serde_json::json!({
                "shards": self.core.shards,
                "shard": self.core.id.index(),
                "first": first == 0,
                "last": next.is_none(),
            });
            let mut args = format!("[{head},[").into_bytes();
            args.extend_from_slice(&states);
            args.extend_from_slice(b"]]");
            let slot = Rc::new(Slot::default());
            let caller = Box::new(Caller {
                slot: slot.clone(),
                sid: None,
            });
            let sent = self
                .peers
                .tell(&self.core, peer, "sessions", &args, Origin::Call(caller));
            sent.map_err(|text| CallError::NotSent(text.into()))?;
            slot.take().await?;
        }
        Ok(())
    }
}
