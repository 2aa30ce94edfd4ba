//! TLS handshakes of a shard: of clients, and of other servers that call.
//!
//! A shard gives handshakes only a part of each turn. So a storm of them makes new connections wait, and no other one.
//! They take their steps in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::future;
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
    /// The other side did not do its part within `tls.handshake_timeout`.
    Late,
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

/// Does the whole handshake, while the connection `is_wanted`.
///
/// The other side has `tls.handshake_timeout` for its part. A wait for the turn of this handshake does not count.
pub(super) async fn shake_hands(
    core: &Core,
    line: &HandshakeLine,
    tls: &TlsSocket,
    settings: Arc<ServerConfig>,
    is_wanted: impl Fn() -> bool,
) -> Result<(), HandshakeFault> {
    tls.begin(settings).map_err(HandshakeFault::Tls)?;
    let mut time_left = core.config.tls.handshake_timeout;
    let mut is_first_step = true;
    loop {
        let has_waited = wait_for_a_turn(core, line).await;
        if has_waited && is_first_step {
            look_for_the_end(tls).await?;
        }
        is_first_step = false;
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
        let part_of_the_other_side = async {
            let sent = poll_fn(|cx| tls.poll_send(cx)).await;
            sent.map_err(|_| HandshakeFault::Socket)?;
            match is_done {
                true => Ok(()),
                false => receive(tls).await,
            }
        };
        within(core, &mut time_left, part_of_the_other_side).await?;
        if is_done {
            break;
        }
    }
    core.counters().add(Counter::TlsHandshakes, 1);
    if tls.is_old_version() {
        core.counters().add(Counter::Tls12Handshakes, 1);
    }
    if tls.is_resumed() {
        core.counters().add(Counter::TlsResumed, 1);
    }
    Ok(())
}

/// Waits for a part that the other side does, in the time that it has left; `None` is without a limit.
async fn within(
    core: &Core,
    time_left: &mut Option<Duration>,
    part: impl Future<Output = Result<(), HandshakeFault>>,
) -> Result<(), HandshakeFault> {
    let Some(time) = time_left else {
        return part.await;
    };
    let began = core.time.get().now;
    let late = async {
        core.timeout(*time).await;
        Err(HandshakeFault::Late)
    };
    // Bytes that have come count, even where the time is over.
    let done = future::or(part, late).await;
    let taken = core.time.get().now.saturating_duration_since(began);
    *time = time.saturating_sub(taken);
    done
}

/// Waits until the handshakes of this turn have left time for another one; returns whether it had to. A gateway in memory
/// has no turns.
async fn wait_for_a_turn(core: &Core, line: &HandshakeLine) -> bool {
    if !matches!(core.network, Network::Kernel(_)) {
        return false;
    }
    let is_late = || clock::now().saturating_duration_since(core.looked.get()) > HANDSHAKE_TURN_MAX;
    let place = line.line_up();
    let must_wait = !place.is_first() || is_late();
    if must_wait {
        // Only the first one waits for the next turn. If each of thousands did, this would cost more than the handshakes.
        poll_fn(|cx| place.poll_first(cx)).await;
        if is_late() {
            // Once, so that each turn has at least one step, however full it is.
            clock::yield_to_reactor().await;
        }
    }
    must_wait
}

/// Looks whether the other side has left before the first step, which costs most: that would be work for nobody.
async fn look_for_the_end(tls: &TlsSocket) -> Result<(), HandshakeFault> {
    match poll_fn(|cx| Poll::Ready(tls.poll_receive(cx))).await {
        Poll::Ready(Ok(0)) => Err(HandshakeFault::Left),
        Poll::Ready(Err(_)) => Err(HandshakeFault::Socket),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}

/// Handshakes of a shard that wait for their turn, the oldest first.
///
/// Bound: one entry per connection.
#[derive(Debug, Default)]
pub(super) struct HandshakeLine {
    /// Wakers by the number of the place.
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
    next: Cell<u64>,
}

/// A place in the line, until it is dropped.
struct Place<'a> {
    line: &'a HandshakeLine,
    number: u64,
}

impl HandshakeLine {
    fn line_up(&self) -> Place<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        self.waiting.borrow_mut().insert(number, None);
        Place { line: self, number }
    }
}

impl Place<'_> {
    fn is_first(&self) -> bool {
        let waiting = self.line.waiting.borrow();
        waiting.first_key_value().map(|(number, _)| *number) == Some(self.number)
    }

    fn poll_first(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_first() {
            return Poll::Ready(());
        }
        let mut waiting = self.line.waiting.borrow_mut();
        waiting.insert(self.number, Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.borrow_mut();
        waiting.remove(&self.number);
        if let Some(mut first) = waiting.first_entry()
            && let Some(waker) = first.get_mut().take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_take_turns_in_the_order_in_which_they_came() {
        let line = HandshakeLine::default();
        let cx = Context::from_waker(Waker::noop());
        let [first, second, third] = [0; 3].map(|_| line.line_up());
        assert!(first.poll_first(&cx).is_ready());
        assert!(second.poll_first(&cx).is_pending() && third.poll_first(&cx).is_pending());
        // One that leaves from the middle changes nothing for the others.
        drop(second);
        let late = line.line_up();
        assert!(third.poll_first(&cx).is_pending());
        drop(first);
        // A newcomer does not pass one that was woken and has not run yet.
        assert!(late.poll_first(&cx).is_pending());
        assert!(third.poll_first(&cx).is_ready());
        drop(third);
        assert!(late.poll_first(&cx).is_ready());
        drop(late);
        assert!(line.waiting.borrow().is_empty());
    }
}
