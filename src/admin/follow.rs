//! The command `trace`: follows sessions of a running tangelo over its operators' port, and prints a line for each event.
//!
//! A player writes routes and bodies, so no control character of them reaches the terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_lite::StreamExt as _;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime;
use tokio::time::timeout;

use super::guard;
use crate::config::{Admin, ListenAddress};
use crate::error::Error;
use crate::limits::ADMIN_EVENT_BYTES_MAX;
use crate::net::reachable;
use crate::wire::json;

/// Longest wait for the head of the answer. The port itself waits 5 s for a shard.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The wish of the one who calls the command: a uid or a session, and the form of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follow {
    pub(crate) uid: Option<String>,
    pub(crate) sid: Option<u64>,
    pub(crate) bodies: bool,
    pub(crate) json: bool,
}

/// Prints the events of a trace until it ends. `admin` is the configuration of the running tangelo.
///
/// Errors: the port is off or does not answer, or refuses the request; the text says what to change
pub(crate) fn follow(admin: &Admin, follow: &Follow) -> Result<(), Error> {
    let Some(address) = &admin.listen else {
        return Err(Error::Config(
            "admin.listen is not set, so the operators' port is off; name the configuration of the running tangelo with \
             --config, or its port with --admin"
                .into(),
        ));
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Host(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(async {
        match address {
            ListenAddress::Tcp(address) => {
                let address = reachable(*address);
                let token = token(admin.token_file.as_deref())?;
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| unreachable(&error))?;
                print(stream, Some((address, token)), follow).await
            }
            ListenAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| unreachable(&error))?;
                print(stream, None, follow).await
            }
        }
    });
    ended.map_err(|text| Error::Host(format!("{address}: {text}")))
}

/// Reads the token of the port.
fn token(file: Option<&Path>) -> Result<String, String> {
    let Some(file) = file else {
        return Err("over TCP a trace needs the token; name its file with --token-file".into());
    };
    let token = guard::token(file).map_err(|fault| format!("{}: {fault}", file.display()))?;
    String::from_utf8(token).map_err(|_| format!("{}: the token is not a text", file.display()))
}

fn unreachable(error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            "start tangelo, or name the port that its log has with --admin"
        }
        io::ErrorKind::PermissionDenied => "run this command as the user of tangelo",
        _ => "the port of a running tangelo is in its log; name it with --admin",
    };
    format!("cannot reach the operators' port: {error}; {why}")
}

/// Asks for the trace over a connection, and prints it.
async fn print(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tcp: Option<(SocketAddr, String)>,
    follow: &Follow,
) -> Result<(), String> {
    let foreign =
        |error: hyper::Error| format!("this is not the operators' port of a tangelo: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(foreign)?;
    tokio::spawn(connection);
    let mut request = Request::get(path(follow));
    request = match tcp {
        Some((address, token)) => request
            .header(HOST, address.to_string())
            .header(AUTHORIZATION, format!("Bearer {token}")),
        None => request.header(HOST, "localhost"),
    };
    let request = request.body(Body::empty());
    let request = request.map_err(|_| "the token has characters that HTTP does not take")?;
    let late = |_| format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
    let response = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
    let response = response.map_err(late)?.map_err(foreign)?.map(Body::new);
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let mut events = Events {
        stream: response.into_body().into_data_stream(),
        bytes: Vec::new(),
    };
    while let Some((name, data)) = events.next().await? {
        let line = match follow.json {
            true => json_line(&name, data),
            false => line(&name, &data),
        };
        // Nobody reads any more, as behind `head`.
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

/// Returns the path and query of a trace.
fn path(follow: &Follow) -> String {
    let mut path = "/trace?".to_owned();
    match (&follow.uid, follow.sid) {
        (Some(uid), _) => {
            path += "uid=";
            for byte in uid.bytes() {
                let _ = match byte.is_ascii_alphanumeric() {
                    true => write!(path, "{}", char::from(byte)),
                    false => write!(path, "%{byte:02X}"),
                };
            }
        }
        (None, sid) => {
            let _ = write!(path, "sid={}", sid.unwrap_or_default());
        }
    }
    if follow.bodies {
        path += "&bodies=true";
    }
    path
}

/// Returns the reason of a refused trace, and a remedy.
async fn refusal(response: Response<Body>) -> String {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), ADMIN_EVENT_BYTES_MAX).await;
    let body = body.unwrap_or_default();
    let text = plain(String::from_utf8_lossy(&body).trim());
    match status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "{text}; --token-file must name the file that admin.token_file of the running tangelo names"
            )
        }
        _ if text.is_empty() => {
            format!("this is not the operators' port of a tangelo: status {status}")
        }
        _ => text,
    }
}

