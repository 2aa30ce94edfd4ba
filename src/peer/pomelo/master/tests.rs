use super::figures::LOGINS_BYTES_MAX;
use super::*;

use proptest::collection::vec;
use proptest::prelude::*;

mod transcripts;

// The pure rooms have no clock; a test of one may start from the real one.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

fn config(dialect: Dialect) -> MasterConfig {
    MasterConfig {
        id: "connector-1".into(),
        server_type: "connector".into(),
        pid: 4040,
        info: json!({"id": "connector-1", "host": "127.0.0.1", "port": 3150, "frontend": "true"}),
        token: Some(json!("secret")),
        started_ms: 1_795_412_213_934,
        dialect,
    }
}

/// A machine and what it has sent.
struct Harness {
    master: Monitor,
    out: Vec<u8>,
    now: Instant,
}

impl Harness {
    fn new(config: MasterConfig) -> Self {
        Self {
            master: Monitor::new(config),
            out: Vec::new(),
            now: now(),
        }
    }

    /// One that has just joined as connector-1.
    fn joined(dialect: Dialect) -> Self {
        let mut monitor = Self::new(config(dialect));
        monitor.join();
        monitor
    }

    /// Connects and registers; an empty list.
    fn join(&mut self) {
        self.open();
        self.register();
        let request = self.master.next_request - 1;
        let answer = json!({"respId": request, "error": null, "body": {}});
        assert!(matches!(
            self.monitor(&answer),
            Some(MasterEvent::Subscribed(_))
        ));
        self.out.clear();
    }

    fn open(&mut self) {
        self.master.connected(self.now, &mut self.out);
        assert_eq!(self.take(&CONNACK), Ok(None));
    }

    fn register(&mut self) {
        let yes = publish(admin::REGISTER, b"{\"code\":1,\"msg\":\"ok\"}");
        assert_eq!(self.take(&yes), Ok(Some(MasterEvent::Accepted)));
    }

    /// One whole packet.
    fn take(&mut self, packet: &[u8]) -> Result<Option<MasterEvent>, LinkFault> {
        let received = self.master.receive(self.now, packet, &mut self.out)?;
        let (bytes, event) = received.expect("a whole packet");
        assert_eq!(bytes, packet.len());
        Ok(event)
    }

    /// One message, as a notify is sent.
    #[track_caller]
    fn monitor(&mut self, message: &Value) -> Option<MasterEvent> {
        self.take(&publish(admin::MONITOR, message.to_string().as_bytes()))
            .unwrap()
    }

    /// A request with id 9 to a module.
    #[track_caller]
    fn ask(&mut self, module: &str, body: Value) -> Option<MasterEvent> {
        self.monitor(&json!({"reqId": 9, "moduleId": module, "body": body}))
    }

    /// A notify to a module. It has no answer.
    #[track_caller]
    fn tell(&mut self, module: &str, body: Value) -> Option<MasterEvent> {
        let event = self.monitor(&json!({"moduleId": module, "body": body}));
        assert_eq!(self.sent(), Vec::<String>::new());
        event
    }

    /// Returns the messages sent since the last call: topic and payload, those that are encoded twice once
    /// decoded; other packets by name.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        let mut rest = &self.out[..];
        while let Some((packet, bytes)) = mqtt::decode(rest, RPC_FRAME_BYTES_MAX).unwrap() {
            rest = &rest[bytes..];
            sent.push(match packet {
                Packet::Publish { topic, payload } => {
                    let text = match json::parse(payload).unwrap() {
                        Value::String(text) => text,
                        _ => String::from_utf8(payload.to_vec()).unwrap(),
                    };
                    format!("{} {text}", topic.escape_ascii())
                }
                other => format!("{other:?}"),
            });
        }
        self.out.clear();
        sent
    }

    #[track_caller]
    fn answers(&mut self, expected: &str) {
        assert_eq!(self.sent(), [format!("monitor {expected}")]);
    }
}

fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    mqtt::write_publish_on(&mut packet, topic, |out| out.extend_from_slice(payload));
    packet
}

fn ignored(event: Option<MasterEvent>) -> bool {
    matches!(event, Some(MasterEvent::Ignored(_)))
}

