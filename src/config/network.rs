//! Addresses and networks in a list of the configuration.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads an address, or a network as `address/bits`. An IPv4 address in its IPv6 form is an IPv4 address.
pub(crate) fn network(entry: &str) -> Option<IpNet> {
    let network: IpNet = match entry.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => entry.parse().ok()?,
    };
    match network.addr().to_canonical() {
        address @ IpAddr::V4(_) if network.addr().is_ipv6() => {
            IpNet::new(address, network.prefix_len().checked_sub(96)?).ok()
        }
        _ => Some(network),
    }
}
