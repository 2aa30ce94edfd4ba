//! A client message, as handlers and filters get it.

use std::any::Any;
use std::cell::{Cell, RefCell};

use bytes::Bytes;

use super::{Outcome, Session};
use crate::metrics::Counter;
use crate::wire::json;

/// One client message, borrowed from the read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type, as on the wire.
    pub kind: u8,
    /// True if the client sent the route as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: &'a str,
    /// Valid JSON text; `{}` if the text of the client did not parse.
    pub body: &'a [u8],
    /// The session as it was when the message arrived.
    pub session: &'a Session,
}

impl Request<'_> {
    /// Returns the body as the message of a Pomelo handler: a falsy body is `{}`, and with Pomelo, but
    /// not Pinus, an object has `__route__`.
    pub fn message(&self) -> serde_json::Value {
        let body = if json::is_truthy(self.body) {
            self.body
        } else {
            b"{}"
        };
        let mut message = json::parse(body).unwrap_or_default();
        if self.session.context().dialect().adds_route_to_message()
            && let serde_json::Value::Object(members) = &mut message
        {
            members.insert("__route__".into(), self.route.into());
        }
        message
    }
}

/// A client message that outlives the read buffer, for filters and asynchronous work.
#[derive(Debug)]
pub struct Incoming {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type, as on the wire.
    pub kind: u8,
    /// True if the client sent the route as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: Box<str>,
    /// Valid JSON text.
    pub body: Bytes,
    /// The session as it was when the message arrived.
    pub session: Session,
    answered: Cell<bool>,
    /// Values that filters keep for this message, by the address of the filter.
    marks: RefCell<Vec<(usize, Box<dyn Any>)>>,
}

impl Incoming {
    /// Copies a request out of the read buffer.
    pub(crate) fn new(request: &Request<'_>) -> Self {
        Self {
            id: request.id,
            kind: request.kind,
            compressed: request.compressed,
            gzip: request.gzip,
            route: request.route.into(),
            body: Bytes::copy_from_slice(request.body),
            session: request.session.clone(),
            answered: Cell::default(),
            marks: RefCell::default(),
        }
    }

    pub(super) fn put_mark(&self, key: usize, mark: impl Any) {
        self.marks.borrow_mut().push((key, Box::new(mark)));
    }

    pub(super) fn take_mark<T: Any>(&self, key: usize) -> Option<T> {
        let mut marks = self.marks.borrow_mut();
        let at = marks.iter().position(|(of, _)| *of == key)?;
        let (_, mark) = marks.swap_remove(at);
        mark.downcast().ok().map(|mark| *mark)
    }

    /// Answers the message now. Only the first answer is sent; a notify gets none.
    pub fn answer(&self, outcome: Outcome<'_>) {
        let context = self.session.context().clone();
        if self.answered.replace(true) {
            context.count(Counter::AnswersRepeated);
        } else {
            context.answer(self, outcome);
        }
    }

    /// Returns true once the message has been answered.
    pub fn is_answered(&self) -> bool {
        self.answered.get()
    }

    /// Returns the message as a request.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            id: self.id,
            kind: self.kind,
            compressed: self.compressed,
            gzip: self.gzip,
            route: &self.route,
            body: &self.body,
            session: &self.session,
        }
    }
}
