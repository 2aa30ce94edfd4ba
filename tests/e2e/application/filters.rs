//! The built-in filters at work, over both transports.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tangelo::Config;
use tangelo::handler::filter::{Filters, rate, serial, timeout, toobusy};
use tangelo::handler::{Answer, Outcome, Router};

use crate::harness::client::{Client, HANG_GUARD, Message};
use crate::harness::frames::request;
use crate::harness::gateway::Gateway;
use crate::harness::inside::{Gate, Inside};
use crate::harness::pause::pause;
use crate::harness::peers::{Cluster, Dialect};

const SLOW: &str = "connector.entryHandler.slow";
const WAIT: &str = "connector.entryHandler.wait";
const BLOCK: &str = "connector.entryHandler.block";
const OK: &str = "connector.entryHandler.ok";
const CODE_500: &[u8] = br#"{"code":500}"#;

/// `slow` answers as that of the reference application, after `ms`, and if it is told to `wait`, not
/// before the gate opens; `block` blocks the shard.
fn router(gate: &Gate, add: impl FnOnce(&mut Filters)) -> Router {
    let (gate, slow_gate) = (gate.clone(), gate.clone());
    Router::new()
        .raw_route(OK, |_| Answer::now(Outcome::json(&br#"{"ok":1}"#[..])))
        .raw_route(SLOW, move |request| {
            let (message, gate) = (request.message(), slow_gate.clone());
            Answer::later(async move {
                let ms = message["ms"].as_u64().expect("a number");
                pause(Duration::from_millis(ms)).await;
                if message["wait"] == true {
                    gate.pass().await;
                }
                let slow = serde_json::json!({ "slow": ms, "tag": message["tag"] });
                Outcome::value(&slow)
            })
        })
        .raw_route(WAIT, move |_| {
            let gate = gate.clone();
            Answer::later(async move {
                gate.pass().await;
                Outcome::json(&br#"{"late":1}"#[..])
            })
        })
        .raw_route(BLOCK, |_| {
            thread::sleep(Duration::from_millis(400));
            Answer::now(Outcome::json(&br#"{"blocked":1}"#[..]))
        })
        .filters(add)
}

/// A gateway with this filter.
fn start(shards: usize, gate: &Gate, add: fn(&mut Filters)) -> Inside {
    let gate = gate.clone();
    Inside::start(shards, Config::default(), move || router(&gate, add))
}

#[test]
fn serial_lets_the_next_message_go_on_when_one_is_late() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.filter(serial(Duration::from_millis(1500), None));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, SLOW, r#"{"ms":600,"tag":"a","wait":true}"#);
        client.request(2, SLOW, r#"{"ms":0,"tag":"b"}"#);
    }
    for client in &mut clients {
        assert_eq!(client.wait_response(2), br#"{"slow":0,"tag":"b"}"#);
        assert!(
            !client.has_response(1),
            "the response of the late message is not the first"
        );
    }
    gate.open();
    for client in &mut clients {
        let late = client.wait_response(1);
        assert_eq!(late, br#"{"slow":600,"tag":"a","code":500}"#);
    }
    let late = clients.len() as u64;
    assert_eq!(inside.counter("filter_serial_timeouts"), late);
    inside.stop();
}

#[test]
fn serial_handles_messages_in_the_order_they_came() {
    let gate = Gate::default();
    let inside = start(4, &gate, |filters| {
        filters.filter(serial(Duration::from_secs(600), None));
    });
    for mut client in inside.clients() {
        for id in 1..=20 {
            let ms = 20 - id;
            client.request(id, SLOW, format!("{{\"ms\":{ms},\"tag\":{id}}}"));
        }
        // Without the filter the last one would be the first.
        client.wait_response(20);
        assert!((1..20).all(|id| client.has_response(id)));
    }
    assert_eq!(inside.counter("filter_serial_timeouts"), 0);
    inside.stop();
}

#[test]
fn a_message_in_serial_is_not_handled_once_its_session_has_closed() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let inside = start(shards, &gate, |filters| {
            filters.filter(serial(Duration::from_secs(600), None));
        });
        let clients = inside.clients();
        let left = clients.len() as u64;
        for mut client in clients {
            for id in 1..=3 {
                client.request(id, WAIT, "{}");
            }
            client.request(4, "x.y.z", "{}");
            client.wait_response(4);
        }
        inside.wait_gauge("connections", 0);
        inside.wait_counter("filter_serial_dropped", 2 * left);
        // One of each session; the others never got to the gate.
        gate.wait_for(left as usize);
        assert_eq!(gate.waiting(), left as usize);
        gate.open();
        inside.wait_counter("responses_dropped", 3 * left);
        inside.stop();
    }
}

#[test]
fn serial_answers_late_messages_at_once_if_told_so() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        let response = br#"{"msg":"late"}"#.as_slice();
        filters.filter(serial(Duration::from_millis(100), Some(response.into())));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, WAIT, "{}");
        assert_eq!(client.wait_response(1), br#"{"msg":"late","code":500}"#);
    }
    gate.open();
    inside.wait_counter("answers_repeated", clients.len() as u64);
    for client in &mut clients {
        assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
        assert!(!client.has_response(1), "a second response");
    }
    inside.stop();
}

#[test]
fn timeout_says_who_is_late_and_leaves_it_alone() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.filter(timeout(Duration::from_millis(100), 500));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, WAIT, "{}");
    }
    inside.wait_counter("filter_timeouts", clients.len() as u64);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.wait_response(1), br#"{"late":1}"#);
    }
    inside.stop();
}

