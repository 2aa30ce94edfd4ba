//! Pushes and broadcasts, to sessions of all shards.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use crate::error::{Fault, Panic};
use crate::handler::{BroadcastOptions, Failure, Sending, Session};
use crate::ids::Sid;
use crate::limits::{FAN_OUT_AT_ONCE_MAX, SHARED_BODY_BYTES_MIN};
use crate::metrics::Counter;
use crate::peer::pomelo::sysrpc;
use crate::push::select::{Outgoing, Via};
use crate::shard::coordinator::list;
use crate::wire::package;

impl Shard {
    /// Encodes a push or broadcast once for all who get it, and chooses its scheduler.
    fn outgoing(self: &Rc<Self>, sending: &Sending<'_>) -> Result<Outgoing, Failure> {
        let package = self.clients.encode_push(&self.core, sending)?;
        Ok(Outgoing {
            bytes: match package.len() >= SHARED_BODY_BYTES_MIN {
                true => self.core.memory.share(package),
                false => package.into(),
            },
            via: self.select_scheduler(sending)?,
        })
    }

    /// Chooses the scheduler of a package.
    pub(super) fn select_scheduler(self: &Rc<Self>, sending: &Sending<'_>) -> Result<Via, Failure> {
        let choice = self.app.select_scheduler(sending).map_err(|_| {
            self.react(Fault::Bug(Panic::of(
                "the function that selects push schedulers",
            )));
            Failure::new("selecting a push scheduler failed")
        })?;
        self.clients.scheduler(&self.core, sending, choice)
    }

