//! The router: the handlers of routes and the filters around them.

use std::rc::Rc;

use super::filter::Filters;
use super::{Answer, Handler, Needs, Request, States};
use crate::config::Config;

mod crons;
mod events;
mod filters;
mod lifecycle;
mod remotes;
mod rules;
mod run;

use events::Events;
use lifecycle::Lifecycle;
pub use remotes::{IntoResults, RemoteCall, Results};
pub use rules::HandlerRules;

/// The routes, handlers and filters of one shard.
///
/// ```
/// use std::rc::Rc;
///
/// use serde_json::{Value, json};
/// use tangelo::handler::{Failure, Json, Outcome, Reply, Router, Session};
///
/// async fn send(session: Session, Json(line): Json<Value>) -> Reply<()> {
///     session.app().broadcast("onChat", &line)
/// }
///
/// async fn members_only(session: Session) -> Result<(), Outcome<'static>> {
///     match session.uid() {
///         Some(_) => Ok(()),
///         None => Err(Outcome::value(&json!({ "code": 401 }))),
///     }
/// }
///
/// let chat = Router::new().route("send", send).before(members_only);
/// let router = Router::new()
///     .route("entryHandler.ping", async || Json("pong"))
///     .group("chatHandler", chat)
///     .fallback(async || Err::<(), _>(Failure::new("what?")));
/// # drop(router);
/// ```
#[derive(Default)]
pub struct Router {
    /// The index of the fallback is one after the last.
    entries: Vec<Entry>,
    fallback: Option<Entry>,
    /// Filters and error handlers.
    pub(crate) filters: Filters,
    remotes: Vec<remotes::Named>,
    pub(crate) events: Events,
    life: Lifecycle,
    states: States,
}

/// The function of a route.
type HandlerFn = Box<dyn for<'a> Fn(&Request<'a>) -> Answer<'a>>;

struct Entry {
    route: Box<str>,
    call: HandlerFn,
    /// Filters of its groups, from the outermost to the innermost.
    filters: Vec<Rc<Filters>>,
    needs: Needs,
}

/// Name of the fallback in place of a route.
const FALLBACK: &str = "(fallback)";

impl Router {
    /// Creates an empty router.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for `handler.method` of the server's own type, or for
    /// `serverType.handler.method`; this server then serves that type. A second handler for the same
    /// route replaces the first.
    ///
    /// The start checks the handlers: a route of another form, a method named `constructor`, or a
    /// missing requirement of an argument, such as a state. The gateway then ends with an
    /// [`Error::Handlers`](crate::Error::Handlers).
    #[must_use]
    pub fn route<Args>(self, route: &str, handler: impl Handler<Args>) -> Self {
        self.entry(entry(route, handler))
    }

    /// Adds a function of the borrowed [`Request`], which can answer without an allocation:
    ///
    /// ```
    /// use tangelo::handler::{Answer, Outcome, Router};
    ///
    /// let router = Router::new().raw_route("entryHandler.echo", |request| {
    ///     Answer::now(Outcome::json(request.body))
    /// });
    /// # drop(router);
    /// ```
    #[must_use]
    pub fn raw_route<F>(self, route: &str, f: F) -> Self
    where
        F: for<'a> Fn(&Request<'a>) -> Answer<'a> + 'static,
    {
        self.entry(Entry {
            route: route.into(),
            call: Box::new(f),
            filters: Vec::new(),
            needs: Needs::default(),
        })
    }

    fn entry(mut self, entry: Entry) -> Self {
        self.entries.retain(|known| known.route != entry.route);
        self.entries.push(entry);
        self
    }

    /// Sets the handler for messages of a type served here whose route has no handler. Without it the
    /// client gets code 500. It cannot be combined with `delegate`, which sends such messages to
    /// another server.
    #[must_use]
    pub fn fallback<Args>(mut self, handler: impl Handler<Args>) -> Self {
        self.fallback = Some(entry(FALLBACK, handler));
        self
    }

    /// Adds everything of `group`, with `prefix` and a dot in front of its routes: `send` in the group
    /// `chatHandler` is `chatHandler.send`. An empty prefix changes no route.
    ///
    /// The before and after filters and the error handler of the group apply only to its own routes,
    /// inside those of this router. Everything else acts as if it had been added here.
    #[must_use]
    pub fn group(mut self, prefix: &str, group: Self) -> Self {
        let filters = self.filters.absorb(group.filters);
        for mut entry in group.entries {
            if !prefix.is_empty() {
                entry.route = format!("{prefix}.{}", entry.route).into();
            }
            entry.filters.splice(0..0, filters.clone());
            self = self.entry(entry);
        }
        self.fallback = group.fallback.or(self.fallback);
        for remote in group.remotes {
            self.named(remote);
        }
        self.events.append(group.events);
        self.life.append(group.life);
        self.states.append(group.states);
        self
    }

    /// Adds a state, which handlers and before filters take as [`State<T>`](super::State). A second
    /// state of the same type replaces the first. Pomelo: `app.set`.
    #[must_use]
    pub fn with_state<T: Clone + 'static>(mut self, state: T) -> Self {
        self.states.set(state);
        self
    }
}

