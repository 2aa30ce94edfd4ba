//! The requests of the operators' port to the shards.
//!
//! They come through the inbox of the mesh, so a shard that nobody asks pays nothing for them. The port never waits for
//! room, and no shard waits for the port.

use std::sync::Arc;

use super::coordinator::COORDINATOR;
use super::mesh::Outlets;
use super::parcel::{OperatorReply, OperatorRequest, Parcel};
use super::trace::{TraceSink, TraceTarget};
use crate::ids::{ShardId, Sid};

/// The way of requests to the coordinator, from any thread.
#[derive(Debug, Clone)]
pub struct Operator(pub Outlets);

impl Operator {
    /// Sends a request. Returns false if too much waits for the coordinator, or it has ended.
    pub fn ask(&self, request: OperatorRequest, reply: OperatorReply) -> bool {
        let parcel = Parcel::Operator(Box::new((request, reply)));
        self.0.post(COORDINATOR, parcel)
    }

    /// Begins a trace of a session of this process, until the session closes or the sink. Returns false as
    /// [`Operator::ask`] does.
    pub fn trace(&self, sid: Sid, sink: Arc<dyn TraceSink>) -> bool {
        self.begin(sid.shard(), TraceTarget::Session(sid), sink)
    }

    /// Begins a trace of the sessions that are bound to a uid from now on, until the sink closes. Returns false as
    /// [`Operator::ask`] does.
    pub fn trace_uid(&self, uid: &str, sink: &Arc<dyn TraceSink>) -> bool {
        let begin = |shard| self.begin(shard, TraceTarget::Uid(uid.into()), sink.clone());
        self.0.shards().all(begin)
    }

    fn begin(&self, shard: ShardId, target: TraceTarget, sink: Arc<dyn TraceSink>) -> bool {
        let parcel = Parcel::Trace(Box::new((target, sink)));
        self.0.post(shard, parcel)
    }
}
