//! Plays a script against one frontend and writes down what its clients receive.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use serde_json::Value;

use super::script::{Act, Fence, Script, Step, Wait};
use crate::harness::client::{ACK, HANDSHAKE, HEARTBEAT};
use crate::harness::client::{
    Client, DATA, HANG_GUARD, KICK, Package, encode_message, encode_package,
};
use crate::harness::process::POLL_INTERVAL;

/// How long a connection is listened to from which nothing must come. A slow machine can make this
/// pass only.
const SILENCE: Duration = Duration::from_millis(300);

/// Id of the request behind which nothing can be hidden.
const FENCE_ID: u32 = 99;

/// The messages that clients received in one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) step: String,
    /// One line for each WebSocket message and for each end.
    pub(super) received: Vec<String>,
}

/// Where the script is played.
pub(super) struct Stage {
    pub(super) address: SocketAddr,
    pub(super) is_genuine: bool,
    /// The file with the expressions of `c-host`.
    pub(super) blacklist: PathBuf,
}

/// Plays all steps, and sees at the end that no client has anything left to read.
pub(super) fn play(stage: &Stage, script: &Script) -> Vec<Record> {
    let mut player = Player {
        stage,
        fence: &script.fence,
        clients: BTreeMap::new(),
        ports: BTreeMap::new(),
        sids: Vec::new(),
        versions: [String::new(), String::new()],
        received: Vec::new(),
    };
    let mut records = Vec::new();
    for step in &script.steps {
        player.perform(step);
        records.push(Record {
            step: format!("{} {} {}", script.server, step.client, step.name),
            received: std::mem::take(&mut player.received),
        });
    }
    let names: Vec<_> = player.clients.keys().copied().collect();
    names.into_iter().for_each(|name| player.fence(name));
    records.push(Record {
        step: format!("{} at the end", script.server),
        received: player.received,
    });
    records
}

struct Player<'a> {
    stage: &'a Stage,
    fence: &'a Fence,
    /// Those whose connection is open.
    clients: BTreeMap<&'static str, Client>,
    /// The owner of each port; a client that has left keeps its own.
    ports: BTreeMap<u16, &'static str>,
    /// Session ids in the order in which they were first seen.
    sids: Vec<u64>,
    /// Of the dictionary and the protos.
    versions: [String; 2],
    received: Vec<String>,
}

