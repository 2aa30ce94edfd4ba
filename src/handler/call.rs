//! Calls of remotes that other servers of the cluster have.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;

use super::filter::Slot;
use super::{LocalFuture, Session, ShardContext};
use crate::config::Server;
use crate::wire::json;

/// What a call comes to: what the remote gave to its callback behind the error, in order. That is
/// nothing, one value, or with Pomelo several; a Pinus remote that returns nothing gives one `null`.
pub type CallResult = Result<Vec<Value>, CallError>;

/// A call on its way, unless it could not be sent.
pub(crate) type Sent = Result<Rc<Slot<CallResult>>, CallError>;

/// The other servers of the cluster. Pomelo: `app.rpc`.
#[derive(Clone)]
pub struct Cluster {
    context: Rc<dyn ShardContext>,
    /// Whose calls they are: decides where they go.
    session: Option<Session>,
}

impl Session {
    /// The other servers. Calls go where messages of this session would go, and count among its
    /// messages in flight; they work after it has closed too.
    ///
    /// ```
    /// use serde_json::json;
    /// use tangelo::handler::{Answer, Outcome, Router};
    ///
    /// let router = Router::new().raw_route("connector.mathHandler.add", |request| {
    ///     let cluster = request.session.cluster();
    ///     Answer::later(async move {
    ///         let call = cluster.call("chat", "chatRemote.add", &[json!(1), json!(2)]);
    ///         match call.await {
    ///             Ok(sum) => Outcome::value(&json!({ "sum": sum })),
    ///             Err(error) => Outcome::failed(error.into()),
    ///         }
    ///     })
    /// });
    /// # drop(router);
    /// ```
    pub fn cluster(&self) -> Cluster {
        Cluster {
            context: self.context().clone(),
            session: Some(self.clone()),
        }
    }
}

impl Cluster {
    /// For calls that belong to no session: they go where those of a session without uid and values
    /// go.
    pub(crate) fn new(context: Rc<dyn ShardContext>) -> Self {
        Self {
            context,
            session: None,
        }
    }

    /// A call of `remote`, which is `service.method`, at one server of a type: the one that the
    /// routing of messages (`route.<type>`) chooses for the session, unless [`Call::to_server`] or
    /// [`Call::to_all`] say otherwise. Pomelo: `app.rpc.chat.chatRemote.add(session, …args, cb)`.
    ///
    /// Awaited, it is the first result, `null` when there is none; [`Call::results`] has them all.
    /// Nothing is sent before it is awaited or [`Call::notify`] is called.
    ///
    /// Bounds: `rpc.calls_in_flight_max` to one server, `client.calls_in_flight_max` of the session,
    /// 32 MiB of arguments; one more is [`CallError::NotSent`]. Cost: the arguments are written as
    /// JSON here, once; a boxed future.
    pub fn call(&self, server_type: &str, remote: &str, args: &[Value]) -> Call {
        let mut text = vec![b'['];
        for (index, arg) in args.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            json::write_value(&mut text, arg);
        }
        text.push(b']');
        Call {
            cluster: self.clone(),
            server_type: server_type.into(),
            remote: remote.into(),
            args: text,
            server: None,
            timeout: None,
        }
    }

    /// The servers of a type that are known now, in the order that routing counts them. Pomelo:
    /// `app.getServersByType`.
    pub fn servers(&self, server_type: &str) -> Vec<Server> {
        self.context.servers(server_type).unwrap_or_default()
    }
}

/// A call that is about to be made.
#[must_use = "a call is made when it is awaited, or by `notify`"]
#[derive(Clone)]
pub struct Call {
    cluster: Cluster,
    server_type: Box<str>,
    remote: Box<str>,
    args: Vec<u8>,
    server: Option<Box<str>>,
    timeout: Option<Duration>,
}

impl Call {
    /// At the server with this id, whatever routing says. Pomelo: `toServer(id, …)`.
    ///
    /// Unlike there: a server that is not known, or is of another type, is an error at once.
    pub fn to_server(mut self, id: &str) -> Self {
        self.server = Some(id.into());
        self
    }

    /// At each server of the type. Pomelo: `toServer('*', …)`.
    pub fn to_all(self) -> CallToAll {
        CallToAll(self)
    }

    /// Waits this long for the answer in place of `rpc.timeout`; up to 10 min, looked at every 50 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the call: all its results.
    pub async fn results(self) -> CallResult {
        self.send(self.server.as_deref())?.take().await
    }

    /// Makes the call, now, and waits for nothing; what it comes to is dropped.
    pub fn notify(self) -> Result<(), CallError> {
        self.send(self.server.as_deref()).map(drop)
    }

