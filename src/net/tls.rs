//! TLS over a socket: bytes of the network on one side, bytes of the client's protocol on the other. rustls speaks the
//! protocol.
//!
//! ```text
//!   kernel ──▶ records, in a buffer of the shard ──rustls──▶ plain bytes, in the lent read buffer ──▶ receiver
//!   kernel ◀── records, in a buffer of the shard ◀──rustls── at most 16 KiB of plain bytes ◀── outbox
//! ```
//!
//! Bound: a connection keeps at most one record of each direction: one whose last bytes are missing, and one that the
//!        kernel has not taken whole. A message of the handshake that spans records has the same bound.
//! Cost:  the library copies each body once. Reading copies it once more, into the lent buffer; writing too, where
//!        one record has several parts.
//! **Absent**: certificates and settings, which `crate::tls` has.
//!
//! **Where to start reading**: [`advance`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConfig, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError};
use rustls::{HandshakeKind, ProtocolVersion};

use crate::limits::{
    READ_BUFFER_BYTES, TLS_BYTES_WITHOUT_DATA_MAX, TLS_RECORD_BYTES_MAX, TLS_SESSION_BYTES,
};

/// Most plain bytes of one record, as RFC 8446 says.
const PLAIN_BYTES_MAX: usize = 16 << 10;
/// Bytes in front of each record: its kind, its version, its length.
const RECORD_HEADER: usize = 5;
/// First room for records on their way out: a whole record and what TLS adds to it.
const RECORD_ROOM: usize = PLAIN_BYTES_MAX + 256;
/// First room for a message of the handshake.
const MESSAGE_ROOM: usize = 512;

/// The buffers of a shard for all its TLS connections, each lent for one call.
#[derive(Debug)]
pub struct TlsBuffers {
    incoming: RefCell<Box<[u8]>>,
    plain: RefCell<Vec<u8>>,
    outgoing: RefCell<Vec<u8>>,
    /// Memory of all sessions, and of the records that connections keep.
    held: Cell<usize>,
}

impl TlsBuffers {
    /// Makes the buffers of a shard.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            incoming: RefCell::new(vec![0; READ_BUFFER_BYTES].into()),
            plain: RefCell::new(Vec::with_capacity(PLAIN_BYTES_MAX)),
            outgoing: RefCell::new(vec![0; RECORD_ROOM]),
            held: Cell::default(),
        })
    }

    /// Returns the memory of all sessions, and of the records that connections keep.
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    /// Counts the memory of a connection anew.
    #[inline]
    fn count(&self, state: &mut State) {
        let session = if state.session.is_some() {
            TLS_SESSION_BYTES
        } else {
            0
        };
        let now =
            session + state.incoming.capacity() + state.outgoing.capacity() + state.transcript;
        let before = std::mem::replace(&mut state.held, now);
        self.held.update(|held| held + now - before);
    }
}

/// A socket that carries records. The methods are those of a socket.
pub trait Carrier: fmt::Debug {
    /// Reads available bytes into `buffer`.
    fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Writes the bytes that it takes now; 0 if it takes none.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// The same for bytes in several places.
    fn write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Writes `bytes`, or waits until it takes some.
    fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// A connection that speaks TLS, or may begin to.
pub struct TlsStream<S> {
    inner: S,
    buffers: Rc<TlsBuffers>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// `None` while it is open whether the client speaks TLS, and where it does not.
    ///
    /// Boxed, so that a connection without TLS stays small.
    session: Option<Box<UnbufferedServerConnection>>,
    /// Received bytes that nobody has used: the start of a record, or of what comes before TLS.
    incoming: Vec<u8>,
    /// Records that the kernel has not taken.
    outgoing: Vec<u8>,
    /// Bytes of the handshake. The session keeps them until the handshake ends, where clients may show certificates.
    transcript: usize,
    /// Plain bytes of the record in `outgoing`. The next write reports them when the kernel has the whole record.
    unreported: usize,
    /// The kernel has taken bytes since the last call of `take_progress`.
    has_progress: bool,
    /// The session may have plain bytes that nobody has read.
    is_unread: bool,
    /// Reading returns 0 from now on: the client has sent close_notify, or has made a fault after the handshake.
    has_ended: bool,
    /// TLS has failed: bytes that come now mean nothing.
    has_failed: bool,
    /// close_notify is sent, or was tried, and the session must see no further record.
    is_closed: bool,
    /// Whole records since the last call of `take_records`.
    records: usize,
    /// Bytes of records since the last one with data.
    without_data: usize,
    /// Memory of this connection, as the buffers have counted it.
    held: usize,
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsStream").field(&self.inner).finish()
    }
}

