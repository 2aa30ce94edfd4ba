//! Remotes: functions that other servers can call.

use std::future::Future;
use std::rc::Rc;

use serde_json::Value;

use super::Router;
use crate::dialect::Dialect;
use crate::handler::{App, Cluster, Failure, LocalFuture, ShardContext, remote_parts};

/// A call of another server.
pub struct RemoteCall {
    args: Vec<Value>,
    context: Rc<dyn ShardContext>,
}

impl RemoteCall {
    /// Creates a call with these arguments.
    pub(crate) fn new(args: Vec<Value>, context: Rc<dyn ShardContext>) -> Self {
        Self { args, context }
    }

    /// Returns all arguments, without the callback of JavaScript.
    pub fn args(&self) -> &[Value] {
        &self.args
    }

    /// Returns one argument, or `null` if the caller gave none.
    pub fn arg(&self, index: usize) -> &Value {
        self.args.get(index).unwrap_or(&Value::Null)
    }

    /// Returns the other servers, for calls that belong to no session.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.context.clone())
    }

    /// Returns this server.
    pub fn app(&self) -> App {
        App::new(self.context.clone())
    }
}

/// An answer of a remote: `()`, one JSON value, several as [`Results`], or a [`Result`] of these with
/// an error that is or becomes a [`Failure`].
#[diagnostic::on_unimplemented(
    message = "a remote cannot answer with `{Self}`",
    note = "a remote answers `()`, a `serde_json::Value`, `Results`, or a `Result` of these whose \
            error is a `Failure` or converts into one"
)]
pub trait IntoResults {
    /// Returns the values for the callback of the caller, or the error.
    fn into_results(self) -> Result<Vec<Value>, Failure>;
}

/// Several results. A Pomelo caller gets each as an argument of its callback, a Pinus caller only the
/// first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results(pub Vec<Value>);

impl IntoResults for () {
    fn into_results(self) -> Result<Vec<Value>, Failure> {
        Ok(Vec::new())
    }
}

impl IntoResults for Value {
    fn into_results(self) -> Result<Vec<Value>, Failure> {
        Ok(vec![self])
    }
}

impl IntoResults for Results {
    fn into_results(self) -> Result<Vec<Value>, Failure> {
        Ok(self.0)
    }
}

impl<T: IntoResults, E: Into<Failure>> IntoResults for Result<T, E> {
    fn into_results(self) -> Result<Vec<Value>, Failure> {
        self.map_err(Into::into)?.into_results()
    }
}

type Remote = Box<dyn Fn(RemoteCall) -> LocalFuture<Result<Vec<Value>, Failure>>>;

/// A remote and its name.
pub(super) struct Named {
    name: Box<str>,
    remote: Remote,
}

impl Named {
    pub(super) fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let parts = remote_parts(name)
            .ok_or_else(|| format!("remote {name:?} is not of the form service.method"));
        parts.map(drop)
    }
}

