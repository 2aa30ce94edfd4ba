//! A WebSocket server that answers each message with itself.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use tangelo::CloseReason;
use tangelo::client::transport::{self, FrameBounds, Http, HttpRules, TransportEvent};
use tangelo::config::Dialect;
use tangelo::wire::websocket::{self, Opcode};

use super::secure::Secure;

const BOUNDS: FrameBounds = FrameBounds {
    // The largest message of the suite.
    bytes_max: 16 << 20,
    // The suite has messages of 16 MiB in pieces of 64 bytes.
    fragments_max: 1 << 20,
    dialect: Dialect::Pomelo,
};

/// Serves until the program ends; over TLS where it has a configuration.
pub(super) fn start(tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            let tls = tls.clone();
            thread::spawn(move || match tls {
                Some(config) => serve(Secure::accept(stream, config).expect("a handshake")),
                None => serve(stream),
            });
        }
    });
    address
}

/// A connection of a client.
pub(super) trait Stream: Read + Write {
    /// Says that nothing follows.
    fn end(&self);
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

fn serve(mut stream: impl Stream) {
    let mut input = Vec::new();
    loop {
        match transport::http(&input, &HttpRules::default()) {
            Http::Wait => {
                if !read(&mut stream, &mut input) {
                    return;
                }
            }
            Http::Upgraded(end, answer) => {
                input.drain(..end);
                let _ = stream.write_all(&answer);
                break;
            }
            Http::Answered(answer, _) => {
                let _ = stream.write_all(&answer);
                return;
            }
        }
    }
    let mut session = Session::default();
    loop {
        let mut out = Vec::new();
        let is_open = session.take_frames(&mut input, &mut out);
        if stream.write_all(&out).is_err() || !is_open || !read(&mut stream, &mut input) {
            // The client sees the end of the stream, and not a reset, when nothing is left to read.
            stream.end();
            while read(&mut stream, &mut input) {}
            return;
        }
    }
}

/// Returns whether something came.
fn read(stream: &mut impl Read, input: &mut Vec<u8>) -> bool {
    let mut some = [0; 65_536];
    let count = stream.read(&mut some).unwrap_or(0);
    input.extend_from_slice(&some[..count]);
    count > 0
}

/// A connection after its upgrade.
#[derive(Default)]
struct Session {
    fragments: Option<Box<transport::Fragments>>,
    masks: bool,
    /// The kind of the message that has begun.
    opcode: Option<Opcode>,
}

impl Session {
    /// Takes the complete frames off the front of `input`. Returns false when the connection has to end.
    fn take_frames(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        let mut taken = 0;
        let mut is_open = true;
        while is_open {
            let rest = &mut input[taken..];
            if self.fragments.is_none() {
                self.opcode = match rest.first().map(|first| first & 0xf) {
                    Some(1) => Some(Opcode::Text),
                    _ => Some(Opcode::Binary),
                };
            }
            let opcode = self.opcode.unwrap_or(Opcode::Binary);
            let frame = transport::frame(rest, &mut self.fragments, &mut self.masks, &BOUNDS);
            let (used, event) = match frame {
                Ok(frame) => frame,
                Err(CloseReason::WebSocket(code)) => {
                    websocket::write_close(out, Some(code));
                    return false;
                }
                Err(reason) => panic!("no frame has {reason:?}"),
            };
            match event {
                TransportEvent::Wait => break,
                TransportEvent::Nothing => {}
                TransportEvent::Message(message) => write(out, opcode, message),
                TransportEvent::Assembled(message) => write(out, opcode, &message),
                TransportEvent::Ping(payload) => write(out, Opcode::Pong, payload),
                TransportEvent::Close(code) => {
                    websocket::write_close(out, code);
                    is_open = false;
                }
            }
            taken += used;
        }
        input.drain(..taken);
        is_open
    }
}

fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.extend_from_slice(websocket::header(opcode, payload.len()).as_slice());
    out.extend_from_slice(payload);
}
