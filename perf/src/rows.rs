//! The rows of `compare`: the targets of the gateway. A side of a row is a command of this program, so that
//! anybody can run it alone.

use std::sync::LazyLock;

/// One kind of work, with the sides that do it.
pub(crate) struct Row {
    /// For `--rows`.
    pub(crate) name: String,
    pub(crate) work: String,
    /// Its place in the plot of CPU per message.
    pub(crate) point: Option<Point>,
    pub(crate) sides: Vec<Side>,
    pub(crate) checks: Vec<Check>,
}

/// One of several rows that do the same work at another rate or size.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Point {
    pub(crate) work: &'static str,
    /// The quantity that differs.
    pub(crate) quantity: &'static str,
    pub(crate) value: u32,
}

pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) command: String,
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
    P999Ms,
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
    pub(crate) const ALL: [Self; 10] = [
        CpuUs,
        Rate,
        P50Ms,
        P99Ms,
        P999Ms,
        ServerPercent,
        LoadPercent,
        OthersPercent,
        SessionBytes,
        BaseMib,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            CpuUs => "CPU, µs",
            Rate => "rate, /s",
            P50Ms => "p50, ms",
            P99Ms => "p99, ms",
            P999Ms => "p99.9, ms",
            ServerPercent => "server, % of a core",
            LoadPercent => "load, %",
            OthersPercent => "else, %",
            SessionBytes => "bytes per session",
            BaseMib => "base, MiB",
        }
    }
}

/// A target: a metric of the side `of`, compared with another side or with a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) of: &'static str,
    pub(crate) metric: Metric,
    pub(crate) target: Target,
}

#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// At most this multiple of the other side.
    Within(f64, &'static str),
    /// Better than the other side by at least this factor; a higher rate is better.
    Better(f64, &'static str),
    /// At most this much more than the other side.
    Adds(f64, &'static str),
    /// At most this.
    AtMost(f64),
}

impl Target {
    pub(crate) fn bound(self) -> f64 {
        match self {
            Within(bound, _) | Better(bound, _) | Adds(bound, _) | AtMost(bound) => bound,
        }
    }

    /// Returns the side to compare with; `None`: the number itself counts.
    pub(crate) fn against(self) -> Option<&'static str> {
        match self {
            Within(_, other) | Better(_, other) | Adds(_, other) => Some(other),
            AtMost(_) => None,
        }
    }

    /// Returns the result of one round, which [`Self::is_met_by`] judges.
    pub(crate) fn result(self, metric: Metric, ours: f64, theirs: f64) -> f64 {
        match self {
            Better(..) if metric != Rate => theirs / ours,
            Within(..) | Better(..) => ours / theirs,
            Adds(..) => ours - theirs,
            AtMost(_) => ours,
        }
    }

    pub(crate) fn is_met_by(self, result: f64) -> bool {
        match self {
            Better(bound, _) => result >= bound,
            Within(bound, _) | Adds(bound, _) | AtMost(bound) => result <= bound,
        }
    }
}

use Metric::*;
use Target::*;

/// A server: the name of its side, and its options for the command of a row.
type Server = (&'static str, &'static str);

const TANGELO: Server = ("tangelo", "");
/// The gateway without gathering: like the ceilings, it serves each message at once.
const AT_ONCE: Server = ("turn_min 0", "--server-arg=--set --server-arg=turn_min=0s");
const CEILING: Server = ("ceiling", "--server ceiling");
const UWEBSOCKETS: Server = ("µWebSockets", "--server uwebsockets");
const POMELO: Server = ("Pomelo", "--server pomelo");
const PINUS: Server = ("Pinus", "--server pinus");

fn row(
    name: impl Into<String>,
    work: impl Into<String>,
    command: &str,
    servers: &[Server],
    checks: &[Check],
) -> Row {
    let side = |&(name, options): &Server| Side {
        name,
        command: format!("{command} {options}").trim_end().to_owned(),
    };
    Row {
        name: name.into(),
        work: work.into(),
        point: None,
        sides: servers.iter().map(side).collect(),
        checks: checks.to_vec(),
    }
}

/// Makes a row of an open loop: the work at one rate, independent of the answers.
fn at_rate(
    name: &str,
    work: &'static str,
    command: &str,
    rate: u32,
    servers: &[Server],
    checks: &[Check],
) -> Row {
    let name = format!("{name}-{rate}");
    let text = format!("{work}, {} {:03} a second", rate / 1000, rate % 1000);
    let command = format!("{command} --rate {rate}");
    Row {
        point: Some(Point {
            work,
            quantity: "messages a second",
            value: rate,
        }),
        ..row(name, text, &command, servers, checks)
    }
}

/// Makes a row of the work at one size, which `option` of the command sets.
fn at_size(
    name: &str,
    (work, quantity): (&'static str, &'static str),
    (command, option): (&str, &str),
    size: u32,
    servers: &[Server],
    checks: &[Check],
) -> Row {
    let command = format!("{command} {option} {size}");
    let text = format!("{work}, {size} {quantity}");
    Row {
        point: Some(Point {
            work,
            quantity,
            value: size,
        }),
        ..row(format!("{name}-{size}"), text, &command, servers, checks)
    }
}

fn check((of, _): Server, metric: Metric, target: Target) -> Check {
    Check { of, metric, target }
}

/// Makes a check of CPU.
fn cpu(of: Server, target: Target) -> Check {
    check(of, CpuUs, target)
}

fn within(bound: f64, (other, _): Server) -> Target {
    Within(bound, other)
}

fn better(factor: f64, (other, _): Server) -> Target {
    Better(factor, other)
}

fn adds(bound: f64, (other, _): Server) -> Target {
    Adds(bound, other)
}

pub(crate) static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows = closed_loop();
    rows.extend(open_loop());
    rows.extend(growth());
    rows.extend(tails());
    rows.extend(idle());
    rows.extend(tls());
    rows
});

