//! Several listeners: TCP ports and unix sockets, each with rules of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::{self, ClientListener, ListenAddress, Transports};
use tangelo::handler::{ClientAddr, Json, Router};

use super::reload::File;
use crate::harness::SocketPath;
use crate::harness::admin::AdminPort;
use crate::harness::certificates::Certificates;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::secure::Trust;

const PROXY_HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 3010\r\n";

/// Sends a request line behind `before`; returns the answer.
fn ask<S: Read + Write>(mut stream: S, before: &[u8], line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: game\r\n\r\n");
    let sent = stream.write_all(&[before, request.as_bytes()].concat());
    sent.expect("an open connection");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in UTF-8");
    answer
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
    stream
}

fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
    stream
}

/// Enters the chat room; the answer has the names of all members.
fn enter(client: &mut Client, name: &str) -> Value {
    let body = json!({ "name": name }).to_string();
    let answer = client.request_text("connector.entryHandler.enter", body);
    serde_json::from_str(&answer).expect("an answer is JSON")
}

const PAGE: &str = "HTTP/1.1 200 OK\r\n";
const TCP_ALONE: &str = "this port speaks raw TCP\n";

#[test]
fn each_listener_takes_what_its_section_says_on_every_shard() {
    for shards in ["1", "2"] {
        println!("--- on {shards} shards");
        let socket = SocketPath::new();
        let text = format!(
            "[client]\ntrusted_proxies = ['127.0.0.1']\nhealth_path = '/health'\n\
             [[listener]]\naddress = '127.0.0.1:0'\n\
             [[listener]]\naddress = '127.0.0.1:0'\ntransports = ['tcp']\n\
             [[listener]]\naddress = '127.0.0.1:0'\ntransports = ['websocket']\nproxy_protocol = true\n\
             [[listener]]\naddress = '{}'\n",
            socket.address()
        );
        let file = File::new(&text);
        let args = ["--shards", shards];
        let config = ["--config", file.path(), "--set", "log.level=debug"];
        let mut gateway = Gateway::start_with_listeners(&[&args[..], &config].concat());
        let listeners = gateway.listeners();
        assert_eq!(listeners.len(), 4, "{listeners:?}");
        assert_eq!(listeners[3], socket.address());
        let address = |at: usize| -> SocketAddr { listeners[at].parse().expect("ADDR:PORT") };
        assert_eq!(address(0), gateway.address());
        let [both, raw, web] = [0, 1, 2].map(address);

        // Many, so that each shard has some of each listener.
        for _ in 0..8 {
            for mut client in [
                Client::tcp(both).open(),
                Client::websocket(both).open(),
                Client::tcp(raw).open(),
                Client::unix(socket.path(), b"").open(),
            ] {
                assert_eq!(
                    client.request_text("connector.h.m", "{}"),
                    r#"{"code":500}"#
                );
            }
            let mut over_unix = Client::try_websocket_unix(socket.path(), &[])
                .expect("an upgrade")
                .open();
            assert_eq!(
                over_unix.request_text("connector.h.m", "{}"),
                r#"{"code":500}"#
            );
        }

        // HTTP on a listener for raw TCP, whatever it asks for.
        for line in ["GET /", "POST /", "GET /health"] {
            let answer = ask(tcp(raw), b"", line);
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{answer}"
            );
            assert!(answer.ends_with(TCP_ALONE), "{answer}");
        }
        let refused = Client::try_websocket(raw, &[]);
        assert!(refused.is_err_and(|error| error.contains("400")));
        gateway.wait_counter("closed_transport", 4);

        // Raw TCP on a listener for WebSocket.
        let mut client = Client::tcp(web);
        client.send_raw(&[PROXY_HEADER, b"\x01\0\0\x02{}"].concat());
        assert_eq!(client.next_package(), None);
        gateway.wait_counter("closed_transport", 5);
        gateway.wait_printed("reason=\"transport\"");

        // Only one listener wants the header of the PROXY protocol.
        let checked = ask(tcp(web), PROXY_HEADER, "GET /health");
        assert!(checked.ends_with("\r\n\r\nok\n"), "{checked}");
        assert!(ask(tcp(web), b"", "GET /health").is_empty());
        gateway.wait_counter("closed_proxy_header", 1);
        for open in [
            ask(tcp(both), b"", "GET /health"),
            ask(unix(socket.path()), b"", "GET /health"),
        ] {
            assert!(open.ends_with("\r\n\r\nok\n"), "{open}");
        }
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        assert!(!socket.path().exists());
    }
}