#[test]
fn a_server_joins_step_by_step() {
    let mut monitor = Harness::new(config(Dialect::Pomelo));
    monitor.master.connected(monitor.now, &mut monitor.out);
    assert_eq!(monitor.sent(), ["Connect"]);
    monitor.take(&CONNACK).unwrap();
    assert_eq!(
        monitor.sent(),
        [
            r#"register {"id":"connector-1","type":"monitor","serverType":"connector","pid":4040,"info":{"id":"connector-1","host":"127.0.0.1","port":3150,"frontend":"true"},"token":"secret"}"#
        ]
    );
    assert_eq!(
        monitor.take(&CONNACK),
        Ok(None),
        "a second CONNACK has no effect"
    );
    assert!(
        ignored(monitor.tell("__console__", json!({"signal": "stop"}))),
        "too early"
    );
    monitor.register();
    monitor.answers(
        r#"{"reqId":1,"moduleId":"__masterwatcher__","body":{"action":"subscribe","id":"connector-1"}}"#,
    );
    assert!(
        ignored(monitor.monitor(&json!({"respId": 2, "body": {}}))),
        "another request's"
    );
    let chat = json!({"id": "chat-1", "serverType": "chat", "host": "h", "port": 1});
    let own = json!({"id": "connector-1", "serverType": "connector", "host": "h", "port": 2});
    let answer =
        json!({"respId": "1", "error": null, "body": {"chat-1": chat, "connector-1": own}});
    let Some(MasterEvent::Subscribed(list)) = monitor.monitor(&answer) else {
        panic!()
    };
    assert_eq!((list.servers.len(), &*list.servers[0].id), (1, "chat-1"));
    assert_eq!(list.own.map(|own| own.port), Some(2));
    monitor.answers(
        r#"{"moduleId":"__masterwatcher__","body":{"action":"record","id":"connector-1"}}"#,
    );
    assert!(ignored(monitor.monitor(&answer)), "answered already");
}

#[test]
fn a_refused_registration_is_final() {
    let mut monitor = Harness::new(config(Dialect::Pinus));
    monitor.open();
    monitor.out.clear();
    let no = publish(
        admin::REGISTER,
        br#"{"code":-1,"msg":"server auth failed"}"#,
    );
    assert_eq!(
        monitor.take(&no),
        Ok(Some(MasterEvent::Refused("server auth failed".into())))
    );
    assert_eq!(monitor.take(&mqtt::DISCONNECT), Ok(None));
    monitor.master.disconnect(&mut monitor.out);
    assert!(monitor.out.is_empty());
}

#[test]
fn a_list_that_is_refused_ends_the_connection() {
    for answer in [
        json!({"respId": 1, "error": {"message": "m"}, "body": {}}),
        json!({"respId": 1, "error": null, "body": [1]}),
    ] {
        let mut monitor = Harness::new(config(Dialect::Pomelo));
        monitor.open();
        monitor.register();
        let answer = publish(admin::MONITOR, answer.to_string().as_bytes());
        assert_eq!(monitor.take(&answer), Err(LinkFault::NoList));
    }
}

