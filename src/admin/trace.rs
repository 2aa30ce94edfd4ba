//! `/trace`: the messages of a session as they come and go, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_lite::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::actions::{Failed, Which, Who, busy};
use super::guard::Audit;
use super::serve::AdminClient;
use super::{View, secrets};
use crate::ids::Sid;
use crate::limits::{ADMIN_TRACES_MAX, TRACE_BODY_BYTES_MAX, TRACE_EVENTS_MAX};
use crate::net::clock;
use crate::shard::trace::{TraceEvent, TraceSink, Traced};
use crate::wire::json;
use crate::wire::message::MessageKind;

/// Time without an event after which a comment shows that the trace still runs. A client that has gone is noticed then.
const QUIET: Duration = Duration::from_secs(15);
/// The reason why a trace leaves a session out.
const LEFT_OUT: &str = "its shard traces as many sessions as it may";
/// Requests whose answers a trace waits for. The answer to a further one has no time.
const REQUESTS_MAX: usize = 1024;

/// The sessions of a trace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    uid: Option<String>,
    sid: Option<u64>,
    #[serde(default)]
    bodies: bool,
}

/// The queue of a trace, between shards and the port.
#[derive(Debug)]
struct Queue {
    events: mpsc::Sender<TraceEvent>,
    /// Events for which the queue had no room.
    dropped: Arc<AtomicU64>,
    bodies: bool,
}

impl TraceSink for Queue {
    fn take(&self, event: TraceEvent) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_open(&self) -> bool {
        !self.events.is_closed()
    }

    fn wants_bodies(&self) -> bool {
        self.bodies
    }
}

/// Follows one session until it closes, or the sessions that a uid has now or later until the client goes.
pub(super) async fn trace(
    State(view): State<Arc<View>>,
    Extension(caller): Extension<AdminClient>,
    Query(Wanted { uid, sid, bodies }): Query<Wanted>,
) -> Result<Response, Failed> {
    let who = (Which { uid, sid }).who()?;
    let place = view.traces.clone();
    // The view has one itself.
    if Arc::strong_count(&place) > ADMIN_TRACES_MAX + 1 {
        let text = format!("{ADMIN_TRACES_MAX} traces run already");
        return Err(Failed(StatusCode::TOO_MANY_REQUESTS, text));
    }
    let (sender, events) = mpsc::channel(TRACE_EVENTS_MAX);
    let dropped = Arc::<AtomicU64>::default();
    let sink: Arc<dyn TraceSink> = Arc::new(Queue {
        events: sender,
        dropped: dropped.clone(),
        bodies,
    });
    let uid = match &who {
        Who::Uid(uid) => Some(uid.clone()),
        Who::Sid(_) => None,
    };
    // Before the list is made: a session that is bound meanwhile is traced once.
    if let Some(uid) = &uid
        && !view.operator.trace_uid(uid, &sink)
    {
        return Err(busy());
    }
    let sids = view.sids(who).await?;
    if sids.is_empty() && uid.is_none() {
        return Err(Failed(
            StatusCode::NOT_FOUND,
            "there is no such session".into(),
        ));
    }
    let count = sids.len();
    for sid in sids {
        let sink = sink.clone();
        if !view.operator.trace(sid, sink) {
            return Err(busy());
        }
    }
    // From here on only the shards hold the queue: the trace of a session ends with it.
    drop(sink);
    let (done, head) = match uid {
        Some(uid) => {
            let data = json!({ "at": clock::unix_ms() as u64, "uid": uid, "sessions": count });
            let done = format!("traces {count} sessions and later ones of uid {uid:?}");
            (done, format!("event: following\ndata: {data}\n\n"))
        }
        None => ("traces 1 session".into(), String::new()),
    };
    caller.lasts.store(true, Ordering::Relaxed);
    let state = Trace {
        events,
        dropped,
        requests: HashMap::new(),
        _place: place,
    };
    let events = stream::unfold(state, |mut state| async {
        let text = state.next().await?;
        Some((Ok::<_, Infallible>(text), state))
    });
    let texts = stream::once(Ok(head)).chain(events);
    let heads = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    let mut response = (heads, Body::from_stream(texts)).into_response();
    response.extensions_mut().insert(Audit(done));
    Ok(response)
}

