//! Filters around handlers, and their order.
//!
//! ```text
//! global before ─▶ before ─▶ handler ─▶ error handler, on error ─▶ after ─▶ response ─▶ global after
//!       │             │                        ▲                              ▲
//!       │             └── error ───────────────┘                              │
//!       └── error ─▶ global error handler, if any ────────────────────────────┘
//! ```
//!
//! Before filters run in the order they were added, after filters in the reverse order. Only global
//! filters see a forwarded message.
//!
//! If a filter or handler panics, that is an error of its step; Pomelo stops answering on that
//! connection. The panic of a handler or before filter is handled like any other error. The panic of an
//! after filter is the error that the next one sees. The panic of an error handler leaves the outcome
//! as it was.
//!
//! Built in are [`serial`], [`time`], [`timeout`], [`toobusy`] and [`rate`]. A [`Filter`] has both
//! sides and can keep a value between them.

use std::rc::Rc;

use super::{Failure, Incoming, LocalFuture, Needs, Outcome};
use crate::ids::Sid;

#[cfg(test)]
mod fake;
mod rate;
mod serial;
mod setting;
mod time;
mod timeout;
mod toobusy;

pub use rate::{Rate, rate};
pub use serial::{Serial, serial};
pub(crate) use setting::FilterSettings;
pub use time::{Time, time};
pub use timeout::{Timeout, timeout};
pub use toobusy::{Toobusy, toobusy};

/// A result that is ready or will be.
pub enum Step<T> {
    /// A ready result.
    Ready(T),
    /// A future of the result.
    Later(LocalFuture<T>),
}

/// Stops the message with an outcome, or passes it on.
pub type Before = Box<dyn Fn(&Rc<Incoming>) -> Step<Result<(), Outcome<'static>>>>;
/// Sees the outcome and returns the error that the next filter sees. For a local message the client
/// sees the error of the last filter. A global after filter runs after the response and cannot change
/// it.
pub type After =
    Box<dyn Fn(Option<Failure>, &Rc<Incoming>, Option<&[u8]>) -> Step<Option<Failure>>>;
/// Replaces an outcome with an error.
pub type OnError = Box<dyn Fn(Outcome<'static>, &Rc<Incoming>) -> Step<Outcome<'static>>>;

/// A filter with a before and an after side, added by [`Filters::global_filter`] or
/// [`Filters::filter`].
pub trait Filter: 'static {
    /// Value that the before side gives to the after side of the same message. If the message does not
    /// reach the after side, the mark is dropped with it.
    type Mark: 'static;

    /// Stops a message, or passes it on.
    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<Self::Mark, Outcome<'static>>>;

    /// Sees the error of a message that it passed on, and returns the error that the next filter sees.
    fn after(
        &self,
        _mark: Self::Mark,
        error: Option<Failure>,
        _incoming: &Rc<Incoming>,
    ) -> Option<Failure> {
        error
    }

    /// Drops the state of a closed session.
    fn closed(&self, _sid: Sid) {}
}

/// The filters and error handlers of one shard.
#[derive(Default)]
pub struct Filters {
    /// Before filters of all messages, also forwarded ones.
    pub global_before: Vec<Before>,
    /// After filters of all messages, also forwarded ones. They run after the response.
    pub global_after: Vec<After>,
    /// Before filters of local handlers.
    pub before: Vec<Before>,
    /// After filters of local handlers. They run before the response.
    pub after: Vec<After>,
    /// Handles errors of local handlers and before filters.
    pub error_handler: Option<OnError>,
    /// Handles errors of global before filters.
    pub global_error_handler: Option<OnError>,
    /// Filters that keep state per session.
    closed: Vec<Box<dyn Fn(Sid)>>,
    /// Writes a log line for each message that a local handler has answered (C50).
    pub(super) forward_log: bool,
    /// Requirements of the before filters.
    pub(super) needs: Needs,
}

impl Filters {
    /// Adds both sides of a filter for all messages. Pomelo: `app.globalFilter`.
    pub fn global_filter(&mut self, filter: impl Filter) {
        let (before, after) = self.sides(filter);
        self.global_before.push(before);
        self.global_after.push(after);
    }

    /// Adds both sides of a filter for local messages. Pomelo: `app.filter`.
    pub fn filter(&mut self, filter: impl Filter) {
        let (before, after) = self.sides(filter);
        self.before.push(before);
        self.after.push(after);
    }

    fn sides<F: Filter>(&mut self, filter: F) -> (Before, After) {
        let filter = Rc::new(filter);
        // No other filter of this shard has this address.
        let key = Rc::as_ptr(&filter).addr();
        let (before, after) = (filter.clone(), filter.clone());
        self.closed.push(Box::new(move |sid| filter.closed(sid)));
        let before: Before = Box::new(move |incoming| match before.before(incoming) {
            Step::Ready(passed) => Step::Ready(passed.map(|mark| incoming.put_mark(key, mark))),
            Step::Later(passed) => {
                let incoming = incoming.clone();
                Step::Later(Box::pin(async move {
                    incoming.put_mark(key, passed.await?);
                    Ok(())
                }))
            }
        });
        let after: After = Box::new(move |error, incoming, _| {
            Step::Ready(match incoming.take_mark::<F::Mark>(key) {
                Some(mark) => after.after(mark, error, incoming),
                None => error,
            })
        });
        (before, after)
    }

    /// Appends the filters of `more`, in the order of before filters.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.global_before.append(&mut more.global_before);
        self.global_after.append(&mut more.global_after);
        self.before.append(&mut more.before);
        self.after.append(&mut more.after);
        self.error_handler = more.error_handler.or(self.error_handler.take());
        self.global_error_handler = more
            .global_error_handler
            .or(self.global_error_handler.take());
        self.closed.append(&mut more.closed);
        self.needs.append(more.needs);
    }

    /// Takes over the global filters of a group. Returns the rest, if any, for the routes of the group.
    pub(super) fn absorb(&mut self, mut group: Self) -> Option<Rc<Self>> {
        let own = Self {
            before: std::mem::take(&mut group.before),
            after: std::mem::take(&mut group.after),
            error_handler: group.error_handler.take(),
            needs: group.needs.clone(),
            ..Self::default()
        };
        self.append(group);
        (!own.is_empty()).then(|| Rc::new(own))
    }

    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.error_handler.is_none()
    }

    /// Notifies the filters of a closed session.
    pub(super) fn session_closed(&self, sid: Sid) {
        for closed in &self.closed {
            closed(sid);
        }
    }

    /// Returns true if a filter keeps state per session.
    pub(super) fn wants_close(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Returns true if a local message needs no filter.
    pub fn none_local(&self) -> bool {
        self.none_global() && self.is_empty() && !self.forward_log
    }

    /// Returns true if a forwarded message needs no filter.
    pub fn none_global(&self) -> bool {
        self.global_before.is_empty() && self.global_after.is_empty()
    }
}
