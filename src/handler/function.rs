//! Plain async functions as handlers.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Answer, FromMessage, IntoReply, Needs, Outcome, Request};

/// A handler: an async function, or a closure that returns a future, of up to eight
/// [arguments](FromMessage) that returns a [reply](IntoReply). It need not be `Send`.
///
/// `Args` are the types of its arguments; the compiler finds them.
#[diagnostic::on_unimplemented(
    message = "this is not a handler",
    label = "neither an async function of extractors that returns a reply, nor a closure like that",
    note = "a handler is `async fn(…) -> …` with up to eight arguments out of `Session`, `State<T>`, `Json<T>`, \
            `Proto<T>`, `Bytes`, `Route`, `ClientAddr`, `Handshake`, `App`, an `Option` or a `Reply` of these, and \
            your own types that implement `FromMessage`; it borrows nothing from its caller",
    note = "it returns `Json<T>`, `Proto<T>`, `serde_json::Value`, `Bytes`, `()`, `Outcome`, or a `Result` of these",
    note = "the `T` of `Json<T>` implements `serde::Deserialize` as an argument and `serde::Serialize` as a reply"
)]
pub trait Handler<Args>: 'static {
    /// Returns the function that handles a message. A handler that is ready at the first poll is answered at once.
    fn into_function(self) -> impl Fn(&Request<'_>) -> Answer<'static> + 'static;

    /// Names the requirements of the handler.
    fn needs(needs: &mut Needs);
}

macro_rules! handler {
    ($($arg:ident),*) => {
        #[diagnostic::do_not_recommend]
        impl<F, Fut, $($arg,)*> Handler<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> Fut + 'static,
            Fut: Future<Output: IntoReply> + 'static,
            $($arg: FromMessage + 'static,)*
        {
            #[allow(non_snake_case, unused_variables)]
            fn into_function(self) -> impl Fn(&Request<'_>) -> Answer<'static> + 'static {
                let place = Place::default();
                move |request: &Request<'_>| {
                    $(let $arg = match $arg::from_message(request) {
                        Ok(arg) => arg,
                        Err(failure) => return Answer::Now(Outcome::failed(failure)),
                    };)*
                    place.answer(self($($arg),*))
                }
            }

            #[allow(unused_variables)]
            fn needs(needs: &mut Needs) {
                $($arg::needs(needs);)*
                <Fut::Output as IntoReply>::needs(needs);
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);
handler!(A, B, C, D, E, G, H);
handler!(A, B, C, D, E, G, H, I);

/// The memory of a handler's future. The next call uses it again, because most handlers wait for nothing.
struct Place<F>(Cell<Option<Pin<Box<Option<F>>>>>);

impl<F> Default for Place<F> {
    fn default() -> Self {
        Self(Cell::default())
    }
}

impl<F: Future<Output: IntoReply> + 'static> Place<F> {
    /// Polls once, because most handlers need no task of their own. If it waits, its task polls it again before other
    /// tasks run, and so registers its waker.
    fn answer(&self, future: F) -> Answer<'static> {
        // A handler that is called while it runs gets memory of its own.
        let mut place = self.0.take().unwrap_or_else(|| Box::pin(None));
        place.set(Some(future));
        match poll(place.as_mut(), &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => {
                place.set(None);
                self.0.set(Some(place));
                Answer::Now(reply.into_outcome())
            }
            Poll::Pending => Answer::later(async move {
                let reply = poll_fn(|cx| poll(place.as_mut(), cx)).await;
                reply.into_outcome()
            }),
        }
    }
}

/// Polls the future of a place that is in use.
fn poll<F: Future>(place: Pin<&mut Option<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    place
        .as_pin_mut()
        .map_or(Poll::Pending, |future| future.poll(cx))
}