impl Player<'_> {
    fn perform(&mut self, step: &Step) {
        let name = step.client;
        match &step.act {
            Act::Connect => {
                self.connect(name);
            }
            Act::Open(request) => {
                if self.connect(name) {
                    let request = self.with_versions(request);
                    self.send(name, &encode_package(HANDSHAKE, request.as_bytes()));
                    self.read(name, 1);
                    self.send(name, &encode_package(ACK, b""));
                    self.fence(name);
                }
            }
            Act::Send(messages, wait) => {
                messages.iter().for_each(|bytes| self.send(name, bytes));
                self.wait(name, wait);
            }
            Act::Rest(period) => thread::sleep(*period),
            Act::Leave => {
                self.clients.remove(name);
            }
            Act::Settle(count, bound) => self.settle(name, *count, *bound),
            Act::Blacklist(list, served) => self.blacklist(list, *served),
        }
        for (other, count) in &step.heard {
            self.read(other, *count);
            self.fence(other);
        }
    }

    fn connect(&mut self, name: &'static str) -> bool {
        match Client::try_websocket(self.stage.address, &[]) {
            Ok(client) => {
                let port = client.stream().local_addr().expect("an open socket").port();
                self.ports.insert(port, name);
                self.clients.insert(name, client);
                true
            }
            Err(_) => {
                self.received.push(format!("{name} gets no upgrade"));
                false
            }
        }
    }

    fn send(&mut self, name: &str, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(name) {
            client.send_raw(bytes);
        }
    }

    fn wait(&mut self, name: &'static str, wait: &Wait) {
        match wait {
            Wait::Nothing => {}
            Wait::Fence => self.fence(name),
            Wait::Messages(count) => self.read(name, *count),
            Wait::End => while self.message(name, HANG_GUARD).is_some() {},
            Wait::Answers(ids) => {
                let mut missing = ids.clone();
                while !missing.is_empty() {
                    let Some(packages) = self.message(name, HANG_GUARD) else {
                        return;
                    };
                    missing.retain(|id| !packages.iter().any(|package| answers(package, *id)));
                }
                self.fence(name);
            }
            Wait::Silence => self.silence(name),
            Wait::Deaf => {
                if self.stage.is_genuine {
                    self.ask_fence(name);
                    self.silence(name);
                } else {
                    self.fence(name);
                }
                self.clients.remove(name);
            }
        }
    }

    fn silence(&mut self, name: &str) {
        let client = self.clients.get_mut(name).expect("the client is open");
        let heard = client.batch_within(SILENCE);
        self.received.push(match heard {
            None => format!("{name} hears nothing"),
            Some(packages) => format!("{name} hears {packages:?}"),
        });
    }

    /// With the versions that this server has told.
    fn with_versions(&self, request: &str) -> String {
        let request = request.replace("<dictVersion>", &self.versions[0]);
        request.replace("<protoVersion>", &self.versions[1])
    }

    fn note_versions(&mut self, packages: &[Package]) {
        let handshakes = packages.iter().filter(|package| package.kind == HANDSHAKE);
        for package in handshakes {
            let reply: Value = serde_json::from_slice(&package.body).expect("the reply is JSON");
            let places = ["/sys/dictVersion", "/sys/protos/version"];
            for (version, place) in self.versions.iter_mut().zip(places) {
                if let Some(text) = reply.pointer(place) {
                    *version = text.as_str().expect("a text").to_owned();
                }
            }
        }
    }

    fn read(&mut self, name: &'static str, count: usize) {
        for _ in 0..count {
            if self.message(name, HANG_GUARD).is_none() {
                break;
            }
        }
    }

    /// Asks something that every working connection answers at once.
    fn ask_fence(&mut self, name: &str) {
        let (route, body) = self.fence;
        let request = encode_message(Some(FENCE_ID), (*route).into(), body.as_bytes());
        self.send(name, &encode_package(DATA, &request));
    }

    /// Takes what comes before the answer to that.
    fn fence(&mut self, name: &'static str) {
        self.ask_fence(name);
        while let Some(packages) = self.message(name, HANG_GUARD) {
            if packages.iter().any(|package| answers(package, FENCE_ID)) {
                break;
            }
        }
    }

    /// Takes and writes down the next WebSocket message; `None` when there is none any more.
    fn message(&mut self, name: &'static str, period: Duration) -> Option<Vec<Package>> {
        let client = self.clients.get_mut(name)?;
        let Some(packages) = client.batch_within(period) else {
            self.received.push(format!("{name} waits in vain"));
            self.clients.remove(name);
            return None;
        };
        if packages.is_empty() {
            let end = client.end().expect("the connection has ended");
            self.received.push(format!("{name} ended: {end:?}"));
            self.clients.remove(name);
            return None;
        }
        self.note_versions(&packages);
        let shown = packages.iter().filter(|p| !answers(p, FENCE_ID));
        let shown: Vec<String> = shown.map(show).collect();
        if !shown.is_empty() {
            let line = self.normalised(&shown.join(" + "));
            self.received.push(format!("{name} < {line}"));
        }
        Some(packages)
    }

    /// Asks until the server has this many sessions, and tangelo this many of them with a uid: on several
    /// shards it may know the one before the other. The reference never forgets a uid that is none.
    fn settle(&mut self, name: &'static str, count: usize, bound: u64) {
        let client = self.clients.get_mut(name).expect("the client is open");
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let text = client.request_text("connector.entryHandler.sess", "{}");
            let sessions: Value = serde_json::from_str(&text).expect("an object");
            let uids = sessions["uids"].as_object().expect("an object");
            let with_uid: u64 = uids.values().filter_map(Value::as_u64).sum();
            let settled = self.stage.is_genuine || with_uid == bound;
            if sessions["count"] == count && settled {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {count}, {bound}: {sessions}"
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Changes the blacklist and waits until it counts for a new client.
    fn blacklist(&mut self, list: &str, served: bool) {
        fs::write(&self.stage.blacklist, list).expect("a file of our own");
        let deadline = Instant::now() + HANG_GUARD;
        let is_served = || {
            let client = Client::try_websocket(self.stage.address, &[]);
            client.is_ok_and(|mut client| {
                client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
                client.next_package().is_some()
            })
        };
        // Each connection may meet another shard.
        let mut in_a_row = 0;
        while in_a_row < 16 {
            in_a_row = if is_served() == served {
                in_a_row + 1
            } else {
                0
            };
            assert!(Instant::now() < deadline, "{list:?} is not read");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// With names in the place of what cannot be the same. Each rule names one number at one place;
    /// everything else is compared as it came.
    fn normalised(&mut self, text: &str) -> String {
        let (sids, ports) = (&mut self.sids, &self.ports);
        // Session ids differ by design: each becomes its place in the order of first sight.
        let mut sid = |id: u64| {
            let at = sids.iter().position(|known| *known == id);
            let at = at.unwrap_or_else(|| {
                sids.push(id);
                sids.len() - 1
            });
            Some(format!("<session {at}>"))
        };
        let text = replace(text, "\"id\":", ",\"frontendId\"", &mut sid);
        let text = replace(&text, "\"sid\":", ",\"n\"", &mut sid);
        // The kernel gives each client a port.
        let mut port = |port: u64| {
            let port = u16::try_from(port).ok()?;
            Some(format!("<port of {}>", ports.get(&port)?))
        };
        let text = replace(&text, "\"port\":", "}", &mut port);
        let text = replace(&text, "127.0.0.1:", "\"}", &mut port);
        // A login was a moment ago.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.expect("after 1970").as_millis();
        let mut time = |ms: u64| {
            let age_ms = now_ms.checked_sub(u128::from(ms))?;
            (age_ms < 60_000).then(|| "<now>".to_owned())
        };
        replace(&text, "\"loginTime\":", ",", &mut time)
    }
}

/// Puts a name in the place of each number between two texts, where there is one for it.
fn replace(
    text: &str,
    before: &str,
    after: &str,
    name: &mut dyn FnMut(u64) -> Option<String>,
) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((head, tail)) = rest.split_once(before) {
        out += head;
        out += before;
        rest = tail;
        let digits = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        if let Ok(number) = number.parse()
            && tail.starts_with(after)
            && let Some(name) = name(number)
        {
            out += &name;
            rest = tail;
        }
    }
    out + rest
}

/// Whether it is the response to an id.
fn answers(package: &Package, id: u32) -> bool {
    let id = u8::try_from(id).ok().filter(|id| *id < 0x80);
    let head = [4, id.expect("a script has small ids")];
    package.kind == DATA && package.body.starts_with(&head)
}

/// All bytes of a package but its length: printable ones as they are, others in hexadecimal.
fn show(package: &Package) -> String {
    let kind = match package.kind {
        HANDSHAKE => "handshake",
        HEARTBEAT => "heartbeat",
        DATA => "data",
        KICK => "kick",
        other => panic!("no server sends type {other}"),
    };
    let mut text = format!("{kind} ");
    for byte in &package.body {
        match byte {
            b'\\' => text += "\\\\",
            b' '..=b'~' => text.push(char::from(*byte)),
            other => write!(text, "\\x{other:02x}").expect("a String takes any text"),
        }
    }
    text
}

#[test]
fn only_the_number_at_its_place_gets_a_name() {
    let mut name = |number: u64| (number != 3).then(|| format!("<{number}>"));
    let text = r#"{"n":1,"id":12,"to":{"id":12},"id":3,"id":4"#;
    assert_eq!(
        replace(text, "\"id\":", ",", &mut name),
        r#"{"n":1,"id":<12>,"to":{"id":12},"id":3,"id":4"#
    );
}