/// Rows of clients with TLS: the gateway alone, beside HAProxy in front of a gateway without TLS.
fn tls() -> Vec<Row> {
    const GATEWAY: Server = ("TLS", "--tls gateway");
    const HAPROXY: Server = ("HAProxy", "--tls haproxy");
    let work = |name, work, command| {
        let cheaper = cpu(GATEWAY, better(1.0, HAPROXY));
        row(name, work, command, &[GATEWAY, HAPROXY], &[cheaper])
    };
    vec![
        work("tls-echo-1", "local echo, TLS, depth 1", "load --depth 1"),
        work(
            "tls-echo-16",
            "local echo, TLS, depth 16",
            "load --depth 16",
        ),
        work(
            "tls-rate",
            "local echo, TLS, 1 000 connections, 10 000 a second",
            "load --connections 1000 --rate 10000",
        ),
        row(
            "tls-idle",
            "9 000 idle sessions with TLS",
            "idle --sessions 9000",
            &[GATEWAY, HAPROXY],
            &[check(GATEWAY, SessionBytes, AtMost(6000.0))],
        ),
    ]
}

/// Rows in which a client sends its next message when it has an answer.
fn closed_loop() -> Vec<Row> {
    const POMELO_BUFFER: Server = ("Pomelo, buffer", "--scheduler buffer --server pomelo");
    const CEILING_BUFFER: Server = (CEILING.0, "--scheduler buffer --server ceiling");
    const DELEGATE: Server = (
        "delegate",
        "--kind delegate --server-arg=--set --server-arg=delegate=chat --server-arg=--set --server-arg=delegate_notices=true",
    );
    const FORWARD: Server = ("forward", "--kind forward");
    const TANGELO_BUFFER: Server = (TANGELO.0, "--scheduler buffer");
    let websocket = |depth: u32, bound: f64| {
        row(
            format!("echo-websocket-{depth}"),
            format!("local echo, WebSocket, depth {depth}"),
            &format!("load --transport websocket --depth {depth}"),
            &[AT_ONCE, UWEBSOCKETS, CEILING],
            &[
                cpu(AT_ONCE, within(bound, UWEBSOCKETS)),
                cpu(AT_ONCE, within(bound, CEILING)),
            ],
        )
    };
    vec![
        row(
            "echo-1",
            "local echo, TCP, depth 1",
            "load --depth 1",
            &[AT_ONCE, CEILING],
            &[cpu(AT_ONCE, within(1.05, CEILING))],
        ),
        row(
            "echo-16",
            "local echo, TCP, depth 16",
            "load --depth 16",
            &[AT_ONCE, CEILING, POMELO],
            &[
                cpu(AT_ONCE, within(1.2, CEILING)),
                cpu(AT_ONCE, better(40.0, POMELO)),
                check(AT_ONCE, Rate, better(40.0, POMELO)),
            ],
        ),
        websocket(1, 1.05),
        websocket(8, 1.1),
        websocket(16, 1.15),
        row(
            "echo-websocket-node",
            "local echo, WebSocket, depth 8, beside Node",
            "load --transport websocket --depth 8",
            &[AT_ONCE, POMELO],
            &[cpu(AT_ONCE, better(40.0, POMELO))],
        ),
        row(
            "forward-1",
            "forward to the synthetic backend, TCP, depth 1",
            "load --kind forward --depth 1",
            &[AT_ONCE, CEILING],
            &[cpu(AT_ONCE, within(1.15, CEILING))],
        ),
        row(
            "forward-16",
            "forward to the synthetic backend, TCP, depth 16",
            "load --kind forward --depth 16",
            &[AT_ONCE, CEILING, POMELO, PINUS],
            &[
                cpu(AT_ONCE, within(1.4, CEILING)),
                cpu(AT_ONCE, better(45.0, POMELO)),
                cpu(AT_ONCE, better(35.0, PINUS)),
            ],
        ),
        row(
            "delegate-16",
            "own type, answered by the synthetic backend as delegate, TCP, depth 16",
            "load --depth 16 --server-arg=--set --server-arg=turn_min=0s",
            &[DELEGATE, FORWARD],
            &[cpu(DELEGATE, within(1.05, FORWARD))],
        ),
        row(
            "forward-latency",
            "forward to a genuine Pomelo backend, one connection, depth 1",
            "load --kind forward --depth 1 --connections 1 --backend genuine",
            &[TANGELO, POMELO],
            &[check(TANGELO, P50Ms, better(40.0, POMELO))],
        ),
        row(
            "broadcast-1",
            "broadcast to 5 000 sessions, one at a time",
            "load --kind broadcast --connections 5000 --depth 1",
            &[AT_ONCE, CEILING, POMELO],
            &[cpu(AT_ONCE, within(1.2, CEILING))],
        ),
        row(
            "broadcast-10",
            "broadcast to 5 000 sessions, ten in flight",
            "load --kind broadcast --connections 5000 --depth 10",
            &[TANGELO_BUFFER, CEILING_BUFFER, POMELO, POMELO_BUFFER],
            &[
                cpu(TANGELO, within(1.1, CEILING)),
                cpu(TANGELO, better(20.0, POMELO)),
                cpu(TANGELO, better(20.0, POMELO_BUFFER)),
            ],
        ),
        row(
            "echo-latency",
            "local echo, TCP, one connection, depth 1",
            "load --depth 1 --connections 1",
            &[AT_ONCE, CEILING],
            &[check(AT_ONCE, P50Ms, within(1.3, CEILING))],
        ),
        {
            const ONE: Server = ("1 shard", "");
            const TWO: Server = ("2 shards", "--shards 2 --cores 1");
            const FOUR: Server = ("4 shards", "--shards 4 --cores 1");
            row(
                "shards",
                "local echo, TCP, depth 16, shards on one core",
                &format!("load --depth 16 {}", AT_ONCE.1),
                &[ONE, TWO, FOUR],
                &[cpu(TWO, within(1.05, ONE)), cpu(FOUR, within(1.1, ONE))],
            )
        },
        row(
            "flood",
            "heartbeats of 100 clients, 1 000 a second, while one more floods",
            "load --kind heartbeat --heartbeat 30 --rate 1000 --depth 1 --flood 1",
            &[TANGELO],
            &[check(TANGELO, P99Ms, AtMost(20.0))],
        ),
    ]
}