impl<S> Drop for TlsStream<S> {
    fn drop(&mut self) {
        let held = self.state.get_mut().held;
        self.buffers.held.update(|all| all - held);
    }
}

impl<S: Carrier> TlsStream<S> {
    /// Wraps a connected socket that has not begun TLS.
    pub fn new(inner: S, buffers: &Rc<TlsBuffers>) -> Self {
        Self {
            inner,
            buffers: buffers.clone(),
            state: RefCell::default(),
        }
    }

    /// Returns the socket below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the memory of the session, and of the records that it keeps.
    pub(crate) fn held(&self) -> usize {
        self.state.borrow().held
    }

    /// Returns the number of records since the last call.
    pub(super) fn take_records(&self) -> usize {
        std::mem::take(&mut self.state.borrow_mut().records)
    }

    /// Returns whether TLS has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.borrow().has_failed
    }

    // ---- The handshake ----

    /// Waits for bytes, and keeps them. Returns their number; 0 at the end.
    pub fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffers.incoming.borrow_mut();
        let state = &mut *self.state.borrow_mut();
        // One byte more than may be, so that a message that is too long is seen.
        let room = (TLS_RECORD_BYTES_MAX + 1).saturating_sub(state.incoming.len());
        let received = ready!(self.inner.poll_read(cx, &mut buffer[..room.max(1)]))?;
        state.incoming.reserve_exact(received);
        state.incoming.extend_from_slice(&buffer[..received]);
        self.buffers.count(state);
        Poll::Ready(Ok(received))
    }

    /// Shows the bytes that are kept to `f`, which returns how many of them it takes.
    pub(crate) fn take_kept<T>(&self, f: impl FnOnce(&mut [u8]) -> (usize, T)) -> T {
        let mut kept = std::mem::take(&mut self.state.borrow_mut().incoming);
        let (used, result) = f(&mut kept);
        kept.drain(..used);
        self.state.borrow_mut().incoming = kept;
        result
    }

    /// Begins TLS, with the bytes that are kept.
    pub fn begin(&self, config: Arc<ServerConfig>) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        state.session = Some(session.into());
        self.buffers.count(state);
        Ok(())
    }

    /// Takes a step of the handshake with the bytes that are kept. Returns true at its end: then bytes of the client's
    /// protocol may follow.
    ///
    /// Errors: of the socket, or of kind [`io::ErrorKind::InvalidData`] where TLS fails. The alert for the client is sent.
    pub fn shake_hands(&self) -> io::Result<bool> {
        let state = &mut *self.state.borrow_mut();
        let Some(session) = &mut state.session else {
            return Ok(true);
        };
        let step = advance(session, &mut state.incoming, &mut state.outgoing, None);
        let is_done = step.result.is_ok() && !session.is_handshaking();
        state.transcript = match is_done {
            true => 0,
            false => state.transcript + step.used + state.outgoing.len(),
        };
        state.incoming.drain(..step.used);
        if state.incoming.is_empty() {
            state.incoming = Vec::new();
        }
        state.note_end(step.has_ended);
        state.is_unread = is_done;
        let noted = note_failure(state, step.result);
        let sent = state.send(&self.inner);
        self.buffers.count(state);
        noted.and(sent).map(|_| is_done)
    }

    /// Waits until the kernel has all records.
    pub fn poll_send(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        while !state.outgoing.is_empty() {
            let sent = ready!(self.inner.poll_write(cx, &state.outgoing))?;
            state.outgoing.drain(..sent);
            state.has_progress |= sent > 0;
        }
        state.outgoing = Vec::new();
        self.buffers.count(state);
        Poll::Ready(Ok(()))
    }

    /// Returns whether the kernel has taken bytes since the last call, perhaps a part of a record only.
    pub(crate) fn take_progress(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().has_progress)
    }

    /// Returns whether the handshake continued an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        let state = self.state.borrow();
        let session = state.session.as_ref();
        session.and_then(|session| session.handshake_kind()) == Some(HandshakeKind::Resumed)
    }

    /// Returns whether the other side speaks TLS 1.2.
    pub(crate) fn is_old_version(&self) -> bool {
        let state = self.state.borrow();
        let session = state.session.as_ref();
        session.and_then(|session| session.protocol_version()) == Some(ProtocolVersion::TLSv1_2)
    }

    // ---- The client's protocol ----

    /// Reads available bytes into `buffer`, which must have room for half a read buffer, and for a whole one at the
    /// first call; 0 at the end, and where TLS fails. After a handshake that failed, and after [`TlsStream::end_write`], it reads whatever comes, for a receiver
    /// that drops it.
    pub fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        if state.has_ended {
            return Poll::Ready(Ok(0));
        }
        let read = match &state.session {
            Some(_) if !state.has_failed && !state.is_closed => {
                self.poll_records(cx, state, buffer)
            }
            _ if state.incoming.is_empty() => self.inner.poll_read(cx, buffer),
            _ => Poll::Ready(Ok(give(&mut state.incoming, buffer))),
        };
        self.buffers.count(state);
        read
    }

    fn poll_records(
        &self,
        cx: &Context<'_>,
        state: &mut State,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let lent = &mut *self.buffers.incoming.borrow_mut();
        let room = lent.len().min(buffer.len());
        debug_assert!(room >= READ_BUFFER_BYTES / 2, "records may not fit");
        loop {
            let kept = state.incoming.len();
            let received = match std::mem::take(&mut state.is_unread) {
                true => {
                    let room = PLAIN_BYTES_MAX + TLS_RECORD_BYTES_MAX;
                    debug_assert!(buffer.len() >= room, "a record and kept ones may not fit");
                    0
                }
                false => match ready!(self.inner.poll_read(cx, &mut lent[kept..room]))? {
                    0 => return Poll::Ready(Ok(0)),
                    received => received,
                },
            };
            let records = &mut lent[..kept + received];
            records[..kept].copy_from_slice(&state.incoming);
            let bytes = state.receive(records, buffer);
            let sent = state.send(&self.inner);
            if bytes > 0 || state.has_ended || state.has_failed {
                return Poll::Ready(Ok(bytes));
            }
            sent?;
        }
    }

    /// Writes plain bytes as records. Returns the number of those that the kernel has; those of a record that it has in
    /// part count when it has the rest, so the writer must offer them again.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let written = self.write_records(state, slices);
        self.buffers.count(state);
        written
    }

    fn write_records(&self, state: &mut State, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !state.send(&self.inner)? {
            return Ok(0);
        }
        if state.unreported > 0 {
            return Ok(std::mem::take(&mut state.unreported));
        }
        let Some(session) = &mut state.session else {
            return self.inner.write_slices(slices);
        };
        if state.has_failed || state.is_closed {
            // The session remembers places in bytes that are gone.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let copy = &mut *self.buffers.plain.borrow_mut();
        let records = &mut *self.buffers.outgoing.borrow_mut();
        let mut taken = 0;
        loop {
            let plain = next_part(slices, taken, copy);
            if plain.is_empty() {
                return Ok(taken);
            }
            let bytes = encrypt(session, &mut state.incoming, plain, records)?;
            let sent = self.inner.write(&records[..bytes])?;
            if sent < bytes {
                state.outgoing = records[sent..bytes].to_vec();
                state.unreported = plain.len();
                return Ok(taken);
            }
            taken += plain.len();
        }
    }

    /// Writes `bytes`, or waits until the kernel takes some.
    pub fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.state.borrow().session.is_none() {
            return self.inner.poll_write(cx, bytes);
        }
        loop {
            ready!(self.poll_send(cx))?;
            match self.write(&[IoSlice::new(bytes)])? {
                0 if !bytes.is_empty() => {
                    if self.state.borrow().outgoing.is_empty() {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                }
                written => return Poll::Ready(Ok(written)),
            }
        }
    }

    /// Ends both directions. Reading returns 0 from now on: the kernel may still have records, and their bytes must not reach a
    /// receiver as plain ones.
    pub(super) fn end(&self) {
        self.end_write();
        let state = &mut *self.state.borrow_mut();
        state.note_end(true);
        self.buffers.count(state);
    }

    /// Says that no more data follows, as TLS does. Where the kernel has no room now, close_notify is not sent: a FIN follows
    /// at once. The session sees no further record: it takes none after its own end.
    pub fn end_write(&self) {
        let state = &mut *self.state.borrow_mut();
        if std::mem::replace(&mut state.is_closed, true) {
            return;
        }
        let session = state.session.as_mut().filter(|_| !state.has_failed);
        if let Some(session) = session.filter(|session| !session.is_handshaking()) {
            let records = &mut *self.buffers.outgoing.borrow_mut();
            if let Ok(bytes) = encrypt_end(session, &mut state.incoming, records) {
                state.outgoing.extend_from_slice(&records[..bytes]);
            }
        }
        let _ = state.send(&self.inner);
        self.buffers.count(state);
    }
}

