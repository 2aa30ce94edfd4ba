//! The requests that need the token: they show what players own, or change something.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::View;
use super::guard::Audit;
use super::secrets;
use crate::config::{AUDIT_LOG, effective};
use crate::ids::Sid;
use crate::log;
use crate::shard::parcel::{OperatorReply, OperatorRequest};
use crate::wire::json;

/// Longest wait for the answer of a shard. A stalled one does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to an action: a line for the operator, which the audit has too.
pub(super) struct Done(String);

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let mut response = format!("{}\n", self.0).into_response();
        response.extensions_mut().insert(Audit(self.0));
        response
    }
}

/// The reason why an action was not done.
pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        response.extensions_mut().insert(Audit(self.1));
        response
    }
}

fn bad(text: impl Into<String>) -> Failed {
    Failed(StatusCode::BAD_REQUEST, text.into())
}

/// Returns the answer where the inbox of a shard has no room.
pub(super) fn busy() -> Failed {
    let text = "too much waits for a shard, or the gateway ends; try again";
    Failed(StatusCode::SERVICE_UNAVAILABLE, text.into())
}

impl View {
    /// Returns the ids of sessions.
    pub(super) async fn sids(&self, who: Who) -> Result<Vec<Sid>, Failed> {
        let found = self.sessions(who).await?;
        let sids = found.iter().map(|session| session["id"].as_u64());
        Ok(sids.flatten().filter_map(Sid::from_wire).collect())
    }

    /// Asks the coordinator; returns the text of its reply.
    async fn ask(&self, request: OperatorRequest) -> Result<Option<Vec<u8>>, Failed> {
        let (sender, mut reply) = mpsc::channel(1);
        let take = move |reply| drop(sender.try_send(reply));
        if !self.operator.ask(request, OperatorReply(Arc::new(take))) {
            return Err(busy());
        }
        let late = || {
            let text = "a shard does not answer; GET /livez says which one is stalled";
            Failed(StatusCode::GATEWAY_TIMEOUT, text.into())
        };
        let reply = timeout(ANSWER_TIMEOUT, reply.recv()).await;
        reply.ok().flatten().ok_or_else(late)?.map_err(bad)
    }

    /// Returns sessions as JSON, without the values of secrets in their settings.
    async fn sessions(&self, who: Who) -> Result<Vec<Value>, Failed> {
        let (request, is_list) = match who {
            Who::Uid(uid) => (OperatorRequest::Sessions(uid), true),
            Who::Sid(sid) => (OperatorRequest::Session(sid), false),
        };
        let Some(text) = self.ask(request).await? else {
            return Ok(Vec::new());
        };
        let found = json::parse(&text).unwrap_or_default();
        let mut found = match found {
            Value::Array(list) if is_list => list,
            one => vec![one],
        };
        found.iter_mut().for_each(secrets::mask);
        Ok(found)
    }
}

/// A uid, or the id of a session: one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    pub(super) uid: Option<String>,
    pub(super) sid: Option<u64>,
}

pub(super) enum Who {
    Uid(Box<str>),
    Sid(u64),
}

impl Which {
    pub(super) fn who(self) -> Result<Who, Failed> {
        match (self.uid, self.sid) {
            (Some(uid), None) => Ok(Who::Uid(uid.into())),
            (None, Some(sid)) => Ok(Who::Sid(sid)),
            _ => Err(bad("expected uid or sid, and not both")),
        }
    }
}

/// Shows the configuration with the source of each value.
pub(super) async fn config(State(view): State<Arc<View>>) -> String {
    effective::toml(&view.latest.load())
}

/// Shows the sessions of a uid, or one session.
pub(super) async fn sessions(
    State(view): State<Arc<View>>,
    Query(which): Query<Which>,
) -> Result<impl IntoResponse, Failed> {
    let found = view.sessions(which.who()?).await?;
    let text = format!("{}\n", Value::from(found));
    Ok(([(CONTENT_TYPE, "application/json")], text))
}

/// The body of a request to kick.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    /// Text of the uid.
    uid: Option<String>,
    sid: Option<u64>,
    /// Text of the kick package; without one there is no package.
    reason: Option<String>,
}

/// Kicks all sessions of a uid, or one session.
pub(super) async fn kick(
    State(view): State<Arc<View>>,
    Json(Kick { uid, sid, reason }): Json<Kick>,
) -> Result<Done, Failed> {
    let because = match &reason {
        Some(reason) => format!("with the reason {reason:?}"),
        None => "without a kick package".into(),
    };
    let reason = reason.map(Into::into);
    match (Which { uid, sid }).who()? {
        Who::Uid(uid) => {
            let who = uid.clone();
            let request = OperatorRequest::KickUid { uid, reason };
            let count = view.ask(request).await?.unwrap_or_default();
            let count = String::from_utf8_lossy(&count);
            Ok(Done(format!(
                "kicked {count} sessions of uid {who:?} {because}"
            )))
        }
        Who::Sid(sid) => {
            if view.sessions(Who::Sid(sid)).await?.is_empty() {
                let text = format!("there is no session {sid}");
                return Err(Failed(StatusCode::NOT_FOUND, text));
            }
            view.ask(OperatorRequest::Kick { sid, reason }).await?;
            Ok(Done(format!("kicked session {sid} {because}")))
        }
    }
}

/// The body of a request to change the blacklist.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Blacklist {
    /// Regular expressions of addresses, as in `client.blacklist`.
    add: Vec<String>,
}

/// Adds to the blacklist, until the process ends.
pub(super) async fn blacklist(
    State(view): State<Arc<View>>,
    Json(Blacklist { add }): Json<Blacklist>,
) -> Result<Done, Failed> {
    let done = format!("added to the blacklist: {add:?}");
    view.ask(OperatorRequest::AddToBlacklist(add)).await?;
    Ok(Done(done))
}

/// The body of a request to change the log level.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevel {
    /// A level or a filter, as in `log.level`.
    level: String,
}

/// Changes the log level, until the next change or the end of the process.
pub(super) async fn log_level(
    State(view): State<Arc<View>>,
    Json(LogLevel { level }): Json<LogLevel>,
) -> Result<Done, Failed> {
    let filter = log::filter(&level).map_err(|text| bad(format!("level: {text}")))?;
    // The new level may hide the audit line that follows.
    tracing::info!(target: AUDIT_LOG, "an operator changes the log level to {level:?}");
    let output = view.output.as_ref();
    if !output.is_some_and(|output| output.set_level(filter)) {
        let text = "this program writes a log of its own, whose level tangelo cannot change";
        return Err(Failed(StatusCode::CONFLICT, text.into()));
    }
    let configured = &view.latest.load().log.level;
    Ok(Done(format!(
        "the log level is {level:?}; log.level is {configured:?}"
    )))
}

/// The body of a request without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Begins the drain, as SIGTERM does.
pub(super) async fn drain(State(view): State<Arc<View>>, Json(Nothing {}): Json<Nothing>) -> Done {
    view.stopper.drain();
    Done("the drain begins".into())
}
