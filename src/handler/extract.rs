//! Extractors: the arguments of handlers.

use std::any::{Any, TypeId, type_name};
use std::rc::Rc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{App, ClientAddr, Failure, Outcome, Reply, Request, Session};
use crate::metrics::Counter;
use crate::wire::json;

/// A type that a handler can take as an argument.
///
/// An application can add its own:
///
/// ```
/// use tangelo::handler::{Failure, FromMessage, Needs, Reply, Request};
///
/// /// The uid of a client that has logged in.
/// struct Player(String);
///
/// impl FromMessage for Player {
///     fn from_message(request: &Request<'_>) -> Reply<Self> {
///         let uid = request.session.uid().ok_or(Failure::new("not logged in"))?;
///         Ok(Self(uid.text().to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}` as an argument",
    label = "a handler cannot take this",
    note = "a handler takes `Session`, `State<T>`, `Json<T>`, `Proto<T>`, `Bytes`, `Route`, `ClientAddr`, \
            `Handshake`, `App`, an `Option` or a `Reply` of these, and your own types that \
            implement `FromMessage`",
    note = "the `T` of `Json<T>` and `Proto<T>` implements `serde::Deserialize` and borrows nothing: \
            `#[derive(serde::Deserialize)]`"
)]
pub trait FromMessage: Sized {
    /// Returns the argument, or the error to answer the message with: `{"code":500}`.
    fn from_message(request: &Request<'_>) -> Reply<Self>;

    /// Names the requirements of the argument. The start checks them and fails if one is missing.
    fn needs(_: &mut Needs) {}
}

/// The requirements of the functions of one route.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Types of states and their names.
    pub(super) states: Vec<(TypeId, &'static str)>,
    /// The handshakes of clients.
    pub(super) handshake: bool,
    /// A proto for the messages of clients.
    pub(super) client_proto: bool,
    /// A proto for the responses.
    pub(super) server_proto: bool,
}

impl Needs {
    /// Requires a state of this type, set by [`Router::with_state`](super::Router::with_state).
    pub fn state<T: 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// Requires that the shard keeps the handshakes of clients, for [`Session::handshake`].
    pub fn handshake(&mut self) {
        self.handshake = true;
    }

    pub(super) fn append(&mut self, more: Self) {
        self.states.extend(more.states);
        self.handshake |= more.handshake;
        self.client_proto |= more.client_proto;
        self.server_proto |= more.server_proto;
    }
}

/// The states of a shard, one per type.
#[derive(Default)]
pub struct States(Vec<(TypeId, Box<dyn Any>)>);

impl States {
    pub(super) fn set<T: 'static>(&mut self, state: T) {
        let key = TypeId::of::<T>();
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, Box::new(state)));
    }

    pub(super) fn append(&mut self, more: Self) {
        for (key, state) in more.0 {
            self.0.retain(|(known, _)| *known != key);
            self.0.push((key, state));
        }
    }

    pub(super) fn has(&self, key: TypeId) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    pub(super) fn get<T: Clone + 'static>(&self) -> Option<T> {
        let state = self
            .0
            .iter()
            .find_map(|(_, state)| state.downcast_ref::<T>());
        state.cloned()
    }
}

/// A clone of the state given to [`Router::with_state`](super::Router::with_state). A
/// `State<Rc<Rooms>>` belongs to one core and needs no locks. A `State<Arc<Store>>` belongs to the
/// process, if every shard gets the same `Arc`.
///
/// A missing state is an error at start. Cost: the clone.
#[derive(Debug, Clone, Copy, Default)]
pub struct State<T>(pub T);

impl<T: Clone + 'static> FromMessage for State<T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        let state = request.session.context().states().get();
        let missing = || Failure::new(format!("no state of the type {} is set", type_name::<T>()));
        state.map(Self).ok_or_else(missing)
    }

    fn needs(needs: &mut Needs) {
        needs.state::<T>();
    }
}

/// The body, read as JSON. As the return value, the response, written as JSON.
///
/// A protobuf body is converted to JSON first. As in the reference, a body that does not parse, or is
/// falsy, is `{}`. Unlike the message of a Pomelo handler, it has no `__route__`; take [`Route`] for
/// that.
///
/// If the body does not fit `T`, the handler is not called: the client gets code 500, and the message
/// is counted as `bodies_unfit` and logged at level debug. Take `Reply<Json<T>>` to answer such a
/// message yourself. The same happens to a body over `client.json_bytes_max`, counted as `bodies_too_long`; [`JsonUpTo`]
/// has a limit of its own.
///
/// Cost: the allocations of `T`. As a response: one allocation for the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromMessage for Json<T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        // A short body, and nearly all are, needs no look at the configuration.
        if request.body.len() > JSON_BYTES_SHORT {
            check_length(request, request.session.context().json_bytes_max())?;
        }
        parse(request).map(Self)
    }
}

/// Bodies of up to this length are allowed by each value of `client.json_bytes_max`.
const JSON_BYTES_SHORT: usize = 1 << 10;

/// Like [`Json`] as an argument, for a body of up to `BYTES` bytes of JSON text, whatever `client.json_bytes_max` says.
/// With `client.use_crypto` that limit holds too, because the signature is checked before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonUpTo<const BYTES: usize, T>(pub T);

impl<const BYTES: usize, T: DeserializeOwned> FromMessage for JsonUpTo<BYTES, T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        check_length(request, BYTES)?;
        parse(request).map(Self)
    }
}

fn parse<T: DeserializeOwned>(request: &Request<'_>) -> Reply<T> {
    let body = if json::is_truthy(request.body) {
        request.body
    } else {
        b"{}"
    };
    serde_json::from_slice(body).map_err(|error| unfit(request, &error))
}

