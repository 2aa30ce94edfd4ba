//! What comes before the first byte of a client's protocol on a listener with TLS: the header of a proxy, the choice
//! between TLS and no TLS, and the handshake.
//!
//! A shard gives handshakes only a part of each turn. So a storm of them makes new clients wait, and no other one.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Clients;
use super::accept::{ClientReceiver, reason_of};
use super::connection;
use crate::client::transport::Transport;
use crate::config::TlsMode;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::drive::{self, End, Pause, Receiver};
use crate::net::socket::Socket;
use crate::net::tls::TlsStream;
use crate::shard::{Core, Shard};
use crate::tls::Acceptors;

/// Time of a turn after which no further handshake takes a step: one step takes up to 0.3 ms, with an RSA key 1 ms.
const HANDSHAKE_TURN_MAX: Duration = Duration::from_millis(1);
/// First byte of each record of a handshake, as RFC 8446 says. No client without TLS begins with it.
pub(super) const HANDSHAKE_RECORD: u8 = 22;

/// The reason why a connection does not get to its protocol. `None`: it is closed already.
type Ended = Option<CloseReason>;

/// Serves a connection of a listener with TLS to its end.
pub(super) async fn serve(
    shard: Rc<Shard>,
    socket: Rc<Socket>,
    sid: Sid,
    mode: TlsMode,
    acceptors: Arc<Acceptors>,
) {
    let begun = match socket.tls() {
        Some(tls) => begin(&shard, tls, sid, mode, &acceptors).await,
        None => Ok(()),
    };
    if let Err(Some(reason)) = begun {
        shard.react(Fault::Client(sid, reason));
    }
    let receiver = TlsReceiver {
        client: ClientReceiver { shard: &shard, sid },
        socket: &socket,
    };
    // It reads to the end of a closed connection too: the client gets the alert before the end.
    let end = drive::read(&socket, &shard.core.read_buffer, receiver).await;
    let has_failed = begun.is_ok() && socket.tls().is_some_and(TlsStream::has_failed);
    let reason = if has_failed {
        CloseReason::Tls
    } else {
        reason_of(&end)
    };
    connection::end(&shard, sid, reason);
}

/// Acts on the bytes of one client, which come in records.
struct TlsReceiver<'a> {
    client: ClientReceiver<'a>,
    socket: &'a Socket,
}

impl Receiver for TlsReceiver<'_> {
    /// A record with a part of a message costs as much as one with the whole of it, so records count where they are more.
    fn finished(&self, units: usize, bytes: usize, rest: &[u8]) -> Option<Pause> {
        let units = units.max(self.socket.take_records());
        self.client.finished(units, bytes, rest)
    }

    fn waits(&self, bytes: usize) {
        self.client.waits(bytes);
    }

    fn is_memory_short(&self) -> bool {
        self.client.is_memory_short()
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        self.client.receive(input)
    }
}

async fn begin(
    shard: &Rc<Shard>,
    tls: &TlsStream,
    sid: Sid,
    mode: TlsMode,
    acceptors: &Acceptors,
) -> Result<(), Ended> {
    let (core, clients) = (&shard.core, &shard.clients);
    while clients.transport(sid) == Some(Transport::Proxied) {
        receive(tls).await?;
        tls.take_kept(|bytes| {
            let used = connection::receive(shard, sid, bytes);
            (used.unwrap_or(0), ())
        });
    }
    clients.expect_tls(core, sid);
    let first = loop {
        match tls.take_kept(|bytes| (0, bytes.first().copied())) {
            Some(first) => break first,
            None => receive(tls).await?,
        }
    };
    match (first == HANDSHAKE_RECORD, mode) {
        (true, _) => shake_hands(shard, tls, sid, acceptors).await?,
        (false, TlsMode::Required) => return Err(Some(CloseReason::PlainOnTls)),
        (false, _) => {}
    }
    if !clients.is_open(sid) {
        return Err(None);
    }
    clients.expect_first_byte(core, sid);
    Ok(())
}

/// Waits for bytes; the reason to end where none follow.
async fn receive(tls: &TlsStream) -> Result<(), Ended> {
    match poll_fn(|cx| tls.poll_receive(cx)).await {
        Ok(0) => Err(Some(CloseReason::Left)),
        Ok(_) => Ok(()),
        Err(_) => Err(Some(CloseReason::Socket)),
    }
}

async fn shake_hands(
    shard: &Rc<Shard>,
    tls: &TlsStream,
    sid: Sid,
    acceptors: &Acceptors,
) -> Result<(), Ended> {
    let (core, clients) = (&shard.core, &shard.clients);
    tls.begin(acceptors.for_client())
        .map_err(|_| Some(CloseReason::Tls))?;
    loop {
        wait_for_a_turn(core).await;
        if !clients.is_open(sid) {
            return Err(None);
        }
        match tls.shake_hands() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                core.counters().add(Counter::TlsFailed, 1);
                let address = clients.address_for_log(sid);
                tracing::debug!(session = %sid, address, %error, "a TLS handshake failed");
                return Err(Some(CloseReason::Tls));
            }
            Err(_) => return Err(Some(CloseReason::Socket)),
        }
        let sent = poll_fn(|cx| tls.poll_send(cx)).await;
        sent.map_err(|_| Some(CloseReason::Socket))?;
        receive(tls).await?;
    }
    core.counters().add(Counter::TlsHandshakes, 1);
    if tls.is_resumed() {
        core.counters().add(Counter::TlsResumed, 1);
    }
    Ok(())
}

/// Waits until the handshakes of this turn have left time for another one.
async fn wait_for_a_turn(core: &Core) {
    while clock::now().saturating_duration_since(core.looked.get()) > HANDSHAKE_TURN_MAX {
        clock::yield_to_reactor().await;
    }
}

impl Clients {
    /// Begins the time of the TLS handshake, where the connection is still open.
    fn expect_tls(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| connection.expect(Transport::Tls));
        self.begin(core, sid);
    }

    /// Begins the time of the first byte of the client's protocol.
    fn expect_first_byte(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| connection.expect(Transport::Undecided));
        self.begin(core, sid);
    }
}
