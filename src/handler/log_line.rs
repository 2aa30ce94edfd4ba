//! Lines that others read by machine: what was asked for, when, and how long it took.

use std::time::Instant;

use super::Incoming;
use crate::limits::LOG_ARGS_BYTES_MAX;
use crate::wire::json;

/// The line of the reference for a message that began then, as JSON:
/// `{"route":"…","args":{…},"time":"MMddhhmm","timeUsed":12}`; `timeUsed` is milliseconds.
///
/// Cost: builds the message as a tree, as a handler does that asks for it.
pub(super) fn used(incoming: &Incoming, began: Instant) -> String {
    let clock = incoming.session.frontend();
    let used = clock.now().saturating_duration_since(began).as_millis();
    let mut route = Vec::new();
    json::write_string(&mut route, &incoming.route);
    format!(
        r#"{{"route":{},"args":{},"time":"{}","timeUsed":{used}}}"#,
        String::from_utf8_lossy(&route),
        args(incoming),
        clock.local_time(began),
    )
}

/// The handler's message as JSON; of one that is too long, how long it is.
pub(super) fn args(incoming: &Incoming) -> String {
    if incoming.body.len() > LOG_ARGS_BYTES_MAX {
        return format!("\"<{} bytes>\"", incoming.body.len());
    }
    let mut text = Vec::new();
    json::write_value(&mut text, &incoming.request().message());
    String::from_utf8_lossy(&text).into_owned()
}
