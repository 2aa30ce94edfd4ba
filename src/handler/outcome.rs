//! Outcomes of handlers, before anything is sent.

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::thread;

use crate::wire::json;

/// The result of a handler that uses `?`. Its errors are answered with code 500.
pub type Reply<T> = Result<T, Failure>;

/// An error of a handler or filter. Error handlers and logs see its text, the client does not.
///
/// Like `anyhow::Error`, it converts from any [`std::error::Error`] by `?`, and does not implement that
/// trait itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub Cow<'static, str>);

impl Failure {
    /// Creates a failure from a text.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// The outcome of a handler: an error, a response, both, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// An error adds `"code":500` to a response without a code.
    pub error: Option<Failure>,
    /// JSON text; `None` is JavaScript's `undefined`.
    pub response: Option<Cow<'a, [u8]>>,
}

// Each message moves one outcome.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Outcome<'_>>() == 48);

impl<'a> Outcome<'a> {
    /// Creates a response from JSON text.
    pub fn json(text: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            error: None,
            response: Some(text.into()),
        }
    }

    /// Creates a response from a JSON value.
    pub fn value(value: &serde_json::Value) -> Self {
        let mut text = Vec::new();
        json::write_value(&mut text, value);
        Self::json(text)
    }

    /// Creates an error without a response.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::failed(Failure::new(text))
    }

    /// Creates an error without a response from a failure.
    pub fn failed(failure: Failure) -> Self {
        Self {
            error: Some(failure),
            response: None,
        }
    }

    /// Adds an error.
    #[must_use]
    pub fn with_error(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.error = Some(Failure::new(text));
        self
    }

    /// Returns the outcome with its own copy of the response.
    pub fn into_owned(self) -> Outcome<'static> {
        Outcome {
            error: self.error,
            response: self.response.map(|text| Cow::Owned(text.into_owned())),
        }
    }

    /// Returns true if there is neither an error nor a response.
    pub(super) fn is_nothing(&self) -> bool {
        self.error.is_none() && self.response.is_none()
    }
}

impl<F: Into<Failure>> From<F> for Outcome<'static> {
    fn from(failure: F) -> Self {
        Self::failed(failure.into())
    }
}

/// A future that stays on its shard.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Awaits a future of the application. Returns an error if it panics.
pub(super) async fn caught<T>(mut future: LocalFuture<T>) -> thread::Result<T> {
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
    })
    .await
}

/// The result of a function of [`Router::raw_route`](super::Router::raw_route).
pub enum Answer<'a> {
    /// The outcome, which may borrow from the request.
    Now(Outcome<'a>),
    /// A future of the outcome.
    Later(LocalFuture<Outcome<'static>>),
}

impl<'a> Answer<'a> {
    /// Answers later. Cost: one allocation, the boxed future.
    pub fn later(future: impl Future<Output = Outcome<'static>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Answers now.
    pub fn now(outcome: Outcome<'a>) -> Self {
        Self::Now(outcome)
    }
}
