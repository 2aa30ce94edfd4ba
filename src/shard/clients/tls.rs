//! The begin of a connection on a listener with TLS: the header of a proxy, the choice between TLS and no TLS, the
//! handshake.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::Clients;
use super::connection;
use super::receiver::{ClientReceiver, Taken, reason_of};
use crate::client::transport::Transport;
use crate::config::TlsMode;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::net::drive::{self, End, Pause, Receiver, SLICE_UNITS};
use crate::net::socket::{Socket, TlsSocket};
use crate::shard::tls::{self, HandshakeFault};
use crate::shard::{Core, Shard};
use crate::tls::TlsSettings;

/// First byte of each record of a handshake, as RFC 8446 says. No client without TLS begins with it.
const HANDSHAKE_RECORD: u8 = 22;

/// The reason why a connection does not get to its protocol. `None`: it is closed already, or its read loop sees its end.
type Ended = Option<CloseReason>;

/// Serves a connection of a listener with TLS to its end.
pub(super) async fn serve(
    shard: Rc<Shard>,
    socket: Rc<Socket>,
    sid: Sid,
    mode: TlsMode,
    settings: Arc<TlsSettings>,
) {
    let begun = match socket.tls() {
        Some(tls) => begin(&shard, tls, sid, mode, &settings).await,
        None => Ok(()),
    };
    if let Err(Some(reason)) = begun {
        shard.react(Fault::Client(sid, reason));
    }
    let receiver = TlsReceiver {
        client: ClientReceiver { shard: &shard, sid },
        socket: &socket,
        records: Cell::default(),
    };
    // It reads to the end of a closed connection too: the client gets the alert before the end.
    let end = drive::read(&socket, &shard.core.read_buffer, receiver).await;
    if begun.is_ok() && socket.tls().is_some_and(TlsSocket::has_failed) {
        // Before the last answers are written, which fails too and has another reason.
        shard.react(Fault::Client(sid, CloseReason::Tls));
    }
    connection::end(&shard, sid, reason_of(&end));
}

/// Acts on the bytes of one client, which come in records.
struct TlsReceiver<'a> {
    client: ClientReceiver<'a>,
    socket: &'a Socket,
    /// Records of this read that no unit has stood for.
    records: Cell<usize>,
}

impl Receiver for TlsReceiver<'_> {
    /// A record with a part of a message costs as much as one with the whole of it, so records count where they are more.
    fn finished(&self, units: usize, bytes: usize, rest: &[u8]) -> Option<Pause> {
        let records = self.records.get() + self.socket.take_records();
        // The last call of a read has fewer units than a slice.
        let is_last = units < SLICE_UNITS;
        let left = if is_last {
            0
        } else {
            records.saturating_sub(units)
        };
        self.records.set(left);
        let charged = if is_last { units.max(records) } else { units };
        let taken = Taken {
            units,
            charged,
            bytes,
        };
        // Records may cost more time than their bytes and messages say: they may have none.
        match self.client.finish(taken, rest) {
            None if charged > units => self.client.yield_late(),
            pause => pause,
        }
    }

    fn waits(&self, bytes: usize) {
        self.client.waits(bytes);
    }

    fn turns_before_more(&self) -> Result<u8, End> {
        self.client.turns_before_more()
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        self.client.receive(input)
    }
}

async fn begin(
    shard: &Rc<Shard>,
    tls: &TlsSocket,
    sid: Sid,
    mode: TlsMode,
    settings: &TlsSettings,
) -> Result<(), Ended> {
    let (core, clients) = (&shard.core, &shard.clients);
    while clients.transport(sid) == Some(Transport::Proxied) {
        tls::receive(tls).await.map_err(reason)?;
        tls.take_kept(|bytes| {
            let used = connection::receive(shard, sid, bytes);
            (used.unwrap_or(0), ())
        });
    }
    if !clients.is_open(sid) {
        // The header has the address of a client that is refused.
        return Err(None);
    }
    clients.expect_first_byte(core, sid);
    let first = loop {
        match tls.take_kept(|bytes| (0, bytes.first().copied())) {
            Some(first) => break first,
            None => tls::receive(tls).await.map_err(reason)?,
        }
    };
    match (first == HANDSHAKE_RECORD, mode) {
        (true, _) => {
            clients.expect_tls(core, sid);
            let (settings, is_open) = (settings.for_client(), || clients.is_open(sid));
            let done = tls::shake_hands(core, &clients.handshakes, tls, settings, is_open).await;
            done.map_err(|fault| {
                if let HandshakeFault::Tls(error) = &fault {
                    let address = clients.address_for_log(sid);
                    tracing::info!(session = %sid, address, %error, "a TLS handshake failed");
                }
                reason(fault)
            })?;
        }
        (false, TlsMode::Required) => return Err(Some(CloseReason::PlainOnTls)),
        (false, _) => {}
    }
    if !clients.is_open(sid) {
        return Err(None);
    }
    clients.expect_first_byte(core, sid);
    Ok(())
}

fn reason(fault: HandshakeFault) -> Ended {
    match fault {
        HandshakeFault::Tls(_) => Some(CloseReason::Tls),
        HandshakeFault::Late => Some(CloseReason::TlsTimeout),
        HandshakeFault::Left | HandshakeFault::Socket | HandshakeFault::Unwanted => None,
    }
}

impl Clients {
    /// Stops the time of the first byte: the handshake of TLS has one of its own.
    fn expect_tls(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| connection.expect(Transport::Tls));
        self.begin(core, sid);
    }

    /// Begins the time of the first byte: of TLS, or of the client's protocol behind it.
    fn expect_first_byte(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| connection.expect(Transport::Undecided));
        self.begin(core, sid);
    }
}