#[test]
fn a_server_comes_back_without_record_and_without_token() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    assert_eq!(monitor.take(&mqtt::DISCONNECT), Err(LinkFault::Left));
    for attempt in 0..2 {
        monitor.open();
        assert_eq!(
            monitor.sent(),
            [
                "Connect",
                r#"reconnect {"id":"connector-1","type":"monitor","info":{"id":"connector-1","host":"127.0.0.1","port":3150,"frontend":"true"},"pid":4040,"serverType":"connector"}"#
            ]
        );
        let text = br#"{"code":-1,"msg":"id has been registered. id:connector-1"}"#;
        let no = publish(admin::RECONNECT_OK, text);
        if attempt == 0 {
            assert_eq!(monitor.take(&no), Err(LinkFault::StillConnected));
        }
    }
    let yes = publish(admin::RECONNECT_OK, br#"{"code":1,"msg":"ok"}"#);
    assert_eq!(monitor.take(&yes), Ok(Some(MasterEvent::Accepted)));
    let replace = json!({"action": "replaceServer", "servers": {}});
    let event = monitor.ask("__monitorwatcher__", replace);
    assert_eq!(event, Some(MasterEvent::Replaced(ServerList::default())));
    monitor.answers(r#"{"respId":9,"error":1}"#);
}

#[test]
fn a_server_that_never_joined_registers_again() {
    let mut monitor = Harness::new(config(Dialect::Pomelo));
    for request in 1..3 {
        monitor.open();
        assert!(monitor.sent()[1].starts_with("register "));
        monitor.register();
        let subscribe = format!("monitor {{\"reqId\":{request},");
        assert!(monitor.sent()[0].starts_with(&subscribe));
    }
}

#[test]
fn a_server_that_the_master_has_lost_registers_once_more_but_records_only_once() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let event = monitor.ask(
        "__monitorwatcher__",
        json!({"action": "removeServer", "id": "connector-1"}),
    );
    assert_eq!(event, Some(MasterEvent::RegisterAnew));
    monitor.answers(r#"{"respId":9,"error":1}"#);
    monitor.master.disconnect(&mut monitor.out);
    assert_eq!(monitor.sent(), ["Disconnect"]);
    monitor.open();
    assert!(monitor.sent()[1].starts_with("register "));
    monitor.register();
    monitor.out.clear();
    let answer = json!({"respId": 2, "error": null, "body": {}});
    assert!(matches!(
        monitor.monitor(&answer),
        Some(MasterEvent::Subscribed(_))
    ));
    assert_eq!(monitor.sent(), Vec::<String>::new(), "no record");
    monitor.open();
    assert!(
        monitor.sent()[1].starts_with("reconnect "),
        "the server reconnects from then on"
    );
}

#[test]
fn a_ping_goes_out_each_minute_and_two_minutes_of_silence_end_the_link() {
    let second = Duration::from_secs(1);
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let start = monitor.now;
    let at = |seconds| ShardTime::new(start + seconds * second);
    let Harness { master, out, .. } = &mut monitor;
    for (seconds, sent) in [(59, false), (60, true)] {
        out.clear();
        assert_eq!(master.tick(at(seconds), out), Ok(()));
        assert_eq!(!out.is_empty(), sent, "{seconds}");
    }
    assert_eq!(out[..], mqtt::PINGREQ);
    assert_eq!(
        master.receive(start, &mqtt::PINGRESP, out),
        Ok(Some((2, None)))
    );
    for (seconds, sent) in [(119, false), (120, true), (180, false), (239, false)] {
        out.clear();
        assert_eq!(master.tick(at(seconds), out), Ok(()));
        assert_eq!(!out.is_empty(), sent, "{seconds}");
    }
    assert_eq!(master.tick(at(240), out), Err(LinkFault::NoPong));
    assert_eq!(
        master.tick(at(999), out),
        Ok(()),
        "an ended link has no deadline"
    );
    out.clear();
    master.connected(start + 300 * second, out);
    let ping = mqtt::PINGREQ;
    assert_eq!(master.receive(start, &ping, out), Ok(Some((2, None))));
    assert_eq!(
        out[out.len() - 2..],
        mqtt::PINGRESP,
        "the master may ask, too"
    );
}

#[test]
fn after_a_pause_a_pong_may_take_its_whole_time_again() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let mut time = ShardTime::new(monitor.now);
    let Harness { master, out, .. } = &mut monitor;
    time.now += KEEPALIVE;
    assert_eq!(master.tick(time, out), Ok(()));
    assert!(out.ends_with(&mqtt::PINGREQ));
    time.now += 2 * KEEPALIVE - Duration::from_secs(1);
    assert!(time.advance(10 * KEEPALIVE).is_some());
    assert_eq!(master.tick(time, out), Ok(()));
    time.now += 2 * KEEPALIVE - Duration::from_secs(1);
    assert_eq!(master.tick(time, out), Ok(()));
    time.now += Duration::from_secs(1);
    assert_eq!(master.tick(time, out), Err(LinkFault::NoPong));
}

#[test]
fn joining_may_not_take_for_ever() {
    let mut monitor = Harness::new(config(Dialect::Pomelo));
    let Harness { master, out, now } = &mut monitor;
    assert_eq!(master.tick(ShardTime::new(*now), out), Ok(()));
    master.connected(*now, out);
    assert_eq!(
        master.tick(ShardTime::new(*now + JOIN_MAX / 2), out),
        Ok(())
    );
    assert_eq!(
        master.tick(ShardTime::new(*now + JOIN_MAX), out),
        Err(LinkFault::JoinTimeout)
    );
}

