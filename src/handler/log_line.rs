//! Log lines for other programs: the route, start and duration of each message.

use std::time::Instant;

use super::Incoming;
use crate::config::{CON_LOG, FORWARD_LOG};
use crate::limits::LOG_ARGS_BYTES_MAX;
use crate::wire::json;

/// Logs a message that a handler has answered.
pub(super) fn forward(incoming: &Incoming, began: Instant) {
    if tracing::enabled!(target: FORWARD_LOG, tracing::Level::INFO) {
        tracing::info!(target: FORWARD_LOG, "{}", line(incoming, began));
    }
}

/// Logs a message that the filter `time` has seen.
pub(super) fn console(incoming: &Incoming, began: Instant) {
    if tracing::enabled!(target: CON_LOG, tracing::Level::INFO) {
        tracing::info!(target: CON_LOG, "{}", line(incoming, began));
    }
}

/// Returns the JSON object of the reference:
/// `{"route":"…","args":{…},"time":"MMddhhmm","timeUsed":12}`.
///
/// Cost: parses the message into a tree.
fn line(incoming: &Incoming, began: Instant) -> String {
    let clock = incoming.session.context();
    let used = clock.now().saturating_duration_since(began);
    let began = clock.wall_clock().saturating_sub(used);
    let mut route = Vec::new();
    json::write_string(&mut route, &incoming.route);
    format!(
        r#"{{"route":{},"args":{},"time":"{}","timeUsed":{}}}"#,
        String::from_utf8_lossy(&route),
        args(incoming),
        began.strftime("%m%d%H%M"),
        used.as_millis(),
    )
}

/// Returns the message of the handler as JSON, or its length if it is too long.
pub(super) fn args(incoming: &Incoming) -> String {
    if incoming.body.len() > LOG_ARGS_BYTES_MAX {
        return format!("\"<{} bytes>\"", incoming.body.len());
    }
    let mut text = Vec::new();
    json::write_value(&mut text, &incoming.request().message());
    String::from_utf8_lossy(&text).into_owned()
}