/// Server-sent events.
struct Events {
    stream: BodyDataStream,
    bytes: Vec<u8>,
}

impl Events {
    /// Waits for the next event: its name and its data. `None` at the end.
    async fn next(&mut self) -> Result<Option<(String, Value)>, String> {
        let mut name = String::new();
        while let Some(line) = self.line().await? {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = json::parse(data.as_bytes()).ok_or("an event is not JSON")?;
                return Ok(Some((name, data)));
            }
        }
        Ok(None)
    }

    async fn line(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line = self.bytes.drain(..=end).collect();
                let line = String::from_utf8(line).map_err(|_| "an event is not a text")?;
                return Ok(Some(line.trim_end().to_owned()));
            }
            if self.bytes.len() > ADMIN_EVENT_BYTES_MAX {
                return Err("an event is too long".into());
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.bytes.extend_from_slice(&bytes),
                Some(Err(error)) => {
                    return Err(format!(
                        "the trace broke off: {error}; tangelo may have ended"
                    ));
                }
                None => return Ok(None),
            }
        }
    }
}

/// Returns an event as JSON, with its name.
fn json_line(name: &str, data: Value) -> String {
    let mut event = Map::new();
    event.insert("event".into(), name.into());
    if let Value::Object(members) = data {
        event.extend(members);
    }
    Value::Object(event).to_string()
}

/// Returns an event as a line for people.
fn line(name: &str, data: &Value) -> String {
    let text = |key: &str| plain(data[key].as_str().unwrap_or_default());
    let mut line = match data["at"].as_i64() {
        Some(at) => format!("{}  ", time(at)),
        None => String::new(),
    };
    let sid = &data["sid"];
    let _ = match name {
        "following" => {
            let count = &data["sessions"];
            write!(
                line,
                "sessions of uid {} now: {count}; later ones are followed too",
                data["uid"]
            )
        }
        "begun" => write!(line, "{sid}  begins"),
        "left_out" => write!(line, "{sid}  is left out: {}", text("reason")),
        "closed" => write!(line, "{sid}  closed: {}", text("reason")),
        "dropped" => write!(
            line,
            "{} events are left out, because they came too fast",
            data["count"]
        ),
        "message" => {
            let (direction, kind, route) = (text("direction"), text("kind"), text("route"));
            write!(
                line,
                "{sid}  {direction:<3}  {kind:<8}  {route}  {} bytes",
                data["bytes"]
            )
        }
        _ => write!(line, "{}  {}", plain(name), plain(&data.to_string())),
    };
    if let Some(took_us) = data["took_us"].as_u64() {
        let _ = write!(line, "  {}.{:03} ms", took_us / 1000, took_us % 1000);
    }
    if data["body"].is_string() {
        let _ = write!(line, "  {}", text("body"));
    }
    line
}

/// Returns the local time of day.
fn time(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::system());
    time.strftime("%H:%M:%S%.3f").to_string()
}

/// Returns a text whose control characters are escaped.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_uid_of_any_characters_is_one_part_of_the_query() {
        let follow = Follow {
            uid: Some("a&b=\u{e9} 1".into()),
            sid: None,
            bodies: true,
            json: false,
        };
        assert_eq!(path(&follow), "/trace?uid=a%26b%3D%C3%A9%201&bodies=true");
    }

    #[test]
    fn a_line_has_no_control_character_of_a_player() {
        let data = json!({
            "sid": 7, "direction": "in", "kind": "request", "route": "a\u{1b}[2J\n", "bytes": 3, "body": "\u{9b}x",
        });
        let expected = "7  in   request   a\\u{1b}[2J\\n  3 bytes  \\u{9b}x";
        assert_eq!(line("message", &data), expected);
    }

    #[test]
    fn a_response_has_its_time_and_an_unknown_event_its_data() {
        let data = json!({
            "sid": 7, "direction": "out", "kind": "response", "route": "h.m", "bytes": 31, "took_us": 2081,
        });
        let expected = "7  out  response  h.m  31 bytes  2.081 ms";
        assert_eq!(line("message", &data), expected);
        assert_eq!(line("later", &json!({"a": 1})), "later  {\"a\":1}");
        let json = json_line("closed", json!({"sid": 7, "reason": "left"}));
        assert_eq!(json, r#"{"event":"closed","sid":7,"reason":"left"}"#);
    }
}
