//! Requests that need the token: refused without it, done with it, and audited in both cases.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tangelo::handler::{Json, Router, Session};
use tempfile::{NamedTempFile, TempPath};

use super::health::with_port;
use crate::harness::admin::{AdminPort, Answer};
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::operator::reload::File;

pub(super) const TOKEN: &str = "correct-horse";

/// Returns a file with the token. tangelo reads it for each request.
pub(super) fn token_file(mode: u32) -> TempPath {
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(&file, format!("{TOKEN}\n")).expect("a file of our own");
    fs::set_permissions(&file, Permissions::from_mode(mode)).expect("a file of our own");
    file.into_temp_path()
}

pub(super) fn start_with(token_file: &Path) -> (Gateway, AdminPort) {
    let token_file = format!("admin.token_file={}", token_file.display());
    super::start(&["--shards", "2", "--set", &token_file])
}

/// A request as `curl` sends it; a head line may take the place of the usual one of its name.
fn ask(port: &AdminPort, line: &str, heads: &[&str], body: &str) -> Answer {
    let usual = [
        "Host: localhost",
        &format!("Authorization: Bearer {TOKEN}"),
        "Content-Type: application/json",
    ];
    let name = |head: &str| head.split(':').next().map(str::to_owned);
    let kept = usual
        .iter()
        .filter(|head| !heads.iter().any(|other| name(other) == name(head)));
    // A head without a value is left out.
    let given = heads.iter().filter(|head| !head.ends_with(':'));
    let heads: Vec<&str> = kept.chain(given).copied().collect();
    let heads = heads.join("\r\n");
    let length = body.len();
    port.ask(&format!(
        "{line} HTTP/1.1\r\n{heads}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

#[test]
fn requests_of_strangers_and_pages_are_refused_and_audited() {
    let token = token_file(0o600);
    let (mut gateway, port) = start_with(&token);
    let client = Client::tcp(gateway.address()).open();
    let drain = "POST /drain";
    let mut refused = 0;
    for (line, heads, body, status, why) in [
        (drain, &["Authorization:"][..], "{}", 401, "is missing"),
        (
            drain,
            &["Authorization: Bearer correct-hors"],
            "{}",
            401,
            "the token is wrong",
        ),
        (
            drain,
            &["Host: evil.example:9464"],
            "{}",
            403,
            "the header Host",
        ),
        (drain, &["Host:"], "{}", 403, "the header Host"),
        (
            drain,
            &["Origin: http://evil.example"],
            "{}",
            403,
            "the header Origin",
        ),
        (drain, &["Origin: null"], "{}", 403, "the header Origin"),
        (
            drain,
            &["Content-Type: text/plain"],
            "{}",
            415,
            "application/json",
        ),
        (drain, &[], "{\"a\":1}", 422, ""),
        (drain, &[], "{", 400, ""),
        ("GET /drain", &[], "", 405, ""),
        ("GET /kick?uid=ann", &[], "", 405, ""),
        ("PUT /blacklist", &[], "{\"add\":[]}", 405, ""),
        ("POST /kick", &[], "{}", 400, "expected uid or sid"),
        ("POST /blacklist", &[], "{\"add\":[\"1\",\"(\"]}", 400, "("),
        (
            "GET /sessions?uid=ann",
            &["Authorization:"],
            "",
            401,
            "is missing",
        ),
    ] {
        let answer = ask(&port, line, heads, body);
        assert_eq!(answer.status, status, "{line} {heads:?} {body}: {answer:?}");
        assert!(answer.body.contains(why), "{line} {heads:?}: {answer:?}");
        assert!(!answer.body.contains(TOKEN));
        refused += 1;
        gateway.wait_counter("admin_requests_denied", refused);
    }
    let answer = ask(&port, "POST /kick", &[], "{\"sid\":3}");
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.body.contains("no session 3"), "{answer:?}");
    let line = gateway.wait_printed("an operator's request: there is no session 3");
    assert!(
        line.contains("INFO audit") && line.contains("status=404"),
        "{line}"
    );
    assert_eq!(gateway.counters()["admin_requests_denied"], refused);
    let line = gateway.wait_printed("audit: an operator's request is refused");
    for part in [
        "WARN",
        "method=POST",
        "uri=/drain",
        "from=\"127.0.0.1:",
        "status=401",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!gateway.printed().contains(TOKEN));
    // Nothing of it was done.
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    assert_eq!(gateway.counters().get("closed_kicked"), None);
    drop(client);
}

#[test]
fn without_a_private_token_file_only_a_unix_socket_takes_such_requests() {
    let public = token_file(0o644);
    let (mut gateway, port) = start_with(&public);
    gateway.wait_printed("change its mode to 0600; requests that need the token are refused");
    let answer = ask(&port, "POST /drain", &[], "{}");
    assert_eq!(answer.status, 403, "{answer:?}");
    fs::set_permissions(&public, Permissions::from_mode(0o600)).expect("a file of our own");
    assert_eq!(ask(&port, "GET /sessions?uid=ann", &[], "").body, "[]\n");
    drop(gateway);

    let (_gateway, port) = super::start(&[]);
    let answer = ask(&port, "POST /drain", &[], "{}");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(
        answer.body.contains("admin.token_file is not set"),
        "{answer:?}"
    );
}

#[test]
fn an_operator_sees_the_configuration_with_its_sources_and_without_the_token() {
    let token = token_file(0o600);
    let (_gateway, port) = start_with(&token);
    let answer = ask(&port, "GET /config", &[], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    for line in ["[admin]", "require_registry = false  # default"] {
        assert!(answer.body.contains(line), "{line}: {}", answer.body);
    }
    let own = answer
        .body
        .lines()
        .find(|line| line.starts_with("token_file = "));
    assert!(own.is_some_and(|line| line.contains("--set")), "{own:?}");
    assert!(!answer.body.contains(TOKEN));
}

#[test]
fn an_operator_drains_the_gateway_and_the_audit_has_it() {
    let token = token_file(0o600);
    let (mut gateway, port) = start_with(&token);
    let mut client = Client::websocket(gateway.address()).open();
    let answer = ask(&port, "POST /drain", &["Origin: http://localhost"], "{}");
    assert_eq!((answer.status, &*answer.body), (200, "the drain begins\n"));
    assert_eq!(client.next_package(), None);
    assert_eq!(client.close_code(), Some(1001));
    assert_eq!(gateway.wait_exit(), Some(0));
    let line = gateway.wait_printed("an operator's request: the drain begins");
    for part in [
        "INFO audit",
        "method=POST",
        "uri=/drain",
        "from=\"127.0.0.1:",
        "status=200",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

async fn login(
    mut session: Session,
    Json(login): Json<Value>,
) -> tangelo::handler::Reply<Json<u64>> {
    session.set("token", json!("hidden"));
    session.set("room", json!(7));
    session.push_settings()?;
    session
        .bind(login["uid"].as_str().unwrap_or_default())
        .await?;
    Ok(Json(session.id().get()))
}

#[test]
fn an_operator_sees_and_kicks_the_sessions_of_a_uid_or_one_session() {
    for shards in [1, 4] {
        let (config, port) = with_port();
        let inside = Inside::start(shards, config, || Router::new().route("h.login", login));
        port.wait_until_open();
        let uids = ["ann", "bob", "bob", "ann", "ann"];
        let mut clients: Vec<Client> = uids.map(|_| Client::tcp(inside.address()).open()).into();
        let mut sids = Vec::new();
        for (client, uid) in clients.iter_mut().zip(uids) {
            let sid = client.request_text("connector.h.login", json!({ "uid": uid }).to_string());
            sids.push(sid.parse::<u64>().expect("a session id"));
        }
        inside.wait_counter("sessions_bound", 5);
        let sessions = |who: &str| -> Value {
            let answer = port.get(&format!("/sessions?{who}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            serde_json::from_str(&answer.body).expect("JSON")
        };
        let of_bob = sessions("uid=bob");
        let expected = |sid: &u64| json!({"id": sid, "frontendId": "connector-1", "uid": "bob", "settings": {"token": "***", "room": 7}});
        assert_eq!(of_bob, json!([expected(&sids[1]), expected(&sids[2])]));
        assert_eq!(
            sessions(&format!("sid={}", sids[2])),
            json!([expected(&sids[2])])
        );
        assert_eq!(sessions("uid=carl"), json!([]));

        let kick = |body: Value| ask(&port, "POST /kick", &["Authorization:"], &body.to_string());
        let answer = kick(json!({"uid": "ann", "reason": "cheat"}));
        assert_eq!(
            answer.body,
            "kicked 3 sessions of uid \"ann\" with the reason \"cheat\"\n"
        );
        let answer = kick(json!({"sid": sids[1]}));
        assert_eq!(answer.status, 200, "{answer:?}");
        for (client, uid) in clients
            .iter_mut()
            .zip(uids)
            .filter(|(_, uid)| *uid == "ann")
        {
            let package = client.next_package().expect("a kick package");
            let text = String::from_utf8_lossy(&package.body);
            assert!(text.contains("cheat"), "{uid}: {text}");
            assert_eq!(client.next_package(), None);
        }
        assert_eq!(
            clients[1].next_package(),
            None,
            "without a reason there is no package"
        );
        inside.wait_counter("sessions_bound", 1);
        assert_eq!(sessions("uid=bob"), json!([expected(&sids[2])]));
        inside.stop();
    }
}

#[test]
fn an_operator_adds_to_the_blacklist() {
    let token = token_file(0o600);
    let (mut gateway, port) = start_with(&token);
    drop(Client::tcp(gateway.address()).open());
    let body = json!({"add": [r"^127\.0\.0\.1$"]}).to_string();
    assert_eq!(ask(&port, "POST /blacklist", &[], &body).status, 200);
    let refused = Client::tcp(gateway.address()).next_package();
    assert_eq!(refused, None);
    gateway.wait_counter("closed_blacklisted", 1);
}

#[test]
fn an_operator_changes_the_log_level_until_a_reload_changes_the_key() {
    let file = File::new("shards = 1\n[log]\nlevel = \"info\"\n");
    let token = token_file(0o600);
    let token = format!("admin.token_file={}", token.display());
    let args = ["--config", file.path(), "--set", &token];
    let (mut gateway, port) = super::start(&args);
    let change = |level: Value| {
        let body = json!({ "level": level }).to_string();
        let answer = ask(&port, "POST /log-level", &[], &body);
        (answer.status, answer.body)
    };
    let closes = |gateway: &Gateway| gateway.printed().matches("a client is closed").count();
    let expected = "\"debgu\" is not a level; expected error, warn, info, debug, trace, off, or a filter such as";
    let (status, text) = change(json!("debgu"));
    assert_eq!(status, 400, "{text}");
    assert!(text.starts_with(&format!("level: {expected}")), "{text}");
    assert_eq!(change(json!(3)).0, 422);

    // The shard answers a later client when it has closed the earlier one.
    drop(Client::tcp(gateway.address()).open());
    gateway.wait_counter("closed_left", 1);
    let second = Client::tcp(gateway.address()).open();
    let (status, text) = change(json!("debug"));
    assert_eq!(status, 200, "{text}");
    assert_eq!(text, "the log level is \"debug\"; log.level is \"info\"\n");
    gateway.wait_printed("an operator's request: the log level is \"debug\"");
    drop(second);
    gateway.wait_printed("a client is closed");
    assert_eq!(closes(&gateway), 1, "{}", gateway.printed());

    // The audit has a change that hides the audit.
    assert_eq!(change(json!("error")).0, 200);
    gateway.wait_printed("an operator changes the log level to \"error\"");
    drop(Client::tcp(gateway.address()).open());
    gateway.wait_counter("closed_left", 3);
    let _last = Client::tcp(gateway.address()).open();
    file.write("shards = 1\n[log]\nlevel = \"debug\"\n");
    gateway.signal("HUP");
    gateway.wait_printed("SIGHUP: changed log.level = \"debug\"");
    assert_eq!(closes(&gateway), 1, "{}", gateway.printed());
}
