//! The header that a proxy writes before the bytes of a client: the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Header of the PROXY protocol, version 1 or 2.
///
/// Shape:  version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 4000 80\r\n`, with `TCP6`, or `PROXY UNKNOWN …\r\n`;
///         version 2: 12 bytes of signature · version and command: u8 · family and protocol: u8 ·
///         `length: u16 big-endian` · addresses and further fields: `[u8; length]`
/// Bound:  107 bytes in version 1, `limits::PROXY_HEADER_BYTES_MAX` in version 2
/// Errors: [`NotProxy`]
/// Source: HAProxy, `doc/proxy-protocol.txt`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Number of its bytes.
    pub bytes: usize,
    /// The address of the client; `None` where the proxy speaks for itself, as in a health check (`LOCAL`), or
    /// does not know the address (`UNKNOWN`). An IPv4 address is never in its IPv6 form.
    pub client: Option<SocketAddr>,
}

/// The error of bytes that are not a header of the PROXY protocol, or are one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotProxy;

const V1_START: &[u8] = b"PROXY ";
/// The longest line, with its end.
const V1_BYTES_MAX: usize = 107;
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;

/// Reads the header at the front of the input; `Ok(None)`: wait for more bytes.
pub fn decode(input: &[u8]) -> Result<Option<ProxyHeader>, NotProxy> {
    if input.starts_with(V1_START) {
        return decode_v1(&input[..input.len().min(V1_BYTES_MAX)]);
    }
    if input.starts_with(V2_START) {
        return decode_v2(input);
    }
    let is_start = V1_START.starts_with(input) || V2_START.starts_with(input);
    if is_start { Ok(None) } else { Err(NotProxy) }
}

fn decode_v1(input: &[u8]) -> Result<Option<ProxyHeader>, NotProxy> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
        let is_cut = input.len() < V1_BYTES_MAX;
        return if is_cut { Ok(None) } else { Err(NotProxy) };
    };
    let fields = &input[V1_START.len()..end];
    let is_unknown = fields == b"UNKNOWN" || fields.starts_with(b"UNKNOWN ");
    let client = match is_unknown {
        true => None,
        false => Some(v1_client(fields).ok_or(NotProxy)?),
    };
    let bytes = end + 2;
    Ok(Some(ProxyHeader { bytes, client }))
}

/// Reads `TCP4 source destination source-port destination-port`.
fn v1_client(fields: &[u8]) -> Option<SocketAddr> {
    let mut fields = str::from_utf8(fields).ok()?.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match fields.next()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let port = |text: &str| -> Option<u16> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let [source, _] = [address(fields.next()?)?, address(fields.next()?)?];
    let [source_port, _] = [port(fields.next()?)?, port(fields.next()?)?];
    let is_end = fields.next().is_none();
    is_end.then(|| SocketAddr::new(source.to_canonical(), source_port))
}

