//! A whole gateway with its guards on, among the clients of the [`Simulation`] and others that mean harm.

use std::mem::ManuallyDrop;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::input::{Choices, Input};
use super::ledger::{self, CounterValues};
use super::simulation::{self, Simulation};
use crate::config::{self, Config, Dialect, DuplicateLogin, Scheduler};
use crate::gateway::Gateway;
use crate::gateway::memory::{
    CallingServer, Client, ClientOptions, MemoryExecutor, memory_executor,
};
use crate::limits::{MEMORY_GIVE_BACK_BYTES, RPC_FRAME_BYTES_MAX};
use crate::metrics::Counter;
use crate::wire::json as text;
use crate::wire::message::{self, MessageKind, MessageRoute};
use crate::wire::package::{self, PackageKind};
use crate::wire::pomelo::mqtt::{self, Packet};

/// Longest play: a longer input only repeats itself.
const STEPS_MAX: usize = 1000;
const SHARDS_MAX: usize = 2;
const CALLERS_MAX: usize = 4;
const HOARDERS_MAX: usize = 24;

/// The address of the server of the configuration, and one that no list has.
const KNOWN: &str = "10.0.0.5";
const STRANGER: &str = "198.51.100.1";

const MEMORY: usize = 16 << 20;
/// The bytes that the gateway holds for clients and servers.
const MEMORY_GAUGES: [Counter; 3] = [
    Counter::MemoryInput,
    Counter::MemoryOutput,
    Counter::MemoryMesh,
];
/// One step may hold this much more than the limit before somebody looks at it.
const MEMORY_SLACK: u64 = 2 << 20;

/// Longest time between two heartbeats of the bystander.
const BEAT: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// Whatever clients and servers do, a bystander has its answer, each connection and each message has one end, no client gets
/// two answers, memory stays within its limit, and all of it is free at the end.
pub fn gateway(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let gateway = Gateway::new(config(&mut input)).handlers(|_| simulation::router());
    let executor = EXECUTOR.with(|executor| (**executor).clone());
    let gateway = gateway
        .in_memory_on(executor)
        .expect("the configuration is right");
    let simulation = Simulation::new(input, gateway);
    let mut siege = Siege {
        bystander: simulation.gateway.connect(),
        beat: Duration::ZERO,
        callers: Vec::new(),
        hoarders: Vec::new(),
        is_draining: false,
        simulation,
    };
    for _ in 0..STEPS_MAX {
        if siege.simulation.choices.is_empty() {
            break;
        }
        match siege.simulation.choices.one_in(2) {
            true => siege.step(),
            false => siege.simulation.step(),
        }
        siege.check();
    }
    siege.end();
}

thread_local! {
    /// A fuzzer starts more gateways than it may have descriptors. The executor is never dropped, because at the end of
    /// a thread other values that it needs may be gone.
    static EXECUTOR: ManuallyDrop<MemoryExecutor> =
        ManuallyDrop::new(memory_executor().expect("this machine has io_uring"));
}

fn config(input: &mut Input<'_>) -> Config {
    let mut servers = simulation::servers();
    for server in &mut servers {
        server.host = KNOWN.into();
    }
    servers[1].host = "10.0.0.6".into();
    Config {
        shards: Some(1 + input.below(SHARDS_MAX)),
        dialect: *input.pick(&[Dialect::Pomelo, Dialect::Pinus]),
        servers,
        client: config::Client {
            heartbeat: *input.pick(&[None, Some(10 * SECOND)]),
            use_dict: input.one_in(2),
            outbox_bytes_max: *input.pick(&[128 << 10, 4 << 20]),
            package_bytes_max: *input.pick(&[1 << 20, 8 << 20]),
            calls_in_flight_max: *input.pick(&[4, 1_000]),
            max_connections: *input.pick(&[None, Some(20)]),
            ..config::Client::default()
        },
        session: config::Session {
            duplicate_login: *input.pick(&[
                DuplicateLogin::Allow,
                DuplicateLogin::Refuse,
                DuplicateLogin::NewestWins,
            ]),
            ..config::Session::default()
        },
        push: config::Push {
            scheduler: *input.pick(&[Scheduler::Direct, Scheduler::Buffer]),
            ..config::Push::default()
        },
        rpc: config::Rpc {
            timeout: 2 * SECOND,
            keepalive: SECOND,
            calls_in_flight_max: *input.pick(&[3, 1_000]),
            ..config::Rpc::default()
        },
        limits: config::Limits {
            memory: Some(MEMORY),
        },
        ..Config::default()
    }
}