/// Rows at a fixed rate, as operators have it. Here nothing hides the cost of a wake-up.
fn open_loop() -> Vec<Row> {
    let echo = |rate| {
        let gathered = match rate {
            10_000 | 30_000 => Some(0.6),
            60_000 => Some(0.8),
            _ => None,
        };
        let mut checks = vec![cpu(AT_ONCE, within(1.2, CEILING))];
        if let Some(bound) = gathered {
            checks.push(cpu(TANGELO, within(bound, CEILING)));
            checks.push(check(TANGELO, P50Ms, adds(0.5, AT_ONCE)));
            checks.push(check(TANGELO, P99Ms, adds(0.5, AT_ONCE)));
        }
        at_rate(
            "open-echo",
            "local echo, TCP, 1 000 connections",
            "load --connections 1000",
            rate,
            &[AT_ONCE, TANGELO, CEILING],
            &checks,
        )
    };
    let forward = |rate| {
        at_rate(
            "open-forward",
            "forward to the synthetic backend, TCP, 500 connections",
            "load --kind forward --connections 500",
            rate,
            &[AT_ONCE, CEILING],
            &[cpu(AT_ONCE, within(1.3, CEILING))],
        )
    };
    let beside_node = |name, work, command, rate, factor| {
        at_rate(
            name,
            work,
            command,
            rate,
            &[TANGELO, POMELO, PINUS],
            &[
                cpu(TANGELO, better(factor, POMELO)),
                cpu(TANGELO, better(factor, PINUS)),
            ],
        )
    };
    let websocket = |rate, factor| {
        let work = "local echo, WebSocket, 1 000 connections";
        let command = "load --transport websocket --connections 1000";
        beside_node("open-websocket", work, command, rate, factor)
    };
    let forward_websocket = |rate, factor| {
        let work = "forward to the synthetic backend, WebSocket, 500 connections";
        let command = "load --kind forward --transport websocket --connections 500";
        beside_node("open-forward-websocket", work, command, rate, factor)
    };
    let mut rows: Vec<Row> = [2_000, 10_000, 30_000, 60_000, 120_000].map(echo).into();
    rows.extend([2_000, 10_000, 30_000, 60_000].map(forward));
    rows.extend([(6_000, 4.0), (10_000, 5.0)].map(|(rate, factor)| websocket(rate, factor)));
    let rates = [(4_000, 3.0), (9_000, 4.0)];
    rows.extend(rates.map(|(rate, factor)| forward_websocket(rate, factor)));
    rows
}

