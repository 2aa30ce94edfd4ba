//! Genuine HAProxy and nginx in front, with the configurations of `docs/operations.md`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tangelo::config::{ClientListener, ListenAddress};
use tangelo::handler::{ClientAddr, Json, Router};
use tangelo::{Config, config};
use tempfile::TempDir;

use crate::harness::SocketPath;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::debian;
use crate::harness::frames::handshake;
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::peers::Ports;
use crate::harness::process::{POLL_INTERVAL, Process};

const WHO: &str = "connector.entryHandler.who";

/// The addresses of a player, of a banned one, and of the proxies.
const PLAYER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 8));
const BANNED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const PROXY: &str = "127.0.0.1";

/// Time between two checks of HAProxy.
const CHECKS: Duration = Duration::from_millis(50);

/// A configuration of the manual.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// HAProxy with `send-proxy`, or with `send-proxy-v2` as in the manual.
    HaproxyV1,
    HaproxyV2,
    HaproxyHttp,
    NginxStream,
    NginxHttp,
}

impl Kind {
    const PROTOCOL: [Self; 3] = [Self::HaproxyV1, Self::HaproxyV2, Self::NginxStream];
    const HTTP: [Self; 2] = [Self::HaproxyHttp, Self::NginxHttp];

    /// The configuration, with this port of the loopback in place of the port for clients.
    fn configuration(self, port: u16, gateway: SocketAddr) -> String {
        let marker = match self {
            Self::HaproxyV1 | Self::HaproxyV2 => "mode tcp",
            Self::HaproxyHttp => "mode http",
            Self::NginxStream => "stream {",
            Self::NginxHttp => "http {",
        };
        let text = manual(marker).replace("10.0.0.7:3010", &gateway.to_string());
        let [v4, v6] = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        match self {
            Self::HaproxyV1 => text.replace("send-proxy-v2", "send-proxy"),
            _ => text,
        }
        // Many checks in the time of a test, and on a busy machine some may be late.
        .replace(
            " check",
            &format!(" check inter {}ms fall 1000", CHECKS.as_millis()),
        )
        .replace("bind :3010", &format!("bind {v4},{v6}"))
        .replace("listen 3010;", &format!("listen {v4}; listen {v6};"))
    }
}

/// The block of code in the manual that has this text.
fn manual(marker: &str) -> String {
    let manual = include_str!("../../../docs/operations.md");
    let mut blocks = manual.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(marker));
    let block = block.unwrap_or_else(|| panic!("the manual has no configuration with {marker:?}"));
    // The first line names the language.
    block.split_once('\n').expect("lines").1.to_owned()
}

/// A running proxy. Dropping it kills it.
pub(super) struct Proxy {
    process: Process,
    port: u16,
    _folder: TempDir,
    _ports: Ports,
}

impl Proxy {
    fn start(kind: Kind, gateway: SocketAddr) -> Self {
        let ports = Ports::claim();
        let port = ports.nth(0);
        Self::with(
            ports,
            &kind.configuration(port, gateway),
            matches!(kind, Kind::NginxStream | Kind::NginxHttp),
        )
    }