#[test]
fn rate_refuses_and_recovers() {
    let gate = Gate::default();
    // So slow that the burst is all there is, and so fast that it is soon there again.
    let inside = start(1, &gate, |filters| filters.global_filter(rate(1, 3)));
    let mut clients = inside.clients();
    for client in &mut clients {
        // In one turn, over raw TCP or not.
        (1..=13).for_each(|id| client.request(id, OK, "{}"));
        let answers: Vec<_> = (1..=13).map(|id| client.wait_response(id)).collect();
        assert!(answers[..3].iter().all(|body| body == br#"{"ok":1}"#));
        let refused = answers.iter().filter(|body| *body == CODE_500).count();
        assert!((1..=10).contains(&refused), "{answers:?}");
    }
    assert!(inside.counter("filter_rate_refused") >= clients.len() as u64);
    for client in &mut clients {
        until_answered(client);
    }
    inside.stop();
}

/// Asks until it is not refused.
fn until_answered(client: &mut Client) {
    let deadline = Instant::now() + HANG_GUARD;
    while client.request_text(OK, "{}") != r#"{"ok":1}"# {
        assert!(Instant::now() < deadline, "refused for ever");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn toobusy_refuses_while_the_shard_is_blocked() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.global_filter(toobusy(Duration::from_millis(200)));
    });
    for reach in [Client::tcp, Client::websocket] {
        let mut client = reach(inside.address()).open();
        until_answered(&mut client);
        let before = inside.counter("filter_toobusy_refused");
        // A slow machine may be late by itself, so that even the first one is refused.
        let deadline = Instant::now() + HANG_GUARD;
        while inside.counter("filter_toobusy_refused") == before {
            assert!(Instant::now() < deadline, "never refused");
            client.request(1, BLOCK, "{}");
            client.request(2, OK, "{}");
            client.wait_response(1);
            client.wait_response(2);
        }
        until_answered(&mut client);
    }
    inside.stop();
}