/// A running trace.
struct Trace {
    events: mpsc::Receiver<TraceEvent>,
    dropped: Arc<AtomicU64>,
    /// Route and time of the requests that have no answer yet.
    requests: HashMap<(Sid, u32), (Box<str>, Instant)>,
    _place: Arc<()>,
}

impl Trace {
    /// Waits for the next text; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let event = match timeout(QUIET, self.events.recv()).await {
            Ok(event) => event?,
            Err(_) => return Some(": no messages\n\n".into()),
        };
        let mut text = match self.dropped.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            count => format!("event: dropped\ndata: {{\"count\":{count}}}\n\n"),
        };
        let (name, data) = self.data(event);
        text += &format!("event: {name}\ndata: {data}\n\n");
        Some(text)
    }

    /// Returns the name and the members of an event.
    fn data(&mut self, event: TraceEvent) -> (&'static str, Value) {
        let TraceEvent {
            sid,
            at,
            unix_ms,
            what,
        } = event;
        let mut data = json!({ "sid": sid.get(), "at": unix_ms });
        let (kind, id, route, bytes, body) = match what {
            Traced::Message {
                kind,
                id,
                route,
                bytes,
                body,
            } => (kind, id, route, bytes, body),
            Traced::Begun => return ("begun", data),
            Traced::LeftOut => {
                data["reason"] = LEFT_OUT.into();
                return ("left_out", data);
            }
            Traced::Closed(reason) => {
                self.requests.retain(|(other, _), _| *other != sid);
                data["reason"] = reason.into();
                return ("closed", data);
            }
        };
        let (direction, name) = match kind {
            MessageKind::Request => ("in", "request"),
            MessageKind::Notify => ("in", "notify"),
            MessageKind::Response => ("out", "response"),
            MessageKind::Push => ("out", "push"),
            MessageKind::Undefined(_) => ("in", "undefined"),
        };
        data["direction"] = direction.into();
        data["kind"] = name.into();
        if id != 0 {
            data["id"] = id.into();
        }
        let mut route = route;
        if kind == MessageKind::Response
            && let Some((asked_route, asked)) = self.requests.remove(&(sid, id))
        {
            route = Some(asked_route);
            let took = at.saturating_duration_since(asked);
            data["took_us"] = (took.as_micros() as u64).into();
        }
        if let Some(route) = &route {
            data["route"] = (&**route).into();
        }
        data["bytes"] = bytes.into();
        if let Some(body) = body {
            data["body"] = shown(&body).into();
        }
        if let (MessageKind::Request, Some(route)) = (kind, route)
            && self.requests.len() < REQUESTS_MAX
        {
            self.requests.insert((sid, id), (route, at));
        }
        ("message", data)
    }
}

/// Returns a JSON body without the values of secrets, cut; `None` for another body, in which no secret can be found.
fn shown(body: &[u8]) -> Option<String> {
    let mut body: Value = json::parse(body)?;
    secrets::mask(&mut body);
    let mut text = body.to_string();
    text.truncate(text.floor_char_boundary(TRACE_BODY_BYTES_MAX));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_masked_before_it_is_cut() {
        let long = "x".repeat(2 * TRACE_BODY_BYTES_MAX);
        let body = format!("{{\"token\":\"hidden\",\"a\":\"{long}\"}}");
        let shown = shown(body.as_bytes()).unwrap();
        assert_eq!(shown.len(), TRACE_BODY_BYTES_MAX);
        assert!(
            shown.starts_with("{\"token\":\"***\",\"a\":\"xxx"),
            "{shown}"
        );
        assert_eq!(super::shown(b"\xff\x00"), None);
    }
}