    /// Pushes to a session of this shard; false when it is gone or not working.
    pub(in crate::shard) fn push(
        self: &Rc<Self>,
        sid: Sid,
        route: &str,
        body: &[u8],
    ) -> Result<bool, Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        Ok(self.push_package(sid, &package))
    }

    /// Pushes a package to a session of this shard; false when it is gone or not working.
    pub(super) fn push_package(self: &Rc<Self>, sid: Sid, package: &Outgoing) -> bool {
        self.end_fan_outs_of(sid);
        self.push_now(sid, package)
    }

    /// Pushes a package to a session that waits for no other one.
    fn push_now(self: &Rc<Self>, sid: Sid, package: &Outgoing) -> bool {
        let Outgoing { bytes, via } = package;
        let copy = |out: &mut Vec<u8>| out.extend_from_slice(bytes);
        let sent = self.send_now(sid, *via, bytes.len(), copy, Some(bytes));
        let counter = if sent {
            Counter::Pushes
        } else {
            Counter::PushesDropped
        };
        self.core.counters().add(counter, 1);
        sent
    }

    /// Pushes to all sessions of the process, or to those that the options choose.
    pub(in crate::shard) fn broadcast(
        self: &Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        let core = &self.core;
        let package = self.outgoing(&Sending::Broadcast { route, body })?;
        let options = Arc::new(options);
        self.push_to_all(&package, &options);
        let mut mesh = core.mesh.borrow_mut();
        for shard in core.other_shards() {
            match mesh.batch_for_work(shard) {
                Some(batch) => batch.broadcast(&package, &options),
                None => core.counters().add(Counter::MeshFull, 1),
            }
        }
        core.turn.request();
        Ok(())
    }

    /// Pushes to sessions of any shard.
    pub(in crate::shard) fn push_to(
        self: &Rc<Self>,
        sids: &[Sid],
        route: &str,
        body: &[u8],
    ) -> Result<(), Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        self.clients.push_elsewhere(&self.core, sids, &package);
        self.push_here(sids, &package);
        Ok(())
    }

    /// Pushes to every session of the uids: one message per shard. Returns the uids without sessions. Only the
    /// coordinator knows them.
    pub(super) fn push_to_uids(
        self: &Rc<Self>,
        route: &str,
        body: &[u8],
        uids: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        let mut sids = Vec::new();
        let mut missing: Vec<Cow<'_, [u8]>> = Vec::new();
        for (raw, text) in sysrpc::uids(uids) {
            let before = sids.len();
            self.coordinator.append_sessions(&text, &mut sids);
            let core = &self.core;
            let sent = self.clients.push_elsewhere(core, &sids[before..], &package);
            if sent == 0 {
                missing.push(raw);
            }
        }
        self.push_here(&sids, &package);
        Ok(list(missing.into_iter().map(Cow::into_owned)).unwrap_or_else(|| b"[]".to_vec()))
    }

    /// Pushes to those sessions that are of this shard.
    fn push_here(self: &Rc<Self>, sids: &[Sid], package: &Outgoing) {
        let here = sids.iter().filter(|sid| sid.shard() == self.core.id);
        self.push_to_members(here.copied().collect(), package);
    }

    /// Pushes to sessions of this shard: to a few at once, to many part by part at the end of this turn and the next ones.
    pub(super) fn push_to_members(self: &Rc<Self>, sids: Vec<Sid>, package: &Outgoing) {
        if sids.len() <= FAN_OUT_AT_ONCE_MAX {
            for sid in sids {
                self.push_package(sid, package);
            }
            return;
        }
        let core = &self.core;
        core.scheduler
            .borrow_mut()
            .fan_outs
            .add(package.clone(), sids);
        core.turn.request();
        if core.scheduler.borrow().fan_outs.is_full() {
            core.counters().add(Counter::FanOutsRushed, 1);
            while core.scheduler.borrow().fan_outs.is_full() {
                self.fan_out(1);
            }
        }
    }

    /// Hands packages of fan-outs to their next members.
    pub(in crate::shard) fn fan_out(self: &Rc<Self>, members: usize) {
        for _ in 0..members {
            // The pushes may close a session, and its handlers may push, too.
            let next = self.core.scheduler.borrow_mut().fan_outs.take_next();
            let Some((sid, package)) = next else { return };
            self.push_now(sid, &package);
        }
    }

    /// Hands a session the packages of fan-outs that it waits for, so that what comes next does not overtake them.
    #[inline]
    pub(super) fn end_fan_outs_of(self: &Rc<Self>, sid: Sid) {
        if !self.core.scheduler.borrow().fan_outs.is_empty() {
            self.hand_over_waiting(sid);
        }
    }

    #[cold]
    fn hand_over_waiting(self: &Rc<Self>, sid: Sid) {
        let packages = self.core.scheduler.borrow_mut().fan_outs.take_for(sid);
        for package in packages {
            self.push_now(sid, &package);
        }
    }

    /// Pushes a broadcast to the working sessions of this shard. As the buffer scheduler of the
    /// reference, and unlike its direct one, a bound session gets one copy, however many its uid has.
    pub(super) fn push_to_all(self: &Rc<Self>, package: &Outgoing, options: &BroadcastOptions) {
        let mut sids = self.clients.receivers(options);
        if self.app.filters_broadcasts() {
            self.filter_broadcast(&mut sids, package, options);
        }
        self.push_to_members(sids, package);
    }

    /// Removes the sessions that the broadcast filter keeps a broadcast from.
    fn filter_broadcast(
        self: &Rc<Self>,
        sids: &mut Vec<Sid>,
        package: &Outgoing,
        options: &BroadcastOptions,
    ) {
        let message = &package.bytes[package::HEAD_BYTES..];
        let before = sids.len();
        sids.retain(|sid| {
            let Some(identity) = self.clients.identity(*sid) else {
                return false;
            };
            let session = Session::new(*sid, identity, self.clone());
            let answer = self.app.filter_broadcast(&session, message, options);
            answer.unwrap_or_else(|_| {
                self.react(Fault::Bug(
                    Panic::of("the broadcast filter").with_session(*sid),
                ));
                false
            })
        });
        let skipped = (before - sids.len()) as u64;
        self.core
            .counters()
            .add(Counter::BroadcastsFiltered, skipped);
    }
}
