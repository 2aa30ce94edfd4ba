//! `echo`: a closed loop of requests. Each connection keeps `depth` requests in flight; an answer,
//! checked, sends the next one. One thread drives all connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};

use crate::cores::{self, Cores};
use crate::session::{self, ECHO_ROUTE};
use crate::stream::{EVENTS_MAX, READ_BUFFER_BYTES, Stream};
use crate::target::{self, Kind, Start, Target};
use crate::wire::{self, Framing, Packages, Transport, refused};

const WARM_UP: Duration = Duration::from_secs(1);
/// A server that answers nobody for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Rounds of a comparison: A B A B.
const ROUNDS: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    start: Start,
    /// Connections, each with a session of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests that each connection keeps in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Length of the measurement, after a warm-up of 1 s
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Bytes of the JSON body
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(32..=32_768))]
    body: u32,
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Use a server that runs already; needs --pid
    #[arg(long, requires = "pid")]
    address: Option<SocketAddr>,
    /// Process of that server, for its CPU time
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// Run against this server too, in turn, and print the ratio of CPU per message
    #[arg(long, value_enum)]
    against: Option<Kind>,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    if options.connections > target::sessions_max() {
        let text = format!(
            "the file limit allows {} connections",
            target::sessions_max()
        );
        return Err(io::Error::other(text));
    }
    println!(
        "load: {} connections, depth {}, {}-byte bodies, {}, {} s after {} s of warm-up",
        options.connections,
        options.depth,
        options.body,
        options.transport,
        options.seconds,
        WARM_UP.as_secs()
    );
    let available = cores::available()?;
    let Some(against) = options.against else {
        measure(options, &options.start, &available)?;
        return Ok(());
    };
    let other = options.start.with_server(against);
    let (mut ours, mut theirs) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let (a, b) = (
            measure(options, &options.start, &available)?,
            measure(options, &other, &available)?,
        );
        println!("  ratio of CPU per message: {:.2}", a / b);
        (ours, theirs) = (ours + a, theirs + b);
    }
    println!(
        "ratio of CPU per message over {ROUNDS} rounds: {:.2}",
        ours / theirs
    );
    Ok(())
}

/// One run against one server; comes back with its CPU per message, in µs.
fn measure(options: &Options, start: &Start, available: &[usize]) -> io::Result<f64> {
    // A comparison always starts its other side; a given server is only the first.
    let given = options
        .address
        .zip(options.pid)
        .filter(|_| start.server == options.start.server);
    let (target, pinned) = match given {
        Some((address, pid)) => (Target::running(address, pid)?, "not pinned".into()),
        None => {
            let cores = Cores::plan(available, start.shards);
            (start.run(&cores)?, cores.to_string())
        }
    };
    println!("{} ({pinned})", target.name);
    let mut load = Load::open(options, target.address)?;
    load.drive(WARM_UP)?;
    load.latency.reset();

    let before = (target.cpu()?, target::own_cpu()?, target::machine_cpu()?);
    let start_time = Instant::now();
    let elapsed = load.drive(Duration::from_secs(options.seconds))?;
    let server = target.cpu()? - before.0;
    let own = target::own_cpu()? - before.1;
    let others = (target::machine_cpu()? - before.2).saturating_sub(server + own);

    // A lost answer slows nothing down in a closed loop; it has to be looked for.
    let lost = load.sent_before(start_time);
    if lost > 0 {
        let text = format!("{lost} requests had no answer for {elapsed:.1?}");
        return Err(io::Error::other(text));
    }
    let messages = load.latency.len();
    let cpu_us = server.as_secs_f64() * 1e6 / messages as f64;
    let ms = |quantile| load.latency.value_at_quantile(quantile) as f64 / 1e6;
    let percent = |cpu: Duration| 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64();
    println!(
        "  rate     {:.0} messages/s ({messages} checked)",
        messages as f64 / elapsed.as_secs_f64()
    );
    println!(
        "  latency  p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    println!(
        "  server   {cpu_us:.3} µs of CPU per message, {:.0} % of one core",
        percent(server)
    );
    println!(
        "  load     {:.0} % of one core, everything else {:.0} %",
        percent(own),
        percent(others)
    );
    Ok(cpu_us)
}

/// All connections and what they share.
struct Load {
    epoll: OwnedFd,
    clients: Vec<Client>,
    body: Body,
    framing: Framing,
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// Nanoseconds from the write of a request to the read of its answer.
    latency: Histogram<u64>,
    last_answer: Instant,
}

struct Client {
    stream: Stream,
    /// The requests in flight. Request `id` lives at `(id - 1) % depth`, so that an answer finds
    /// it whatever order the server answers in.
    flying: Vec<Flight>,
}

struct Flight {
    id: u32,
    sent: Instant,
}