#[test]
fn the_chat_page_is_served_over_each_listener_and_its_members_meet() {
    for shards in ["1", "2"] {
        println!("--- on {shards} shards");
        let socket = SocketPath::new();
        let listeners = format!(
            "listener=[{{address='127.0.0.1:0', transports=['websocket']}}, {{address='127.0.0.1:0'}}, {{address='{}'}}]",
            socket.address()
        );
        let mut gateway = Gateway::start_with_listeners(&["--shards", shards, "--set", &listeners]);
        let addresses = gateway.listeners();
        let second: SocketAddr = addresses[1].parse().expect("ADDR:PORT");
        for answer in [
            ask(tcp(gateway.address()), b"", "GET /"),
            ask(tcp(second), b"", "GET /"),
            ask(unix(socket.path()), b"", "GET /"),
        ] {
            assert!(answer.starts_with(PAGE), "{answer}");
            assert!(answer.trim_end().ends_with("</html>"), "{answer}");
        }
        gateway.wait_printed(&format!("open http://{}/ in a browser", gateway.address()));
        let mut first = Client::websocket(gateway.address()).open();
        assert_eq!(enter(&mut first, "a")["users"], json!(["a"]));
        let mut over_unix = Client::unix(socket.path(), b"").open();
        let mut second = Client::tcp(second).open();
        enter(&mut over_unix, "b");
        let heard = |client: &mut Client, user: &str| {
            let (route, body) = client.next_push();
            let body: Value = serde_json::from_slice(&body).expect("a push is JSON");
            assert_eq!((route.as_str(), &body["user"]), ("onAdd", &json!(user)));
        };
        heard(&mut first, "b");
        enter(&mut second, "c");
        heard(&mut first, "c");
        heard(&mut over_unix, "c");
    }
}

/// A gateway whose only listener is a unix socket, and whose handler says who a client is.
fn behind_unix(socket: &SocketPath, client: config::Client) -> Inside {
    async fn who(ClientAddr { ip, port }: ClientAddr) -> Json<String> {
        Json(format!("{ip}:{port}"))
    }
    let config = Config {
        shards: Some(2),
        listeners: vec![ClientListener {
            address: Some(ListenAddress::Unix(socket.path().to_owned())),
            ..ClientListener::default()
        }],
        client: config::Client {
            blacklist: vec!["127\\.0\\.0\\.1".into(), "203\\.0\\.113\\.9".into()],
            address_connections_max: Some(1),
            ..client
        },
        ..Config::default()
    };
    Inside::with(config, || Router::new().route("connector.e.who", who))
}

fn who(client: &mut Client) -> String {
    client.request_text("connector.e.who", "{}")
}

#[test]
fn clients_of_a_unix_socket_without_a_told_address_count_for_no_list_and_no_limit() {
    let socket = SocketPath::new();
    let gateway = behind_unix(&socket, config::Client::default());
    let mut clients: Vec<Client> = (0..3)
        .map(|_| Client::unix(socket.path(), b"").open())
        .collect();
    for client in &mut clients {
        assert_eq!(who(client), "\"127.0.0.1:0\"");
    }
    assert_eq!(gateway.address().port(), 0);
    drop(clients);
    gateway.stop();
    assert!(!socket.path().exists());
}