#[test]
fn forwarded_messages_pass_the_filters_of_the_configuration() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let cluster = Cluster::shared(dialect);
        let connector = cluster.take_connector();
        let mut gateway = Gateway::start(&[
            "--app-dir",
            cluster.app_dir(),
            "--id",
            connector.id(),
            "--dialect",
            dialect.name(),
            "--shards=2",
            r#"--set=filter.global=["rate 100/s 3", "time", "serial 20s", "timeout 100ms"]"#,
        ]);
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(gateway.address()).open();
            client.request(1, "chat.chatHandler.slow", r#"{"ms":400,"tag":"a"}"#);
            client.request(2, "chat.chatHandler.slow", r#"{"ms":0,"tag":"b"}"#);
            for (id, body) in [
                (1, r#"{"slow":400,"tag":"a"}"#),
                (2, r#"{"slow":0,"tag":"b"}"#),
            ] {
                let body = body.into();
                assert_eq!(client.next_message(), Message::Response { id, body });
            }
        }
        gateway.wait_counter("filter_timeouts", 2);
        // Again, with more at once: the gateway refuses some before it sends them anywhere.
        let mut client = Client::tcp(gateway.address()).open();
        let messages = (1..=100).map(|id| request(id, "chat.chatHandler.echo", b"{}"));
        client.send_raw(&messages.collect::<Vec<_>>().concat());
        let answers: Vec<_> = (1..=100).map(|id| client.wait_response(id)).collect();
        assert_eq!(answers[0], b"{}");
        let refused = answers.iter().filter(|body| *body == CODE_500).count() as u64;
        assert!(refused > 0);
        assert_eq!(gateway.counters()["filter_rate_refused"], refused);
        let (_, printed) = gateway.stop();
        let line = r#" INFO con-log: {"route":"chat.chatHandler.slow","args":{"ms":400,"tag":"a""#;
        assert!(printed.contains(line), "{printed}");
    }
}

/// Not a whole number of hours from anything that the machine may be set to.
const ZONE: &str = "TST-05:30";

/// The local time there, `MMddhhmm`.
fn time_there() -> String {
    let mut date = Command::new("date");
    let printed = date.env("TZ", ZONE).arg("+%m%d%H%M").output();
    let printed = printed.expect("date is there").stdout;
    String::from_utf8(printed)
        .expect("digits")
        .trim_end()
        .into()
}

/// Lines of the forward log, from the target on, of a gateway with the built-in handlers.
fn forward_log(format: &str) -> Vec<String> {
    let format = format!("--set=log.format={format}");
    let gateway = Gateway::start_in_zone(
        ZONE,
        &[
            "--shards=2",
            "--set=log.forward=true",
            "--set=log.level=\"warn,forward-log=info\"",
            &format,
        ],
    );
    for reach in [Client::tcp, Client::websocket] {
        let mut client = reach(gateway.address()).open();
        let body = r#"{"a":[1,"\u00e9"]}"#;
        assert_eq!(client.request_text(ECHO, body), body);
        // A message without a handler writes no line.
        client.request_text("connector.entryHandler.nosuch", "{}");
        client.request_text("x.y.z", "{}");
    }
    let (_, printed) = gateway.stop();
    // The start line on standard output has the settings.
    let log = printed
        .lines()
        .filter_map(|line| line.strip_prefix("err| "));
    let lines = log.filter_map(|line| {
        let at = line.find("forward-log")?;
        Some(line[at..].to_owned())
    });
    lines.collect()
}

const ECHO: &str = "connector.entryHandler.echo";

#[test]
fn the_forward_log_has_a_line_for_each_message_that_a_handler_is_done_with() {
    let args = r#"{"a":[1,"é"],"__route__":"connector.entryHandler.echo"}"#;
    let members = format!(r#""route":"{ECHO}","args":{args},"time":"#);
    for (format, start) in [
        ("text", format!("forward-log: {{{members}")),
        ("json", format!("forward-log\",{members}")),
    ] {
        let before = time_there();
        let lines = forward_log(format);
        let after = time_there();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in &lines {
            let rest = line.strip_prefix(&start);
            let rest = rest.and_then(|rest| rest.strip_suffix('}'));
            let rest = rest.unwrap_or_else(|| panic!("{line}\ndoes not begin with\n{start}"));
            let (time, used) = rest
                .strip_prefix('"')
                .and_then(|rest| rest.split_once("\",\"timeUsed\":"))
                .expect("a time and a number");
            assert!(
                [&*before, &*after].contains(&time),
                "{before} {line} {after}"
            );
            used.parse::<u32>().expect("milliseconds");
        }
    }
}
