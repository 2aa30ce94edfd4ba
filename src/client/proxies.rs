//! The proxies in front of the gateway, and the address of a client behind them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config;
use crate::config::network::network;
use crate::limits::TRUSTED_PROXIES_MAX;
use crate::wire::forwarded::{self, Hop};
use crate::wire::websocket;

/// The proxies that may tell the address of a client, and the way in which they do so.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    /// They begin each connection with the header of the PROXY protocol.
    send_header: bool,
    /// Header with the addresses that the proxies saw.
    ip_header: Option<String>,
    /// Header with the port of the client.
    port_header: Option<String>,
}

impl Proxies {
    /// Reads the keys; an error names the entry of `trusted_proxies` that is not an address.
    pub fn new(client: &config::Client) -> Result<Self, String> {
        let entries = &client.trusted_proxies;
        if entries.len() > TRUSTED_PROXIES_MAX {
            let count = entries.len();
            return Err(format!(
                "{count} entries; expected up to {TRUSTED_PROXIES_MAX}"
            ));
        }
        let trusted = entries.iter().map(|entry| {
            network(entry).ok_or_else(|| {
                format!(
                    "{entry:?} is not an address; expected one such as \"10.0.0.5\", \"10.0.0.0/8\", \"::1\" or \
                     \"fd00::/8\""
                )
            })
        });
        Ok(Self {
            trusted: trusted.collect::<Result<_, _>>()?,
            send_header: client.proxy_protocol,
            ip_header: client.real_ip_header.clone(),
            port_header: client.real_port_header.clone(),
        })
    }

    /// Returns whether they begin each connection with the header of the PROXY protocol.
    pub fn send_header(&self) -> bool {
        self.send_header
    }

    /// Returns whether they may tell the address of a client in an upgrade.
    pub fn tell_in_upgrade(&self) -> bool {
        self.ip_header.is_some()
    }

    /// Returns whether an address is that of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|net| net.contains(&address))
    }

    /// Returns the address of the client in an upgrade that a trusted proxy has sent: the last hop that is not a
    /// trusted proxy itself. If no further hop can be read, the last trusted proxy counts as the client.
    pub fn client_of(&self, upgrade: &[u8]) -> Option<SocketAddr> {
        let name = self.ip_header.as_ref()?;
        let text = websocket::http_header(upgrade, name)?;
        let mut client: Option<Hop> = None;
        for hop in forwarded::hops(name, &text).map_while(|hop| hop) {
            client = Some(hop);
            if !self.trusts(hop.ip) {
                break;
            }
        }
        let Hop { ip, port } = client?;
        let own_port = self.port_header.as_ref();
        let own_port =
            own_port.and_then(|name| websocket::http_header(upgrade, name)?.parse().ok());
        Some(SocketAddr::new(ip, port.or(own_port).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &[&str], ip_header: &str) -> Result<Proxies, String> {
        Proxies::new(&config::Client {
            trusted_proxies: trusted.iter().map(|entry| (*entry).into()).collect(),
            real_ip_header: Some(ip_header.into()),
            real_port_header: Some("X-Real-Port".into()),
            ..config::Client::default()
        })
    }

    /// The address of the client of an upgrade with these header lines, as text.
    fn client(proxies: &Proxies, lines: &[&str]) -> String {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let client = proxies.client_of(head.as_bytes());
        client.map_or_else(String::new, |address| address.to_string())
    }

    #[test]
    fn an_address_is_trusted_alone_or_by_its_network() {
        let proxies = proxies(
            &[
                "10.0.0.0/8",
                "192.0.2.1",
                "fd00::/8",
                "::ffff:198.51.100.0/120",
            ],
            "X",
        )
        .unwrap();
        for (address, trusted) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("198.51.100.9", true),
            ("198.51.101.9", false),
        ] {
            assert_eq!(
                proxies.trusts(address.parse().unwrap()),
                trusted,
                "{address}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_not_an_address_is_refused_with_its_text() {
        for entry in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.1:80",
            "::ffff:10.0.0.0/90",
        ] {
            let error = proxies(&["::1", entry], "X").unwrap_err();
            let start = format!("{entry:?} is not an address; expected one such as ");
            assert!(error.starts_with(&start), "{error}");
        }
        let many = vec!["::1"; TRUSTED_PROXIES_MAX + 1];
        assert_eq!(
            proxies(&many, "X").unwrap_err(),
            "1025 entries; expected up to 1024"
        );
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_is_the_client() {
        let proxies = proxies(&["10.0.0.0/8"], "x-forwarded-for").unwrap();
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("9.9.9.9, 192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1:0"),
            ("10.0.0.9, 192.0.2.1", "192.0.2.1:0"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2:0"),
            ("9.9.9.9, evil, 10.0.0.1", "10.0.0.1:0"),
            ("9.9.9.9, evil", ""),
            ("9.9.9.9, ", ""),
        ] {
            let line = format!("X-Forwarded-For: {text}");
            assert_eq!(client(&proxies, &[&line]), expected, "{text}");
        }
        // HAProxy adds a line of its own behind that of the client.
        let lines = ["X-Forwarded-For: 9.9.9.9", "X-FORWARDED-FOR: 192.0.2.1"];
        assert_eq!(client(&proxies, &lines), "192.0.2.1:0");
        assert_eq!(client(&proxies, &["X-Real-IP: 9.9.9.9"]), "");
        let many = ["A: 1"; 1000];
        let behind = [
            &["X-Forwarded-For: 9.9.9.9"][..],
            &many,
            &["X-Forwarded-For: 192.0.2.1"],
        ]
        .concat();
        assert_eq!(client(&proxies, &behind), "192.0.2.1:0");
    }

    #[test]
    fn another_header_may_have_the_port() {
        let proxies = proxies(&["10.0.0.0/8"], "X-Real-IP").unwrap();
        for (port, expected) in [("7", "[::1]:7"), ("x", "[::1]:0"), ("7, 8", "[::1]:0")] {
            let port = format!("X-Real-Port: {port}");
            assert_eq!(client(&proxies, &["X-Real-IP: ::1", &port]), expected);
        }
        let lines = ["X-Real-IP: [::1]:8", "X-Real-Port: 7"];
        assert_eq!(client(&proxies, &lines), "[::1]:8");
    }
}