    fn send(&self, server: Option<&str>) -> Sent {
        let (service, method) = remote_parts(&self.remote).ok_or_else(|| {
            CallError::NotSent(
                format!("remote {:?} is not of the form service.method", self.remote).into(),
            )
        })?;
        self.cluster.context.clone().call(&Invocation {
            server_type: &self.server_type,
            server,
            service,
            method,
            args: &self.args,
            timeout: self.timeout,
            session: self.cluster.session.as_ref(),
        })
    }
}

impl IntoFuture for Call {
    type Output = Result<Value, CallError>;
    type IntoFuture = LocalFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.results().await.map(first) })
    }
}

/// A call at each server of a type, which is about to be made.
///
/// Awaited, it is the first result of each server, in their order; or the error that came first,
/// while the other servers may well do their part. A type of which all servers have left gives no
/// results; one that never had a server is an error. Unlike Pomelo, which drops the results, and
/// answers nothing for such a type.
#[must_use = "a call is made when it is awaited, or by `notify`"]
#[derive(Clone)]
pub struct CallToAll(Call);

impl CallToAll {
    /// Makes the calls, now, and waits for nothing; the error is the first that could not be sent.
    pub fn notify(self) -> Result<(), CallError> {
        let sent: Vec<_> = self.send()?;
        sent.into_iter().try_for_each(|sent| sent.map(drop))
    }

    fn send(&self) -> Result<Vec<Sent>, CallError> {
        let Self(call) = self;
        let servers = call.cluster.context.servers(&call.server_type);
        let servers = servers.ok_or(CallError::NotSent(Cow::Borrowed(NO_SERVER)))?;
        let send = |server: &Server| call.send(Some(&server.id));
        Ok(servers.iter().map(send).collect())
    }

    async fn all(self) -> CallResult {
        let sent: Vec<_> = self.send()?;
        let mut waiting = Vec::with_capacity(sent.len());
        for sent in sent {
            let slot = sent?;
            waiting.push(Box::pin(async move { slot.take().await }));
        }
        let mut results: Vec<Option<Value>> = vec![None; waiting.len()];
        poll_fn(|cx| {
            for (result, waiting) in results.iter_mut().zip(&mut waiting) {
                if result.is_none()
                    && let Poll::Ready(came) = waiting.as_mut().poll(cx)
                {
                    match came {
                        Ok(came) => *result = Some(first(came)),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
            if results.iter().any(Option::is_none) {
                return Poll::Pending;
            }
            Poll::Ready(Ok(results.drain(..).flatten().collect()))
        })
        .await
    }
}

impl IntoFuture for CallToAll {
    type Output = Result<Vec<Value>, CallError>;
    type IntoFuture = LocalFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.all())
    }
}

/// Said of a type without servers.
pub(crate) const NO_SERVER: &str = "no server of this type";

/// A call as the shard takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invocation<'a> {
    /// Type of the server.
    pub server_type: &'a str,
    /// Its id; `None` leaves it to routing.
    pub server: Option<&'a str>,
    /// Name of the remote.
    pub service: &'a str,
    /// Method of the remote.
    pub method: &'a str,
    /// JSON text of the array of arguments.
    pub args: &'a [u8],
    /// In place of `rpc.timeout`.
    pub timeout: Option<Duration>,
    /// Whose call it is.
    pub session: Option<&'a Session>,
}

/// Why a call has no result. As a [`Failure`](super::Failure), for `?` in a handler, it is its text.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// Nothing was sent: no such server, no link to it, or too many calls. It can be made again.
    NotSent(Cow<'static, str>),
    /// No answer: the deadline passed, the link ended, or the answer cannot be read. The remote may
    /// have run, but it will not run later.
    Lost(Cow<'static, str>),
    /// The remote's error: a string is one, an `Error` of JavaScript is `{"stack":…}`, with Pinus
    /// beside its own properties such as `code`.
    ///
    /// Some remotes leave the error out, `cb(users)` where `cb(null, users)` is meant. Then what they
    /// answer is here, as what it is: anything but null, false, 0 and `""`, which look like success
    /// with no result. `examples/pomelo_chat.rs` takes both.
    Remote(Value),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(text) | Self::Lost(text) => f.write_str(text),
            Self::Remote(Value::String(text)) => f.write_str(text),
            Self::Remote(error) => match error.get("stack") {
                Some(Value::String(stack)) => f.write_str(stack.lines().next().unwrap_or_default()),
                _ => error.fmt(f),
            },
        }
    }
}

impl Error for CallError {}

/// The parts of `service.method`, both not empty.
pub(crate) fn remote_parts(remote: &str) -> Option<(&str, &str)> {
    let (service, method) = remote.split_once('.')?;
    let is_name = |part: &str| !part.is_empty() && !part.contains('.');
    (is_name(service) && is_name(method)).then_some((service, method))
}

fn first(results: Vec<Value>) -> Value {
    results.into_iter().next().unwrap_or_default()
}