#[test]
fn servers_that_join_and_leave_become_events_and_are_answered() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let watcher = "__monitorwatcher__";
    let chat = json!({"id": "chat-1", "serverType": "chat", "host": "h", "port": 1});
    let info = ServerInfo::new(chat.clone()).unwrap();

    let event = monitor.ask(watcher, json!({"action": "addServer", "server": chat}));
    assert_eq!(event, Some(MasterEvent::Added(info)));
    monitor.answers(r#"{"respId":9,"error":1}"#);

    let own = json!({"id": "connector-1", "serverType": "x", "host": "h", "port": 1});
    let event = monitor.ask(watcher, json!({"action": "addServer", "server": own}));
    assert!(matches!(event, Some(MasterEvent::AddedSelf(_))));
    monitor.answers(r#"{"respId":9,"error":1}"#);

    for id in [json!("7"), json!(7)] {
        let event = monitor.ask(watcher, json!({"action": "removeServer", "id": id}));
        assert_eq!(event, Some(MasterEvent::Removed("7".into())));
        monitor.answers(r#"{"respId":9,"error":1}"#);
    }
    assert_eq!(
        monitor.ask(watcher, json!({"action": "startOver"})),
        Some(MasterEvent::StartOver)
    );
    monitor.answers(r#"{"respId":9,"error":1}"#);

    for body in [
        json!({"action": "addServer"}),
        json!({"action": "addServer", "server": null}),
        json!({"action": "removeServer", "id": ""}),
        json!({"action": "replaceServer", "servers": 0}),
    ] {
        assert!(ignored(monitor.ask(watcher, body)));
        monitor.answers(r#"{"respId":9,"error":0}"#);
    }
    // A genuine server ignores a list that it cannot use.
    for body in [
        json!({"action": "addServer", "server": {"id": "chat-2"}}),
        json!({"action": "removeServer", "id": {}}),
        json!({"action": "replaceServer", "servers": "all"}),
    ] {
        assert!(ignored(monitor.ask(watcher, body)));
        monitor.answers(r#"{"respId":9,"error":1}"#);
    }
    for body in [
        json!({"action": "other"}),
        json!({}),
        json!(null),
        json!("addServer"),
    ] {
        assert!(ignored(monitor.ask(watcher, body)));
        assert_eq!(monitor.sent(), Vec::<String>::new());
    }
    let event = monitor.tell(watcher, json!({"action": "removeServer", "id": "chat-1"}));
    assert_eq!(event, Some(MasterEvent::Removed("chat-1".into())));
}

#[test]
fn an_operator_is_obeyed() {
    let mut monitor = Harness::joined(Dialect::Pinus);
    let console = "__console__";
    let signal = |signal| json!({"signal": signal});
    assert_eq!(
        monitor.tell(console, signal("stop")),
        Some(MasterEvent::Stop)
    );
    assert_eq!(
        monitor.ask(console, signal("stop")),
        Some(MasterEvent::Stop)
    );
    assert_eq!(monitor.sent(), Vec::<String>::new(), "as pomelo: no answer");

    assert_eq!(
        monitor.ask(console, signal("kill")),
        Some(MasterEvent::Kill)
    );
    monitor.answers(r#"{"respId":9,"error":"connector-1"}"#);
    assert_eq!(
        monitor.ask(console, signal("restart")),
        Some(MasterEvent::Restart)
    );
    monitor.answers(
        r#"{"respId":9,"error":{"id":"connector-1","host":"127.0.0.1","port":3150,"frontend":"true"}}"#,
    );
    let body = json!({"signal": "blacklist", "blacklist": ["10.0.0.1", 7, "^127"]});
    let list = vec!["10.0.0.1".to_owned(), "^127".to_owned()];
    assert_eq!(
        monitor.tell(console, body),
        Some(MasterEvent::Blacklist(list))
    );
    for body in [
        signal("addCron"),
        signal("removeCron"),
        signal("dance"),
        json!(null),
    ] {
        assert!(ignored(monitor.tell(console, body.clone())));
        assert!(ignored(monitor.ask(console, body)));
        assert_eq!(monitor.sent(), Vec::<String>::new());
    }
}

const FIGURES: Figures = Figures {
    rss_bytes: 69_553_095,
    heap_total_bytes: 32_579_256,
    heap_used_bytes: 14_323_549,
    uptime: Duration::from_millis(12_600),
};

fn statistics() -> Statistics {
    Statistics {
        connections: 2,
        logged_in: 1,
        logins: vec![LoginEntry {
            time_ms: 1_795_414_050_123,
            uid: "\"zed\"".into(),
            address: "::ffff:127.0.0.1:45154".into(),
        }],
    }
}

#[test]
fn figures_are_answered_where_the_master_looks_for_them() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let mut monitor = Harness::joined(dialect);
        let watch = |result: &str| match dialect {
            Dialect::Pomelo => format!("{{\"respId\":9,\"error\":{result}}}"),
            Dialect::Pinus => format!("{{\"respId\":9,\"error\":null,\"body\":{result}}}"),
        };
        let Some(MasterEvent::AskFigures(question)) =
            monitor.ask("__console__", json!({"signal": "list"}))
        else {
            panic!()
        };
        monitor
            .master
            .answer_figures(question, &FIGURES, &mut monitor.out);
        monitor.answers(
            r#"{"respId":9,"error":{"serverId":"connector-1","body":{"serverId":"connector-1","serverType":"connector","pid":4040,"rss":"66.33","heapTotal":"31.07","heapUsed":"13.66","uptime":"0.21"}}}"#,
        );
        let Some(MasterEvent::AskFigures(question)) =
            monitor.ask("watchServer", json!({"comd": "servers"}))
        else {
            panic!()
        };
        monitor
            .master
            .answer_figures(question, &FIGURES, &mut monitor.out);
        monitor.answers(&watch(
            r#"{"serverId":"connector-1","body":{"serverId":"connector-1","serverType":"connector","host":"127.0.0.1","port":3150,"pid":4040,"heapUsed":"14.32","uptime":"0.21"}}"#,
        ));
        for comd in ["connections", "logins"] {
            let Some(MasterEvent::AskStatistics(question)) =
                monitor.ask("watchServer", json!({"comd": comd}))
            else {
                panic!()
            };
            monitor
                .master
                .answer_statistics(question, &statistics(), &mut monitor.out);
            monitor.answers(&watch(
                r#"{"serverId":"connector-1","body":{"serverId":"connector-1","totalConnCount":2,"loginedCount":1,"loginedList":[{"loginTime":1795414050123,"uid":"zed","address":"::ffff:127.0.0.1:45154"}]}}"#,
            ));
        }
        for body in [
            json!({"comd": "run", "param": "1+1"}),
            json!({"comd": "dance"}),
            json!(1),
        ] {
            assert_eq!(monitor.ask("watchServer", body), None);
            monitor.answers(r#"{"respId":9,"error":null,"body":"not supported"}"#);
        }
    }
}

#[test]
fn online_users_are_told_by_a_notify() {
    let mut monitor = Harness::joined(Dialect::Pinus);
    let event = monitor.monitor(&json!({"moduleId": "onlineUser"}));
    let Some(MasterEvent::AskStatistics(question)) = event else {
        panic!()
    };
    monitor
        .master
        .answer_statistics(question, &Statistics::default(), &mut monitor.out);
    monitor.answers(
        r#"{"moduleId":"onlineUser","body":{"serverId":"connector-1","totalConnCount":0,"loginedCount":0,"loginedList":[]}}"#,
    );
}

#[test]
fn the_use_of_the_machine_is_told_by_a_notify_of_its_module() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    for (module, body) in [
        (
            "nodeInfo",
            r#"{"time":"2026-1-2 3:04:05 PM","serverId":"connector-1","serverType":"connector","pid":4040,"cpuAvg":"2.5","memAvg":"0.4","vsz":"900","rss":"7","usr":"1.25","sys":"1.25","gue":"0.00"}"#,
        ),
        (
            "systemInfo",
            r#"{"hostname":"box","loadavg":[0.1,0.2,0],"totalmem":2048000,"freemem":1024,"iostat":{"date":"2026-1-2 3:04:05 PM","cpu":{"cpu_user":33.33,"cpu_nice":0,"cpu_system":0,"cpu_iowait":0,"cpu_steal":0,"cpu_idle":66.67},"disk":{"tps":0.5,"kb_read":7,"kb_wrtn":8,"kb_read_per":0,"kb_wrtn_per":0}}}"#,
        ),
    ] {
        let Some(MasterEvent::AskUsage(question)) = monitor.tell(module, json!(null)) else {
            panic!()
        };
        let Harness { master, out, .. } = &mut monitor;
        master.answer_usage(&question, &usage(), out);
        monitor.answers(&format!(
            r#"{{"moduleId":"{module}","body":{{"serverId":"connector-1","body":{body}}}}}"#
        ));
    }
}

fn usage() -> MachineUsage {
    MachineUsage {
        time: "2026-1-2 3:04:05 PM".into(),
        host: "box".into(),
        cpu: CpuShares {
            user: 100.0 / 3.0,
            idle: 200.0 / 3.0,
            ..CpuShares::default()
        },
        disk: DiskUsage {
            transfers_per_second: 0.5,
            read_kib: 7,
            written_kib: 8,
            ..DiskUsage::default()
        },
        load: [0.1, 0.2, 0.0],
        memory_bytes: 2_048_000,
        free_bytes: 1024,
        process: ProcessUsage {
            user: 1.25,
            system: 1.25,
            guest: 0.0,
            virtual_bytes: 900 << 10,
            resident_bytes: 8191,
        },
    }
}

#[test]
fn an_answer_never_goes_to_a_later_connection() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let Some(MasterEvent::AskFigures(list)) = monitor.ask("__console__", json!({"signal": "list"}))
    else {
        panic!()
    };
    let Some(MasterEvent::AskStatistics(online)) = monitor.tell("onlineUser", json!(null)) else {
        panic!()
    };
    assert_eq!(monitor.take(&[0xff]), Err(LinkFault::Bytes));
    for _ in 0..2 {
        monitor.out.clear();
        monitor
            .master
            .answer_figures(list.clone(), &FIGURES, &mut monitor.out);
        monitor
            .master
            .answer_statistics(online.clone(), &statistics(), &mut monitor.out);
        assert!(monitor.out.is_empty());
        monitor.open();
    }
}

#[test]
fn a_list_of_logins_fits_a_frame() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    let login = statistics().logins.remove(0);
    let many = Statistics {
        logged_in: 200_000,
        logins: vec![login; 200_000],
        connections: 0,
    };
    let Some(MasterEvent::AskStatistics(question)) =
        monitor.ask("watchServer", json!({"comd": "logins"}))
    else {
        panic!()
    };
    monitor
        .master
        .answer_statistics(question, &many, &mut monitor.out);
    assert!(monitor.out.len() > LOGINS_BYTES_MAX / 2 && monitor.out.len() < LOGINS_BYTES_MAX * 2);
    let sent = monitor.sent().remove(0);
    let answer = json::parse(&sent.as_bytes()["monitor ".len()..]).unwrap();
    let body = &answer["error"]["body"];
    assert_eq!(body["loginedCount"], 200_000);
    assert!(body["loginedList"].as_array().unwrap().len() > 50_000);
}

#[test]
fn a_restart_is_reported_once_this_server_has_started() {
    let ask = json!({"action": "afterStartCallback"});
    let mut monitor = Harness::new(config(Dialect::Pinus));
    monitor.open();
    monitor.register();
    monitor.out.clear();
    assert_eq!(monitor.ask("RestartNotifyModule", ask.clone()), None);
    assert_eq!(monitor.sent(), Vec::<String>::new());
    monitor.monitor(&json!({"respId": 1, "error": null, "body": {}}));
    let sent = monitor.sent();
    assert!(sent[0].contains("record"));
    assert_eq!(sent[1], r#"monitor {"respId":9,"error":1}"#);
    assert_eq!(monitor.ask("RestartNotifyModule", ask), None);
    monitor.answers(r#"{"respId":9,"error":1}"#);
    assert!(ignored(monitor.ask("RestartNotifyModule", json!({}))));
}

/// The master looks for the answer in `body`; it throws on an `error`, and its console waits.
#[test]
fn a_console_gets_an_answer_for_scripts_and_log_files() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let mut monitor = Harness::joined(dialect);
        assert!(ignored(
            monitor.ask("scripts", json!({"script": "process.exit()"}))
        ));
        monitor.answers(
            r#"{"respId":9,"error":null,"body":"this server is tangelo, which runs no scripts"}"#,
        );
        for (body, name) in [
            (json!({"logfile": "con-log", "number": 10}), r#""con-log""#),
            (json!({}), "null"),
            (json!(null), "null"),
        ] {
            assert!(ignored(monitor.ask("monitorLog", body)));
            monitor.answers(&format!(
                r#"{{"respId":9,"error":null,"body":{{"serverId":"connector-1","body":{{"logfile":{name},"dataArray":[]}}}}}}"#
            ));
        }
        for module in ["scripts", "monitorLog"] {
            assert!(ignored(monitor.tell(module, json!({}))));
        }
    }
}

#[test]
fn requests_that_need_javascript_are_refused_or_ignored() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    for module in ["profiler", "onlineUser", "systemInfo"] {
        assert!(ignored(
            monitor.ask(module, json!({"script": "process.exit()"}))
        ));
        monitor.answers(&format!(
            r#"{{"respId":9,"error":"unknown moduleId:{module}"}}"#
        ));
        if !["onlineUser", "systemInfo"].contains(&module) {
            assert!(ignored(monitor.tell(module, json!({}))));
        }
    }
    let command = json!({"command": "enable", "reqId": 1, "moduleId": "watchServer", "body": {}});
    assert!(ignored(monitor.monitor(&command)));
    assert_eq!(monitor.sent(), Vec::<String>::new());
}

#[test]
fn bytes_that_are_not_a_message_are_counted_and_ignored() {
    let mut monitor = Harness::joined(Dialect::Pomelo);
    for (topic, payload) in [
        (admin::MONITOR, &b"{"[..]),
        (admin::MONITOR, b"[1]"),
        (admin::MONITOR, b"{\"respId\":77}"),
        (admin::REGISTER, b"{\"code\":-1}"),
        (b"client", b"{}"),
        (b"", b""),
    ] {
        assert!(ignored(monitor.take(&publish(topic, payload)).unwrap()));
    }
    assert!(monitor.out.is_empty());
    let mut registering = Harness::new(config(Dialect::Pomelo));
    registering.open();
    assert!(ignored(
        registering.take(&publish(admin::REGISTER, b"no")).unwrap()
    ));
    registering.register();
}

/// Words that the machine knows; the first 17 name members.
const WORDS: &[&str] = &[
    "reqId",
    "respId",
    "moduleId",
    "command",
    "body",
    "error",
    "action",
    "signal",
    "comd",
    "server",
    "servers",
    "id",
    "serverType",
    "host",
    "port",
    "code",
    "addServer",
    "removeServer",
    "replaceServer",
    "startOver",
    "list",
    "kill",
    "restart",
    "blacklist",
    "connections",
    "afterStartCallback",
    "connector-1",
    "__monitorwatcher__",
    "__console__",
    "watchServer",
    "onlineUser",
    "RestartNotifyModule",
    "scripts",
    "monitorLog",
    "1",
    "",
];

/// JSON made of these words.
fn message() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(1)),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let keys = proptest::sample::select(&WORDS[..17]);
    leaf.prop_recursive(4, 24, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys.clone(), inner), 0..8).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

