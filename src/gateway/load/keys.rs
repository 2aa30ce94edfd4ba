//! Every key that a file or a flag may set, with the check of its value.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Result;
use super::sections::{schedulers, servers};
use super::value::{Given, Wrong};
use crate::client::check::ClientCheck;
use crate::client::host_filter::HostFilter;
use crate::config::Config;
use crate::handler::filter;
use crate::limits;
use crate::push::select;
use crate::route::balance::Strategy;

/// Checks a value and puts it where it belongs.
pub(super) type Set = fn(&mut Config, Given<'_>) -> Result<(), Wrong>;

/// Every key of `tangelo.toml` and of `--set`, in the order of `config.rs`.
pub(super) const KEYS: &[(&str, Set)] = &[
    ("id", |c, v| v.text(&mut c.id)),
    ("server_type", |c, v| v.text(&mut c.server_type)),
    ("delegate", |c, v| {
        let mut server_type = String::new();
        v.text(&mut server_type)?;
        c.delegate = Some(server_type);
        Ok(())
    }),
    ("delegate_closed", |c, v| {
        let mut remote = String::new();
        v.text(&mut remote)?;
        c.delegate_closed = Some(remote);
        Ok(())
    }),
    ("env", |c, v| v.text(&mut c.env)),
    ("dialect", |c, v| v.word(&mut c.dialect, "pomelo, pinus")),
    ("listen", |c, v| v.address(&mut c.listen)),
    ("shards", |c, v| {
        v.count(&mut c.shards, 1..=limits::SHARDS_MAX)
    }),
    ("pin", |c, v| v.switch(&mut c.pin)),
    ("start_timeout", |c, v| {
        v.duration(&mut c.start_timeout, 100 * MILLISECOND..=HOUR)
    }),
    ("stop_timeout", |c, v| {
        v.duration(&mut c.stop_timeout, Duration::ZERO..=10 * MINUTE)
    }),
    ("app_dir", |c, v| v.path(&mut c.app_dir)),
    ("dictionary", |c, v| v.texts(&mut c.dictionary)),
    ("handler_routes", |c, v| v.texts(&mut c.handler_routes)),
    ("server", |c, v| servers(&mut c.servers, v)),
    ("client.heartbeat", |c, v| {
        v.seconds(&mut c.client.heartbeat, SECOND..=HOUR)
    }),
    ("client.timeout", |c, v| {
        v.duration(&mut c.client.timeout, 100 * MILLISECOND..=24 * HOUR)
    }),
    ("client.use_dict", |c, v| v.switch(&mut c.client.use_dict)),
    ("client.use_protobuf", |c, v| {
        v.switch(&mut c.client.use_protobuf)
    }),
    ("client.server_protos", |c, v| {
        v.path(&mut c.client.server_protos)
    }),
    ("client.client_protos", |c, v| {
        v.path(&mut c.client.client_protos)
    }),
    ("client.protobuf_check", |c, v| {
        v.switch(&mut c.client.protobuf_check)
    }),
    ("client.use_crypto", |c, v| {
        v.switch(&mut c.client.use_crypto)
    }),
    ("client.max_connections", |c, v| {
        v.count(&mut c.client.max_connections, 1..=CONNECTIONS_MAX)
    }),
    ("client.accept", |c, v| {
        v.texts(&mut c.client.accept)?;
        ClientCheck::parse(&c.client.accept)?;
        Ok(())
    }),
    ("client.blacklist", |c, v| {
        v.texts(&mut c.client.blacklist)?;
        HostFilter::new(&c.client.blacklist).map_err(|error| error.to_string())?;
        Ok(())
    }),
    ("client.blacklist_file", |c, v| {
        v.path(&mut c.client.blacklist_file)
    }),
    ("client.blacklist_console", |c, v| {
        v.switch(&mut c.client.blacklist_console)
    }),
    ("client.forward", |c, v| v.switch(&mut c.client.forward)),
    ("client.real_ip_header", |c, v| {
        v.header(&mut c.client.real_ip_header)
    }),
    ("client.real_port_header", |c, v| {
        v.header(&mut c.client.real_port_header)
    }),
    ("client.package_bytes_max", |c, v| {
        v.bytes(
            &mut c.client.package_bytes_max,
            1 << 10..=limits::PACKAGE_BODY_BYTES_MAX,
        )
    }),
    ("client.outbox_bytes_max", |c, v| {
        v.bytes(&mut c.client.outbox_bytes_max, 1 << 10..=1 << 30)
    }),
    ("client.calls_in_flight_max", |c, v| {
        v.count(&mut c.client.calls_in_flight_max, 1..=1_000_000)
    }),
    ("filter.global", |c, v| filters(&mut c.filter.global, v)),
    ("filter.local", |c, v| filters(&mut c.filter.local, v)),
    ("session.duplicate_login", |c, v| {
        let words = "allow, refuse, newest-wins";
        v.word(&mut c.session.duplicate_login, words)
    }),
    ("session.duplicate_login_reason", |c, v| {
        v.text(&mut c.session.duplicate_login_reason)
    }),
    ("push.scheduler", |c, v| {
        v.word(&mut c.push.scheduler, "direct, buffer")
    }),
    ("push.flush_interval", |c, v| {
        v.duration(&mut c.push.flush_interval, FLUSH_INTERVALS)
    }),
    ("push.schedulers", |c, v| {
        schedulers(&mut c.push.schedulers, v)
    }),
    ("push.select", |c, v| {
        let mut rules = Vec::new();
        v.texts(&mut rules)?;
        select::check_rules(&rules)?;
        c.push.select = rules;
        Ok(())
    }),
    ("rpc.timeout", |c, v| {
        v.duration(&mut c.rpc.timeout, 100 * MILLISECOND..=10 * MINUTE)
    }),
    ("rpc.keepalive", |c, v| {
        v.duration(&mut c.rpc.keepalive, 100 * MILLISECOND..=10 * MINUTE)
    }),
    ("rpc.connect_timeout", |c, v| {
        v.duration(&mut c.rpc.connect_timeout, 10 * MILLISECOND..=MINUTE)
    }),
    ("rpc.answer_timeout", |c, v| {
        v.duration(&mut c.rpc.answer_timeout, 100 * MILLISECOND..=10 * MINUTE)
    }),
    ("rpc.backoff_min", |c, v| {
        v.duration(&mut c.rpc.backoff_min, MILLISECOND..=MINUTE)
    }),
    ("rpc.backoff_max", |c, v| {
        v.duration(&mut c.rpc.backoff_max, MILLISECOND..=10 * MINUTE)
    }),
    ("rpc.calls_in_flight_max", |c, v| {
        v.count(&mut c.rpc.calls_in_flight_max, 1..=1_000_000)
    }),
    ("rpc.listen", |c, v| {
        let mut address = SocketAddr::from(([0; 4], 0));
        v.address(&mut address)?;
        if address.port() == 0 {
            // The others dial what servers.json says, whichever port the kernel chose.
            return Err(v.wrong("has port 0", "ADDR:PORT with the port in servers.json"));
        }
        c.rpc.listen = Some(address);
        Ok(())
    }),
    ("rpc.allow", |c, v| v.word(&mut c.rpc.allow, "any, cluster")),
    (DEFAULT_ROUTE, |c, v| route(c, "default", v)),
    ("cluster.join", |c, v| v.switch(&mut c.cluster.join)),
    ("cluster.reconnect_min", |c, v| {
        v.duration(&mut c.cluster.reconnect_min, 10 * MILLISECOND..=MINUTE)
    }),
    ("cluster.reconnect_max", |c, v| {
        v.duration(&mut c.cluster.reconnect_max, 10 * MILLISECOND..=10 * MINUTE)
    }),
    ("cluster.remoter_paths", |c, v| {
        v.texts(&mut c.cluster.remoter_paths)
    }),
    ("log.level", |c, v| {
        v.text(&mut c.log.level)?;
        crate::log::filter(&c.log.level)?;
        Ok(())
    }),
    ("log.format", |c, v| v.word(&mut c.log.format, "text, json")),
    ("log.forward", |c, v| v.switch(&mut c.log.forward)),
];

/// Stands for all of `[route]`: beside it, any server type is a key.
const DEFAULT_ROUTE: &str = "route.default";

/// A larger share than this of one server type is as good as all of it.
pub(super) const WEIGHT_MAX: u32 = 1_000_000;

/// More than the sessions of all shards can never be open.
pub(super) const CONNECTIONS_MAX: usize = limits::SHARDS_MAX * limits::SESSIONS_PER_SHARD_MAX;

pub(super) const FLUSH_INTERVALS: RangeInclusive<Duration> = MILLISECOND..=Duration::from_secs(10);

const MILLISECOND: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);

/// A key of `[route]`, a server type: whether one can be called that.
pub(super) fn is_server_type(name: &str) -> bool {
    // A route names its server type before its first dot.
    !name.is_empty() && !name.contains('.')
}

/// How the server of a type is chosen.
pub(super) fn route(c: &mut Config, server_type: &str, given: Given<'_>) -> Result<(), Wrong> {
    let mut strategy = String::new();
    given.text(&mut strategy)?;
    Strategy::parse(&strategy)?;
    c.routes.insert(server_type.into(), strategy);
    Ok(())
}

/// Built-in filters.
fn filters(into: &mut Vec<String>, given: Given<'_>) -> Result<(), Wrong> {
    let mut texts = Vec::new();
    given.texts(&mut texts)?;
    filter::check(&texts)?;
    *into = texts;
    Ok(())
}

#[cfg(test)]
mod tests;