impl State {
    /// Decrypts records into `buffer`; returns the number of plain bytes.
    fn receive(&mut self, records: &mut [u8], buffer: &mut [u8]) -> usize {
        let Some(session) = &mut self.session else {
            return 0;
        };
        self.records += whole_records(records);
        let mut plain = Plain { buffer, used: 0 };
        let step = advance(session, records, &mut self.outgoing, Some(&mut plain));
        let bytes = plain.used;
        self.incoming = records[step.used..].to_vec();
        self.note_end(step.has_ended);
        self.without_data += step.used;
        if bytes > 0 {
            self.without_data = 0;
        }
        if note_failure(self, step.result).is_ok() && self.without_data > TLS_BYTES_WITHOUT_DATA_MAX
        {
            self.has_failed = true;
        }
        // Bytes behind a fault must not reach the receiver as plain ones.
        self.has_ended |= self.has_failed;
        bytes
    }

    /// Notes that the client has ended its direction. Bytes behind close_notify are ignored (RFC 8446, 6.1).
    fn note_end(&mut self, has_ended: bool) {
        if has_ended {
            self.has_ended = true;
            self.incoming = Vec::new();
        }
    }

    /// Hands the kernel as many records as it takes; true if it has all of them.
    fn send(&mut self, inner: &impl Carrier) -> io::Result<bool> {
        if self.outgoing.is_empty() {
            return Ok(true);
        }
        let sent = inner.write(&self.outgoing)?;
        self.has_progress |= sent > 0;
        if sent < self.outgoing.len() {
            self.outgoing.drain(..sent);
            return Ok(false);
        }
        self.outgoing = Vec::new();
        Ok(true)
    }
}

