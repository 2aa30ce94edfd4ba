//! From a listening socket to connections.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpStream;

use super::Shard;
use super::connection::Connection;
use crate::error::Fault;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::{self, Socket};

/// Pause after an accept call that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever.
pub(super) async fn run(shard: Rc<Shard>, listener: std::net::TcpListener) {
    let listener = socket::listener(listener);
    loop {
        match listener.accept().await {
            Ok(stream) => admit(&shard, stream),
            Err(error) => match io::Error::from(error) {
                // The client was gone before its turn came.
                error if error.kind() == io::ErrorKind::ConnectionAborted => {}
                error => {
                    shard.counters().add(Counter::AcceptErrors, 1);
                    tracing::warn!(%error, "accept failed");
                    glommio::timer::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Gives a connection its place and its task.
fn admit(shard: &Rc<Shard>, stream: TcpStream) {
    shard.counters().add(Counter::Accepted, 1);
    if !shard.process_sockets.enter() {
        shard.process_sockets.leave();
        return shard.counters().closed(Fault::MaxConnections);
    }
    let socket = Rc::new(Socket::new(stream));
    let place = shard
        .connections
        .borrow_mut()
        .insert(|_| Connection::new(socket.clone(), shard.nobody.clone()));
    let Some(sid) = place else {
        shard.process_sockets.leave();
        return shard.counters().closed(Fault::MaxConnections);
    };
    shard.counters().add(Counter::Connections, 1);
    shard.opened(sid);
    glommio::spawn_local(serve(shard.clone(), socket, sid)).detach();
}

/// Reads one connection to its end.
async fn serve(shard: Rc<Shard>, socket: Rc<Socket>, sid: Sid) {
    let receiver = ClientReceiver { shard: &shard, sid };
    let end = drive::read(&socket, &shard.read_buffer, &receiver).await;
    let fault = if let End::Failed(_) = end {
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