/// Rows with a growing number of connections, backends, members or shards. The ceiling shows how much of the growing cost of a
/// message belongs to the kernel.
fn growth() -> Vec<Row> {
    let beside_ceiling = [cpu(AT_ONCE, within(1.2, CEILING))];
    let connections = |size| {
        at_size(
            "growth-connections",
            ("local echo, TCP, 10 000 a second", "connections"),
            ("load --rate 10000", "--connections"),
            size,
            &[AT_ONCE, CEILING],
            &beside_ceiling,
        )
    };
    let backends = |size| {
        const ROUND_ROBIN: Server = (
            "turn_min 0",
            "--server-arg=--set --server-arg=turn_min=0s --server-arg=--set --server-arg=route.chat=rr",
        );
        at_size(
            "growth-backends",
            (
                "forward to the synthetic backend, TCP, 1 000 connections, 10 000 a second",
                "backends",
            ),
            (
                "load --kind forward --connections 1000 --rate 10000",
                "--backends",
            ),
            size,
            &[ROUND_ROBIN, CEILING],
            &[cpu(ROUND_ROBIN, within(1.3, CEILING))],
        )
    };
    let members = |size| {
        at_size(
            "growth-members",
            ("broadcast, one at a time", "members"),
            ("load --kind broadcast --depth 1", "--connections"),
            size,
            &[AT_ONCE, CEILING],
            &beside_ceiling,
        )
    };
    let shards = |size| {
        at_size(
            "growth-shards",
            (
                "local echo, TCP, 1 000 connections, 10 000 a second",
                "shards on one core",
            ),
            ("load --connections 1000 --rate 10000 --cores 1", "--shards"),
            size,
            &[AT_ONCE, TANGELO],
            // Messages are rare in each shard here, so gathering can save nothing. It must not cost CPU.
            &[cpu(TANGELO, within(1.05, AT_ONCE))],
        )
    };
    let mut rows: Vec<Row> = [100, 1_000, 10_000, 18_000].map(connections).into();
    rows.extend([1, 10, 100, 1_000].map(backends));
    rows.extend([10, 100, 1_000, 18_000].map(members));
    rows.extend([1, 8, 32, 64].map(shards));
    rows
}