/// The part of the router that the shard uses.
impl Router {
    /// Completes and checks the router: full routes, and the filters of the configuration around its
    /// own. `protos` tells whether a route has a proto for messages of clients and one for responses.
    pub(crate) fn ready(
        mut self,
        config: &Config,
        rules: &HandlerRules,
        protos: impl Fn(&str) -> (bool, bool),
    ) -> Result<Self, String> {
        let own = std::mem::replace(
            &mut self.filters,
            Filters::configured(
                config.log.forward,
                &rules.global_filters,
                &rules.local_filters,
            ),
        );
        self.filters.append(own);
        let mut whole = Self::default();
        for mut entry in std::mem::take(&mut self.entries) {
            entry.complete(&config.server_type)?;
            entry.check(&self.states, protos(&entry.route))?;
            whole = whole.entry(entry);
        }
        self.entries = whole.entries;
        self.remotes.iter().try_for_each(remotes::Named::check)?;
        let delegates = config.delegate.is_some();
        self.life.ready(config.dialect, &rules.crons, delegates)?;
        self.filters
            .needs
            .check("a filter", &self.states, (true, true))?;
        if let Some(fallback) = &self.fallback {
            if let Some(delegate) = &config.delegate {
                return Err(format!(
                    "Router::fallback and delegate = {delegate:?} are both set, but only one of them can take \
                     the routes without a handler; remove the other"
                ));
            }
            fallback.check(&self.states, (false, false))?;
        }
        Ok(self)
    }

    /// Returns all routes, in index order.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.route)
    }

    /// Returns the route of an index.
    pub(crate) fn route_of(&self, index: usize) -> &str {
        &self.at(index).route
    }

    /// Returns the route of the handler at `index`; `None` for the fallback, which serves any route.
    pub(crate) fn own_route(&self, index: usize) -> Option<&str> {
        self.entries.get(index).map(|entry| &*entry.route)
    }

    /// Returns the index of the fallback, if any.
    pub(crate) fn fallback_index(&self) -> Option<usize> {
        self.fallback.as_ref().map(|_| self.entries.len())
    }

    /// Calls the handler of an index.
    pub(crate) fn call<'a>(&self, index: usize, request: &Request<'a>) -> Answer<'a> {
        (self.at(index).call)(request)
    }

    /// Returns the filters of the groups that contain an index, from the outermost.
    pub(crate) fn filters_of(&self, index: usize) -> &[Rc<Filters>] {
        &self.at(index).filters
    }

    fn at(&self, index: usize) -> &Entry {
        let fallback = || {
            self.fallback
                .as_ref()
                .expect("the index is of a route here")
        };
        self.entries.get(index).unwrap_or_else(fallback)
    }

    /// Returns true if a function needs the handshakes of clients.
    pub(crate) fn keeps_handshakes(&self) -> bool {
        let entries = self.entries.iter().chain(&self.fallback);
        entries.into_iter().any(|entry| entry.needs.handshake) || self.filters.needs.handshake
    }

    /// Returns the functions that run besides messages.
    pub(crate) fn life(&self) -> &Lifecycle {
        &self.life
    }

    /// Returns all states.
    pub(crate) fn states(&self) -> &States {
        &self.states
    }
}

fn entry<Args, H: Handler<Args>>(route: &str, handler: H) -> Entry {
    let mut needs = Needs::default();
    H::needs(&mut needs);
    let function = handler.into_function();
    Entry {
        route: route.into(),
        call: Box::new(move |request| function(request)),
        filters: Vec::new(),
        needs,
    }
}

impl Entry {
    /// Completes the route to three parts.
    fn complete(&mut self, own_type: &str) -> Result<(), String> {
        if self.route.split('.').count() == 2 {
            self.route = format!("{own_type}.{}", self.route).into();
        }
        let route = &self.route;
        let parts: Vec<&str> = route.split('.').collect();
        if parts.len() != 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(format!(
                "route {route:?} is not of the form handler.method or serverType.handler.method"
            ));
        }
        if parts[2] == "constructor" {
            return Err(format!(
                "route {route:?} is not allowed: a client that sends a route with the method \
                 \"constructor\" is closed; give the method another name"
            ));
        }
        Ok(())
    }

    fn check(&self, states: &States, protos: (bool, bool)) -> Result<(), String> {
        self.needs.check(&self.route, states, protos)?;
        let mut filters = self.filters.iter();
        filters.try_for_each(|filters| filters.needs.check(&self.route, states, protos))
    }
}

impl Needs {
    fn check(&self, route: &str, states: &States, protos: (bool, bool)) -> Result<(), String> {
        if let Some((_, name)) = self.states.iter().find(|(key, _)| !states.has(*key)) {
            return Err(format!(
                "{route} takes State<{name}>, but the router has none; set it with Router::with_state"
            ));
        }
        for (needed, had, what, file) in [
            (self.client_proto, protos.0, "takes", "clientProtos.json"),
            (self.server_proto, protos.1, "returns", "serverProtos.json"),
        ] {
            if needed && !had {
                return Err(format!(
                    "{route} {what} a Proto, but {file} has no entry for it or client.use_protobuf is false"
                ));
            }
        }
        Ok(())
    }
}
