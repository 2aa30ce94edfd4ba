//! Clients with TLS of their own: OpenSSL, Node and Python over raw TCP, rustls over both transports.

use std::net::SocketAddr;

use tangelo::Config;
use tangelo::config::{CertificateFiles, ClientListener, ListenAddress, Tls, TlsMode};
use tangelo::handler::{Json, Router, Session};

use crate::harness::certificates::Certificates;
use crate::harness::client::{Client, End};
use crate::harness::inside::Inside;
use crate::harness::secure::Trust;

/// Carries standard input and output over TLS. Arguments: port, file of the authority.
const NODE: &str = r#"
const [port, ca] = process.argv.slice(1);
const options = { port: +port, host: "127.0.0.1", servername: "localhost", ca: require("fs").readFileSync(ca) };
const socket = require("tls").connect(options);
process.stdin.pipe(socket);
socket.pipe(process.stdout);
socket.on("end", () => process.exit(0));
"#;

/// The same in one thread: two must not use a session of Python at one time.
const PYTHON: &str = r#"
import os, select, socket, ssl, sys
port, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
plain = socket.create_connection(("127.0.0.1", int(port)))
tls = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
while True:
    ready, _, _ = select.select([0, tls], [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        tls.setblocking(True)
        tls.sendall(data)
    tls.setblocking(False)
    try:
        while data := tls.recv(65536):
            os.write(1, data)
        break
    except ssl.SSLWantReadError:
        pass
"#;

const HELLO: &str = "connector.e.hello";
const LEAVE: &str = "connector.e.leave";
const LONG: &str = "connector.e.long";

/// Longer than some records of TLS.
const LONG_BYTES: usize = 100_000;

fn handlers() -> Router {
    Router::new()
        .route("e.hello", async || Json("hello"))
        .route("e.long", async || Json("x".repeat(LONG_BYTES)))
        .route("e.leave", async |session: Session| {
            session.kick(Some("enough"));
            Json(0)
        })
}

fn gateway(shards: usize, certificates: &Certificates, mode: TlsMode) -> Inside {
    let files = CertificateFiles {
        chain: certificates.path("a.pem").into(),
        key: certificates.path("a.key").into(),
    };
    Inside::with(
        Config {
            shards: Some(shards),
            listeners: vec![ClientListener {
                address: Some(ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))),
                tls: mode,
                ..ClientListener::default()
            }],
            tls: Tls {
                certificates: vec![files],
                ..Tls::default()
            },
            ..Config::default()
        },
        handlers,
    )
}

/// Handshake, acknowledgement, requests, a kick, and an end that TLS has announced.
fn play(client: Client) -> Client {
    let mut client = client.open();
    assert_eq!(client.request_text(HELLO, "{}"), r#""hello""#);
    let long = client.request_text(LONG, "x".repeat(30_000));
    assert_eq!(long.len(), LONG_BYTES + 2);
    client.request(1, LEAVE, "{}");
    assert_eq!(client.wait_kick(), "enough");
    client
}

#[test]
fn openssl_node_and_python_play_over_tls() {
    let certificates = Certificates::local();
    let authority = certificates.path("ca.pem");
    for shards in [1, 2] {
        let gateway = gateway(shards, &certificates, TlsMode::Required);
        let port = gateway.address().port().to_string();
        let address = gateway.address().to_string();
        let openssl = |version| {
            [
                "s_client",
                "-quiet",
                "-verify_quiet",
                "-verify_return_error",
                "-verify_hostname",
                "localhost",
                "-servername",
                "localhost",
                "-CAfile",
                &authority,
                version,
                "-connect",
                &address,
            ]
        };
        for (program, args) in [
            ("openssl", &openssl("-tls1_2")[..]),
            ("openssl", &openssl("-tls1_3")),
            ("node", &["-e", NODE, &port, &authority]),
            ("python3", &["-c", PYTHON, &port, &authority]),
        ] {
            println!("--- {program}");
            play(Client::through(program, args));
        }
        assert_eq!(gateway.counter("tls_handshakes"), 4);
        assert_eq!(gateway.counter("tls_failed"), 0);
        gateway.stop();
    }
}

#[test]
fn both_transports_run_over_tls_beside_plain_ones_on_one_port() {
    let certificates = Certificates::local();
    let trust = Trust::of(&certificates);
    for shards in [1, 4] {
        let gateway = gateway(shards, &certificates, TlsMode::Optional);
        let address = gateway.address();
        for _ in 0..shards {
            for client in [Client::tls(address, &trust), Client::tcp(address)] {
                assert_eq!(play(client).end(), Some(End::Fin));
            }
            for client in [Client::wss(address, &trust), Client::websocket(address)] {
                play(client);
            }
        }
        assert_eq!(gateway.counter("tls_handshakes"), 2 * shards as u64);
        gateway.stop();
    }
}
