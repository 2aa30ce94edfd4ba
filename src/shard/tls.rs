//! TLS handshakes of a shard: of clients, and of other servers that call.
//!
//! A shard gives handshakes only a part of each turn. So a storm of them makes new connections wait, and no other one.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::{Core, Network};
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::socket::TlsSocket;

/// Time of a turn after which no further handshake takes a step. A step takes up to 0.3 ms, and 1 ms with an RSA key.
const HANDSHAKE_TURN_MAX: Duration = Duration::from_millis(1);

/// The end of a connection in its handshake.
#[derive(Debug)]
pub(super) enum HandshakeFault {
    /// The other side has closed.
    Left,
    /// The socket failed.
    Socket,
    /// Nobody wants the connection any more.
    Unwanted,
    /// TLS failed. The other side has got the alert.
    Tls(io::Error),
}

/// Waits for bytes before TLS or of its handshake.
pub(super) async fn receive(tls: &TlsSocket) -> Result<(), HandshakeFault> {
    match poll_fn(|cx| tls.poll_receive(cx)).await {
        Ok(0) => Err(HandshakeFault::Left),
        Ok(_) => Ok(()),
        Err(_) => Err(HandshakeFault::Socket),
    }
}

/// Does the whole handshake, while the connection `is_wanted`. The first bytes of it must be there.
pub(super) async fn shake_hands(
    core: &Core,
    tls: &TlsSocket,
    settings: Arc<ServerConfig>,
    is_wanted: impl Fn() -> bool,
) -> Result<(), HandshakeFault> {
    tls.begin(settings).map_err(HandshakeFault::Tls)?;
    loop {
        wait_for_a_turn(core).await;
        if !is_wanted() {
            return Err(HandshakeFault::Unwanted);
        }
        let is_done = match tls.shake_hands() {
            Ok(is_done) => is_done,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                core.counters().add(Counter::TlsFailed, 1);
                return Err(HandshakeFault::Tls(error));
            }
            Err(_) => return Err(HandshakeFault::Socket),
        };
        let sent = poll_fn(|cx| tls.poll_send(cx)).await;
        sent.map_err(|_| HandshakeFault::Socket)?;
        if is_done {
            break;
        }
        receive(tls).await?;
    }
    core.counters().add(Counter::TlsHandshakes, 1);
    if tls.is_resumed() {
        core.counters().add(Counter::TlsResumed, 1);
    }
    Ok(())
}

/// Waits until the handshakes of this turn have left time for another one. A gateway in memory has no turns.
async fn wait_for_a_turn(core: &Core) {
    if !matches!(core.network, Network::Kernel(_)) {
        return;
    }
    // The first one looks at the time for those behind it. If each of thousands did, this would cost more than the handshakes.
    let _first = core.first_handshake.acquire_permit(1).await;
    while clock::now().saturating_duration_since(core.looked.get()) > HANDSHAKE_TURN_MAX {
        clock::yield_to_reactor().await;
    }
}
