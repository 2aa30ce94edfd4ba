//! Pushes: which scheduler takes a package, and which sessions of this shard get it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::ClientState;
use crate::client::coder::PushError;
use crate::handler::{BroadcastOptions, Failure, Sending, Session};
use crate::ids::{ShardId, Sid};
use crate::metrics::Counter;
use crate::peer::pomelo::sysrpc;
use crate::push::select::Via;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::shard::coordinator::list;
use crate::shard::mesh::Parcel;
use crate::wire::package;

/// A package that was encoded once for all who get it, and its scheduler.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The package.
    pub bytes: Bytes,
    /// Its scheduler.
    pub via: Via,
}

impl Shard {
    /// Encodes a push or broadcast once for everybody who gets it, and chooses its scheduler.
    pub(in crate::shard) fn outgoing(&self, sending: &Sending<'_>) -> Result<Outgoing, Failure> {
        let route = sending.route().unwrap_or_default();
        let package = self
            .clients
            .coder
            .push(route, sending.body())
            .map_err(|error| {
                if let PushError::Body(error) = &error {
                    self.counters().add(Counter::BodiesUnencodable, 1);
                    tracing::warn!(route, %error, "a push does not fit its proto");
                }
                Failure::new(error.to_string())
            })?;
        Ok(Outgoing {
            bytes: package.into(),
            via: self.select(sending)?,
        })
    }

    /// The scheduler for what is about to be sent: the application's choice, else that of the rules.
    pub(in crate::shard) fn select(&self, sending: &Sending<'_>) -> Result<Via, Failure> {
        if let Some(select) = &self.app.router.events.select_scheduler {
            match self
                .app
                .activity
                .call(Work::PushSelection, || select(sending))
            {
                Ok(None) => {}
                Ok(Some(id)) => {
                    return self
                        .clients
                        .selector
                        .by_id(id)
                        .ok_or_else(|| self.unknown(id));
                }
                Err(_) => {
                    self.counters().add(Counter::Panics, 1);
                    tracing::error!("the function that selects push schedulers panicked");
                    return Err(Failure::new("selecting a push scheduler failed"));
                }
            }
        }
        Ok(match sending.route() {
            Some(route) => self.clients.selector.push(route),
            None => self.clients.selector.response(),
        })
    }

    fn unknown(&self, id: &str) -> Failure {
        self.counters().add(Counter::SchedulersUnknown, 1);
        let text = format!("invalid pushScheduler id, id: {id:?}");
        tracing::error!("{text}");
        Failure::new(text)
    }

    /// Pushes a package to a session of this shard; false when it is gone or not working.
    pub(in crate::shard) fn push_package(self: &Rc<Self>, sid: Sid, package: &Outgoing) -> bool {
        let Outgoing { bytes, via } = package;
        let copy = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        let sent = self.send(sid, *via, bytes.len(), copy, Some(bytes));
        let counter = if sent {
            Counter::Pushes
        } else {
            Counter::PushesDropped
        };
        self.counters().add(counter, 1);
        sent
    }

    /// Pushes to all sessions of the process, or those that the options say.
    pub(in crate::shard) fn broadcast_everywhere(
        self: &Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        let package = self.outgoing(&Sending::Broadcast { route, body })?;
        let options = Arc::new(options);
        self.push_to_all(&package, &options);
        let mut mesh = self.core.mesh.borrow_mut();
        for shard in (0..self.core.shards).map(|shard| ShardId(shard as u16)) {
            if shard == self.core.id {
                continue;
            }
            match mesh.batch_for_work(shard) {
                Some(batch) => batch.parcels.push(Parcel::Broadcast {
                    package: package.clone(),
                    options: options.clone(),
                }),
                None => self.counters().add(Counter::MeshFull, 1),
            }
        }
        self.core.turn.request();
        Ok(())
    }

