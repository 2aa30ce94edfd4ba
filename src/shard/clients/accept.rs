//! From a listening socket to connections.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::connection::{Connection, refused_for_address, refused_for_number};
use crate::error::Fault;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::{Listener, Socket};
use crate::shard::Shard;

/// Pause after an accept call that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted before others run.
const BUDGET: usize = 64;

/// Accepts connections for ever.
pub(in crate::shard) async fn run(shard: Rc<Shard>, listener: Listener) {
    let mut budget = BUDGET;
    loop {
        match listener.accept().await {
            Ok(socket) => admit(&shard, socket),
            // The client was gone before its turn came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                shard.counters().add(Counter::AcceptErrors, 1);
                tracing::warn!(%error, "accept failed");
                clock::sleep(PAUSE).await;
            }
        }
        budget -= 1;
        if budget == 0 {
            clock::yield_to_reactor().await;
            budget = BUDGET;
        }
    }
}

/// Gives a connection its place and its task.
fn admit(shard: &Rc<Shard>, socket: Socket) {
    shard.counters().add(Counter::Accepted, 1);
    let address = |socket: &Socket| {
        let address = socket.peer_address();
        address.map_or_else(String::new, |address| address.to_string())
    };
    if shard.refuses(&socket) {
        refused_for_address(&address(&socket));
        return shard.counters().closed(Fault::Blacklisted);
    }
    if !shard.clients.process_sockets.enter() {
        shard.clients.process_sockets.leave();
        refused_for_number(&address(&socket));
        return shard.counters().closed(Fault::MaxConnections);
    }
    let socket = Rc::new(socket);
    let place = shard
        .clients
        .connections
        .borrow_mut()
        .insert(|_| Connection::new(socket.clone(), shard.clients.nobody.clone()));
    let Some(sid) = place else {
        shard.clients.process_sockets.leave();
        refused_for_number(&address(&socket));
        return shard.counters().closed(Fault::MaxConnections);
    };
    shard.counters().add(Counter::Connections, 1);
    shard.opened(sid);
    glommio::spawn_local(serve(shard.clone(), socket, sid)).detach();
}

/// Reads one connection to its end.
async fn serve(shard: Rc<Shard>, socket: Rc<Socket>, sid: Sid) {
    let receiver = ClientReceiver { shard: &shard, sid };
    let end = drive::read(&socket, &shard.core.read_buffer, &receiver).await;
    let fault = if let End::Failed = end {
        Fault::Socket
    } else {
        Fault::Left
    };
    shard.gone(sid, fault);
}

struct ClientReceiver<'a> {
    shard: &'a Rc<Shard>,
    sid: Sid,
}

impl Receiver for ClientReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        Some(self.shard.receive_client(self.sid, input))
    }
}