/// Rows of the slowest messages, at about half of the gateway's highest rate.
fn tails() -> Vec<Row> {
    const TWO: Server = (
        "2 shards, turn_min 0",
        "--shards 2 --cores 1 --server-arg=--set --server-arg=turn_min=0s",
    );
    let tail = |name, work, command| {
        row(
            name,
            work,
            command,
            &[AT_ONCE, TWO, CEILING],
            &[
                check(AT_ONCE, P999Ms, within(1.5, CEILING)),
                check(TWO, P999Ms, within(1.5, CEILING)),
            ],
        )
    };
    vec![
        tail(
            "tail-echo",
            "local echo, TCP, 1 000 connections, 30 000 a second, slowest thousandth",
            "load --connections 1000 --rate 30000",
        ),
        tail(
            "tail-forward",
            "forward to the synthetic backend, TCP, 500 connections, 10 000 a second, slowest thousandth",
            "load --kind forward --connections 500 --rate 10000",
        ),
    ]
}

fn idle() -> Vec<Row> {
    const WEBSOCKET: Server = ("WebSocket", "--transport websocket");
    vec![
        row(
            "idle-memory",
            "15 000 idle sessions",
            "idle --sessions 15000",
            &[TANGELO, WEBSOCKET],
            &[
                check(TANGELO, SessionBytes, AtMost(450.0)),
                check(WEBSOCKET, SessionBytes, AtMost(450.0)),
                check(TANGELO, BaseMib, AtMost(8.0)),
            ],
        ),
        row(
            "idle-cpu",
            "15 000 idle sessions, a heartbeat every 30 s",
            "load --kind heartbeat --heartbeat 30 --connections 15000 --rate 500 --depth 1",
            &[AT_ONCE, CEILING],
            &[cpu(AT_ONCE, within(1.2, CEILING))],
        ),
        row(
            "idle-shards",
            "64 shards on one core, one idle session",
            "idle --sessions 1 --shards 64 --cores 1 --watch 30",
            &[TANGELO],
            &[check(TANGELO, ServerPercent, AtMost(0.5))],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_names_sides_of_its_row() {
        for row in ROWS.iter() {
            for check in &row.checks {
                for name in [Some(check.of), check.target.against()]
                    .into_iter()
                    .flatten()
                {
                    assert!(row.sides.iter().any(|side| side.name == name), "{name}");
                }
            }
        }
    }

    #[test]
    fn every_row_has_its_own_name_and_text() {
        for (index, row) in ROWS.iter().enumerate() {
            let mut before = ROWS[..index].iter();
            let same = before.find(|other| other.name == row.name || other.work == row.work);
            assert!(same.is_none(), "{}: {}", row.name, row.work);
        }
    }
}
