//! The servers that may call this one.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::network::network;
use crate::limits::CALLER_NETWORKS_MAX;

/// The callers that `rpc.allow` names.
#[derive(Debug, Clone, Default)]
pub struct Callers {
    any: bool,
    cluster: bool,
    networks: Vec<IpNet>,
}

impl Callers {
    /// Reads the entries of the key; an error names the wrong one.
    pub fn new(allow: &[String]) -> Result<Self, String> {
        if allow.len() > CALLER_NETWORKS_MAX {
            let count = allow.len();
            return Err(format!(
                "{count} entries; expected up to {CALLER_NETWORKS_MAX}"
            ));
        }
        let mut callers = Self::default();
        for entry in allow {
            match entry.as_str() {
                "any" => callers.any = true,
                "cluster" => callers.cluster = true,
                _ => callers.networks.push(network(entry).ok_or_else(|| {
                    format!(
                        "{entry:?} is not a caller; expected \"cluster\", \"any\", an address such as \"10.0.0.5\" or a \
                         network such as \"10.0.0.0/8\" or \"fd00::/8\""
                    )
                })?),
            }
        }
        Ok(callers)
    }

    /// Returns whether everybody may call.
    pub fn allow_all(&self) -> bool {
        self.any
    }

    /// Returns whether the servers of the cluster may call.
    pub fn allow_cluster(&self) -> bool {
        self.cluster
    }

    /// Returns whether an address may call, wherever the servers of the cluster are.
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.any || self.networks.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(allow: &[&str]) -> Result<Callers, String> {
        let allow: Vec<String> = allow.iter().map(|entry| (*entry).into()).collect();
        Callers::new(&allow)
    }

    #[test]
    fn words_addresses_and_networks_may_be_mixed() {
        let allows =
            |allow: &[&str], address: &str| callers(allow).unwrap().allow(address.parse().unwrap());
        let mixed = ["cluster", "127.0.0.0/8", "::1", "192.0.2.7", "fd00::/8"];
        for (address, allowed) in [
            ("127.0.0.9", true),
            ("::1", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(allows(&mixed, address), allowed, "{address}");
        }
        assert!(callers(&mixed).unwrap().allow_cluster());
        assert!(!allows(&[], "127.0.0.1") && !callers(&[]).unwrap().allow_cluster());
        assert!(allows(&["any"], "192.0.2.8") && callers(&["any"]).unwrap().allow_all());
    }

    #[test]
    fn an_entry_that_is_no_caller_is_refused_with_its_text() {
        for entry in ["", "all", "10.0.0", "chat-1", "10.0.0.0/33"] {
            let error = callers(&["cluster", entry]).unwrap_err();
            let start = format!("{entry:?} is not a caller; expected ");
            assert!(error.starts_with(&start), "{error}");
        }
        let many = vec!["::1"; CALLER_NETWORKS_MAX + 1];
        assert_eq!(
            callers(&many).unwrap_err(),
            "1025 entries; expected up to 1024"
        );
    }
}
