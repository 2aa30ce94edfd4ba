//! The operators' port of a gateway, as a monitor sees it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::SocketPath;
use crate::harness::client::HANG_GUARD;
use crate::harness::gateway::Gateway;

/// The operators' port.
pub(crate) enum AdminPort {
    Tcp(SocketAddr),
    Unix(SocketPath),
}

/// An answer of the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl AdminPort {
    /// Waits until a gateway says where its port listens.
    pub(crate) fn of(gateway: &mut Gateway) -> Self {
        let line = gateway.wait_printed("the operators' port listens on http://");
        let (_, address) = line.split_once("http://").expect("the address follows");
        let address = address.split('/').next().expect("a part");
        Self::Tcp(address.parse().expect("ADDR:PORT"))
    }

    pub(crate) fn unix() -> Self {
        Self::Unix(SocketPath::new())
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Unix(socket) => socket.path(),
            Self::Tcp(address) => panic!("{address} is not a path"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(socket) => panic!("{} is not an address", socket.address()),
        }
    }

    /// Sends a GET request with a plain head.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Sends these bytes and reads the answer.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let text = match self {
            Self::Tcp(address) => exchange(TcpStream::connect(address), request),
            Self::Unix(socket) => exchange(UnixStream::connect(socket.path()), request),
        };
        let text = text.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        Answer {
            status: status.expect("a status line"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Asks until the answer has this status, and returns its text.
    pub(crate) fn wait_for(&self, path: &str, status: u16) -> String {
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let answer = self.get(path);
            if answer.status == status {
                return answer.body;
            }
            assert!(Instant::now() < deadline, "{path} stays at {answer:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a gateway inside this process has opened its port.
    pub(crate) fn wait_until_open(&self) {
        let deadline = Instant::now() + HANG_GUARD;
        while UnixStream::connect(self.path()).is_err() {
            assert!(Instant::now() < deadline, "the port is not opened");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn exchange<S: Read + Write>(stream: std::io::Result<S>, request: &str) -> std::io::Result<String> {
    let mut stream = stream?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