    pub(super) fn with(ports: Ports, configuration: &str, is_nginx: bool) -> Self {
        let port = ports.nth(0);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("proxy.conf");
        let path = file.to_str().expect("a path in UTF-8");
        let process = if is_nginx {
            need(
                &["/usr/sbin/nginx", NGINX_STREAM],
                &["nginx", "libnginx-mod-stream"],
            );
            fs::write(&file, nginx(configuration)).expect("our own folder");
            let prefix = folder.path().to_str().expect("a path in UTF-8");
            Process::start(
                "nginx",
                folder.path(),
                "/usr/sbin/nginx",
                &["-e", "stderr", "-p", prefix, "-c", path],
            )
        } else {
            need(&["/usr/sbin/haproxy"], &["haproxy"]);
            fs::write(&file, configuration).expect("our own folder");
            Process::start(
                "haproxy",
                folder.path(),
                "/usr/sbin/haproxy",
                &["-db", "-f", path],
            )
        };
        let mut proxy = Self {
            process,
            port,
            _folder: folder,
            _ports: ports,
        };
        let deadline = Instant::now() + HANG_GUARD;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = proxy.process.has_exited();
            let waits = ended.is_none() && Instant::now() < deadline;
            assert!(waits, "{ended:?}\n{}", proxy.process.transcript());
            thread::sleep(POLL_INTERVAL);
        }
        proxy
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

/// Finds files, or installs the packages that have them.
fn need(files: &[&str], packages: &[&str]) {
    let has_all = || files.iter().all(|file| Path::new(file).exists());
    if !has_all() {
        debian::install(packages);
    }
    assert!(
        has_all(),
        "{packages:?} are installed, but not all of {files:?} exist"
    );
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A whole configuration of nginx, in one process that writes only into its own folder.
fn nginx(part: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary
        .map(|name| format!("{name}_temp_path {name};"))
        .concat();
    let part = part.replace("http {", &format!("http {{ access_log off; {temporary}"));
    format!(
        "load_module {NGINX_STREAM}; daemon off; master_process off; pid nginx.pid; events {{}}\n{part}"
    )
}

/// A gateway that tells each client its address.
fn gateway(client: config::Client) -> Inside {
    let config = Config {
        client: config::Client {
            trusted_proxies: vec![PROXY.into()],
            blacklist: vec![format!("^{}$", BANNED.to_string().replace('.', "\\."))],
            ..client
        },
        ..Config::default()
    };
    let who = async |address: ClientAddr| Json(address.to_string());
    Inside::start(2, config, move || {
        Router::new().route("entryHandler.who", who)
    })
}

fn with_protocol() -> Inside {
    gateway(config::Client {
        proxy_protocol: true,
        ..config::Client::default()
    })
}

fn with_header() -> Inside {
    gateway(config::Client {
        real_ip_header: Some("X-Forwarded-For".into()),
        ..config::Client::default()
    })
}

/// The address that the gateway tells a client, as JSON.
fn told(client: Client) -> String {
    client.open().request_text(WHO, "{}")
}

/// The address of the client itself, as JSON.
fn own(client: &Client) -> String {
    let address = client.stream().local_addr().expect("an open socket");
    format!("\"{address}\"")
}

fn is_closed(mut client: Client) -> bool {
    client.send_raw(&handshake());
    client.next_package().is_none()
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("--- SKIPPED for IPv6: this machine has no ::1");
    }
    has
}

/// A client's own headers, which would name other addresses.
const FORGED: [(&str, &str); 3] = [
    ("x-forwarded-for", "203.0.113.1"),
    ("x-real-ip", "203.0.113.2"),
    ("forwarded", "for=203.0.113.3"),
];

#[test]
fn behind_a_proxy_with_its_protocol_handlers_see_the_client_and_a_banned_one_stays_out() {
    let gateway = with_protocol();
    for kind in Kind::PROTOCOL {
        println!("--- {kind:?}");
        let proxy = Proxy::start(kind, gateway.address());
        let client = Client::tcp_from(proxy.address(), PLAYER);
        let expected = own(&client);
        assert_eq!(told(client), expected);
        let client = Client::websocket_from(proxy.address(), PLAYER, &FORGED);
        let client = client.expect("an upgrade");
        let expected = own(&client);
        assert_eq!(told(client), expected);
        assert!(is_closed(Client::tcp_from(proxy.address(), BANNED)));
        assert!(Client::websocket_from(proxy.address(), BANNED, &FORGED).is_err());
        if has_ipv6() {
            let client = Client::tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port)));
            let expected = own(&client);
            assert_eq!(told(client), expected);
        }
    }
    gateway.wait_counter("closed_blacklisted", 6);
    gateway.stop();
}

#[test]
fn behind_a_proxy_with_headers_handlers_see_the_client_and_a_banned_one_stays_out() {
    let gateway = with_header();
    for kind in Kind::HTTP {
        println!("--- {kind:?}");
        let proxy = Proxy::start(kind, gateway.address());
        for headers in [&[][..], &FORGED] {
            let client = Client::websocket_from(proxy.address(), PLAYER, headers);
            assert_eq!(told(client.expect("an upgrade")), format!("\"{PLAYER}:0\""));
            // The upgrade is answered, as it has the address, and then the client is closed.
            let client = Client::websocket_from(proxy.address(), BANNED, headers);
            assert!(client.is_err() || is_closed(client.expect("an upgrade")));
        }
        if has_ipv6() {
            let client = Client::websocket(SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.port)));
            assert_eq!(told(client), "\"[::1]:0\"");
        }
    }
    gateway.wait_counter("closed_blacklisted", 4);
    gateway.stop();
}