impl Router {
    /// Adds a remote in the form `service.method` for calls of other servers. A backend calls
    /// `infoRemote.who` as `app.rpc.<own type>.infoRemote.who(session, …args, cb)`. A second remote
    /// with the same name replaces the first.
    ///
    /// ```
    /// use serde_json::json;
    /// use tangelo::handler::{Failure, RemoteCall, Router};
    ///
    /// let router = Router::new().remote("infoRemote.who", async |call: RemoteCall| {
    ///     match call.arg(0).as_str() {
    ///         Some(name) => Ok(json!({ "name": name, "by": call.app().server_id() })),
    ///         None => Err(Failure::new("who?")),
    ///     }
    /// });
    /// # drop(router);
    /// ```
    ///
    /// Remotes run on shard 0, where the calls of other servers arrive, regardless of the shard of a
    /// session. Remotes in the routers of other shards are never called. Calls that wait run
    /// concurrently, and answers leave in the order in which they are ready.
    ///
    /// Bounds: `rpc.calls_in_flight_max` calls in progress per link of a peer; one more gets an error
    /// at once (`peer_calls_refused`). A call that is not answered within `rpc.timeout`, when its
    /// caller has given up, ends with an error (`remote_timeouts`). A call also ends with an error if
    /// the remote panics (`handler_panics`) or its results exceed 32 MiB of JSON. `rpc.allow` says
    /// which servers may call.
    ///
    /// Backends build their stubs, `app.rpc.<type>`, from JavaScript: Pomelo from
    /// `app/servers/<type>/remote/` in its own project, Pinus from the folders that this server
    /// announces, `cluster.remoter_paths`. Functions with the right names are enough.
    ///
    /// A name of another form is an error at start.
    #[must_use]
    pub fn remote<F, T>(mut self, remote: &str, f: impl Fn(RemoteCall) -> F + 'static) -> Self
    where
        F: Future<Output = T> + 'static,
        T: IntoResults,
    {
        self.named(Named {
            name: remote.into(),
            remote: Box::new(move |call| {
                let answer = f(call);
                Box::pin(async move { answer.await.into_results() })
            }),
        });
        self
    }

    pub(super) fn named(&mut self, remote: Named) {
        self.remotes.retain(|known| known.name != remote.name);
        self.remotes.push(remote);
    }

    /// Returns the index of the remote that a call names, or the error of a genuine server.
    pub(crate) fn find_remote(
        &self,
        service: &str,
        method: &str,
        dialect: Dialect,
    ) -> Result<usize, String> {
        if self.remotes.is_empty() && !dialect.always_has_user_namespace() {
            return Err("no such namespace:user".to_owned());
        }
        let named = (0..).zip(&self.remotes);
        let named = named.filter_map(|(index, named)| Some((index, remote_parts(&named.name)?)));
        let of_service = named.filter(|(_, named)| named.0 == service);
        let mut of_service = of_service.peekable();
        if of_service.peek().is_none() {
            return Err(format!("no such service:{service}"));
        }
        let found = of_service.find(|(_, named)| named.1 == method);
        let (index, _) = found.ok_or_else(|| format!("no such method:{method}"))?;
        Ok(index)
    }

    /// Returns the names of all remotes, in index order.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = &str> {
        self.remotes.iter().map(|named| &*named.name)
    }

    /// Calls the remote at an index.
    pub(crate) fn call_remote(
        &self,
        index: usize,
        call: RemoteCall,
    ) -> LocalFuture<Result<Vec<Value>, Failure>> {
        (self.remotes[index].remote)(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::handler::HandlerRules;

    #[test]
    fn a_call_of_an_unknown_remote_gets_the_error_of_the_reference() {
        let none = Router::new();
        let some = Router::new().remote("infoRemote.who", async |_| {});
        for (router, dialect, service, method, text) in [
            (&none, Dialect::Pomelo, "a", "b", "no such namespace:user"),
            (&none, Dialect::Pinus, "a", "b", "no such service:a"),
            (&some, Dialect::Pomelo, "a", "b", "no such service:a"),
            (&some, Dialect::Pinus, "a", "who", "no such service:a"),
            (
                &some,
                Dialect::Pomelo,
                "infoRemote",
                "b",
                "no such method:b",
            ),
            (&some, Dialect::Pinus, "infoRemote", "b", "no such method:b"),
        ] {
            let found = router.find_remote(service, method, dialect);
            assert_eq!(found, Err(text.to_owned()));
        }
        let found = some.find_remote("infoRemote", "who", Dialect::Pomelo);
        assert_eq!(found, Ok(0));
    }

    #[test]
    fn a_name_that_is_not_two_parts_is_found_at_start() {
        for name in ["", "who", "infoRemote.", ".who", "a.b.c"] {
            let router = Router::new().remote(name, async |_| {});
            let ready = router.ready(&Config::default(), &HandlerRules::default(), |_| {
                (false, false)
            });
            assert_eq!(
                ready.err(),
                Some(format!("remote {name:?} is not of the form service.method"))
            );
        }
    }
}