/// Methods of `sys` that a frontend has, and one that it has not.
const METHODS: &[(&str, &str)] = &[
    ("sessionRemote", "bind"),
    ("sessionRemote", "unbind"),
    ("sessionRemote", "push"),
    ("sessionRemote", "pushAll"),
    ("sessionRemote", "getBackendSessionBySid"),
    ("sessionRemote", "getBackendSessionsByUid"),
    ("sessionRemote", "kickBySid"),
    ("sessionRemote", "kickByUid"),
    ("channelRemote", "pushMessage"),
    ("channelRemote", "broadcast"),
    ("channelRemote", "steal"),
];

/// JSON of arguments: some that a genuine server sends, and some that lie.
const ARGUMENTS: &[&str] = &[
    "1",
    "2",
    "3",
    r#""1""#,
    "1e300",
    "null",
    "{}",
    r#""user-1""#,
    r#"["user-1",2,"user-1"]"#,
    r#""onTell""#,
    r#"{"n":1}"#,
    r#"{"type":"broadcast","userOptions":{"binded":true}}"#,
    "[[[[[[[[]]]]]]]]",
    r#""\ud800""#,
];

/// Payloads on a link that answer no call, or answer one wrongly.
const LIES: &[&str] = &[
    r#"{"id":1,"resp":[null,{}]}"#,
    r#"{"id":1,"resp":[]}"#,
    r#"{"id":9007199254740993,"resp":[null,1]}"#,
    r#"{"id":-1,"resp":"x"}"#,
    r#"{"id":"1","resp":[{"stack":"x"}]}"#,
    r#"[{"id":1,"resp":[null,1]},{"id":1,"resp":[null,2]}]"#,
    r#"[{"id":1,"resp":[null,1]},"#,
    "{",
    "",
    "null",
];

struct Siege<'a> {
    simulation: Simulation<Input<'a>>,
    /// A client that does no harm.
    bystander: Client,
    /// The time of its last heartbeat.
    beat: Duration,
    callers: Vec<Caller>,
    /// Clients that send a long package piece by piece, or never read.
    hoarders: Vec<Client>,
    is_draining: bool,
}

/// A connection of another server, and the bytes that it got.
struct Caller {
    connection: CallingServer,
    received: Vec<u8>,
}