/// Notes a failure of TLS, and returns it.
fn note_failure(state: &mut State, result: Result<(), rustls::Error>) -> io::Result<()> {
    let too_long = || invalid("a message of the handshake is longer than a record may be");
    let noted = match result {
        Ok(()) if state.incoming.len() > TLS_RECORD_BYTES_MAX => Err(too_long()),
        result => result.map_err(invalid),
    };
    if noted.is_err() {
        state.has_failed = true;
        state.incoming = Vec::new();
    }
    noted
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Moves bytes to the front of `buffer`; returns their number.
fn give(from: &mut Vec<u8>, buffer: &mut [u8]) -> usize {
    let bytes = from.len().min(buffer.len());
    buffer[..bytes].copy_from_slice(&from[..bytes]);
    from.drain(..bytes);
    if from.is_empty() {
        *from = Vec::new();
    }
    bytes
}

/// Returns the plain bytes of the next record: up to 16 KiB of `slices`, behind the first `at` bytes. `copy` is memory for
/// parts of several slices.
fn next_part<'a>(slices: &'a [IoSlice<'_>], mut at: usize, copy: &'a mut Vec<u8>) -> &'a [u8] {
    copy.clear();
    for (index, slice) in slices.iter().enumerate() {
        if at >= slice.len() {
            at -= slice.len();
            continue;
        }
        let part = &slice[std::mem::take(&mut at)..];
        if copy.is_empty() && (part.len() >= PLAIN_BYTES_MAX || index + 1 == slices.len()) {
            return &part[..part.len().min(PLAIN_BYTES_MAX)];
        }
        let room = PLAIN_BYTES_MAX - copy.len();
        copy.extend_from_slice(&part[..part.len().min(room)]);
    }
    copy
}