#[test]
fn a_client_that_nobody_trusts_cannot_pass_for_another_one() {
    for gateway in [with_protocol(), with_header()] {
        let address = gateway.address();
        let client = Client::websocket_from(address, PLAYER, &FORGED).expect("an upgrade");
        let expected = own(&client);
        assert_eq!(told(client), expected);
        for header in [
            &b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\n",
        ] {
            let mut client = Client::tcp_from(address, PLAYER);
            client.send_raw(header);
            assert!(is_closed(client));
        }
        gateway.wait_counter("closed_package_type", 2);
        // A banned client is gone before it can say anything.
        assert!(Client::websocket_from(address, BANNED, &FORGED).is_err());
        gateway.wait_counter("closed_blacklisted", 1);
        gateway.stop();
    }
}

/// HAProxy opens a connection for each check, and resets it behind the header of the PROXY protocol. Without that
/// header it resets so early that a gateway may never see the connection.
#[test]
fn the_checks_of_a_balancer_are_probes_and_no_players() {
    for kind in [Kind::HaproxyV1, Kind::HaproxyV2, Kind::HaproxyHttp] {
        println!("--- {kind:?}");
        let sends_header = kind != Kind::HaproxyHttp;
        let trusted = format!("client.trusted_proxies=['{PROXY}']");
        let protocol = format!("client.proxy_protocol={sends_header}");
        let mut args = vec!["--set", "log.level=debug"];
        args.extend(["--set", &trusted, "--set", &protocol]);
        args.extend(["--set", "client.max_connections=1"]);
        let mut gateway = Gateway::start(&args);
        let proxy = Proxy::start(kind, gateway.address());
        let wait_for_checks = |gateway: &mut Gateway| match sends_header {
            true => {
                let before = gateway.wait_counter("closed_probe", 0);
                gateway.wait_counter("closed_probe", before + 5);
            }
            false => thread::sleep(10 * CHECKS),
        };
        wait_for_checks(&mut gateway);
        // The only place is free.
        let client = Client::websocket(proxy.address()).open();
        wait_for_checks(&mut gateway);
        drop(client);
        gateway.wait_counter("closed_left", 1);
        drop(proxy);
        let (_, printed) = gateway.stop();
        let closed = |line: &&str| line.contains("reason=");
        let lines: Vec<&str> = printed.lines().filter(closed).collect();
        assert!(
            matches!(&*lines, [one] if one.contains("reason=\"left\"")),
            "{printed}"
        );
    }
}

#[test]
fn any_connection_without_a_byte_is_a_probe() {
    let gateway = with_header();
    for from in [PLAYER, PROXY.parse().expect("an address")] {
        drop(Client::tcp_from(gateway.address(), from));
    }
    gateway.wait_counter("closed_probe", 2);
    assert_eq!(gateway.counter("closed_left"), 0);
    gateway.stop();
}

#[test]
fn behind_haproxy_a_unix_socket_takes_both_transports_from_clients_with_addresses_of_their_own() {
    let socket = SocketPath::new();
    let who = async |address: ClientAddr| Json(address.to_string());
    let config = Config {
        shards: Some(2),
        listeners: vec![ClientListener {
            address: Some(ListenAddress::Unix(socket.path().to_owned())),
            proxy_protocol: Some(true),
            ..ClientListener::default()
        }],
        ..Config::default()
    };
    let gateway = Inside::with(config, move || Router::new().route("entryHandler.who", who));
    let ports = Ports::claim();
    let configuration = Kind::HaproxyV2.configuration(ports.nth(0), gateway.address());
    // The line of the manual has the place of the other one.
    let to_tcp = format!("server tangelo {} ", gateway.address());
    let configuration = configuration.replace(
        &to_tcp,
        &format!("server tangelo unix@{} ", socket.path().display()),
    );
    let proxy = Proxy::with(ports, &configuration, false);
    for client in [
        Client::tcp_from(proxy.address(), PLAYER),
        Client::websocket_from(proxy.address(), PLAYER, &FORGED).expect("an upgrade"),
    ] {
        let expected = own(&client);
        assert_eq!(told(client), expected);
    }
    gateway.wait_counter("closed_probe", 1);
    drop(proxy);
    gateway.stop();
}

/// An operator who forgets the protocol in the proxy finds the reason.
#[test]
fn a_proxy_that_does_not_send_its_header_is_closed_with_a_reason() {
    let gateway = with_protocol();
    let trusted = PROXY.parse().expect("an address");
    assert!(is_closed(Client::tcp_from(gateway.address(), trusted)));
    gateway.wait_counter("closed_proxy_header", 1);
    let mut silent = Client::tcp_from(gateway.address(), trusted);
    assert_eq!(silent.next_package(), None);
    gateway.wait_counter("closed_proxy_timeout", 1);
    gateway.stop();
}
