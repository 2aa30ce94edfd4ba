//! `backend`: the fast half of a forwarded message. It takes the connections of frontends and sends
//! each body back. One thread, one epoll, one write per read.

use std::io::{self, Write as _};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::peers::BACKEND;
use crate::rpc::{self, Forward, Packets};
use crate::stream::{Events, READ_BUFFER_BYTES, Stream};
use crate::wire::refused;

const LISTENER: u64 = u64::MAX;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; loopback only
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A genuine master to register with
    #[arg(long)]
    master: Option<SocketAddr>,
    /// Server id; the part before the `-` is the type
    #[arg(long, default_value = BACKEND)]
    id: String,
    /// Servers to register, all with this address and with ids that count on from 1
    #[arg(long, default_value_t = 1, requires = "master", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Folder with the remotes of a genuine backend: a Pinus frontend reads there what it may call
    #[arg(long, requires = "master")]
    remotes: Option<PathBuf>,
    /// Ends by itself after this long
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut addresses = [Some(options.listen), options.master].into_iter().flatten();
    if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
        let text = format!("{address} is not a loopback address");
        return Err(io::Error::other(text));
    }
    let listener = TcpListener::bind(options.listen)?;
    let address = listener.local_addr()?;
    // Held, not read: a server that never subscribes is told nothing.
    let mut registered = Vec::new();
    if let Some(master) = options.master {
        let remotes = options.remotes.as_deref();
        let (server_type, _) = options.id.split_once('-').unwrap_or((&options.id, ""));
        let further = (2..=options.count).map(|number| format!("{server_type}-{number}"));
        for id in iter::once(options.id.clone()).chain(further) {
            registered.push(rpc::register(master, &id, address, remotes)?);
        }
    }
    println!("tangelo listening on {address}");
    io::stdout().flush()?;
    listen(&listener, Duration::from_secs(options.seconds))?;
    drop(registered);
    Ok(())
}

/// Serves frontends for `time`.
pub(crate) fn listen(listener: &TcpListener, time: Duration) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let token = EventData::new_u64(LISTENER);
    epoll::add(&epoll, listener, token, EventFlags::IN)?;
    let end = Instant::now() + time;
    // Frontends are few: a slot is never used again.
    let mut frontends: Vec<Option<Stream>> = Vec::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut out = Vec::new();
    let mut events = Events::new();
    while Instant::now() < end {
        for token in events.wait(&epoll, Duration::from_secs(1))? {
            if token == LISTENER {
                let (socket, _) = listener.accept()?;
                let stream = Stream::new(socket)?;
                stream.watch(&epoll, frontends.len() as u64)?;
                frontends.push(Some(stream));
            } else if let Some(stream) = &mut frontends[token as usize] {
                let was_blocked = stream.is_blocked();
                if let Err(error) = serve(stream, &mut buffer, &mut out) {
                    // A frontend that ends says nothing, or resets what it has not read.
                    let ended = matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                    );
                    if !ended {
                        eprintln!("tangelo-perf backend: {error}");
                    }
                    frontends[token as usize] = None;
                } else if stream.is_blocked() != was_blocked {
                    stream.watch_again(&epoll, token, EventFlags::OUT)?;
                }
            }
        }
    }
    Ok(())
}

/// An error closes the connection.
fn serve(stream: &mut Stream, buffer: &mut [u8], out: &mut Vec<u8>) -> io::Result<()> {
    if stream.is_blocked() {
        return stream.flush();
    }
    // Pomelo writes a packet in pieces and leaves Nagle's algorithm on: it sends the second piece
    // when the first is acknowledged.
    stream.acknowledge_at_once()?;
    let Some(bytes) = stream.read(buffer)? else {
        return Ok(());
    };
    out.clear();
    let mut packets = Packets::new(bytes);
    while let Some((kind, body)) = packets.next()? {
        match kind {
            rpc::PUBLISH => answer(rpc::payload(body)?, out)?,
            rpc::PING => rpc::pong(out),
            rpc::DISCONNECT => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {} // CONNECT, which nobody answers
        }
    }
    stream.keep(packets.rest())?;
    if out.is_empty() {
        Ok(())
    } else {
        stream.write(out)
    }
}

/// One call, or an array of them from a frontend that collects.
fn answer(payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    if payload.first() == Some(&b'[') {
        let calls: Vec<&serde_json::value::RawValue> =
            serde_json::from_slice(payload).map_err(|error| refused(error.to_string()))?;
        for call in calls {
            answer_call(call.get().as_bytes(), out)?;
        }
        return Ok(());
    }
    answer_call(payload, out)
}

fn answer_call(call: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match Forward::parse(call) {
        Ok(forward) => forward.answer(out),
        Err(error) => rpc::answer_notice(call, out).ok_or(error)?,
    }
    Ok(())
}