    /// Pushes to every session of the uids: one message per shard. Answers with the uids that have
    /// none. Only the switch knows them.
    pub(in crate::shard) fn push_to_uids(
        self: &Rc<Self>,
        route: &str,
        body: &[u8],
        uids: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        let mut sids = Vec::new();
        let mut fails: Vec<Cow<'_, [u8]>> = Vec::new();
        let binding = self.switch().binding.borrow();
        for (raw, text) in sysrpc::uids(uids) {
            let before = sids.len();
            sids.extend_from_slice(binding.sessions(&text));
            let sent = self.push_elsewhere(&sids[before..], &package);
            if sent == 0 {
                fails.push(raw);
            }
        }
        drop(binding);
        self.push_here(&sids, &package);
        Ok(list(fails.into_iter().map(Cow::into_owned)).unwrap_or_else(|| b"[]".to_vec()))
    }

    /// Pushes to sessions of whatever shard.
    pub(in crate::shard) fn push_anywhere(self: &Rc<Self>, sids: &[Sid], package: &Outgoing) {
        self.push_elsewhere(sids, package);
        self.push_here(sids, package);
    }

    /// Puts a package on the way to those sessions that are not of this shard; how many of all there
    /// was room for.
    fn push_elsewhere(&self, sids: &[Sid], package: &Outgoing) -> usize {
        let mut mesh = self.core.mesh.borrow_mut();
        let mut sent = 0;
        for sid in sids {
            let shard = sid.shard();
            if shard == self.core.id {
                sent += 1;
            } else if shard.index() >= self.core.shards {
                // A number that an application made up.
                self.counters().add(Counter::PushesDropped, 1);
            } else if let Some(batch) = mesh.batch_for_work(shard) {
                batch.push(package, *sid);
                sent += 1;
            } else {
                self.counters().add(Counter::MeshFull, 1);
            }
        }
        self.core.turn.request();
        sent
    }

    /// Pushes to those sessions that are of this shard.
    fn push_here(self: &Rc<Self>, sids: &[Sid], package: &Outgoing) {
        for sid in sids.iter().filter(|sid| sid.shard() == self.core.id) {
            self.push_package(*sid, package);
        }
    }

    /// Pushes a broadcast to the working sessions of this shard. As the buffer scheduler of the
    /// reference, and unlike its direct one, a bound session gets one copy, however many its uid has.
    pub(in crate::shard) fn push_to_all(
        self: &Rc<Self>,
        package: &Outgoing,
        options: &BroadcastOptions,
    ) {
        let sids: Vec<Sid> = self
            .clients
            .connections
            .borrow_mut()
            .iter_mut()
            .filter(|(_, connection)| {
                connection.client.state() == ClientState::Working
                    && (!options.bound_only || connection.identity.uid.is_some())
            })
            .map(|(sid, _)| sid)
            .collect();
        let sids = self.filtered_sids(sids, package, options);
        for sid in sids {
            self.push_package(sid, package);
        }
    }

    /// Those of the sessions that the broadcast filter lets have it.
    fn filtered_sids(
        self: &Rc<Self>,
        mut sids: Vec<Sid>,
        package: &Outgoing,
        options: &BroadcastOptions,
    ) -> Vec<Sid> {
        let Some(filter) = &self.app.router.events.broadcast_filter else {
            return sids;
        };
        let message = &package.bytes[package::HEAD_BYTES..];
        let (before, mut panics) = (sids.len(), 0);
        sids.retain(|sid| {
            let identity = self.connection(*sid, |connection| connection.identity.clone());
            let Some(identity) = identity else {
                return false;
            };
            let session = Session::new(*sid, identity, self.clone());
            let answer = self.app.activity.call(Work::BroadcastFilter, || {
                filter(&session, message, &options.filter_param)
            });
            panics += u64::from(answer.is_err());
            answer.unwrap_or(false)
        });
        let skipped = (before - sids.len()) as u64;
        self.counters().add(Counter::BroadcastsFiltered, skipped);
        if panics > 0 {
            self.counters().add(Counter::Panics, panics);
            tracing::error!(sessions = panics, "the broadcast filter panicked");
        }
        sids
    }
}
