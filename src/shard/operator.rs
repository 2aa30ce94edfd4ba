//! The requests of the operators' port to the shards.
//!
//! They come through the inbox of the mesh, so a shard that nobody asks pays nothing for them. The port never waits for
//! room, and no shard waits for the port.

use std::sync::Arc;

use super::coordinator::COORDINATOR;
use super::mesh::Outlets;
use super::parcel::{OperatorReply, OperatorRequest, Parcel};
use super::trace::TraceSink;
use crate::ids::Sid;

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
        self.0
            .post(sid.shard(), Parcel::Trace(Box::new((sid, sink))))
    }
}
