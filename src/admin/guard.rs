//! The check of requests that need the token, and the audit of all of them.
//!
//! A page in a browser cannot use the port: it has no token, and `Host` and `Origin` tell that a page asks.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::View;
use super::serve::AdminClient;
use crate::config::AUDIT_LOG;
use crate::limits::ADMIN_TOKEN_BYTES_MAX;
use crate::metrics::{self, Counter};

/// The part of an audit line that says what an action did. Its answer carries it.
#[derive(Debug, Clone)]
pub(super) struct Audit(pub(super) String);

/// Refuses a request, or runs it. Each of them is an audit line.
pub(super) async fn check(
    State(view): State<Arc<View>>,
    Extension(caller): Extension<AdminClient>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let refusal = refusal(&view, &caller, &request);
    let response = match refusal {
        None => next.run(request).await,
        Some((status, text)) => (status, format!("{text}\n")).into_response(),
    };
    let status = response.status();
    let from = caller.address.as_deref().unwrap_or("the unix socket");
    let told = response.extensions().get::<Audit>();
    let told = told.map_or(refusal.map_or("", |(_, text)| text), |Audit(text)| text);
    let code = status.as_u16();
    if status.is_server_error() {
        metrics::count_for_process(Counter::AdminFailed);
        tracing::warn!(%method, %uri, from, status = code, "audit: an operator's request failed: {told}");
    } else if status.is_client_error() && status != StatusCode::NOT_FOUND {
        // The log limits this line, because strangers can cause it.
        metrics::count_for_process(Counter::AdminDenied);
        tracing::warn!(%method, %uri, from, status = code, "audit: an operator's request is refused: {told}");
    } else {
        tracing::info!(target: AUDIT_LOG, %method, %uri, from, status = code, "an operator's request: {told}");
    }
    response
}

type Refusal = (StatusCode, &'static str);

/// Returns why a request is refused, if it is.
fn refusal(view: &View, caller: &AdminClient, request: &Request) -> Option<Refusal> {
    let headers = request.headers();
    let host = text(headers, HOST).unwrap_or_default();
    if !is_own_name(host) {
        return Some((
            StatusCode::FORBIDDEN,
            "the header Host must have an address or localhost: a page of another host may have sent this",
        ));
    }
    if let Some(origin) = headers.get(ORIGIN)
        && origin.as_bytes() != format!("http://{host}").as_bytes()
    {
        return Some((
            StatusCode::FORBIDDEN,
            "the header Origin names another host",
        ));
    }
    if caller.address.is_some() {
        let Some(path) = &view.config.admin.token_file else {
            return Some((
                StatusCode::FORBIDDEN,
                "admin.token_file is not set; without it only a unix socket takes this request",
            ));
        };
        let expected = match token(path) {
            Ok(token) => token,
            Err(fault) => return Some((StatusCode::FORBIDDEN, fault)),
        };
        let given = text(headers, AUTHORIZATION).and_then(|it| it.strip_prefix("Bearer "));
        match given {
            None => {
                return Some((
                    StatusCode::UNAUTHORIZED,
                    "the header `Authorization: Bearer` with the token is missing",
                ));
            }
            Some(given) if !is_same(given.trim().as_bytes(), &expected) => {
                return Some((StatusCode::UNAUTHORIZED, "the token is wrong"));
            }
            Some(_) => {}
        }
    }
    let is_json = || {
        let kind = text(headers, CONTENT_TYPE).unwrap_or_default();
        kind.split(';').next().map(str::trim) == Some("application/json")
    };
    if request.method() == Method::POST && !is_json() {
        return Some((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the header Content-Type must be application/json",
        ));
    }
    None
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether a `Host` is an address or `localhost`, with a port or without: a name of another host that leads
/// here belongs to a page.
fn is_own_name(host: &str) -> bool {
    let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host.parse::<SocketAddr>().is_ok()
        || host.parse::<IpAddr>().is_ok()
        || [host, without_port].contains(&"localhost")
        || host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<IpAddr>().is_ok())
}

/// Compares two texts in a time that does not depend on them: the digests of different texts differ from the first
/// byte on.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let (given, expected) = (Sha256::digest(given), Sha256::digest(expected));
    let pairs = given.iter().zip(&expected);
    pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Reads the token. It is read for each request, so that an operator can change it.
pub(crate) fn token(path: &Path) -> Result<Vec<u8>, &'static str> {
    let unreadable = |_| "the file of admin.token_file cannot be read";
    // A pipe would hold up whoever opens it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("admin.token_file is not a regular file");
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & 0o077 != 0 {
        return Err("others may read the file of admin.token_file; change its mode to 0600");
    }
    let mut token = Vec::new();
    let read = file.take(ADMIN_TOKEN_BYTES_MAX).read_to_end(&mut token);
    read.map_err(unreadable)?;
    match token.trim_ascii() {
        [] => Err("the file of admin.token_file is empty"),
        token => Ok(token.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for host in [
            "127.0.0.1:9464",
            "127.0.0.1",
            "[::1]:9464",
            "[::1]",
            "localhost",
            "localhost:1",
        ] {
            assert!(is_own_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            ":80",
        ] {
            assert!(!is_own_name(host), "{host}");
        }
    }

    #[test]
    fn only_equal_tokens_are_the_same() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!is_same(other, b"abc"));
        }
    }
}
