//! Connections between servers, and what goes over them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tangelo::wire::pomelo::mqtt;

use crate::client::HANG_GUARD;
use crate::transcript::BYTES_MAX;

/// One connection between two servers.
pub(super) struct Link {
    stream: TcpStream,
    /// Received, not yet taken.
    bytes: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an open socket");
        let timeout = Some(HANG_GUARD);
        stream.set_read_timeout(timeout).expect("not zero");
        stream.set_write_timeout(timeout).expect("not zero");
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("tangelo reads");
    }

    /// The next packet.
    #[track_caller]
    pub(super) fn next(&mut self) -> Vec<u8> {
        loop {
            let whole = mqtt::decode(&self.bytes, BYTES_MAX).expect("MQTT");
            if let Some((_, length)) = whole {
                return self.bytes.drain(..length).collect();
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk);
            let count = count.unwrap_or_else(|e| panic!("waited for a packet: {e}"));
            assert!(
                count > 0,
                "waited for a packet, and the connection has ended"
            );
            self.bytes.extend_from_slice(&chunk[..count]);
        }
    }

    /// Shows that tangelo, which has ended, sent nothing more, but for a ping and a good-bye.
    pub(super) fn end(mut self) {
        match self.stream.read_to_end(&mut self.bytes) {
            Ok(_) => {}
            // It had not read all that was sent.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("waited for the end of a connection: {e}"),
        }
        let rest = &self.bytes[..];
        let rest = rest.strip_prefix(&mqtt::PINGREQ).unwrap_or(rest);
        let rest = rest.strip_suffix(&mqtt::DISCONNECT).unwrap_or(rest);
        assert!(rest.is_empty(), "nobody asked for {}", rest.escape_ascii());
    }
}

pub(super) fn listen(ip: Ipv4Addr) -> TcpListener {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("an open socket");
    listener
}

pub(super) fn accept(listener: &TcpListener) -> TcpStream {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("an open socket");
                return stream;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(e) => panic!("waited for tangelo to connect: {e}"),
        }
    }
}

pub(super) fn frame(payload: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    mqtt::write_publish(&mut out, |out| {
        out.extend_from_slice(payload.to_string().as_bytes());
    });
    out
}

/// Returns the payload of a publish, if it is JSON.
pub(super) fn payload(packet: &[u8]) -> Value {
    match mqtt::decode(packet, BYTES_MAX) {
        Ok(Some((mqtt::Packet::Publish { payload, .. }, _))) => {
            serde_json::from_slice(payload).expect("JSON")
        }
        other => panic!("no publish: {other:?}"),
    }
}