impl Load {
    /// Opens every session and sends the first requests.
    fn open(options: &Options, address: SocketAddr) -> io::Result<Self> {
        let framing = Framing {
            transport: options.transport,
            client: true,
        };
        let mut load = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            body: Body::new(options.body as usize),
            framing,
            buffer: vec![0; READ_BUFFER_BYTES],
            out: Vec::new(),
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)
                .map_err(|error| io::Error::other(error.to_string()))?,
            last_answer: Instant::now(),
        };
        for index in 0..options.connections {
            let stream = Stream::new(session::open(address, options.transport)?)?;
            stream.watch(&load.epoll, u64::from(index))?;
            load.clients.push(Client {
                stream,
                flying: Vec::new(),
            });
        }
        for index in 0..load.clients.len() {
            let client = &mut load.clients[index];
            load.out.clear();
            let sent = Instant::now();
            for id in 1..=options.depth {
                wire::request(framing, &mut load.out, id, ECHO_ROUTE, load.body.of(id));
                client.flying.push(Flight { id, sent });
            }
            client.stream.write(&load.out)?;
            load.watch_again(index, false)?;
        }
        load.last_answer = Instant::now();
        Ok(load)
    }

    /// Runs the loop for `time`; comes back with the time it took.
    fn drive(&mut self, time: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            let second = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&second)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                self.turn(event.data.u64() as usize)?;
            }
            let now = Instant::now();
            if now - start >= time {
                return Ok(now - start);
            }
            if now - self.last_answer > SILENCE_MAX {
                return Err(io::Error::other(format!("no answer for {SILENCE_MAX:?}")));
            }
        }
    }

    /// Requests in flight that were sent before `time`.
    fn sent_before(&self, time: Instant) -> usize {
        let flights = self.clients.iter().flat_map(|client| &client.flying);
        flights.filter(|flight| flight.sent < time).count()
    }

    /// One ready connection.
    fn turn(&mut self, index: usize) -> io::Result<()> {
        let was_blocked = self.clients[index].stream.is_blocked();
        if was_blocked {
            self.clients[index].stream.flush()?;
        }
        self.exchange(index)?;
        self.watch_again(index, was_blocked)
    }

    fn watch_again(&self, index: usize, was_blocked: bool) -> io::Result<()> {
        let stream = &self.clients[index].stream;
        if stream.is_blocked() == was_blocked {
            return Ok(());
        }
        // Goes on reading: a server that waits for us to read would otherwise wait for ever. What
        // is unsent stays bounded by the depth.
        stream.watch_again(&self.epoll, index as u64, EventFlags::IN | EventFlags::OUT)
    }

    /// Checks the answers that came and sends as many requests, in one write.
    fn exchange(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let Some(bytes) = client.stream.read(&mut self.buffer)? else {
            return Ok(());
        };
        let now = Instant::now();
        self.last_answer = now;
        self.out.clear();
        let depth = client.flying.len() as u32;
        let mut packages = Packages::new(self.framing.transport, bytes);
        while let Some((kind, message)) = packages.next()? {
            if kind != wire::DATA {
                return Err(refused(format!(
                    "a package of type {kind} instead of an answer"
                )));
            }
            let (id, body) = wire::response(message)?;
            let flight = &mut client.flying[(id.wrapping_sub(1) % depth) as usize];
            if flight.id != id {
                return Err(refused(format!("answer {id} to no request in flight")));
            }
            if body != self.body.of(id) {
                return Err(refused(format!(
                    "answer {id} has the body {}",
                    wire::shown(body)
                )));
            }
            self.latency
                .saturating_record((now - flight.sent).as_nanos() as u64);
            *flight = Flight {
                id: id + depth,
                sent: now,
            };
            wire::request(
                self.framing,
                &mut self.out,
                flight.id,
                ECHO_ROUTE,
                self.body.of(flight.id),
            );
        }
        client.stream.keep(packages.rest())?;
        if !self.out.is_empty() {
            client.stream.write(&self.out)?;
        }
        Ok(())
    }
}

/// The JSON body of each request: the same length for all, different for each id.
struct Body {
    text: Vec<u8>,
}

impl Body {
    const HEAD: &str = r#"{"n":"#;
    const DIGITS: usize = 10;

    fn new(bytes: usize) -> Self {
        let digits = "0".repeat(Self::DIGITS);
        let frame = format!(r#"{}{digits},"text":""}}"#, Self::HEAD).len();
        let text = "x".repeat(bytes - frame);
        let text = format!(r#"{}{digits},"text":"{text}"}}"#, Self::HEAD);
        debug_assert_eq!(text.len(), bytes);
        Self {
            text: text.into_bytes(),
        }
    }

    fn of(&mut self, id: u32) -> &[u8] {
        // A leading one keeps all numbers equally long.
        let mut number = 1_000_000_000 + u64::from(id);
        for digit in self.text[Self::HEAD.len()..][..Self::DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_length_and_its_id() {
        for bytes in [32, 64, 1000] {
            let mut body = Body::new(bytes);
            assert_eq!(body.of(7).len(), bytes);
            assert!(body.of(7).starts_with(br#"{"n":1000000007,"text":"x"#));
            assert!(body.of(i32::MAX as u32).starts_with(br#"{"n":3147483647,"#));
        }
    }
}