fn decode_v2(input: &[u8]) -> Result<Option<ProxyHeader>, NotProxy> {
    let Some(head) = input.first_chunk::<V2_HEAD_BYTES>() else {
        return Ok(None);
    };
    let [version_command, family_protocol, length @ ..] = &head[V2_START.len()..] else {
        return Err(NotProxy);
    };
    let bytes = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if bytes > PROXY_HEADER_BYTES_MAX {
        return Err(NotProxy);
    }
    let Some(fields) = input.get(V2_HEAD_BYTES..bytes) else {
        return Ok(None);
    };
    let client = match (version_command, family_protocol) {
        // LOCAL: nothing else counts.
        (0x20, _) => None,
        (0x21, 0x11 | 0x12) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] =
                fields.first_chunk::<12>().ok_or(NotProxy)?;
            let port = u16::from_be_bytes([*high, *low]);
            Some(SocketAddr::from(([*a, *b, *c, *d], port)))
        }
        (0x21, 0x21 | 0x22) => {
            let fields = fields.first_chunk::<36>().ok_or(NotProxy)?;
            let ip: &[u8; 16] = fields.first_chunk().ok_or(NotProxy)?;
            let port = u16::from_be_bytes([fields[32], fields[33]]);
            Some(SocketAddr::new(IpAddr::from(*ip).to_canonical(), port))
        }
        // No family, or Unix sockets.
        (0x21, 0x00..=0x02 | 0x30..=0x32) => None,
        _ => return Err(NotProxy),
    };
    Ok(Some(ProxyHeader { bytes, client }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: usize, client: &str) -> Result<Option<ProxyHeader>, NotProxy> {
        let client = (!client.is_empty()).then(|| client.parse().expect("an address"));
        Ok(Some(ProxyHeader { bytes, client }))
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, fields: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fields.len()).expect("a length");
        let head = [V2_START, &[command, family], &length.to_be_bytes()].concat();
        [&head, fields].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0x0f, 0xa0, 0, 80];

    fn v6() -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().expect("an address").octets();
        let ports = [0x0f, 0xa0, 0, 80];
        [&ip("2001:db8::1")[..], &ip("::1"), &ports].concat()
    }

    /// Headers of both versions with the client of each.
    fn headers() -> Vec<(Vec<u8>, &'static str)> {
        let v4 = "192.0.2.1:4000";
        let v6_client = "[2001:db8::1]:4000";
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &v6()[16..]].concat();
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 4000 80\r\n".into(), v4),
            (b"PROXY TCP6 2001:db8::1 ::1 4000 80\r\n".into(), v6_client),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4000 80\r\n".into(), v4),
            (b"PROXY UNKNOWN\r\n".into(), ""),
            (b"PROXY UNKNOWN \xff TCP4\r\n".into(), ""),
            // The longest line of the document.
            (
                format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n").into(),
                "",
            ),
            (v2(0x21, 0x11, V4), v4),
            (v2(0x21, 0x21, &v6()), v6_client),
            (v2(0x21, 0x21, &mapped), v4),
            // A further field behind the addresses.
            (v2(0x21, 0x11, &[V4, &[0x05, 0, 2, 7, 7]].concat()), v4),
            (v2(0x21, 0x00, b""), ""),
            (v2(0x21, 0x31, &[7; 216]), ""),
            (v2(0x20, 0x00, b""), ""),
            (v2(0x20, 0x11, V4), ""),
            (v2(0x20, 0xff, b"xyz"), ""),
            (
                v2(0x20, 0x00, &vec![0; PROXY_HEADER_BYTES_MAX - V2_HEAD_BYTES]),
                "",
            ),
        ]
    }

    #[test]
    fn a_header_has_its_length_and_the_address_of_the_client() {
        for (bytes, client) in headers() {
            let expected = header(bytes.len(), client);
            assert_eq!(decode(&bytes), expected, "{bytes:?}");
            let behind = [&bytes[..], b"\r\n\x01"].concat();
            assert_eq!(decode(&behind), expected, "{bytes:?}");
        }
    }

    #[test]
    fn every_split_point_waits_for_more() {
        for (bytes, _) in headers() {
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn other_bytes_are_an_error_as_soon_as_they_differ() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(93));
        for bytes in [
            &b"\x01\x00\x00\x00"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY\t",
            b"PROXZ",
            b"\r\n\r\n\x01",
            b"PROXY \r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 192.0.2.1 198.51.100.1 4000 80\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4000 80\r\n",
            b"PROXY TCP6 192.0.2.1 198.51.100.1 4000 80\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.1 4000 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4000 \r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4000 80 1\r\n",
            b"PROXY UNKNOWNX\r\n",
            long.as_bytes(),
            &v2(0x11, 0x11, V4),
            &v2(0x22, 0x11, V4),
            &v2(0x21, 0x41, V4),
            &v2(0x21, 0x13, V4),
            &v2(0x21, 0x11, &V4[1..]),
            &v2(0x21, 0x21, V4),
            // The length alone tells.
            &v2(
                0x20,
                0x00,
                &vec![0; PROXY_HEADER_BYTES_MAX - V2_HEAD_BYTES + 1],
            )[..V2_HEAD_BYTES],
        ] {
            assert_eq!(decode(bytes), Err(NotProxy), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_not(
            start in prop::sample::select(vec![&b""[..], V1_START, b"PROXY TCP4 ", V2_START]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Some(header)) = decode(&bytes) {
                prop_assert!(header.bytes <= bytes.len());
                // Bytes that come later change nothing.
                let first = &bytes[..header.bytes];
                prop_assert_eq!(decode(first), Ok(Some(header)));
            }
        }

        #[test]
        fn any_address_comes_through_both_versions(ip: [u8; 4], ip6: [u8; 16], port: u16) {
            let v4 = SocketAddr::from((ip, port));
            let line = format!("PROXY TCP4 {} 127.0.0.1 {port} 1\r\n", v4.ip());
            prop_assert_eq!(decode(line.as_bytes()).unwrap().unwrap().client, Some(v4));
            let v6 = SocketAddr::from((ip6, port));
            let fields = [&ip6[..], &[0; 16], &port.to_be_bytes(), &[0; 2]].concat();
            let client = SocketAddr::new(v6.ip().to_canonical(), port);
            prop_assert_eq!(decode(&v2(0x21, 0x21, &fields)).unwrap().unwrap().client, Some(client));
        }
    }
}
