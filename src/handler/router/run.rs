//! The way of one message through the filters and its handler.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;

use super::Router;
use crate::error::Panic;
use crate::handler::filter::{After, Before, Filters, OnError, Step};
use crate::handler::{Answer, Failure, Incoming, Outcome, log_line, outcome, reply};
use crate::route::Target;

impl Router {
    /// Runs one message through all filters and answers it. `forward` makes the call to a backend.
    pub(crate) async fn handle(
        self: Rc<Self>,
        incoming: Rc<Incoming>,
        target: Target,
        forward: impl AsyncFnOnce(Rc<Incoming>) -> Outcome<'static>,
    ) {
        let filters = &self.filters;
        let outcome = match run_before(&filters.global_before, &incoming).await {
            Err(stopped) => on_error(&filters.global_error_handler, stopped, &incoming).await,
            Ok(()) => match target {
                Target::Local(_) | Target::NoHandler => local(&self, &incoming, target).await,
                _ => forward(incoming.clone()).await,
            },
        };
        if filters.global_after.is_empty() {
            return incoming.answer(outcome);
        }
        let error = outcome.error.clone();
        let response = reply::with_code(incoming.id, &outcome);
        incoming.answer(outcome);
        run_after(&filters.global_after, error, &incoming, response.as_deref()).await;
    }
}

async fn local(router: &Router, incoming: &Rc<Incoming>, target: Target) -> Outcome<'static> {
    let groups = match target {
        Target::Local(index) => router.filters_of(index),
        _ => &[],
    };
    let inner = within(groups, router, incoming, target);
    around(&router.filters, incoming, inner).await
}

/// Runs the handler inside the filters of its groups.
fn within<'a>(
    groups: &'a [Rc<Filters>],
    router: &'a Router,
    incoming: &'a Rc<Incoming>,
    target: Target,
) -> Pin<Box<dyn Future<Output = Outcome<'static>> + 'a>> {
    Box::pin(async move {
        match (groups.split_first(), target) {
            (Some((outer, inner)), _) => {
                around(outer, incoming, within(inner, router, incoming, target)).await
            }
            (None, Target::Local(index)) => run_handler(router, index, incoming).await,
            (None, _) => Outcome::error(format!("fail to find handler for {}", incoming.route)),
        }
    })
}

async fn around(
    filters: &Filters,
    incoming: &Rc<Incoming>,
    inner: impl Future<Output = Outcome<'static>>,
) -> Outcome<'static> {
    let outcome = match run_before(&filters.before, incoming).await {
        Err(stopped) => stopped,
        Ok(()) => inner.await,
    };
    let mut outcome = on_error(&filters.error_handler, outcome, incoming).await;
    let error = outcome.error.take();
    outcome.error = run_after(&filters.after, error, incoming, outcome.response.as_deref()).await;
    outcome
}

async fn run_handler(router: &Router, index: usize, incoming: &Rc<Incoming>) -> Outcome<'static> {
    let clock = incoming.session.context();
    let began = router.filters.forward_log.then(|| clock.now());
    let answered = caught(incoming, "handler", || {
        match router.call(index, &incoming.request()) {
            Answer::Now(outcome) => Step::Ready(outcome.into_owned()),
            Answer::Later(future) => Step::Later(future),
        }
    });
    let outcome = answered.await.unwrap_or_else(Outcome::failed);
    if let Some(began) = began {
        log_line::forward(incoming, began);
    }
    outcome
}

async fn run_before(filters: &[Before], incoming: &Rc<Incoming>) -> Result<(), Outcome<'static>> {
    for filter in filters {
        let passed = caught(incoming, "before filter", || filter(incoming)).await;
        passed.unwrap_or_else(|failure| Err(Outcome::failed(failure)))?;
    }
    Ok(())
}

async fn run_after(
    filters: &[After],
    mut error: Option<Failure>,
    incoming: &Rc<Incoming>,
    response: Option<&[u8]>,
) -> Option<Failure> {
    for filter in filters.iter().rev() {
        let seen = caught(incoming, "after filter", || {
            filter(error, incoming, response)
        });
        error = seen.await.unwrap_or_else(Some);
    }
    error
}

/// Passes an outcome without an error unchanged.
async fn on_error(
    handler: &Option<OnError>,
    outcome: Outcome<'static>,
    incoming: &Rc<Incoming>,
) -> Outcome<'static> {
    let Some(handler) = handler.as_ref().filter(|_| outcome.error.is_some()) else {
        return outcome;
    };
    let replaced = caught(incoming, "error handler", || {
        handler(outcome.clone(), incoming)
    });
    replaced.await.unwrap_or(outcome)
}

/// Runs one step of the application. A panic is counted, logged and turned into an error.
async fn caught<T>(
    incoming: &Incoming,
    what: &'static str,
    step: impl FnOnce() -> Step<T>,
) -> Result<T, Failure> {
    let result = match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Step::Ready(value)) => Ok(value),
        Ok(Step::Later(future)) => outcome::caught(future).await,
        Err(panic) => Err(panic),
    };
    result.map_err(|_| {
        let session = &incoming.session;
        session.context().clone().panicked(
            Panic::of(&format!("a {what}"))
                .with_name(&incoming.route)
                .with_session(session.id()),
        );
        Failure::new(format!("the {what} panicked"))
    })
}
