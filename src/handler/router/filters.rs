//! Filters that an application adds to its router.

use std::rc::Rc;

use super::Router;
use crate::handler::filter::{After, Before, Filters, OnError, Step};
use crate::handler::{Answer, Failure, Handler, Incoming, IntoReply, Outcome};

impl Router {
    /// Adds a filter before the handlers of this router. It takes the same arguments as a handler. If
    /// it returns `()` or `Ok(())`, the message passes; anything else is the answer to the message.
    ///
    /// Filters run in the order in which they were added. Pomelo: `app.before`.
    #[must_use]
    pub fn before<Args, H: Handler<Args>>(mut self, filter: H) -> Self {
        H::needs(&mut self.filters.needs);
        self.filters.before.push(before(filter));
        self
    }

    /// Adds a filter before all messages, also those for other servers. Pomelo: `app.globalBefore`.
    #[must_use]
    pub fn global_before<Args, H: Handler<Args>>(mut self, filter: H) -> Self {
        H::needs(&mut self.filters.needs);
        self.filters.global_before.push(before(filter));
        self
    }

    /// Adds a filter after the handlers of this router. It sees the outcome and returns the error that
    /// the next filter, and in the end the client, sees. It cannot change the response. Pomelo:
    /// `app.after`.
    ///
    /// Filters run in the reverse order. Cost: a copy of the response.
    #[must_use]
    pub fn after(
        mut self,
        filter: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> Option<Failure> + 'static,
    ) -> Self {
        self.filters.after.push(after(filter));
        self
    }

    /// Adds a filter after the response, also for messages of other servers. The next filter sees the
    /// error that it returns. Pomelo: `app.globalAfter`.
    #[must_use]
    pub fn global_after(
        mut self,
        filter: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> Option<Failure> + 'static,
    ) -> Self {
        self.filters.global_after.push(after(filter));
        self
    }

    /// Sets the function that replaces the outcome when a handler or a before filter of this router
    /// fails. Pomelo: `errorHandler`.
    #[must_use]
    pub fn on_error<R: IntoReply>(
        mut self,
        f: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> R + 'static,
    ) -> Self {
        self.filters.error_handler = Some(on_error(f));
        self
    }

    /// Sets the function that replaces the outcome when a global before filter fails. Pomelo:
    /// `globalErrorHandler`.
    #[must_use]
    pub fn on_global_error<R: IntoReply>(
        mut self,
        f: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> R + 'static,
    ) -> Self {
        self.filters.global_error_handler = Some(on_error(f));
        self
    }

    /// Adds built-in filters such as [`filter::serial`](crate::handler::filter::serial).
    #[must_use]
    pub fn filters(mut self, add: impl FnOnce(&mut Filters)) -> Self {
        add(&mut self.filters);
        self
    }
}

/// Turns a handler into a before filter. A reply that is not empty stops the message.
fn before<Args>(filter: impl Handler<Args>) -> Before {
    let passed = |outcome: Outcome<'static>| {
        if outcome.is_nothing() {
            Ok(())
        } else {
            Err(outcome)
        }
    };
    let filter = filter.into_function();
    Box::new(move |incoming| match filter(&incoming.request()) {
        Answer::Now(outcome) => Step::Ready(passed(outcome)),
        Answer::Later(outcome) => Step::Later(Box::pin(async move { passed(outcome.await) })),
    })
}

fn after(
    filter: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> Option<Failure> + 'static,
) -> After {
    let filter = Rc::new(filter);
    Box::new(move |error, incoming, response| {
        let (filter, incoming) = (filter.clone(), incoming.clone());
        let response = response.map(|text| text.to_vec().into());
        let outcome = Outcome { error, response };
        Step::Later(Box::pin(async move { filter(outcome, incoming).await }))
    })
}

fn on_error<R: IntoReply>(
    f: impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> R + 'static,
) -> OnError {
    let f = Rc::new(f);
    Box::new(move |outcome, incoming| {
        let (f, incoming) = (f.clone(), incoming.clone());
        Step::Later(Box::pin(async move {
            f(outcome, incoming).await.into_outcome()
        }))
    })
}