/// Feeds everything, in pieces of these sizes, and answers what is asked.
fn feed(monitor: &mut Harness, bytes: &[u8], piece: usize) {
    let mut input = Vec::new();
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            let Harness { master, out, now } = &mut *monitor;
            let Ok(received) = master.receive(*now, &input, out) else {
                return;
            };
            let Some((used, event)) = received else { break };
            match event {
                Some(MasterEvent::AskFigures(question)) => {
                    monitor
                        .master
                        .answer_figures(question, &FIGURES, &mut monitor.out);
                }
                Some(MasterEvent::AskStatistics(question)) => {
                    monitor
                        .master
                        .answer_statistics(question, &statistics(), &mut monitor.out);
                }
                Some(MasterEvent::AskUsage(question)) => {
                    let Harness { master, out, .. } = &mut *monitor;
                    master.answer_usage(&question, &usage(), out);
                }
                _ => {}
            }
            input.drain(..used);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), piece in 1..50usize) {
        feed(&mut Harness::new(config(Dialect::Pomelo)), &bytes, piece);
        feed(&mut Harness::joined(Dialect::Pinus), &bytes, piece);
    }

    #[test]
    fn random_messages_never_panic_and_every_answer_is_a_frame(
        messages in vec((0..5usize, any::<bool>(), message()), 1..8),
        joined in any::<bool>(),
    ) {
        let mut monitor = Harness::joined(Dialect::Pinus);
        if !joined {
            monitor.open();
        }
        let topics = [admin::MONITOR, admin::MONITOR, admin::REGISTER, admin::RECONNECT_OK, b"x"];
        for (topic, twice, message) in messages {
            let mut payload = message.to_string();
            if twice {
                payload = Value::from(payload).to_string();
            }
            feed(&mut monitor, &publish(topics[topic], payload.as_bytes()), 7);
            // Reads each packet back, whatever was sent.
            monitor.sent();
        }
    }
}
