//! Calls to remotes of other servers in the cluster.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;

use super::{App, LocalFuture, Session, ShardContext, Slot};
use crate::config::Server;
use crate::wire::json;

/// The result of a call: the values that the remote passed to its callback after the error, in order. A
/// Pomelo remote may pass none, one or several values. A Pinus remote that returns nothing gives one
/// `null`.
pub type CallResult = Result<Vec<Value>, CallError>;

/// The pending result of a call, or the reason why the call was not sent.
pub(crate) type Sent = Result<Rc<Slot<CallResult>>, CallError>;

/// The other servers of the cluster. Pomelo: `app.rpc`.
#[derive(Clone)]
pub struct Cluster {
    context: Rc<dyn ShardContext>,
    /// Session that routes the calls.
    session: Option<Session>,
}

impl Session {
    /// Returns the other servers. Calls are routed like messages of this session and count as its
    /// messages in flight. They also work after the session has closed.
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

impl App {
    /// Returns the other servers, for calls that belong to no session. Pomelo: `app.rpc`.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.context().clone())
    }
}

impl Cluster {
    /// Returns the other servers for calls that belong to no session. They are routed like those of a
    /// session without uid and settings.
    pub(crate) fn new(context: Rc<dyn ShardContext>) -> Self {
        Self {
            context,
            session: None,
        }
    }

    /// Prepares a call of `remote`, in the form `service.method`, at one server of a type. The routing
    /// of messages (`route.<type>`) chooses the server for the session, unless [`Call::to_server`] or
    /// [`Call::to_all`] says otherwise. Pomelo: `app.rpc.chat.chatRemote.add(session, …args, cb)`.
    ///
    /// When awaited, the call returns its first result, or `null` if the remote gave none;
    /// [`Call::results`] returns all of them. Nothing is sent until the call is awaited or
    /// [`Call::notify`] is called.
    ///
    /// Bounds: `rpc.calls_in_flight_max` to one server, `client.calls_in_flight_max` of the session, 32
    /// MiB of arguments. A call over a bound is [`CallError::NotSent`]. Cost: one serialization of the
    /// arguments to JSON; a boxed future.
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

    /// Returns the known servers of a type, in the order in which routing counts them. Pomelo:
    /// `app.getServersByType`.
    pub fn servers(&self, server_type: &str) -> Vec<Server> {
        self.context.servers(server_type).unwrap_or_default()
    }
}

/// A call that has not been sent yet.
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
    /// Sends the call to the server with this id and skips routing. Pomelo: `toServer(id, …)`.
    ///
    /// Unlike Pomelo, an unknown server or one of another type is an error at once.
    pub fn to_server(mut self, id: &str) -> Self {
        self.server = Some(id.into());
        self
    }

    /// Sends the call to each server of the type. Pomelo: `toServer('*', …)`.
    pub fn to_all(self) -> CallToAll {
        CallToAll(self)
    }

    /// Sets the time to wait for the answer, in place of `rpc.timeout`: up to 10 min, checked every 50
    /// ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the call and returns all its results.
    pub async fn results(self) -> CallResult {
        self.send(self.server.as_deref())?.take().await
    }

    /// Sends the call now and does not wait; its result is dropped.
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

/// A call to each server of a type that has not been sent yet.
///
/// When awaited, it returns the first result of each server, in the order of the servers. If a server
/// fails, it returns the first error, while other servers may still run the remote. A type whose
/// servers have all left gives no results; a type that never had a server is an error. Pomelo drops the
/// results, and does not answer a call to an unknown type.
#[must_use = "a call is made when it is awaited, or by `notify`"]
#[derive(Clone)]
pub struct CallToAll(Call);

impl CallToAll {
    /// Sends the calls now and does not wait. Returns the error of the first call that could not be
    /// sent.
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

/// The error of a call to a type without servers.
pub(crate) const NO_SERVER: &str = "no server of this type";

/// A call in the form that the shard takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invocation<'a> {
    /// Server type.
    pub server_type: &'a str,
    /// Server id, or `None` for the one that routing chooses.
    pub server: Option<&'a str>,
    /// Service of the remote.
    pub service: &'a str,
    /// Method of the remote.
    pub method: &'a str,
    /// JSON text of the array of arguments.
    pub args: &'a [u8],
    /// Timeout in place of `rpc.timeout`.
    pub timeout: Option<Duration>,
    /// Session that makes the call.
    pub session: Option<&'a Session>,
}

/// The reason why a call has no result. `?` in a handler turns it into a [`Failure`](super::Failure)
/// with its text.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// The call was not sent: no such server, no link to it, or too many calls. The handler may call
    /// again.
    NotSent(Cow<'static, str>),
    /// The answer did not arrive: the deadline passed, the link ended, or the answer cannot be decoded.
    /// The remote may have run, but it will not run later.
    Lost(Cow<'static, str>),
    /// The error of the remote: a string, or for a JavaScript `Error` `{"stack":…}`. Pinus adds the
    /// error's own properties, such as `code`.
    ///
    /// Some remotes leave the error argument out: `cb(users)` where `cb(null, users)` is meant. Their
    /// answer then arrives here, unless it is null, false, 0 or `""`, which look like success without a
    /// result. `examples/pomelo_chat.rs` handles both.
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

/// Splits `service.method` into its two parts, neither of them empty.
pub(crate) fn remote_parts(remote: &str) -> Option<(&str, &str)> {
    let (service, method) = remote.split_once('.')?;
    let is_name = |part: &str| !part.is_empty() && !part.contains('.');
    (is_name(service) && is_name(method)).then_some((service, method))
}

fn first(results: Vec<Value>) -> Value {
    results.into_iter().next().unwrap_or_default()
}