#[test]
fn the_proxy_behind_a_unix_socket_tells_the_addresses_that_count() {
    let socket = SocketPath::new();
    let upgrade = |address: &str| {
        let headers = [("X-Real-IP", address)];
        Client::try_websocket_unix(socket.path(), &headers)
    };
    let gateway = behind_unix(
        &socket,
        config::Client {
            real_ip_header: Some("X-Real-IP".into()),
            ..config::Client::default()
        },
    );
    let mut first = upgrade("203.0.113.7").expect("an upgrade").open();
    assert_eq!(who(&mut first), "\"203.0.113.7:0\"");
    let second = upgrade("203.0.113.7");
    assert!(second.is_err_and(|error| error.contains("429")));
    let banned = upgrade("203.0.113.9");
    assert!(banned.map_or(true, |mut client| client.next_package().is_none()));
    gateway.wait_counter("closed_blacklisted", 1);
    // A proxy that forgets the header: nothing counts for its clients.
    let mut untold: Vec<Client> = (0..2)
        .map(|_| {
            Client::try_websocket_unix(socket.path(), &[])
                .expect("an upgrade")
                .open()
        })
        .collect();
    untold
        .iter_mut()
        .for_each(|client| assert_eq!(who(client), "\"127.0.0.1:0\""));
    assert_eq!(gateway.counter("addresses_untold"), 2);
    drop((first, untold));
    gateway.stop();

    let gateway = behind_unix(
        &socket,
        config::Client {
            proxy_protocol: true,
            ..config::Client::default()
        },
    );
    let mut client = Client::unix(socket.path(), PROXY_HEADER).open();
    assert_eq!(who(&mut client), "\"203.0.113.7:40000\"");
    let mut headless = Client::unix(socket.path(), b"\x01\0\0\x02{}");
    assert_eq!(headless.next_package(), None);
    gateway.wait_counter("closed_proxy_header", 1);
    drop(client);
    gateway.stop();
}

#[test]
fn the_file_of_a_unix_socket_is_one_per_gateway_and_a_killed_one_leaves_it_for_the_next() {
    let socket = SocketPath::new();
    let listeners = format!(
        "listener=[{{address='127.0.0.1:0'}}, {{address='{}'}}]",
        socket.address()
    );
    let args = ["--shards", "2", "--set", &listeners];
    let serves = || {
        let mut client = Client::unix(socket.path(), b"").open();
        assert_eq!(
            client.request_text("connector.h.m", "{}"),
            r#"{"code":500}"#
        );
    };
    let start = || Gateway::start_with_listeners(&[&args[..], &["--set", "id=a"]].concat());
    let gateway = start();
    serves();
    let mode = fs::metadata(socket.path())
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let (code, printed) = Gateway::refused(&args);
    assert_eq!(code, Some(2));
    let refusal = format!(
        "cannot listen on {} (a [[listener]]): another process (another tangelo?) listens there, or a file has its \
         place; stop it, remove the file, or choose another address",
        socket.address()
    );
    assert!(printed.contains(&refusal), "{printed}");
    serves();
    let before = fs::metadata(socket.path()).expect("a file");
    gateway.kill();
    assert!(
        before.file_type().is_socket() && socket.path().exists(),
        "left behind"
    );
    let gateway = start();
    serves();
    let (code, _) = gateway.stop();
    assert_eq!((code, socket.path().exists()), (Some(0), false));
}

