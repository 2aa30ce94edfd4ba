//! Bytes as no well-behaved client writes them: frames, upgrades and sockets by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::client::{
    ACK, DATA, HANDSHAKE, HANG_GUARD, HEARTBEAT, Route, encode_message, encode_package,
};

/// An upgrade with a key, and therefore an answer, that never changes.
pub(crate) const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The answer to the key of [`UPGRADE`], by RFC 6455 1.3.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame whose first byte is the caller's, right or wrong.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(MASKED | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(MASKED | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(MASKED | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b);
    bytes.extend(masked);
    bytes
}

/// A binary message in one frame.
pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

/// The head of a binary frame that announces `payload_bytes` bytes, and nothing behind it.
pub(crate) fn frame_head(payload_bytes: u64) -> Vec<u8> {
    let mut bytes = vec![FIN | BINARY, MASKED | 127];
    bytes.extend(payload_bytes.to_be_bytes());
    bytes.extend(MASK);
    bytes
}

pub(crate) fn handshake() -> Vec<u8> {
    encode_package(HANDSHAKE, br#"{"sys":{}}"#)
}

pub(crate) fn ack() -> Vec<u8> {
    encode_package(ACK, b"")
}

pub(crate) fn heartbeat() -> Vec<u8> {
    encode_package(HEARTBEAT, b"")
}

pub(crate) fn request(id: u32, route: &str, body: &[u8]) -> Vec<u8> {
    let message = encode_message(Some(id), Route::Name(route), body);
    encode_package(DATA, &message)
}

/// A socket that takes little from the network before it is read.
pub(crate) fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    // Before connecting, because the window and the segment are agreed on then. Small segments
    // keep the kernel's buffer on the other side small, too.
    socket.set_recv_buffer_size(4096).expect("a small size");
    socket
        .set_tcp_mss(536)
        .expect("the kernel accepts the segment size");
    socket
        .connect_timeout(&address.into(), HANG_GUARD)
        .expect("somebody listens");
    prepare(socket.into())
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    prepare(TcpStream::connect_timeout(&address, HANG_GUARD).expect("somebody listens"))
}

fn prepare(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("an open socket");
    for timeout in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        timeout(&stream, Some(HANG_GUARD)).expect("not zero");
    }
    stream
}

/// Writes as much as the server takes; whether it has closed by now is not the question.
pub(crate) fn write_anyway(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    match stream.write_all(bytes) {
        Ok(()) => true,
        Err(e) => {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&e.kind()), "{} bytes: {e}", bytes.len());
            false
        }
    }
}

/// Reads exactly `count` bytes.
pub(crate) fn read_exactly(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = stream.read_exact(&mut bytes);
    read.unwrap_or_else(|e| panic!("waited for {count} bytes: {e}"));
    bytes
}

/// Everything up to the end of the stream, however it ends.
pub(crate) fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => bytes,
        Err(e) => panic!("waited for the end after {} bytes: {e}", bytes.len()),
    }
}

/// Says that nothing follows, and reads what the server still has to say.
pub(crate) fn half_close_and_drain(stream: &TcpStream) -> Vec<u8> {
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(stream)
}

/// Closes with RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.expect("an open socket");
}

/// The head of an HTTP answer, its empty line included.
pub(crate) fn read_http_head(stream: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(stream, 1));
    }
    String::from_utf8(head).expect("HTTP is text")
}

/// Connects, upgrades and takes the answer.
pub(crate) fn upgrade(stream: &TcpStream) {
    assert!(write_anyway(stream, UPGRADE.as_bytes()), "closed at once");
    let head = read_http_head(stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(ACCEPT), "{head}");
}

/// First byte and payload of the next frame of the server, which has no mask.
pub(crate) fn read_frame(stream: &TcpStream) -> (u8, Vec<u8>) {
    let head = read_exactly(stream, 2);
    let length = match head[1] {
        126 => read_exactly(stream, 2),
        127 => read_exactly(stream, 8),
        length => vec![length],
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    (head[0], read_exactly(stream, length))
}

/// Lets this process have as many files open as the kernel allows it.
pub(crate) fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("up to the maximum");
}

/// Head and body of the answer to one request line.
pub(crate) fn http(address: SocketAddr, request_line: &str) -> (String, String) {
    let stream = connect(address);
    let request = format!("{request_line} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    write_anyway(&stream, request.as_bytes());
    let answer = String::from_utf8(read_to_end(&stream)).expect("a text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an empty line");
    (head.to_owned(), body.to_owned())
}
