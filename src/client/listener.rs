//! The rules of one listener for the connections that it takes.

use std::net::IpAddr;

use super::proxies::Proxies;
use crate::config::{ClientListener, ListenAddress, TlsMode, Transports};

/// The rules of a listener.
#[derive(Debug)]
pub struct ListenerRules {
    /// The transports that it takes.
    pub transports: Transports,
    /// TLS.
    pub tls: TlsMode,
    /// Whether trusted proxies begin with the header of the PROXY protocol; `None` as `client.proxy_protocol` says.
    pub proxy_protocol: Option<bool>,
    /// It is a unix socket: behind it stands a proxy of this machine, which counts as trusted.
    pub is_unix: bool,
}

impl ListenerRules {
    /// Reads the rules of a listener of the configuration.
    pub fn new(listener: &ClientListener) -> Self {
        Self {
            transports: listener.transports,
            tls: listener.tls,
            proxy_protocol: listener.proxy_protocol,
            is_unix: matches!(listener.address, Some(ListenAddress::Unix(_))),
        }
    }
}

/// The one who has opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opener {
    /// A client, or a proxy that does not tell the address of its client.
    #[default]
    Client,
    /// A trusted proxy that may tell it in the upgrade.
    Proxy,
    /// A trusted proxy that begins with the header of the PROXY protocol.
    ProxyWithHeader,
}

impl Opener {
    /// Returns the one who has opened a connection from an address.
    pub fn of(listener: &ListenerRules, proxies: &Proxies, address: IpAddr) -> Self {
        if !listener.is_unix && !proxies.trusts(address) {
            return Self::Client;
        }
        let has_header = listener.proxy_protocol.unwrap_or(proxies.send_header());
        match (has_header, proxies.tell_in_upgrade()) {
            (true, _) => Self::ProxyWithHeader,
            (false, true) => Self::Proxy,
            (false, false) => Self::Client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn opener(address: &str, on_listener: Option<bool>, client: config::Client) -> Opener {
        let is_unix = address == "unix";
        let rules = ListenerRules {
            transports: Transports::ALL,
            tls: TlsMode::Off,
            proxy_protocol: on_listener,
            is_unix,
        };
        let address = if is_unix { "127.0.0.1" } else { address };
        let proxies = Proxies::new(&client).unwrap();
        Opener::of(&rules, &proxies, address.parse().unwrap())
    }

    fn client(proxy_protocol: bool, header: Option<&str>) -> config::Client {
        config::Client {
            trusted_proxies: vec!["10.0.0.0/8".into()],
            proxy_protocol,
            real_ip_header: header.map(Into::into),
            ..config::Client::default()
        }
    }

    #[test]
    fn the_header_of_a_proxy_is_expected_where_the_listener_or_else_the_gateway_says_so() {
        for (of_all, of_listener, expected) in [
            (false, None, Opener::Client),
            (true, None, Opener::ProxyWithHeader),
            (false, Some(true), Opener::ProxyWithHeader),
            (true, Some(false), Opener::Client),
        ] {
            for trusted in ["10.0.0.1", "::ffff:10.0.0.1", "unix"] {
                let opener = opener(trusted, of_listener, client(of_all, None));
                assert_eq!(opener, expected, "{trusted}");
            }
            let stranger = opener("192.0.2.1", of_listener, client(of_all, Some("X")));
            assert_eq!(stranger, Opener::Client);
        }
        for trusted in ["10.0.0.1", "unix"] {
            let by_header = opener(trusted, None, client(false, Some("X")));
            assert_eq!(by_header, Opener::Proxy);
        }
    }
}