fn check_length(request: &Request<'_>, bytes_max: usize) -> Reply<()> {
    let bytes = request.body.len();
    if bytes <= bytes_max {
        return Ok(());
    }
    request.session.context().count(Counter::BodiesTooLong);
    Err(Failure::new(format!(
        "the body of {} has {bytes} bytes of JSON, and its handler takes up to {bytes_max}",
        request.route
    )))
}

#[cold]
fn unfit(request: &Request<'_>, error: &serde_json::Error) -> Failure {
    request.session.context().count(Counter::BodiesUnfit);
    Failure::new(format!(
        "the body of {} does not fit its type: {error}",
        request.route
    ))
}

/// Like [`Json`], for a route with a proto: the argument needs an entry in `clientProtos.json`, the
/// response one in `serverProtos.json`. The start checks this, and that `client.use_protobuf` is on. So
/// the body has the types of its proto.
///
/// A response that does not fit its proto is sent as JSON and counted as `bodies_unencodable`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proto<T>(pub T);

impl<T: DeserializeOwned> FromMessage for Proto<T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Json::from_message(request).map(|Json(value)| Self(value))
    }

    fn needs(needs: &mut Needs) {
        needs.client_proto = true;
    }
}

/// The JSON text of the body. As the return value, the JSON text of the response, which is not checked.
///
/// Cost: one allocation and a copy, because the read buffer belongs to all connections of the shard.
/// [`Router::raw_route`](super::Router::raw_route) gives the text without a copy.
impl FromMessage for Bytes {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(Self::copy_from_slice(request.body))
    }
}

/// The whole route, `connector.entryHandler.enter`. Cost: one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route(pub Box<str>);

impl FromMessage for Route {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(Self(request.route.into()))
    }
}

/// The handshake of the client: `{"sys":{"type":…,"version":…},"user":…}`. The shard keeps it for each
/// session if a route takes this type. A handshake of more than 16 KiB is not kept, and is an error
/// here.
///
/// Cost: a reference. Each session holds the parsed value in memory, and the ledger of `limits.memory` counts it.
#[derive(Debug, Clone)]
pub struct Handshake(pub Rc<Value>);

impl FromMessage for Handshake {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        let kept = request.session.handshake().map(Self);
        kept.ok_or_else(|| Failure::new("the handshake was not kept"))
    }

    fn needs(needs: &mut Needs) {
        needs.handshake();
    }
}

impl FromMessage for Session {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(request.session.clone())
    }
}

impl FromMessage for App {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(request.session.app())
    }
}

/// Cost: two small allocations.
impl FromMessage for ClientAddr {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        let address = request.session.client_address();
        address.ok_or_else(|| Failure::new("the client is gone"))
    }
}

/// `None` if the message has no such argument.
impl<T: FromMessage> FromMessage for Option<T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(T::from_message(request).ok())
    }

    fn needs(needs: &mut Needs) {
        T::needs(needs);
    }
}

/// Gives the handler the error, which it then answers itself.
impl<T: FromMessage> FromMessage for Reply<T> {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        Ok(T::from_message(request))
    }

    fn needs(needs: &mut Needs) {
        T::needs(needs);
    }
}

/// A type that a handler can return.
///
/// | returned | the client of a request gets |
/// | --- | --- |
/// | `Json(value)`, `Proto(value)`, `serde_json::Value`, `Bytes` | the value; where it is falsy, `{}` |
/// | `()` | `{}` |
/// | `Ok(reply)` | what `reply` is |
/// | `Err(failure)` | `{"code":500}`; the text goes to the error handler and the log |
/// | `Err(outcome)` | its response, with `"code":500` unless it has a truthy code |
///
/// A notify is never answered. The error of an application becomes a response if it converts into an
/// [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "a handler cannot return this",
    note = "a handler returns `Json<T>`, `Proto<T>`, `serde_json::Value`, `Bytes`, `()`, `Outcome`, or a `Result` \
            of these whose error is a `Failure`, a `std::error::Error` or converts into an `Outcome`",
    note = "the `T` of `Json<T>` implements `serde::Serialize`: `#[derive(serde::Serialize)]`"
)]
pub trait IntoReply {
    /// Returns the outcome to send.
    fn into_outcome(self) -> Outcome<'static>;

    /// Names the requirements of the response. The start checks them.
    fn needs(_: &mut Needs) {}
}

impl IntoReply for Outcome<'static> {
    fn into_outcome(self) -> Outcome<'static> {
        self
    }
}

impl<T: serde::Serialize> IntoReply for Json<T> {
    fn into_outcome(self) -> Outcome<'static> {
        match serde_json::to_vec(&self.0) {
            Ok(text) => Outcome::json(text),
            Err(error) => {
                Outcome::error(format!("the response cannot be written as JSON: {error}"))
            }
        }
    }
}

impl<T: serde::Serialize> IntoReply for Proto<T> {
    fn into_outcome(self) -> Outcome<'static> {
        Json(self.0).into_outcome()
    }

    fn needs(needs: &mut Needs) {
        needs.server_proto = true;
    }
}

impl IntoReply for Value {
    fn into_outcome(self) -> Outcome<'static> {
        Outcome::value(&self)
    }
}

impl IntoReply for Bytes {
    fn into_outcome(self) -> Outcome<'static> {
        Outcome::json(Vec::from(self))
    }
}

impl IntoReply for () {
    fn into_outcome(self) -> Outcome<'static> {
        Outcome::default()
    }
}

impl<T: IntoReply, E: Into<Outcome<'static>>> IntoReply for Result<T, E> {
    fn into_outcome(self) -> Outcome<'static> {
        self.map_or_else(Into::into, T::into_outcome)
    }

    fn needs(needs: &mut Needs) {
        T::needs(needs);
    }
}
