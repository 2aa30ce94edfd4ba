//! The rows of `compare`: the targets of the gateway. A side of a row is a command of this program, so that
//! anybody can run it alone.

/// One kind of work, with the sides that do it.
pub(crate) struct Row {
    /// For `--rows`.
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    pub(crate) sides: &'static [Side],
    pub(crate) checks: &'static [Check],
}

pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) command: &'static str,
}

/// A measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Server CPU of one message, delivery or session, µs.
    CpuUs,
    /// Of these, per second.
    Rate,
    P50Ms,
    P99Ms,
    /// How busy the server was, in percent of one core.
    ServerPercent,
    /// The load, and everything else on the machine: a backend, and what disturbs.
    LoadPercent,
    OthersPercent,
    /// Resident memory of one session.
    SessionBytes,
    /// Resident memory without sessions.
    BaseMib,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU, µs",
            Self::Rate => "rate, /s",
            Self::P50Ms => "p50, ms",
            Self::P99Ms => "p99, ms",
            Self::ServerPercent => "server, % of a core",
            Self::LoadPercent => "load, %",
            Self::OthersPercent => "else, %",
            Self::SessionBytes => "bytes per session",
            Self::BaseMib => "base, MiB",
        }
    }
}

/// A target: a metric of the side `of`, compared with another side or with a number.
pub(crate) struct Check {
    pub(crate) of: &'static str,
    pub(crate) metric: Metric,
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At most this multiple of the other side.
    Within(f64, &'static str),
    /// Better than the other side by at least this factor; a higher rate is better.
    Better(f64, &'static str),
    /// At most this.
    AtMost(f64),
}

use Metric::*;
use Target::*;

const TANGELO: &str = "tangelo";
const CEILING: &str = "ceiling";
const POMELO: &str = "Pomelo";
const PINUS: &str = "Pinus";

const fn side(name: &'static str, command: &'static str) -> Side {
    Side { name, command }
}

const fn check(metric: Metric, target: Target) -> Check {
    Check {
        of: TANGELO,
        metric,
        target,
    }
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "echo-1",
        work: "local echo, TCP, depth 1",
        sides: &[
            side(TANGELO, "load --depth 1"),
            side(CEILING, "load --depth 1 --server ceiling"),
        ],
        checks: &[check(CpuUs, Within(1.5, CEILING))],
    },
    Row {
        name: "echo-16",
        work: "local echo, TCP, depth 16",
        sides: &[
            side(TANGELO, "load --depth 16"),
            side(CEILING, "load --depth 16 --server ceiling"),
            side(POMELO, "load --depth 16 --server pomelo"),
        ],
        checks: &[
            check(CpuUs, Within(1.8, CEILING)),
            check(CpuUs, Better(40.0, POMELO)),
            check(Rate, Better(40.0, POMELO)),
        ],
    },
    Row {
        name: "echo-websocket",
        work: "local echo, WebSocket, depth 8",
        sides: &[
            side(TANGELO, "load --transport websocket --depth 8"),
            side(
                POMELO,
                "load --transport websocket --depth 8 --server pomelo",
            ),
        ],
        checks: &[check(CpuUs, Better(40.0, POMELO))],
    },
    Row {
        name: "forward-16",
        work: "forward to the synthetic backend, TCP, depth 16",
        sides: &[
            side(TANGELO, "load --kind forward --depth 16"),
            side(POMELO, "load --kind forward --depth 16 --server pomelo"),
            side(PINUS, "load --kind forward --depth 16 --server pinus"),
        ],
        checks: &[
            check(CpuUs, Better(25.0, POMELO)),
            check(CpuUs, Better(16.0, PINUS)),
        ],
    },
    Row {
        name: "forward-latency",
        work: "forward to a genuine Pomelo backend, one connection, depth 1",
        sides: &[
            side(
                TANGELO,
                "load --kind forward --depth 1 --connections 1 --backend genuine",
            ),
            side(
                POMELO,
                "load --kind forward --depth 1 --connections 1 --backend genuine --server pomelo",
            ),
        ],
        checks: &[check(P50Ms, Better(40.0, POMELO))],
    },
    Row {
        name: "broadcast-1",
        work: "broadcast to 5 000 sessions, one at a time",
        sides: &[
            side(
                TANGELO,
                "load --kind broadcast --connections 5000 --depth 1",
            ),
            side(
                CEILING,
                "load --kind broadcast --connections 5000 --depth 1 --server ceiling",
            ),
            side(
                POMELO,
                "load --kind broadcast --connections 5000 --depth 1 --server pomelo",
            ),
        ],
        checks: &[check(CpuUs, Within(1.2, CEILING))],
    },
    Row {
        name: "broadcast-10",
        work: "broadcast to 5 000 sessions, ten in flight",
        sides: &[
            side(
                TANGELO,
                "load --kind broadcast --connections 5000 --depth 10 --scheduler buffer",
            ),
            side(
                POMELO,
                "load --kind broadcast --connections 5000 --depth 10 --server pomelo",
            ),
            side(
                "Pomelo, buffer",
                "load --kind broadcast --connections 5000 --depth 10 --scheduler buffer --server pomelo",
            ),
        ],
        checks: &[
            check(CpuUs, Better(20.0, POMELO)),
            check(CpuUs, Better(20.0, "Pomelo, buffer")),
        ],
    },
    Row {
        name: "echo-latency",
        work: "local echo, TCP, one connection, depth 1",
        sides: &[
            side(TANGELO, "load --depth 1 --connections 1"),
            side(CEILING, "load --depth 1 --connections 1 --server ceiling"),
        ],
        checks: &[check(P50Ms, Within(1.3, CEILING))],
    },
    Row {
        name: "idle-memory",
        work: "15 000 idle sessions",
        sides: &[
            side(TANGELO, "idle --sessions 15000"),
            side("WebSocket", "idle --sessions 15000 --transport websocket"),
        ],
        checks: &[
            check(SessionBytes, AtMost(1024.0)),
            Check {
                of: "WebSocket",
                metric: SessionBytes,
                target: AtMost(1280.0),
            },
            check(BaseMib, AtMost(12.0)),
        ],
    },
    Row {
        name: "idle-cpu",
        work: "15 000 idle sessions, a heartbeat every 30 s",
        sides: &[
            side(
                TANGELO,
                "load --kind heartbeat --heartbeat 30 --connections 15000 --rate 500 --depth 1",
            ),
            side(
                CEILING,
                "load --kind heartbeat --heartbeat 30 --connections 15000 --rate 500 --depth 1 --server ceiling",
            ),
        ],
        checks: &[check(ServerPercent, AtMost(1.0))],
    },
    Row {
        name: "shards",
        work: "local echo, TCP, depth 16, shards on one core",
        sides: &[
            side("1 shard", "load --depth 16"),
            side("2 shards", "load --depth 16 --shards 2 --cores 1"),
            side("4 shards", "load --depth 16 --shards 4 --cores 1"),
        ],
        checks: &[
            Check {
                of: "2 shards",
                metric: CpuUs,
                target: Within(1.15, "1 shard"),
            },
            Check {
                of: "4 shards",
                metric: CpuUs,
                target: Within(1.15, "1 shard"),
            },
        ],
    },
    Row {
        name: "flood",
        work: "heartbeats of 100 clients, 1 000 a second, while one more floods",
        sides: &[side(
            TANGELO,
            "load --kind heartbeat --heartbeat 30 --rate 1000 --depth 1 --flood 1",
        )],
        checks: &[check(P99Ms, AtMost(20.0))],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_names_sides_of_its_row() {
        for row in ROWS {
            for check in row.checks {
                let other = match check.target {
                    Within(_, other) | Better(_, other) => other,
                    AtMost(_) => check.of,
                };
                for name in [check.of, other] {
                    assert!(row.sides.iter().any(|side| side.name == name), "{name}");
                }
            }
        }
    }
}
