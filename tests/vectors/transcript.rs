//! Packets captured between the servers of genuine clusters.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tangelo::config::Dialect;
use tangelo::wire::pomelo::mqtt::{self, Packet};

use super::differences::dialect_of;
use super::file::{Hex, lines};

macro_rules! transcripts {
    ($($name:literal),* $(,)?) => {
        /// Names and texts.
        const TRANSCRIPTS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("rpc/", $name, ".jsonl")))),*];
    };
}

transcripts!(
    "pinus-broadcast",
    "pinus-buffered-push-uids",
    "pinus-forward-request",
    "pinus-frontend-remotes",
    "pinus-handler-error",
    "pinus-kick",
    "pinus-push-uids",
    "pinus-session-bind",
    "pinus-session-query",
    "pinus-traced-forward-request",
    "pomelo-broadcast",
    "pomelo-buffered-forward-request",
    "pomelo-buffered-session-bind",
    "pomelo-forward-notify",
    "pomelo-forward-request",
    "pomelo-frontend-remotes",
    "pomelo-handler-error",
    "pomelo-keepalive",
    "pomelo-kick",
    "pomelo-push-uids",
    "pomelo-session-bind",
    "pomelo-session-errors",
    "pomelo-session-push",
    "pomelo-traced-forward-request",
);

/// Far more than any packet here.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// The packets of some connections, in the order of capture.
#[cfg_attr(
    not(feature = "runtime"),
    allow(dead_code, reason = "only the replay needs all of it")
)]
pub(crate) struct Transcript {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) packets: Vec<Captured>,
}

/// One captured packet, or the beginning of a connection, which has no bytes.
#[derive(Deserialize)]
#[cfg_attr(
    not(feature = "runtime"),
    allow(dead_code, reason = "only the replay needs all of it")
)]
pub(crate) struct Captured {
    #[serde(skip)]
    pub(crate) transcript: &'static str,
    /// Number of its connection.
    pub(crate) conn: u64,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) kind: String,
    #[serde(rename = "hex")]
    bytes: Option<Hex>,
    /// Payload of a publish.
    #[serde(default)]
    pub(crate) json: Value,
}

impl Captured {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes.0)
    }

    /// The calls or answers in a publish, one or an array of them.
    pub(crate) fn objects(&self) -> &[Value] {
        match &self.json {
            Value::Array(objects) => objects,
            object => std::slice::from_ref(object),
        }
    }

    /// Whether a frontend sent it.
    #[cfg(feature = "runtime")]
    pub(crate) fn is_sent(&self) -> bool {
        self.from == self.frontend()
    }

    /// The frontend at one end.
    #[cfg(feature = "runtime")]
    pub(crate) fn frontend(&self) -> &str {
        let ends = [&self.from, &self.to].into_iter();
        let mut frontends = ends.filter(|id| id.starts_with("connector-"));
        frontends.next().expect("one end is a frontend")
    }

    /// The other end: `backend` where a backend opened the connection.
    #[cfg(feature = "runtime")]
    pub(crate) fn peer(&self) -> &str {
        if self.is_sent() { &self.to } else { &self.from }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match mqtt::decode(self.bytes(), BYTES_MAX) {
            Ok(Some((Packet::Publish { payload, .. }, _))) => payload,
            other => panic!("{}: {other:?}", self.transcript),
        }
    }
}

pub(crate) fn transcripts() -> impl Iterator<Item = Transcript> {
    TRANSCRIPTS.iter().map(|&(name, text)| {
        let mut packets = Vec::new();
        for line in lines::<Value>(text) {
            if line["kind"] == "transcript" {
                continue;
            }
            let mut captured: Captured = serde_json::from_value(line).expect("a packet");
            captured.transcript = name;
            packets.push(captured);
        }
        let (framework, _) = name
            .split_once('-')
            .expect("the name begins with a framework");
        Transcript {
            name,
            dialect: dialect_of(framework),
            packets,
        }
    })
}

#[test]
fn no_transcript_is_left_aside() {
    let of_the_master = include_str!("../../src/peer/pomelo/master/tests/transcripts.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/rpc");
    for entry in folder.read_dir().expect("the folder of the transcripts") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8");
        let here = TRANSCRIPTS.iter().any(|(known, _)| *known == name);
        let there = of_the_master.contains(&format!("\"{name}\""));
        assert!(here || there, "no test uses {}", path.display());
    }
}