#[test]
fn clients_of_a_unix_socket_speak_tls_where_its_section_says_so() {
    let certificates = Certificates::local();
    let (trust, authority) = (Trust::of(&certificates), certificates.path("ca.pem"));
    for shards in ["1", "2"] {
        let sockets = [(); 3].map(|()| SocketPath::new());
        let [required, optional, proxied] = sockets.each_ref().map(SocketPath::address);
        let listeners = format!(
            "listener=[{{address='127.0.0.1:0'}}, {{address='{required}', tls='required'}}, \
             {{address='{optional}', tls='optional'}}, {{address='{proxied}', tls='required', proxy_protocol=true}}]"
        );
        let files = certificates.set(&["a"]);
        let args = ["--shards", shards, "--set", &listeners, "--set", &files];
        let mut gateway = Gateway::start_with_listeners(&args);
        let [required, optional, proxied] = sockets.each_ref().map(SocketPath::path);
        let openssl = |path: &Path| {
            let path = path.to_str().expect("UTF-8");
            let line = format!(
                "s_client -quiet -no_ign_eof -verify_quiet -verify_return_error -verify_hostname localhost \
                 -servername localhost -CAfile {authority} -unix {path}"
            );
            Client::through("openssl", &line.split(' ').collect::<Vec<_>>())
        };
        for client in [
            openssl(required),
            openssl(optional),
            Client::tls_unix(required, b"", &trust),
            Client::tls_unix(optional, b"", &trust),
            Client::tls_unix(proxied, PROXY_HEADER, &trust),
            Client::unix(optional, b""),
        ] {
            let answer = client.open().request_text("connector.h.m", "{}");
            assert_eq!(answer, r#"{"code":500}"#);
        }
        assert_eq!(gateway.wait_counter("tls_handshakes", 5), 5);
        let mut plain = Client::unix(required, b"");
        plain.send_raw(b"\x01\0\0\x02{}");
        assert_eq!(plain.next_package(), None);
        gateway.wait_counter("closed_plain_on_tls", 1);
    }
}

#[test]
fn both_forms_and_tls_are_refused_at_the_start() {
    let both = [
        "--listen",
        "127.0.0.1:0",
        "--set",
        "listener=[{address='127.0.0.1:0'}]",
    ];
    let tls = [
        "--set",
        "listener=[{address='127.0.0.1:0', tls='optional'}]",
    ];
    for (args, expected) in [
        (
            &both[..],
            "--set listener=[{address='127.0.0.1:0'}]: not allowed together with listen, which --listen 127.0.0.1:0 \
             sets; remove one of them",
        ),
        (
            &tls,
            "listener[0].tls: needs [[tls.certificates]]; docs/operations.md shows how",
        ),
    ] {
        let (code, printed) = Gateway::refused(args);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn check_tries_each_address_and_a_reload_asks_for_a_restart() {
    let (socket, missing) = (SocketPath::new(), SocketPath::new());
    let text = |listeners: &[String]| -> String {
        let section = |address: &String| format!("[[listener]]\naddress = '{address}'\n");
        listeners.iter().map(section).collect()
    };
    let first = "127.0.0.1:0".to_owned();
    let file = File::new(&text(&[first.clone(), socket.address()]));
    let mut gateway = Gateway::start_with_listeners(&["--config", file.path()]);
    let port = gateway.address().to_string();
    file.write(&text(&[port.clone(), socket.address(), missing.address()]));
    let output = Command::new(env!("CARGO_BIN_EXE_tangelo"))
        .args(["check", "--config", file.path()])
        .output()
        .expect("the program runs");
    let printed = String::from_utf8(output.stdout).expect("text in UTF-8");
    assert_eq!(output.status.code(), Some(2), "{printed}");
    for expected in [
        format!("problem  cannot listen on {port} (a [[listener]]): another process"),
        format!(
            "problem  cannot listen on {} (a [[listener]]): another process",
            socket.address()
        ),
        format!("ok       port for clients: {} is free", missing.address()),
    ] {
        assert!(printed.contains(&expected), "{printed}");
    }
    assert!(socket.path().exists() && !missing.path().exists());
    gateway.signal("HUP");
    let line = gateway.wait_printed(" SIGHUP: ");
    assert!(
        line.ends_with("; a restart is needed for listener"),
        "{line}"
    );
    file.write(&format!("listen = '{port}'\n{}", text(&[first])));
    gateway.signal("HUP");
    gateway.wait_printed(": listener: not allowed together with listen, which ");
}

#[test]
fn a_gateway_with_unix_sockets_alone_is_ready_without_a_probe() {
    let (socket, port) = (SocketPath::new(), AdminPort::unix());
    let config = Config {
        shards: Some(1),
        listeners: vec![ClientListener {
            address: Some(ListenAddress::Unix(socket.path().to_owned())),
            transports: Transports {
                tcp: true,
                websocket: false,
            },
            ..ClientListener::default()
        }],
        admin: config::Admin {
            listen: Some(ListenAddress::Unix(port.path().to_owned())),
            ..config::Admin::default()
        },
        ..Config::default()
    };
    let inside = Inside::with(config, Router::new);
    port.wait_until_open();
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    assert_eq!(inside.counter("accepted"), 0);
    let answer = ask(unix(socket.path()), b"", "GET /");
    assert!(answer.ends_with(TCP_ALONE), "{answer}");
    inside.stop();
}
