//! Opens one client session, each step verified: upgrade if asked for, handshake, ack.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use sha1::{Digest as _, Sha1};

use crate::tls::{Connection, Dial};
use crate::wire::{self, Framing, Packages, Transport};

const STEP_TIMEOUT: Duration = Duration::from_secs(5);
const SESSIONS_PER_SOURCE: u32 = 10_000;
const REPLY_BYTES_MAX: usize = 16 << 10;
const UPGRADE_KEY: &str = "dGFuZ2Vsby1wZXJmLWtleQ==";
pub(crate) const HANDSHAKE_BODY: &[u8] = br#"{"sys":{"type":"tangelo-perf","version":"0.1.0"}}"#;

/// Route of a request that the server answers itself, and of one that a backend answers.
pub(crate) const ECHO_ROUTE: &str = "connector.entryHandler.echo";
/// Route of the frontend's own type, which its delegate answers.
pub(crate) const DELEGATE_ROUTE: &str = "connector.chatHandler.echo";
pub(crate) const FORWARD_ROUTE: &str = "chat.chatHandler.echo";
/// The route of each push.
pub(crate) const PUSH_ROUTE: &str = "onPerf";
/// The route of the notify that makes the ceiling send to all other clients.
pub(crate) const TRIGGER_ROUTE: &str = "broadcast";

/// Connects and comes back with a blocking socket whose session is working. `heartbeats`: whether
/// the server is to ask for them; a load that sends none would be cut off in the middle.
pub(crate) fn open(dial: &Dial, transport: Transport, heartbeats: bool) -> io::Result<Connection> {
    let tcp = connect(dial.address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(STEP_TIMEOUT))?;
    tcp.set_write_timeout(Some(STEP_TIMEOUT))?;
    let mut socket = dial.wrap(tcp)?;
    if transport == Transport::Websocket {
        upgrade(&mut socket, dial.address)?;
    }
    let framing = Framing {
        transport,
        client: true,
    };
    let mut out = Vec::new();
    framing.package(&mut out, wire::HANDSHAKE, HANDSHAKE_BODY);
    socket.write_all(&out)?;
    let (kind, reply) = next_package(&mut socket, transport)?;
    check_handshake(kind, &reply, heartbeats)?;
    out.clear();
    framing.package(&mut out, wire::ACK, b"");
    socket.write_all(&out)?;
    if heartbeats {
        let (kind, _) = next_package(&mut socket, transport)?;
        if kind != wire::HEARTBEAT {
            return Err(wire::refused(format!(
                "the ack answered with package {kind}"
            )));
        }
    }
    Ok(socket)
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv4() {
        net::bind(&socket, &SocketAddr::from((source(), 0)))?;
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(STEP_TIMEOUT))?;
    net::connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

/// The loopback address to connect from: another one for each process and every 10 000 sessions.
/// One address has 28 000 ports, those of the last run stay taken for a minute, and past half of
/// them the kernel searches milliseconds for a free one.
fn source() -> Ipv4Addr {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    let block = OPENED.fetch_add(1, Ordering::Relaxed) / SESSIONS_PER_SOURCE;
    // 127.128.0.0/9: 16 bits of the process id, 7 of the block.
    Ipv4Addr::from_bits(0x7f80_0000 | (process::id() & 0xffff) << 7 | block & 0x7f)
}

/// One request on a session from [`open`], answered with its body: proves that the session is still
/// there and working.
pub(crate) fn check(
    socket: &mut Connection,
    framing: Framing,
    route: &str,
    body: &[u8],
) -> io::Result<()> {
    let answer = ask(socket, framing, route, body)?;
    if answer != body {
        let text = format!("{route} answered with {}", wire::shown(&answer));
        return Err(wire::refused(text));
    }
    Ok(())
}

/// One request on a session from [`open`].
pub(crate) fn ask(
    socket: &mut Connection,
    framing: Framing,
    route: &str,
    body: &[u8],
) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    wire::request(framing, &mut out, 1, route, body);
    socket.write_all(&out)?;
    let (kind, message) = next_package(socket, framing.transport)?;
    match wire::response(&message) {
        Ok((answered, answer)) if kind == wire::DATA && answered == 1 => Ok(answer.to_vec()),
        _ => {
            let text = format!("{route} answered with {}", wire::shown(&message));
            Err(wire::refused(text))
        }
    }
}

pub(crate) fn check_handshake(kind: u8, reply: &[u8], heartbeats: bool) -> io::Result<()> {
    let text = std::str::from_utf8(reply).unwrap_or_default();
    if kind != wire::HANDSHAKE || !text.starts_with(r#"{"code":200,"#) {
        return Err(wire::refused(format!(
            "handshake answered with {}",
            wire::shown(reply)
        )));
    }
    if text.contains(r#""heartbeat":"#) != heartbeats {
        return Err(wire::refused(if heartbeats {
            "the server asks for no heartbeats"
        } else {
            "the server asks for heartbeats, which this load does not send"
        }));
    }
    Ok(())
}

fn upgrade(socket: &mut Connection, address: SocketAddr) -> io::Result<()> {
    // One write: a head in pieces would make the server keep its first part.
    socket.write_all(upgrade_request(address).as_bytes())?;
    let mut reply = Vec::new();
    read_until(socket, &mut reply, |reply| Ok(reply.ends_with(b"\r\n\r\n")))?;
    check_upgrade(&reply)
}

pub(crate) fn upgrade_request(address: SocketAddr) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {UPGRADE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

pub(crate) fn check_upgrade(reply: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(reply);
    let accept = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-accept")
            .then(|| value.trim())
    });
    if !text.starts_with("HTTP/1.1 101 ") || accept != Some(&accept_value(UPGRADE_KEY)) {
        let text = format!("upgrade answered with {}", wire::shown(reply));
        return Err(wire::refused(text));
    }
    Ok(())
}

/// The `Sec-WebSocket-Accept` that belongs to `key`, RFC 6455 4.2.2.
pub(crate) fn accept_value(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    STANDARD.encode(digest)
}

fn next_package(socket: &mut Connection, transport: Transport) -> io::Result<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut found = None;
    read_until(socket, &mut bytes, |bytes| {
        let mut copy = bytes.to_vec();
        let mut packages = Packages::new(transport, &mut copy);
        found = packages.next()?.map(|(kind, body)| (kind, body.to_vec()));
        if found.is_some() && !packages.rest().is_empty() {
            return Err(wire::refused("more bytes than were asked for"));
        }
        Ok(found.is_some())
    })?;
    Ok(found.expect("read_until ends when a package was found"))
}

fn read_until(
    socket: &mut Connection,
    bytes: &mut Vec<u8>,
    mut is_whole: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while !is_whole(bytes)? {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        if bytes.len() > REPLY_BYTES_MAX {
            return Err(wire::refused("the answer is too long"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_value_is_the_one_of_the_rfc() {
        assert_eq!(
            accept_value("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
