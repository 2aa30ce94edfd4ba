//! The check of a configuration, which files, flags and embedders share.
//!
//! **Invariant**: each rule (a strategy, a filter, a cron …) is parsed here and nowhere else; shards get
//! the parsed values.
//!
//! **Where to start reading**: [`CheckedConfig::new`].

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::client::check::ClientCheck;
use crate::client::host_filter::HostFilter;
use crate::client::listener::ListenerRules;
use crate::client::proxies::Proxies;
use crate::config::{self, ClientCertificates, Compat, Config, ListenAddress, TlsMode, ValueError};
use crate::error::Error;
use crate::handler::{HandlerRules, remote_parts};
use crate::peer::callers::Callers;
use crate::push::select::Selector;
use crate::route::balance::Strategy;

impl Config {
    /// Checks all knobs, the rules in them, and relations between knobs. [`Gateway::start`] and
    /// [`Gateway::run`] do the same. Files that a knob names are read at the start only.
    ///
    /// Errors: the text names the key, its value and the accepted values.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tangelo::Config;
    ///
    /// let mut config = Config::default();
    /// config.client.heartbeat = Some(Duration::from_millis(100));
    /// assert_eq!(
    ///     config.validate().unwrap_err().to_string(),
    ///     r#"client.heartbeat = "100ms": expected whole seconds from 1s to 1h, such as "3s""#
    /// );
    /// ```
    ///
    /// [`Gateway::start`]: crate::Gateway::start
    /// [`Gateway::run`]: crate::Gateway::run
    pub fn validate(&self) -> Result<(), Error> {
        CheckedConfig::new(self.clone())?;
        Ok(())
    }
}

/// A configuration that has passed its check, with its rules parsed.
#[derive(Debug)]
pub(crate) struct CheckedConfig {
    config: Config,
    /// `client.accept`.
    pub(crate) accept: ClientCheck,
    /// `client.blacklist`.
    pub(crate) blacklist: HostFilter,
    /// `client.trusted_proxies`, and the headers of these proxies.
    pub(crate) proxies: Proxies,
    /// `rpc.allow`.
    pub(crate) callers: Callers,
    /// `push.schedulers` and `push.select`.
    pub(crate) selector: Selector,
    /// Filters and crons.
    pub(crate) handler_rules: HandlerRules,
    /// The remote `delegate_closed`.
    pub(crate) delegate_closed: Option<Remote>,
    /// The remote `delegate_handshake`.
    pub(crate) delegate_handshake: Option<Remote>,
    /// The remote `delegate_blacklist`.
    pub(crate) delegate_blacklist: Option<Remote>,
    /// `[route]`, by server type.
    strategies: BTreeMap<String, Strategy>,
    /// A strategy is `delegate` or `delegate:session`.
    has_delegated_types: bool,
}

/// A remote of the delegate.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) service: String,
    pub(crate) method: String,
}

impl Deref for CheckedConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Self::Config(error.to_string())
    }
}

impl CheckedConfig {
    /// Checks each knob, then each rule, then the relations between knobs.
    pub(crate) fn new(mut config: Config) -> Result<Self, ValueError> {
        config::knobs().try_for_each(|knob| knob.check(&config))?;
        crate::log::filter(&config.log.level).map_err(rule("log.level"))?;
        let in_routes = |(server_type, text): (&String, &String)| {
            let strategy = Strategy::parse(text).map_err(|reason| {
                let key = format!("route.{server_type}");
                ValueError::new(key, reason)
            })?;
            if is_delegated(&strategy) && config.delegate.is_none() {
                let error = ValueError::expected(format!("{text:?}"), "delegate to be set too");
                return Err(error.under(&format!("route.{server_type}")));
            }
            Ok((server_type.clone(), strategy))
        };
        let strategies = config.routes.iter().map(in_routes);
        let strategies = strategies.collect::<Result<BTreeMap<_, _>, _>>()?;
        let blacklist = HostFilter::new(&config.client.blacklist);
        let callers = Callers::new(&config.rpc.allow).map_err(rule("rpc.allow"))?;
        config.warnings.extend(useless(&config));
        config.warnings.extend(open_door(&config, &callers));
        config.warnings.extend(useless_tls(&config));
        config.warnings.extend(short_timeout(&config));
        config.warnings.extend(paused_addresses(&config));
        if config.compat == Compat::Exact {
            config.warnings.push(
                "compat = \"exact\" turns off the deadlines, rates and limits that Pomelo does not have: \
                 strangers can take the places of players and keep them"
                    .into(),
            );
        }
        let checked = Self {
            accept: ClientCheck::parse(&config.client.accept).map_err(rule("client.accept"))?,
            blacklist: blacklist
                .map_err(|error| ValueError::new("client.blacklist", error.to_string()))?,
            proxies: Proxies::new(&config.client).map_err(rule("client.trusted_proxies"))?,
            callers,
            selector: Selector::new(&config.push)
                .map_err(|(key, text)| ValueError::new(key, text))?,
            handler_rules: HandlerRules::parse(&config)
                .map_err(|(key, text)| ValueError::new(key, text))?,
            delegate_closed: remote(&config, "delegate_closed", &config.delegate_closed)?,
            delegate_handshake: remote(&config, "delegate_handshake", &config.delegate_handshake)?,
            delegate_blacklist: remote(&config, "delegate_blacklist", &config.delegate_blacklist)?,
            has_delegated_types: strategies.values().any(is_delegated),
            strategies,
            config,
        };
        check_relations(&checked.config)?;
        Ok(checked)
    }