impl Siege<'_> {
    fn step(&mut self) {
        match self.simulation.choices.below(16) {
            0 | 1 => self.open_caller(),
            2..=6 => self.call(),
            7 => self.send_garbage(),
            8 => self.read_callers(),
            9 => self.lie(),
            10 => self.advance(),
            11 => self.pause(),
            12 | 13 => self.hoard(),
            14 => self.flood(),
            _ => self.rarely(),
        }
        self.simulation.settle();
    }

    fn open_caller(&mut self) {
        let address = *self
            .simulation
            .choices
            .pick(&[KNOWN, KNOWN, "127.0.0.1", STRANGER]);
        let address: IpAddr = address.parse().expect("it is an address");
        if self.callers.len() == CALLERS_MAX {
            self.callers.remove(0);
        }
        self.callers.push(Caller {
            connection: self.simulation.gateway.caller(address),
            received: Vec::new(),
        });
    }

    fn call(&mut self) {
        let choices = &mut self.simulation.choices;
        let (service, method) = choices.pick(METHODS);
        let args: Vec<&str> = (0..choices.below(5))
            .map(|_| *choices.pick(ARGUMENTS))
            .collect();
        let args = args.join(",");
        let namespace = *choices.pick(&["sys", "sys", "sys", "user"]);
        let payload = format!(
            r#"{{"id":1,"msg":{{"namespace":"{namespace}","service":"{service}","method":"{method}","args":[{args}]}}}}"#
        );
        let mut packet = Vec::new();
        mqtt::write_publish(&mut packet, |out| out.extend_from_slice(payload.as_bytes()));
        if choices.one_in(8) {
            packet.truncate(choices.below(packet.len() + 1));
        }
        self.send_to_a_caller(&packet);
    }

    fn send_garbage(&mut self) {
        let bytes = self.simulation.choices.bytes();
        self.send_to_a_caller(bytes);
    }

    fn send_to_a_caller(&mut self, bytes: &[u8]) {
        if !self.callers.is_empty() {
            let at = self.simulation.choices.below(self.callers.len());
            self.callers[at].connection.send(bytes);
        }
    }

    /// All callers read, and close one of them.
    fn read_callers(&mut self) {
        for caller in &mut self.callers {
            caller.read();
        }
        if self.simulation.choices.one_in(3) && !self.callers.is_empty() {
            self.callers.remove(0);
        }
    }

    /// The server answers a call with wrong bytes.
    fn lie(&mut self) {
        let simulation = &mut self.simulation;
        let (Some(server), Some(call)) = (&mut simulation.server, simulation.calls.first()) else {
            return;
        };
        let mut packet = Vec::new();
        match simulation.choices.one_in(3) {
            true => packet.extend_from_slice(simulation.choices.bytes()),
            false => {
                let lie = simulation.choices.pick(LIES);
                mqtt::write_publish(&mut packet, |out| out.extend_from_slice(lie.as_bytes()));
            }
        }
        server.send_bytes(call, &packet);
    }

    /// More time than the clients of the simulation wait.
    fn advance(&mut self) {
        let beats = *self.simulation.choices.pick(&[1, 3, 7, 20]);
        for _ in 0..beats {
            self.simulation.gateway.advance(BEAT);
            self.check();
        }
    }

    fn pause(&mut self) {
        let seconds = *self.simulation.choices.pick(&[1, 5, 60]);
        self.simulation.gateway.pause();
        self.simulation.gateway.advance(seconds * SECOND);
        self.simulation.gateway.resume();
    }

    /// A client sends a piece of a package that it never completes.
    fn hoard(&mut self) {
        if self.simulation.choices.one_in(3) {
            let is_ready = self.simulation.choices.one_in(2);
            let mut client = self.open_hoarder(is_ready);
            let [_, length @ ..] = (8_u32 << 20).to_be_bytes();
            client.offer_bytes(&[&[PackageKind::Data as u8], &length[..]].concat());
            self.hoarders.push(client);
        }
        if !self.hoarders.is_empty() {
            let at = self.simulation.choices.below(self.hoarders.len());
            for _ in 0..self.simulation.choices.below(16) {
                self.hoarders[at].offer_bytes(&[0; 64 << 10]);
            }
        }
    }

    /// A client asks for much and reads nothing.
    fn flood(&mut self) {
        let mut client = self.open_hoarder(true);
        let body = json!({ "long": "x".repeat(60 << 10) }).to_string();
        let message = message::Message {
            id: 1,
            kind: MessageKind::Request,
            route: MessageRoute::Text(b"connector.h.echo"),
            gzip: false,
            body: body.as_bytes(),
        };
        let mut bytes = Vec::new();
        message::write(&mut bytes, &message).expect("the route is short");
        let mut package = Vec::new();
        assert!(package::write(&mut package, PackageKind::Data, &bytes));
        for _ in 0..self.simulation.choices.below(40) {
            client.offer_bytes(&package);
        }
        self.hoarders.push(client);
    }

    /// Opens a client in the place of the oldest one, if there are too many.
    fn open_hoarder(&mut self, is_ready: bool) -> Client {
        if self.hoarders.len() == HOARDERS_MAX {
            self.hoarders.remove(0);
        }
        let mut client = self.simulation.gateway.open(ClientOptions::default());
        if is_ready {
            let mut hello = Vec::new();
            let body = br#"{"sys":{"type":"hoarder","version":"1"}}"#;
            assert!(package::write(&mut hello, PackageKind::Handshake, body));
            assert!(package::write(&mut hello, PackageKind::Ack, b""));
            client.offer_bytes(&hello);
        }
        client
    }

    fn rarely(&mut self) {
        match self.simulation.choices.below(8) {
            0 => {
                self.is_draining = true;
                self.simulation.gateway.begin_drain();
            }
            1 => self.hoarders.clear(),
            2 => self.callers.clear(),
            _ => {}
        }
    }

    fn counters(&self) -> CounterValues {
        ledger::parsed(&self.simulation.gateway.counters())
    }

    /// Looks at the bystander and at the memory.
    fn check(&mut self) {
        let now = self.simulation.gateway.elapsed();
        if now > self.beat && !self.bystander.is_closed() {
            self.beat = now;
            self.bystander.heartbeat();
        }
        while self.bystander.pushed().is_some() {}
        let held: u64 = MEMORY_GAUGES
            .map(|it| self.simulation.gateway.count(it))
            .iter()
            .sum();
        assert!(
            held <= MEMORY as u64 + MEMORY_SLACK,
            "{held} bytes: {:?}",
            self.counters()
        );
    }

    fn end(mut self) {
        self.ask();
        self.read_callers();
        self.callers.clear();
        self.hoarders.clear();
        drop(self.bystander);
        self.simulation.empty();
        // Calls and handlers of clients that have left end by then.
        for _ in 0..10 {
            self.simulation.gateway.advance(SECOND);
        }
        let counters = ledger::parsed(&self.simulation.gateway.counters());
        // A drain cuts the handlers of clients that have left before it.
        let has_cut = self.is_draining && counters.contains_key("messages_in_flight");
        if !has_cut {
            check_empty(&counters);
        }
        self.simulation.end();
    }

    /// The bystander has an answer, unless the gateway may close it.
    fn ask(&mut self) {
        let count = |counters: &CounterValues, name: &str| counters.get(name).copied().unwrap_or(0);
        if self.bystander.is_closed() || self.is_draining {
            let counters = self.counters();
            let may_close = ["closed_kicked", "closed_memory", "closed_drain"];
            let closed: u64 = may_close.iter().map(|name| count(&counters, name)).sum();
            return assert!(closed > 0 || self.is_draining, "{counters:?}");
        }
        let body = json!({ "n": 1 });
        let id = self.bystander.ask("connector.h.echo", &body);
        self.simulation.gateway.advance(Duration::from_millis(200));
        let answer = self.bystander.answer(id);
        if answer.as_ref() != Some(&body) {
            let counters = self.counters();
            let is_short = count(&counters, "memory_messages_refused") > 0;
            assert!(
                is_short && answer == Some(json!({ "code": 500 })),
                "{answer:?}: {counters:?}"
            );
        }
    }
}

impl Caller {
    /// Checks that the gateway sends packets with JSON in them.
    fn read(&mut self) {
        self.received.extend(self.connection.take_bytes());
        let mut at = 0;
        while let Some((packet, used)) = mqtt::decode(&self.received[at..], RPC_FRAME_BYTES_MAX)
            .expect("the gateway sends packets")
        {
            at += used;
            if let Packet::Publish { payload, .. } = packet {
                let answer = text::parse(payload).expect("an answer is JSON");
                let batch = answer.as_array().map_or(1, Vec::len);
                assert!(batch > 0 && (answer.is_array() || answer["resp"].is_array()));
            }
        }
        self.received.drain(..at);
    }
}

/// Checks a gateway without clients and servers.
fn check_empty(counters: &CounterValues) {
    let count = |name: &str| counters.get(name).copied().unwrap_or_default();
    let left = ["connections", "memory_input_bytes", "memory_mesh_bytes"];
    assert_eq!(left.map(count), [0; 3], "{counters:?}");
    // Unused queues stay for the next clients.
    let kept = SHARDS_MAX * MEMORY_GIVE_BACK_BYTES;
    assert!(count("memory_output_bytes") <= kept as u64, "{counters:?}");
}
