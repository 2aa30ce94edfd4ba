//! Headers in which proxies tell the address of a client.
//!
//! Each proxy appends the address that it saw, so the last hop comes from the proxy next to us. A client can write
//! any text before the hops of the proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address that one proxy saw. An IPv4 address is never in its IPv6 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The address.
    pub ip: IpAddr,
    /// The port, if the proxy wrote it.
    pub port: Option<u16>,
}

/// Returns the hops of a header from the last to the first; `None` for one that is not an address.
///
/// Shape:  a list with commas. `Forwarded` has pairs such as `for="[2001:db8::1]:80";proto=https`, any other
///         header plain addresses: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`
/// Source: RFC 7239; for `X-Forwarded-For` the habits of proxies
pub fn hops<'a>(name: &str, text: &'a str) -> impl Iterator<Item = Option<Hop>> + use<'a> {
    let has_pairs = name.eq_ignore_ascii_case("forwarded");
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (before, last) = match has_pairs {
            true => split_last(text, b','),
            false => text
                .rsplit_once(',')
                .map_or((None, text), |(a, b)| (Some(a), b)),
        };
        rest = before;
        Some(match has_pairs {
            true => hop_of_pairs(last),
            false => hop(last),
        })
    })
}

/// Splits a text at the last separator that is not between quotes. It reads from the end, because the beginning
/// may have a quote of a client that never closes.
fn split_last(text: &str, separator: u8) -> (Option<&str>, &str) {
    let bytes = text.as_bytes();
    let is_escaped = |at: usize| {
        let before = bytes[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 1
    };
    let mut quoted = false;
    for (at, &byte) in bytes.iter().enumerate().rev() {
        if byte == b'"' && !is_escaped(at) {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            return (Some(&text[..at]), &text[at + 1..]);
        }
    }
    (None, text)
}

/// Reads the only pair `for=` of an element of `Forwarded`.
fn hop_of_pairs(element: &str) -> Option<Hop> {
    let mut node = None;
    let mut rest = Some(element);
    while let Some(text) = rest {
        let (before, pair) = split_last(text, b';');
        rest = before;
        if pair.trim().is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && node.replace(value.trim()).is_some() {
            return None;
        }
    }
    let node = node?;
    let unquoted = node.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    hop(unquoted.unwrap_or(node))
}

fn hop(text: &str) -> Option<Hop> {
    let text = text.trim();
    let with_port = text.parse().map(|address: SocketAddr| Hop {
        ip: address.ip().to_canonical(),
        port: Some(address.port()),
    });
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    with_port.ok().or_else(|| {
        let ip = text.parse().ok();
        let ip = ip.or_else(|| in_brackets().map(|ip: Ipv6Addr| IpAddr::V6(ip)))?;
        Some(Hop {
            ip: ip.to_canonical(),
            port: None,
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The hops as text, with `-` for one that is not an address.
    fn read(name: &str, text: &str) -> Vec<String> {
        let shown = |hop: Hop| match hop.port {
            Some(port) => SocketAddr::new(hop.ip, port).to_string(),
            None => hop.ip.to_string(),
        };
        let hops = hops(name, text);
        hops.map(|hop| hop.map_or("-".into(), shown)).collect()
    }

    #[test]
    fn a_list_of_addresses_is_read_from_its_end() {
        for (text, expected) in [
            ("192.0.2.1", &["192.0.2.1"][..]),
            ("192.0.2.1, 10.0.0.1:80", &["10.0.0.1:80", "192.0.2.1"]),
            (
                "2001:DB8::1,[::1]:80 ,[::1]",
                &["::1", "[::1]:80", "2001:db8::1"],
            ),
            ("::ffff:192.0.2.1", &["192.0.2.1"]),
            ("[::ffff:192.0.2.1]:5", &["192.0.2.1:5"]),
            ("x, 192.0.2.1,", &["-", "192.0.2.1", "-"]),
            ("", &["-"]),
            ("192.0.2.01", &["-"]),
            ("192.0.2.1:65536", &["-"]),
            ("[192.0.2.1]", &["-"]),
            ("fe80::1%eth0", &["-"]),
            ("unknown", &["-"]),
        ] {
            assert_eq!(read("X-Forwarded-For", text), expected, "{text}");
        }
    }

    #[test]
    fn a_forwarded_header_has_its_addresses_in_pairs() {
        for (text, expected) in [
            ("for=192.0.2.1", &["192.0.2.1"][..]),
            (
                "For = \"[2001:db8::1]:80\" ; proto=https",
                &["[2001:db8::1]:80"],
            ),
            (
                "by=10.0.0.1;for=192.0.2.1;host=\"a;for=9.9.9.9\"",
                &["192.0.2.1"],
            ),
            (
                "for=192.0.2.1, for=\"10.0.0.1:80\"",
                &["10.0.0.1:80", "192.0.2.1"],
            ),
            ("for=192.0.2.1;for=192.0.2.2", &["-"]),
            ("for=\"_hidden\", for=unknown, proto=http", &["-", "-", "-"]),
            ("192.0.2.1", &["-"]),
            ("for=192.0.2.1;proto=https;", &["192.0.2.1"]),
            (";;for=192.0.2.1 ; ;", &["192.0.2.1"]),
            // The quote of a client does not reach the hop of the proxy behind it.
            ("for=\"evil, for=192.0.2.1", &["192.0.2.1", "-"]),
            ("for=\\\", for=192.0.2.1", &["192.0.2.1", "-"]),
            // The proxy has put the client's text between quotes.
            (
                "for=192.0.2.1;host=\"a\\\", for=\\\"9.9.9.9\"",
                &["192.0.2.1"],
            ),
            ("for=192.0.2.1;host=\"a\\\\\"", &["192.0.2.1"]),
        ] {
            assert_eq!(read("Forwarded", text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_a_client_leaves_the_last_hop_alone(text in "[\\PC\",;=\\\\]{0,40}") {
            let address = "192.0.2.1";
            let after = format!("{text}, {address}");
            prop_assert_eq!(&read("X-Forwarded-For", &after)[0], address);
            let after = format!("{text}, for={address}");
            prop_assert_eq!(&read("Forwarded", &after)[0], address);
        }
    }
}