/// Returns the number of records that are whole. Those without data count too: each costs a decryption.
fn whole_records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&[_, _, _, high, low]) = bytes.first_chunk() {
        let size = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
        let Some(rest) = bytes.get(size..) else {
            break;
        };
        (count, bytes) = (count + 1, rest);
    }
    count
}

/// The plain bytes of a step.
struct Plain<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

/// The result of handing records to a session.
struct Step {
    /// Bytes of the input that it has used.
    used: usize,
    /// The client has ended its direction.
    has_ended: bool,
    result: Result<(), rustls::Error>,
}

/// Hands records to a session, until it needs more of them or TLS fails. It appends to `outgoing`. Without a place for
/// `plain` bytes it stops in front of them.
///
/// **Invariant**: `input` has all bytes that the session has seen and not used. It remembers places in them.
fn advance(
    session: &mut UnbufferedServerConnection,
    input: &mut [u8],
    outgoing: &mut Vec<u8>,
    mut plain: Option<&mut Plain<'_>>,
) -> Step {
    let mut step = Step {
        used: 0,
        has_ended: false,
        result: Ok(()),
    };
    loop {
        let status = session.process_tls_records(&mut input[step.used..]);
        step.used += status.discard;
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let Some(plain) = &mut plain else {
                    return step;
                };
                while let Some(Ok(record)) = traffic.next_record() {
                    let end = plain.used + record.payload.len();
                    plain.buffer[plain.used..end].copy_from_slice(record.payload);
                    plain.used = end;
                    step.used += record.discard;
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing),
            // They are in `outgoing`.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                step.has_ended = true;
                return step;
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                return step;
            }
            // Early data is off.
            Ok(_) => {
                step.result = Err(rustls::Error::General("a state that is not known".into()));
                return step;
            }
            Err(error) => {
                // All that it has still to say: the alert comes last. Then it must not see the bad record again.
                while session.wants_write()
                    && let Ok(ConnectionState::EncodeTlsData(data)) =
                        session.process_tls_records(&mut input[step.used..]).state
                {
                    encode(data, outgoing);
                }
                step.result = Err(error);
                return step;
            }
        }
    }
}

/// Appends a message of the session to `outgoing`.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    let mut room = MESSAGE_ROOM;
    loop {
        outgoing.resize(start + room, 0);
        match data.encode(&mut outgoing[start..]) {
            Ok(bytes) => return outgoing.truncate(start + bytes),
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return outgoing.truncate(start),
        }
    }
}

/// Encrypts plain bytes into `records`; returns the size of the records. Messages of the session come first.
fn encrypt(
    session: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    plain: &[u8],
    records: &mut Vec<u8>,
) -> io::Result<usize> {
    write_traffic(session, incoming, records, |traffic, records| {
        traffic.encrypt(plain, records)
    })
}

/// Writes the end of the data into `records`; returns its size.
fn encrypt_end(
    session: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    records: &mut Vec<u8>,
) -> io::Result<usize> {
    write_traffic(session, incoming, records, |traffic, records| {
        traffic.queue_close_notify(records)
    })
}

fn write_traffic(
    session: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    records: &mut Vec<u8>,
    write: impl Fn(
        &mut rustls::unbuffered::WriteTraffic<'_, ServerConnectionData>,
        &mut [u8],
    ) -> Result<usize, EncryptError>,
) -> io::Result<usize> {
    let mut start = 0;
    loop {
        // They hold no whole record, so the session uses none of them.
        match session.process_tls_records(incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => loop {
                match write(&mut traffic, &mut records[start..]) {
                    Ok(bytes) => return Ok(start + bytes),
                    Err(EncryptError::InsufficientSize(size)) => {
                        records.resize(start + size.required_size, 0);
                    }
                    Err(EncryptError::EncryptExhausted) => {
                        return Err(invalid("the keys of this session are used up"));
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(data)) => {
                records.truncate(start);
                encode(data, records);
                start = records.len();
                records.resize(start + RECORD_ROOM, 0);
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(_) => return Err(invalid("this session takes no data")),
            Err(error) => return Err(invalid(error)),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "internals"))]
pub mod vectors;
