//! The response to an outcome (C60–C66). Only this file decides what a game client sees of an outcome.

use std::borrow::Cow;

use super::Outcome;
use crate::wire::{handshake, json};

/// Returns the body of the response, or `None` for a notify, which gets no response.
///
/// Cost: a success borrows; an error with a response copies it.
pub fn compose<'a>(message_id: u32, outcome: &'a Outcome<'_>) -> Option<Cow<'a, [u8]>> {
    hop!();
    if message_id == 0 {
        return None;
    }
    let response = outcome.response.as_deref();
    let response = response
        .filter(|text| json::is_truthy(text))
        .unwrap_or(b"{}");
    if outcome.error.is_none() {
        return Some(Cow::Borrowed(response));
    }
    if *response == *b"{}" {
        return Some(Cow::Borrowed(handshake::FAILED));
    }
    let mut text = Vec::with_capacity(response.len() + 16);
    json::with_error_code(&mut text, response);
    Some(Cow::Owned(text))
}

/// Returns the response with its code, as global after filters see it (C35).
pub fn with_code(message_id: u32, outcome: &Outcome<'_>) -> Option<Vec<u8>> {
    let response = outcome.response.as_deref()?;
    if message_id == 0 || outcome.error.is_none() {
        return Some(response.to_vec());
    }
    let mut text = Vec::with_capacity(response.len() + 16);
    json::with_error_code(&mut text, response);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_become_what_the_reference_sends() {
        let sent = |error: bool, response: Option<&str>| {
            let mut outcome = Outcome {
                error: None,
                response: None,
            };
            outcome.response = response.map(|text| Cow::Owned(text.as_bytes().to_vec()));
            if error {
                outcome = outcome.with_error("boom");
            }
            String::from_utf8(compose(1, &outcome).unwrap().into_owned()).unwrap()
        };
        for (error, response, expected) in [
            (false, Some("{\"a\":1}"), "{\"a\":1}"),
            (false, None, "{}"),
            (false, Some("null"), "{}"),
            (false, Some("0"), "{}"),
            (false, Some("false"), "{}"),
            (false, Some("\"\""), "{}"),
            (false, Some("[1,2,3]"), "[1,2,3]"),
            (false, Some("\"hello\""), "\"hello\""),
            (false, Some("42"), "42"),
            (true, None, "{\"code\":500}"),
            (
                true,
                Some("{\"msg\":\"bad\"}"),
                "{\"msg\":\"bad\",\"code\":500}",
            ),
            (
                true,
                Some("{\"code\":417,\"msg\":\"bad\"}"),
                "{\"code\":417,\"msg\":\"bad\"}",
            ),
            (
                true,
                Some("{\"code\":0,\"msg\":\"bad\"}"),
                "{\"code\":500,\"msg\":\"bad\"}",
            ),
            (true, Some("\"hello\""), "\"hello\""),
        ] {
            assert_eq!(sent(error, response), expected, "{error} {response:?}");
        }
    }

    #[test]
    fn a_notify_is_never_answered() {
        assert_eq!(compose(0, &Outcome::json(&b"{\"a\":1}"[..])), None);
        assert_eq!(compose(0, &Outcome::error("boom")), None);
    }
}