    /// Returns the strategy of a server type: `route.<type>`, else `route.default`.
    pub(crate) fn strategy(&self, server_type: &str) -> Strategy {
        self.configured(server_type).cloned().unwrap_or_default()
    }

    /// Returns the strategy of a server type in which the delegate takes part.
    #[inline]
    pub(crate) fn delegation(&self, server_type: &[u8]) -> Option<&Strategy> {
        if !self.has_delegated_types {
            return None;
        }
        let strategy = self.configured(str::from_utf8(server_type).ok()?);
        strategy.filter(|known| is_delegated(known))
    }

    fn configured(&self, server_type: &str) -> Option<&Strategy> {
        let own = self.strategies.get(server_type);
        own.or_else(|| self.strategies.get("default"))
    }
}

/// Returns whether the delegate takes part in a strategy.
fn is_delegated(strategy: &Strategy) -> bool {
    matches!(strategy, Strategy::Delegate | Strategy::DelegateSession)
}

/// Returns the error of a rule; `reason` quotes the rule.
fn rule(key: &'static str) -> impl Fn(String) -> ValueError {
    move |reason| ValueError::new(key, reason)
}

/// Reads a key that names a remote of the delegate.
fn remote(
    config: &Config,
    key: &str,
    remote: &Option<String>,
) -> Result<Option<Remote>, ValueError> {
    let Some(remote) = remote else {
        return Ok(None);
    };
    let wrong = |accepted: &str| ValueError::expected(format!("{remote:?}"), accepted).under(key);
    let Some((service, method)) = remote_parts(remote) else {
        return Err(wrong(r#"service.method, such as "entryRemote.closed""#));
    };
    if config.delegate.is_none() {
        return Err(wrong("delegate to be set too"));
    }
    Ok(Some(Remote {
        service: service.into(),
        method: method.into(),
    }))
}

/// Returns a warning about keys for proxies that have no effect without each other, or beside each other.
fn useless(config: &Config) -> Option<String> {
    let client = &config.client;
    let listeners = config.client_listeners();
    let (unix, tcp): (Vec<_>, Vec<_>) = listeners
        .iter()
        .map(ListenerRules::new)
        .partition(|listener| listener.is_unix);
    let has_protocol =
        |listener: &ListenerRules| listener.proxy_protocol.unwrap_or(client.proxy_protocol);
    let has_header = client.real_ip_header.is_some();
    let always_protocol = tcp.iter().chain(&unix).all(has_protocol);
    let way = match (tcp.iter().any(has_protocol), has_header) {
        (true, _) if client.proxy_protocol => Some("client.proxy_protocol"),
        (true, _) => Some("proxy_protocol of a [[listener]]"),
        (false, true) => Some("client.real_ip_header"),
        (false, false) => None,
    };
    // A unix socket needs no addresses.
    let has_list = !client.trusted_proxies.is_empty();
    match (way, has_list || tcp.is_empty()) {
        (Some(way), false) => Some(format!(
            "{way} is ignored, because any client could send such a header itself: add the line trusted_proxies = \
             [\"127.0.0.1\"] to [client], with the addresses of your proxies"
        )),
        (Some(_), true) if always_protocol && has_header => Some(
            "client.real_ip_header is ignored, because the header of the PROXY protocol counts: remove it, or \
             proxy_protocol"
                .into(),
        ),
        (None, _) if has_list => Some(
            "client.trusted_proxies has no effect: add the line proxy_protocol = true to [client], or real_ip_header = \
             \"X-Forwarded-For\" with the header that your proxies set"
                .into(),
        ),
        _ => None,
    }
}

/// Returns warnings about keys of TLS that nothing uses.
fn useless_tls(config: &Config) -> impl Iterator<Item = String> + use<> {
    let tls = &config.tls;
    let has_certificates = !tls.certificates.is_empty();
    [
        (has_certificates && !config.uses_tls()).then_some(
            "[[tls.certificates]] has no effect: add the line tls = \"required\" to a [[listener]], or set rpc.tls_listen",
        ),
        (tls.client_ca.is_some() && tls.client_certificates == ClientCertificates::Off).then_some(
            "tls.client_ca has no effect: add the line client_certificates = \"required\" to [tls]",
        ),
        (config.rpc.tls_ca.is_some() && config.rpc.tls_listen.is_none())
            .then_some("rpc.tls_ca has no effect: set rpc.tls_listen too"),
        (tls.client_crl.is_some() && tls.client_ca.is_none())
            .then_some("tls.client_crl has no effect: set tls.client_ca too"),
        (config.rpc.tls_crl.is_some() && config.rpc.tls_ca.is_none())
            .then_some("rpc.tls_crl has no effect: set rpc.tls_ca too"),
    ]
    .into_iter()
    .flatten()
    .map(String::from)
}

/// Returns a warning about an RPC port that takes calls from too many addresses, or maybe from too few.
fn open_door(config: &Config, callers: &Callers) -> Option<String> {
    let listen = config.rpc.listen?;
    if callers.allow_all() && !listen.ip().is_loopback() {
        return Some(format!(
            "rpc.allow has \"any\": calls carry no credentials, so everybody who reaches {listen} can send to all \
             clients and kick them; remove \"any\", or keep others away from this port"
        ));
    }
    let is_default = config.rpc.allow == config::Rpc::default().allow;
    (config.master.is_none() && is_default).then(|| {
        format!(
            "there is no master to name the servers that may call: {listen} takes calls from this machine and from the \
             hosts of the {} servers of the configuration; other addresses need a line allow = [...] in [rpc]",
            config.servers.len()
        )
    })
}

/// Returns a warning about a timeout that ends healthy clients: they send a heartbeat only after each interval.
fn short_timeout(config: &Config) -> Option<String> {
    let (timeout, heartbeat) = (config.client.timeout?, config.client.heartbeat?);
    (timeout <= heartbeat).then(|| {
        let [timeout, heartbeat] = [timeout, heartbeat].map(humantime::format_duration);
        format!(
            "client.timeout = \"{timeout}\" closes every client: they send a heartbeat each {heartbeat} (client.heartbeat); \
             set a longer time, or remove the key for twice the heartbeat"
        )
    })
}

/// Returns a warning about rates of addresses without a limit of their connections.
fn paused_addresses(config: &Config) -> Option<String> {
    let client = &config.client;
    let has_rate =
        client.address_messages_per_second.is_some() || client.address_bytes_per_second.is_some();
    (has_rate && client.address_connections_max.is_none()).then(|| {
        "client.address_messages_per_second and client.address_bytes_per_second pause the connections of an address, which \
         keep their places meanwhile: set client.address_connections_max too, or one address can take all places"
            .into()
    })
}

/// Checks that TLS has what it needs.
fn check_tls(config: &Config) -> Result<(), ValueError> {
    let tls = &config.tls;
    let needs = |key: &str, needed: &str| {
        let reason = format!("needs {needed}; docs/operations.md shows how");
        Err(ValueError::new(key, reason))
    };
    let with_tls = config
        .listeners
        .iter()
        .position(|listener| listener.tls != TlsMode::Off);
    if let (Some(index), true) = (with_tls, tls.certificates.is_empty()) {
        return needs(&format!("listener[{index}].tls"), "[[tls.certificates]]");
    }
    if config.rpc.tls_listen.is_some() {
        if tls.certificates.is_empty() {
            return needs("rpc.tls_listen", "[[tls.certificates]]");
        }
        if config.rpc.tls_ca.is_none() {
            return needs("rpc.tls_listen", "rpc.tls_ca");
        }
    }
    if tls.client_certificates != ClientCertificates::Off && tls.client_ca.is_none() {
        return needs("tls.client_certificates", "tls.client_ca");
    }
    Ok(())
}

/// Checks that no two ports of this server would take each other's connections.
fn check_addresses(config: &Config) -> Result<(), ValueError> {
    let listeners = config.client_listeners();
    let clients = listeners.iter().enumerate().map(|(index, listener)| {
        let own = format!("listener[{index}].address");
        let key = listener.address.as_ref().map_or("listen".into(), |_| own);
        (key, config.address_of(listener))
    });
    let tcp = |address: Option<_>| address.map(ListenAddress::Tcp);
    let others = [
        ("rpc.listen", tcp(config.rpc.listen)),
        ("rpc.tls_listen", tcp(config.rpc.tls_listen)),
        ("admin.listen", config.admin.listen.clone()),
    ];
    let others = others.map(|(key, address)| Some((key.into(), address?)));
    let addresses: Vec<(String, ListenAddress)> =
        clients.chain(others.into_iter().flatten()).collect();
    for (index, (key, address)) in addresses.iter().enumerate() {
        let mut before = addresses[..index].iter();
        let Some((other_key, other)) = before.find(|(_, other)| other.overlaps(address)) else {
            continue;
        };
        let port = match key.as_str() {
            "rpc.listen" => ", or another `port` for this server in servers.json",
            _ => "",
        };
        let taken = format!("{other_key} = \"{other}\" takes this address already");
        return Err(ValueError {
            value: Some(format!("\"{address}\"")),
            ..ValueError::new(key, format!("{taken}; choose another one{port}"))
        });
    }
    Ok(())
}

fn check_relations(config: &Config) -> Result<(), ValueError> {
    let (rpc, cluster) = (&config.rpc, &config.cluster);
    for (low_key, low, high_key, high) in [
        (
            "rpc.backoff_min",
            rpc.backoff_min,
            "rpc.backoff_max",
            rpc.backoff_max,
        ),
        (
            "cluster.reconnect_min",
            cluster.reconnect_min,
            "cluster.reconnect_max",
            cluster.reconnect_max,
        ),
    ] {
        if low > high {
            let [low, high] = [low, high].map(humantime::format_duration);
            let accepted = format!("at most {high_key}, which is {high}");
            return Err(ValueError::expected(format!("\"{low}\""), accepted).under(low_key));
        }
    }
    if let Some(index) = config
        .servers
        .iter()
        .position(|server| server.id == config.id)
    {
        let accepted = "the id of another server, because this tangelo has it itself";
        let value = format!("{:?}", config.id);
        return Err(ValueError::expected(value, accepted).under(&format!("server[{index}].id")));
    }
    check_addresses(config)?;
    check_tls(config)?;
    if config.delegate_notices && config.delegate.is_none() {
        let error = ValueError::expected("true", "delegate to be set too");
        return Err(error.under("delegate_notices"));
    }
    if let Some(closed) = &config.delegate_closed
        && (config.delegate_notices || closed.starts_with("tangelo."))
    {
        let accepted = "delegate_notices = true in its place";
        return Err(ValueError::expected(format!("{closed:?}"), accepted).under("delegate_closed"));
    }
    if config.delegate.as_ref() == Some(&config.server_type) {
        let value = format!("{:?}", config.server_type);
        let accepted = "the type of other servers, which have the handlers of this type";
        return Err(ValueError::expected(value, accepted).under("delegate"));
    }
    if let Some(delegate) = &config.delegate
        && config.master.is_none()
        && !config
            .servers
            .iter()
            .any(|server| server.server_type == *delegate)
    {
        let accepted =
            "the type of a server in the list, because without a master no other one comes";
        return Err(ValueError::expected(format!("{delegate:?}"), accepted).under("delegate"));
    }
    let routes = config.dictionary.len() + config.handler_routes.len();
    if config.client.use_dict && routes > usize::from(u16::MAX) {
        return Err(ValueError::new(
            "dictionary, handler_routes",
            format!(
                "{routes} routes; expected at most {}, because each gets a code",
                u16::MAX
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ClientListener;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        match config.validate() {
            Err(Error::Config(text)) => text,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn shards_out_of_range_are_refused() {
        for shards in [0, 257] {
            let text = refused(|config| config.shards = Some(shards));
            let expected = format!("shards = {shards}: expected a number from 1 to 256");
            assert_eq!(text, expected);
        }
        let most = Config {
            shards: Some(crate::limits::SHARDS_MAX),
            ..Config::default()
        };
        assert_eq!(most.validate(), Ok(()));
    }

    #[test]
    fn a_timeout_that_closes_every_client_has_a_warning() {
        let warnings = |seconds: u64, heartbeat: Option<u64>| {
            let mut config = Config::default();
            config.client.timeout = Some(Duration::from_secs(seconds));
            config.client.heartbeat = heartbeat.map(Duration::from_secs);
            let checked = CheckedConfig::new(config).expect("it is valid");
            checked.warnings.clone()
        };
        assert_eq!(warnings(4, Some(3)), [""; 0]);
        assert_eq!(warnings(4, None), [""; 0]);
        let warning = &warnings(3, Some(3))[0];
        let begin = "client.timeout = \"3s\" closes every client: they send a heartbeat each 3s";
        assert!(warning.starts_with(begin), "{warning}");
    }

    #[test]
    fn more_routes_than_codes_are_refused() {
        let change = |use_dict, routes| {
            move |config: &mut Config| {
                config.client.use_dict = use_dict;
                config.dictionary = vec!["onX".into(); routes];
                config.handler_routes = vec!["a.b.c".into()];
            }
        };
        let text = refused(change(true, 65_535));
        let place = "dictionary, handler_routes: 65536 routes; expected at most 65535";
        assert!(text.starts_with(place), "{text}");
        for (use_dict, routes) in [(true, 65_534), (false, 65_535)] {
            let mut config = Config::default();
            change(use_dict, routes)(&mut config);
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn a_rule_for_clients_that_cannot_be_read_is_refused() {
        let text = refused(|config| config.client.accept = vec!["js-socket 1.0".into()]);
        let start = "client.accept: \"js-socket 1.0\" is not a rule for clients; expected ";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn keys_of_tls_that_nothing_uses_are_warnings_with_the_line_to_add() {
        let mut config = Config::default();
        config.tls.certificates = vec![config::CertificateFiles {
            chain: "chain.pem".into(),
            key: "key.pem".into(),
        }];
        config.tls.client_ca = Some("ca.pem".into());
        config.rpc.tls_ca = Some("ca.pem".into());
        let warnings = CheckedConfig::new(config.clone()).unwrap().config.warnings;
        let [certificates, clients, calls] = &*warnings else {
            panic!("{warnings:?}");
        };
        assert!(certificates.contains("add the line tls = \"required\""));
        assert!(clients.contains("add the line client_certificates = \"required\""));
        assert!(calls.contains("rpc.tls_listen"));
        (config.tls.client_ca, config.rpc.tls_ca) = (None, None);
        config.tls.client_crl = Some("crl.pem".into());
        config.rpc.tls_crl = Some("crl.pem".into());
        config.tls.client_certificates = ClientCertificates::Off;
        let warnings = CheckedConfig::new(config.clone()).unwrap().config.warnings;
        let [_, clients, calls] = &*warnings else {
            panic!("{warnings:?}");
        };
        assert!(clients.contains("set tls.client_ca too"));
        assert!(calls.contains("set rpc.tls_ca too"));
        config.tls.client_certificates = ClientCertificates::Optional;
        config.tls.client_ca = Some("ca.pem".into());
        config.rpc.tls_crl = None;
        config.listeners = vec![config::ClientListener {
            tls: config::TlsMode::Optional,
            ..Default::default()
        }];
        let warnings = CheckedConfig::new(config).unwrap().config.warnings;
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn keys_for_proxies_without_each_other_are_a_warning_with_the_line_to_add() {
        let warnings = |header: Option<&str>, trusted: &[&str]| {
            let mut config = Config::default();
            config.client.real_ip_header = header.map(String::from);
            config.client.trusted_proxies = trusted.iter().map(|entry| (*entry).into()).collect();
            CheckedConfig::new(config).unwrap().config.warnings
        };
        let [untrusted] = &*warnings(Some("X-Real-IP"), &[]) else {
            panic!("one warning");
        };
        let line = "add the line trusted_proxies = [\"127.0.0.1\"] to [client]";
        assert!(untrusted.contains(line), "{untrusted}");
        let [untold] = &*warnings(None, &["::1"]) else {
            panic!("one warning");
        };
        assert!(
            untold.contains("add the line proxy_protocol = true to [client]"),
            "{untold}"
        );
        assert_eq!(warnings(Some("X-Real-IP"), &["::1"]), [""; 0]);
        assert_eq!(warnings(None, &[]), [""; 0]);
        let mut both = Config::default();
        both.client = config::Client {
            proxy_protocol: true,
            real_ip_header: Some("X-Real-IP".into()),
            trusted_proxies: vec!["::1".into()],
            ..both.client
        };
        let [useless] = &*CheckedConfig::new(both.clone()).unwrap().config.warnings else {
            panic!("one warning");
        };
        assert!(
            useless.starts_with("client.real_ip_header is ignored, "),
            "{useless}"
        );
        both.client.trusted_proxies.clear();
        let [untrusted] = &*CheckedConfig::new(both).unwrap().config.warnings else {
            panic!("one warning");
        };
        assert!(
            untrusted.starts_with("client.proxy_protocol is ignored, "),
            "{untrusted}"
        );
    }

    #[test]
    fn keys_for_proxies_are_judged_by_all_listeners() {
        let warnings = |trusted: bool, of_all: bool, listeners: &[(bool, Option<bool>)]| {
            let listener = |(is_unix, proxy_protocol): &(bool, Option<bool>)| ClientListener {
                address: is_unix.then(|| ListenAddress::Unix("/a".into())),
                proxy_protocol: *proxy_protocol,
                ..ClientListener::default()
            };
            let mut config = Config::default();
            config.client.trusted_proxies = trusted.then(|| "::1".into()).into_iter().collect();
            config.client.proxy_protocol = of_all;
            config.client.real_ip_header = Some("X-Real-IP".into());
            config.listeners = listeners.iter().map(listener).collect();
            let mut warnings: Vec<String> = useless(&config).into_iter().collect();
            config.client.real_ip_header = None;
            warnings.extend(useless(&config));
            let texts = warnings.iter().map(|text| text.split(" is ").next());
            texts
                .map(|text| text.unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        let (tcp, unix) = ((false, None), (true, None));
        // A unix socket needs no list, and no listener uses the header where each has the protocol.
        assert_eq!(warnings(false, false, &[unix]), [""; 0]);
        for both in [
            warnings(false, true, &[unix]),
            warnings(true, true, &[unix, tcp]),
        ] {
            assert_eq!(both, ["client.real_ip_header"]);
        }
        let by_key = (false, Some(true));
        let section = "proxy_protocol of a [[listener]]";
        assert_eq!(warnings(false, false, &[unix, by_key]), [section; 2]);
        assert_eq!(warnings(true, false, &[tcp, by_key]), [""; 0]);
        assert_eq!(
            warnings(false, false, &[unix, tcp]),
            ["client.real_ip_header"]
        );
    }

    #[test]
    fn an_rpc_port_that_is_open_or_has_no_master_is_a_warning() {
        let warnings = |listen: &str, allow: Option<&str>| {
            let mut config = Config::default();
            config.rpc.listen = Some(listen.parse().unwrap());
            if let Some(allow) = allow {
                config.rpc.allow = vec![allow.into()];
            }
            CheckedConfig::new(config).unwrap().config.warnings
        };
        let [open] = &*warnings("[::]:3150", Some("any")) else {
            panic!("one warning");
        };
        assert!(
            open.contains("everybody who reaches [::]:3150 can"),
            "{open}"
        );
        assert_eq!(warnings("127.0.0.1:3150", Some("any")), [""; 0]);
        let [alone] = &*warnings("10.0.0.5:3150", None) else {
            panic!("one warning");
        };
        assert!(alone.starts_with("there is no master to name "), "{alone}");
        assert_eq!(warnings("10.0.0.5:3150", Some("cluster")), [""; 0]);
        assert_eq!(
            CheckedConfig::new(Config::default()).unwrap().warnings,
            [""; 0]
        );
    }

    #[test]
    fn ports_that_would_take_the_connections_of_each_other_are_refused() {
        let unix = |path: &str| Some(ListenAddress::Unix(path.into()));
        let tcp = |address: &str| Some(ListenAddress::Tcp(address.parse().unwrap()));
        let text = refused(|config| config.admin.listen = tcp("0.0.0.0:3010"));
        assert_eq!(
            text,
            "admin.listen = \"0.0.0.0:3010\": listen = \"127.0.0.1:3010\" takes this address already; choose another one"
        );
        let text = refused(|config| config.rpc.listen = Some("[::]:3010".parse().unwrap()));
        assert!(
            text.ends_with("choose another one, or another `port` for this server in servers.json"),
            "{text}"
        );
        let text = refused(|config| {
            config.rpc.listen = Some("10.0.0.1:3150".parse().unwrap());
            config.rpc.tls_listen = Some("0.0.0.0:3150".parse().unwrap());
        });
        assert!(text.starts_with("rpc.tls_listen = "), "{text}");
        let listeners = |config: &mut Config, addresses: [Option<ListenAddress>; 2]| {
            let listener = |address| ClientListener {
                address,
                ..ClientListener::default()
            };
            config.listeners = addresses.map(listener).into();
        };
        let text = refused(|config| {
            listeners(config, [unix("/run/a"), unix("/run/b")]);
            config.admin.listen = unix("/run/b");
        });
        let expected =
            "admin.listen = \"unix:/run/b\": listener[1].address = \"unix:/run/b\" takes ";
        assert!(text.starts_with(expected), "{text}");
        // The one without an address has that of `listen`.
        let text = refused(|config| listeners(config, [None, tcp("127.0.0.1:3010")]));
        assert!(text.starts_with("listener[1].address = "), "{text}");
        let mut fine = Config::default();
        listeners(&mut fine, [tcp("127.0.0.1:0"), tcp("127.0.0.1:0")]);
        fine.rpc.listen = Some("127.0.0.1:3150".parse().unwrap());
        fine.admin.listen = tcp("127.0.0.1:3010");
        assert_eq!(fine.validate(), Ok(()));
    }

    #[test]
    fn a_caller_that_cannot_be_read_is_refused() {
        let text = refused(|config| config.rpc.allow = vec!["none".into()]);
        let start = "rpc.allow: \"none\" is not a caller; expected ";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused() {
        let text = refused(|config| config.filter.local = vec!["cereal".into()]);
        let start = "filter.local: \"cereal\" is not a filter; expected ";
        assert!(text.starts_with(start), "{text}");
        let text = refused(|config| config.filter.global = vec!["time".into(), "serial 3".into()]);
        assert_eq!(
            text,
            "filter.global: \"serial 3\" is not a filter; expected \"serial 3s\", \"serial 3s {JSON}\", \
             \"time\", \"timeout 3s 500\", \"toobusy 70ms\", \"rate 50/s 100\", with durations of 1ms to \
             1h and numbers of 1 to 1000000"
        );
    }

    #[test]
    fn a_refused_push_scheduler_or_rule_says_what_is_expected() {
        use crate::config::{NamedScheduler, Scheduler};
        for name in ["default", "a b"] {
            let text = refused(|config| {
                config.push.schedulers = vec![NamedScheduler {
                    id: name.into(),
                    scheduler: Scheduler::Direct,
                    ..NamedScheduler::default()
                }];
            });
            let expected = format!(
                "push.schedulers: {name:?} cannot be an id; expected a text without spaces, not \
                 \"default\", which is the scheduler of push.scheduler"
            );
            assert_eq!(text, expected);
        }
        let text = refused(|config| {
            config.push.select = vec!["onMove* default".into(), "on*Move default".into()];
        });
        assert_eq!(
            text,
            "push.select: \"on*Move default\" is not a rule for pushes; expected \"response ID\", \
             \"onMove ID\", \"chat.* ID\""
        );
    }

    #[test]
    fn a_cron_without_a_readable_time_is_refused() {
        let text = refused(|config| {
            config.crons = vec![config::Cron {
                id: "1".into(),
                time: "* * * * *".into(),
                action: "a.b".into(),
            }];
        });
        let start = "crons: a.b: \"* * * * *\" has 5 fields; ";
        assert!(text.starts_with(start), "{text}");
    }
}
