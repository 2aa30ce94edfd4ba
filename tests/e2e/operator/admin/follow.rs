//! The command `trace`: lines for people, lines for programs, and errors that say what to change.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use super::actions::{TOKEN, start_with, token_file};
use super::health::with_port;
use super::trace::{handlers, sid_of_ann};
use crate::harness::admin::AdminPort;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::process::Process;
use crate::operator::reload::File;

/// Starts the command.
fn follow(args: &[&str]) -> Process {
    let args = [&["trace"], args].concat();
    Process::start(
        "trace",
        Path::new("/"),
        env!("CARGO_BIN_EXE_tangelo"),
        &args,
    )
}

/// Starts a gateway with a client that is bound to `ann`, and returns the id of its session too.
fn with_client() -> (Inside, AdminPort, Client, String) {
    let (config, port) = with_port();
    let inside = Inside::start(2, config, handlers);
    port.wait_until_open();
    let mut client = Client::tcp(inside.address()).open();
    client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    inside.wait_counter("sessions_bound", 1);
    let sid = sid_of_ann(&port);
    (inside, port, client, sid)
}

fn wait_for_line(command: &mut Process, part: &str) -> String {
    let find = |line: &str| line.contains(part).then(|| line.to_owned());
    command.wait_for_line(part, 0, HANG_GUARD, find)
}

#[test]
fn a_trace_of_a_session_has_a_line_for_each_event_and_ends_with_the_session() {
    let (inside, port, mut client, sid) = with_client();
    let admin = format!("unix:{}", port.path().display());
    let mut command = follow(&["--session", &sid, "--bodies", "--admin", &admin]);
    wait_for_line(&mut command, "begins");
    client.request_text("connector.h.login", r#"{"uid":"ann","token":"hidden"}"#);
    drop(client);
    let (status, printed) = command.finish(HANG_GUARD);
    assert_eq!(status.code(), Some(0), "{printed}");
    let lines = printed.lines().map(|line| {
        let (time, rest) = line.split_once("  ").expect("a time and a text");
        assert_eq!(time.len(), "20:15:03.123".len(), "{line}");
        rest
    });
    let lines: Vec<&str> = lines.collect();
    let [begins, asked, answered, closed] = lines[..] else {
        panic!("{printed}");
    };
    assert_eq!(begins, format!("{sid}  begins"));
    let request = r#"request   connector.h.login  30 bytes  {"uid":"ann","token":"***"}"#;
    assert_eq!(asked, format!("{sid}  in   {request}"));
    let (response, took) = answered.split_once(" bytes  ").expect(answered);
    let expected = format!("{sid}  out  response  connector.h.login  34");
    assert_eq!(response, expected);
    let (took, body) = took.split_once(" ms  ").expect(answered);
    assert!(took.parse::<f64>().is_ok(), "{answered}");
    assert_eq!(body, r#"{"accessToken":"***","ok":true}"#);
    assert_eq!(closed, format!("{sid}  closed: left"));
    inside.stop();
}

#[test]
fn a_trace_of_a_uid_as_json_goes_on_until_it_is_told_to_end() {
    let (inside, port, client, sid) = with_client();
    let config = format!("[admin]\nlisten = \"unix:{}\"\n", port.path().display());
    let file = File::new(&config);
    let mut command = follow(&["--uid", "ann", "--json", "--config", file.path()]);
    wait_for_line(&mut command, "begun");
    drop(client);
    let closed = wait_for_line(&mut command, "closed");
    let closed: Value = serde_json::from_str(&closed).expect("JSON");
    assert_eq!(closed["event"], json!("closed"));
    assert_eq!(closed["sid"].to_string(), sid);
    let mut client = Client::tcp(inside.address()).open();
    client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    let answer = wait_for_line(&mut command, "response");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_ne!(answer["sid"].to_string(), sid);
    // As Ctrl-C does; a test in the background may ignore that one.
    command.signal("TERM");
    let (status, _) = command.finish(HANG_GUARD);
    assert_eq!(status.code(), None, "the signal ends it");
    inside.stop();
}

#[test]
fn a_trace_that_cannot_be_followed_says_what_to_change() {
    let private = token_file(0o600);
    let (_gateway, port) = start_with(&private);
    let (address, free) = (port.address().to_string(), free_address().to_string());
    let (public, other) = (token_file(0o644), token_file(0o600));
    fs::write(&other, format!("not-{TOKEN}")).expect("a file of our own");
    let [private, public, other] =
        [&private, &public, &other].map(|file| file.display().to_string());
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let of_stranger = stranger.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = stranger.accept() {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    for (args, expected) in [
        (
            &["--uid", "ann"][..],
            "admin.listen is not set, so the operators' port is off; name",
        ),
        (
            &["--uid", "ann", "--admin", &free, "--token-file", &private],
            "Connection refused (os error 111); start tangelo, or name the port",
        ),
        (
            &["--uid", "ann", "--admin", "unix:/nowhere/socket"],
            "No such file or directory (os error 2); start tangelo, or name the port",
        ),
        (
            &["--uid", "ann", "--admin", &address],
            "over TCP a trace needs the token; name its file with --token-file",
        ),
        (
            &["--uid", "ann", "--admin", &address, "--token-file", &other],
            "the token is wrong; --token-file must name the file",
        ),
        (
            &["--uid", "ann", "--admin", &address, "--token-file", &public],
            "change its mode to 0600",
        ),
        (
            &[
                "--session",
                "3",
                "--admin",
                &address,
                "--token-file",
                &private,
            ],
            "there is no such session",
        ),
        (
            &[
                "--uid",
                "ann",
                "--admin",
                &of_stranger,
                "--token-file",
                &private,
            ],
            "this is not the operators' port of a tangelo: ",
        ),
        (
            &["--uid", "ann", "--admin", "nowhere"],
            "--admin nowhere: expected ",
        ),
        (&["--uid", "ann", "--session", "3"], "cannot be used with"),
        (&[], "--uid <UID>|--session <SID>"),
    ] {
        let mut command = follow(args);
        let status = command.wait_exit(HANG_GUARD).expect("it does not wait");
        command.wait_output_end();
        let printed = command.transcript();
        assert!(printed.contains(expected), "{args:?}: {printed}");
        assert_eq!(status.code(), Some(2), "{args:?}: {printed}");
    }
}
