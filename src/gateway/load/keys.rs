//! Every key that a file or a flag may set, with the check of its value.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Result;
use super::sections::{schedulers, servers};
use crate::client::check::ClientCheck;
use crate::client::host_filter::HostFilter;
use crate::config::Config;
use crate::handler::filter;
use crate::limits;
use crate::push::select;
use crate::route::balance::Strategy;
use crate::wire::websocket::is_token_byte;

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

/// What is wrong with a value, and where inside it.
pub(super) struct Wrong {
    /// Offset in the file, when it is not the key's own.
    pub(super) at: Option<usize>,
    /// Continues the key, as in `[1].port`.
    pub(super) below: String,
    pub(super) what: String,
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self {
            at: None,
            below: String::new(),
            what,
        }
    }
}

/// A value as it was written.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) toml: &'a DeValue<'a>,
    /// The text behind a flag, which is a string wherever a string is wanted: `--id 7`.
    pub(super) typed: Option<&'a str>,
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.toml {
            DeValue::String(text) => write!(f, "{text:?}"),
            DeValue::Integer(number) => number.fmt(f),
            DeValue::Float(number) => number.fmt(f),
            DeValue::Boolean(on) => on.fmt(f),
            other => write!(f, "this {}", other.type_str()),
        }
    }
}

/// Each of these checks the value and, if it is right, stores it in `into`.
impl Given<'_> {
    pub(super) fn wrong(self, what: &str, accepted: impl fmt::Display) -> Wrong {
        format!("{self} {what}; accepted: {accepted}").into()
    }

    pub(super) fn text(self, into: &mut String) -> Result<(), Wrong> {
        match self.toml.as_str().or(self.typed) {
            Some("") => Err(self.wrong("is empty", "a text of at least one character")),
            Some(text) => {
                *into = text.into();
                Ok(())
            }
            None => Err(self.wrong("is no text", "a text in quotes")),
        }
    }

    fn header(self, into: &mut Option<String>) -> Result<(), Wrong> {
        let mut name = String::new();
        self.text(&mut name)?;
        if !name.bytes().all(is_token_byte) {
            return Err(self.wrong(
                "is no header",
                r#"the name of a header, such as "X-Real-IP""#,
            ));
        }
        *into = Some(name);
        Ok(())
    }

    fn path(self, into: &mut Option<PathBuf>) -> Result<(), Wrong> {
        let mut path = String::new();
        self.text(&mut path)?;
        *into = Some(path.into());
        Ok(())
    }

    fn texts(self, into: &mut Vec<String>) -> Result<(), Wrong> {
        let texts = self.toml.as_array().and_then(|array| {
            let texts = array
                .iter()
                .map(|item| item.get_ref().as_str().map(String::from));
            texts.collect()
        });
        let accepted = r#"["chat.onAdd", "chat.onLeave"]"#;
        *into = texts.ok_or_else(|| self.wrong("is no list of texts", accepted))?;
        Ok(())
    }

    fn switch(self, into: &mut bool) -> Result<(), Wrong> {
        let on = self.toml.as_bool();
        *into = on.ok_or_else(|| self.wrong("is no switch", "true, false"))?;
        Ok(())
    }

    /// One of the words of an enum.
    pub(super) fn word<T: for<'de> Deserialize<'de>>(
        self,
        into: &mut T,
        words: &str,
    ) -> Result<(), Wrong> {
        let word = self.toml.as_str().unwrap_or("");
        let word = StrDeserializer::<serde::de::value::Error>::new(word);
        *into = T::deserialize(word).map_err(|_| self.wrong("is not known", words))?;
        Ok(())
    }

    fn address(self, into: &mut SocketAddr) -> Result<(), Wrong> {
        let address = self.toml.as_str().and_then(|text| text.parse().ok());
        *into = address.ok_or_else(|| {
            let accepted = "ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses";
            self.wrong("is no address with a port", accepted)
        })?;
        Ok(())
    }

    /// `None` for what no `usize` can hold.
    fn integer(self) -> Option<usize> {
        let DeValue::Integer(number) = self.toml else {
            return None;
        };
        usize::from_str_radix(number.as_str(), number.radix()).ok()
    }

    fn count<T: From<usize>>(
        self,
        into: &mut T,
        range: RangeInclusive<usize>,
    ) -> Result<(), Wrong> {
        let accepted = format!("a number from {} to {}", range.start(), range.end());
        if !self.toml.is_integer() {
            return Err(self.wrong("is no whole number", accepted));
        }
        let number = self.integer().filter(|number| range.contains(number));
        *into = number
            .ok_or_else(|| self.wrong("is out of range", accepted))?
            .into();
        Ok(())
    }

    pub(super) fn port(self, into: &mut u16) -> Result<(), Wrong> {
        let mut number = 0_usize;
        self.count(&mut number, 1..=usize::from(u16::MAX))?;
        *into = number as u16;
        Ok(())
    }

    pub(super) fn weight(self, into: &mut Option<u32>) -> Result<(), Wrong> {
        let mut number = 0_usize;
        self.count(&mut number, 0..=WEIGHT_MAX as usize)?;
        *into = Some(number as u32);
        Ok(())
    }

    fn bytes(self, into: &mut usize, range: RangeInclusive<usize>) -> Result<(), Wrong> {
        let (low, high) = (range.start(), range.end());
        let accepted = format!(r#"{low} to {high} bytes, such as 65536, "64KiB" or "4MiB""#);
        let bytes = match self.toml {
            DeValue::String(text) => parse_bytes(text),
            DeValue::Integer(_) => Some(self.integer().unwrap_or(usize::MAX)),
            _ => None,
        };
        match bytes {
            Some(bytes) if range.contains(&bytes) => {
                *into = bytes;
                Ok(())
            }
            Some(_) => Err(self.wrong("is out of range", accepted)),
            None => Err(self.wrong("is no size", accepted)),
        }
    }

    pub(super) fn duration<T: From<Duration>>(
        self,
        into: &mut T,
        range: RangeInclusive<Duration>,
    ) -> Result<(), Wrong> {
        let accepted = format!(r#"{}, such as "3s" or "250ms""#, show(&range));
        *into = self.parse_duration(&range, &accepted)?.into();
        Ok(())
    }

    fn seconds(
        self,
        into: &mut Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Result<(), Wrong> {
        let accepted = format!(r#"whole seconds, {}, such as "3s""#, show(&range));
        let duration = self.parse_duration(&range, &accepted)?;
        if duration.subsec_nanos() != 0 {
            return Err(self.wrong("is not whole seconds", accepted));
        }
        *into = Some(duration);
        Ok(())
    }

    fn parse_duration(
        self,
        range: &RangeInclusive<Duration>,
        accepted: &str,
    ) -> Result<Duration, Wrong> {
        let text = match self.toml {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(_) | DeValue::Float(_) => {
                return Err(self.wrong("has no unit", accepted));
            }
            _ => "",
        };
        match humantime::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            Ok(_) => Err(self.wrong("is out of range", accepted)),
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                Err(self.wrong("has no unit", accepted))
            }
            Err(_) => Err(self.wrong("is no duration", accepted)),
        }
    }
}

fn show(range: &RangeInclusive<Duration>) -> String {
    let [low, high] = [range.start(), range.end()].map(|end| humantime::format_duration(*end));
    format!("{low} to {high}")
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    // What overflows is a size, only not one that any range accepts.
    let number: usize = number.parse().ok()?;
    Some(number.saturating_mul(factor))
}

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

/// Entries of a table in the order they were written.
pub(super) fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of `config.rs` as its field names give them.
    fn fields() -> Vec<String> {
        let mut section = "";
        let mut fields = Vec::new();
        for line in include_str!("../../config.rs").lines() {
            section = match line {
                "pub struct Config {" => "top",
                "pub struct Client {" => "client",
                "pub struct Filter {" => "filter",
                "pub struct Session {" => "session",
                "pub struct Push {" => "push",
                "pub struct Rpc {" => "rpc",
                "pub struct Cluster {" => "cluster",
                "pub struct Log {" => "log",
                "}" => "",
                _ => section,
            };
            let field = line
                .strip_prefix("    pub ")
                .and_then(|rest| rest.split_once(':'));
            match (section, field) {
                ("", _) | (_, None) => {}
                ("top", Some((name, _))) => fields.push(name.into()),
                (section, Some((name, _))) => fields.push(format!("{section}.{name}")),
            }
        }
        fields
    }

    #[test]
    fn every_knob_has_a_key() {
        let sections = [
            "client", "filter", "session", "push", "rpc", "cluster", "log",
        ];
        let no_keys = ["embedded", "master", "crons", "warnings"];
        let expected: Vec<String> = fields()
            .into_iter()
            .filter(|field| !no_keys.contains(&field.as_str()))
            .filter(|field| !sections.contains(&field.as_str()))
            .map(|field| match field.as_str() {
                "servers" => "server".into(),
                "routes" => DEFAULT_ROUTE.into(),
                _ => field,
            })
            .collect();
        assert!(expected.len() > 20, "{expected:?}");
        let mut keys: Vec<String> = KEYS.iter().map(|(key, _)| (*key).into()).collect();
        for field in &expected {
            assert!(keys.contains(field), "{field} cannot be set");
        }
        keys.retain(|key| !expected.contains(key));
        assert_eq!(keys, Vec::<String>::new(), "no such knob");
    }

    #[test]
    fn every_default_is_in_range() {
        let c = Config::default();
        let defaults = [
            (
                "client.package_bytes_max",
                c.client.package_bytes_max.to_string(),
            ),
            (
                "client.outbox_bytes_max",
                c.client.outbox_bytes_max.to_string(),
            ),
            (
                "client.calls_in_flight_max",
                c.client.calls_in_flight_max.to_string(),
            ),
            (
                "push.flush_interval",
                format!("{:?}", c.push.flush_interval),
            ),
            ("rpc.timeout", format!("{:?}", c.rpc.timeout)),
            ("rpc.keepalive", format!("{:?}", c.rpc.keepalive)),
            (
                "rpc.connect_timeout",
                format!("{:?}", c.rpc.connect_timeout),
            ),
            ("rpc.answer_timeout", format!("{:?}", c.rpc.answer_timeout)),
            ("rpc.backoff_min", format!("{:?}", c.rpc.backoff_min)),
            ("rpc.backoff_max", format!("{:?}", c.rpc.backoff_max)),
            (
                "rpc.calls_in_flight_max",
                c.rpc.calls_in_flight_max.to_string(),
            ),
            ("session.duplicate_login", "allow".into()),
            (
                "session.duplicate_login_reason",
                c.session.duplicate_login_reason.clone(),
            ),
            ("rpc.allow", "any".into()),
            ("cluster.join", c.cluster.join.to_string()),
            (
                "cluster.reconnect_min",
                format!("{:?}", c.cluster.reconnect_min),
            ),
            (
                "cluster.reconnect_max",
                format!("{:?}", c.cluster.reconnect_max),
            ),
            ("log.level", c.log.level.clone()),
            ("listen", c.listen.to_string()),
        ];
        let mut copy = Config::default();
        for (key, value) in defaults {
            assert_eq!(try_set(&mut copy, key, &value), Ok(()), "{key}");
        }
        assert_eq!(copy, c);
    }

    fn try_set(config: &mut Config, key: &str, typed: &str) -> Result<(), String> {
        let toml = match DeValue::parse(typed) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(typed.into()),
        };
        let (_, set) = KEYS.iter().find(|(name, _)| *name == key).unwrap();
        let given = Given {
            toml: &toml,
            typed: Some(typed),
        };
        set(config, given).map_err(|wrong| format!("{}{}", wrong.below, wrong.what))
    }

    #[track_caller]
    fn refused(key: &str, typed: &str, expected: &str) {
        let mut config = Config::default();
        assert_eq!(try_set(&mut config, key, typed), Err(expected.into()));
        assert_eq!(config, Config::default(), "a refused value was stored");
    }

    #[test]
    fn a_refused_value_names_itself_and_what_is_accepted() {
        let seconds = r#"accepted: whole seconds, 1s to 1h, such as "3s""#;
        refused(
            "client.heartbeat",
            "3",
            &format!("3 has no unit; {seconds}"),
        );
        refused(
            "client.heartbeat",
            r#""3""#,
            &format!(r#""3" has no unit; {seconds}"#),
        );
        refused(
            "client.heartbeat",
            "1.5",
            &format!("1.5 has no unit; {seconds}"),
        );
        refused(
            "client.heartbeat",
            "2h",
            &format!(r#""2h" is out of range; {seconds}"#),
        );
        refused(
            "client.heartbeat",
            "1500ms",
            &format!(r#""1500ms" is not whole seconds; {seconds}"#),
        );
        refused(
            "client.heartbeat",
            "3 parsecs",
            &format!(r#""3 parsecs" is no duration; {seconds}"#),
        );
        refused(
            "client.heartbeat",
            "true",
            &format!("true is no duration; {seconds}"),
        );
        let range = r#"accepted: 1ms to 10s, such as "3s" or "250ms""#;
        refused(
            "push.flush_interval",
            "11s",
            &format!(r#""11s" is out of range; {range}"#),
        );
        refused(
            "push.flush_interval",
            "20",
            &format!("20 has no unit; {range}"),
        );
        let size = r#"accepted: 1024 to 16777215 bytes, such as 65536, "64KiB" or "4MiB""#;
        refused(
            "client.package_bytes_max",
            "16MiB",
            &format!(r#""16MiB" is out of range; {size}"#),
        );
        refused(
            "client.package_bytes_max",
            "1023",
            &format!("1023 is out of range; {size}"),
        );
        refused(
            "client.package_bytes_max",
            "-1",
            &format!("-1 is out of range; {size}"),
        );
        refused(
            "client.package_bytes_max",
            "4MB",
            &format!(r#""4MB" is no size; {size}"#),
        );
        refused(
            "client.package_bytes_max",
            "MiB",
            &format!(r#""MiB" is no size; {size}"#),
        );
        refused(
            "client.package_bytes_max",
            "true",
            &format!("true is no size; {size}"),
        );
        let huge = "99999999999GiB";
        refused(
            "client.package_bytes_max",
            huge,
            &format!("{huge:?} is out of range; {size}"),
        );
        let shards = "accepted: a number from 1 to 256";
        refused("shards", "0", &format!("0 is out of range; {shards}"));
        refused("shards", "-1", &format!("-1 is out of range; {shards}"));
        refused("shards", "257", &format!("257 is out of range; {shards}"));
        refused(
            "shards",
            "two",
            &format!(r#""two" is no whole number; {shards}"#),
        );
        refused(
            "dialect",
            "pitaya",
            r#""pitaya" is not known; accepted: pomelo, pinus"#,
        );
        refused(
            "filter.global",
            r#"["time", "serial 3"]"#,
            concat!(
                r#""serial 3" is not a filter; accepted: "serial 3s", "serial 3s {JSON}", "time", "#,
                r#""timeout 3s 500", "toobusy 70ms", "rate 50/s 100", with durations of 1ms to 1h "#,
                "and numbers of 1 to 1000000",
            ),
        );
        refused(
            "push.scheduler",
            "1",
            "1 is not known; accepted: direct, buffer",
        );
        refused(
            "log.format",
            "xml",
            r#""xml" is not known; accepted: text, json"#,
        );
        refused(
            "client.use_dict",
            "yes",
            r#""yes" is no switch; accepted: true, false"#,
        );
        let address = "accepted: ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses";
        refused(
            "listen",
            "3010",
            &format!("3010 is no address with a port; {address}"),
        );
        refused(
            "listen",
            "::",
            &format!(r#""::" is no address with a port; {address}"#),
        );
        refused(
            "id",
            "",
            r#""" is empty; accepted: a text of at least one character"#,
        );
        refused(
            "dictionary",
            "[1]",
            r#"this array is no list of texts; accepted: ["chat.onAdd", "chat.onLeave"]"#,
        );
    }

    #[test]
    fn a_refused_server_names_its_place() {
        let keys = "[[server]] with keys id, type, host, port, weight, client_host, client_port";
        refused("server", "7", &format!("7 is no list; accepted: {keys}"));
        refused(
            "server",
            "[7]",
            &format!("[0]7 is no server; accepted: {keys}"),
        );
        let whole = r#"{id="a", type="chat", host="127.0.0.1", port=1}"#;
        refused(
            "server",
            &format!("[{whole}, {whole}]"),
            r#"[1].id"a" is used twice"#,
        );
        refused(
            "server",
            r#"[{id="a", type="chat", host="127.0.0.1", port=0}]"#,
            "[0].port0 is out of range; accepted: a number from 1 to 65535",
        );
        refused(
            "server",
            r#"[{id=1}]"#,
            "[0].id1 is no text; accepted: a text in quotes",
        );
        refused(
            "server",
            r#"[{id="a", tipe="chat"}]"#,
            "[0].tipeunknown key; known keys here: id, type, host, port, weight, client_host, client_port",
        );
        for key in ["id", "type", "host", "port"] {
            let fields = [r#"id="a""#, r#"type="b""#, r#"host="c""#, "port=1"];
            let rest: Vec<&str> = fields.into_iter().filter(|f| !f.starts_with(key)).collect();
            refused(
                "server",
                &format!("[{{{}}}]", rest.join(",")),
                &format!("[0].{key}missing; every server needs id, type, host and port"),
            );
        }
    }

    #[test]
    fn a_refused_push_scheduler_or_rule_says_what_is_accepted() {
        refused(
            "push.schedulers",
            "7",
            "7 is no list; accepted: [[push.schedulers]] with keys id, scheduler, flush_interval",
        );
        let id = "accepted: a text without spaces, not \"default\", which is the scheduler of \
                  push.scheduler";
        for name in ["default", "a b"] {
            refused(
                "push.schedulers",
                &format!("[{{id={name:?}}}]"),
                &format!("[0].id{name:?} cannot be an id; {id}"),
            );
        }
        refused(
            "push.schedulers",
            r#"[{id="a", scheduler="later"}]"#,
            r#"[0].scheduler"later" is not known; accepted: direct, buffer"#,
        );
        refused(
            "push.schedulers",
            r#"[{id="a", scheduler="buffer", flush_interval="11s"}]"#,
            concat!(
                r#"[0].flush_interval"11s" is out of range; accepted: 1ms to 10s, such as "3s" "#,
                r#"or "250ms""#
            ),
        );
        refused(
            "push.schedulers",
            r#"[{id="a"}]"#,
            "[0].schedulermissing; every scheduler needs id and scheduler",
        );
        refused(
            "push.schedulers",
            r#"[{id="a", scheduler="direct"}, {id="a", scheduler="buffer"}]"#,
            r#"[1].id"a" is used twice"#,
        );
        refused(
            "push.select",
            r#"["onMove* a", "on*Move a"]"#,
            concat!(
                r#""on*Move a" is not a rule for pushes; accepted: "response ID", "onMove ID", "#,
                r#""chat.* ID""#
            ),
        );
    }

    #[test]
    fn a_weight_is_optional_and_may_be_zero() {
        let mut config = Config::default();
        let whole = r#"[{id="a", type="chat", host="h", port=1},
            {id="b", type="chat", host="h", port=1, weight=0},
            {id="c", type="chat", host="h", port=1, weight=1000000}]"#;
        assert_eq!(try_set(&mut config, "server", whole), Ok(()));
        let weights: Vec<Option<u32>> = config.servers.iter().map(|s| s.weight).collect();
        assert_eq!(weights, [None, Some(0), Some(1_000_000)]);
        refused(
            "server",
            r#"[{id="a", type="chat", host="h", port=1, weight=1000001}]"#,
            "[0].weight1000001 is out of range; accepted: a number from 0 to 1000000",
        );
        refused(
            "server",
            r#"[{id="a", type="chat", host="h", port=1, weight=1.5}]"#,
            "[0].weight1.5 is no whole number; accepted: a number from 0 to 1000000",
        );
    }

    #[test]
    fn a_refused_cluster_value_says_what_is_accepted() {
        refused(
            "rpc.listen",
            "0.0.0.0:0",
            r#""0.0.0.0:0" has port 0; accepted: ADDR:PORT with the port in servers.json"#,
        );
        refused(
            "rpc.listen",
            "localhost:3150",
            concat!(
                r#""localhost:3150" is no address with a port; accepted: ADDR:PORT, such as "#,
                "127.0.0.1:3010, or [::]:3010 for all addresses",
            ),
        );
        refused(
            "rpc.allow",
            "none",
            r#""none" is not known; accepted: any, cluster"#,
        );
        refused(
            "session.duplicate_login",
            "kick",
            r#""kick" is not known; accepted: allow, refuse, newest-wins"#,
        );
        refused(
            "cluster.join",
            "no",
            r#""no" is no switch; accepted: true, false"#,
        );
        refused(
            "cluster.reconnect_min",
            "5ms",
            r#""5ms" is out of range; accepted: 10ms to 1m, such as "3s" or "250ms""#,
        );
    }

    #[test]
    fn sizes_and_durations_take_their_units() {
        let mut config = Config::default();
        for (typed, bytes) in [
            ("4096", 4096),
            ("64KiB", 65536),
            ("1 MiB", 1 << 20),
            ("0x1000", 4096),
        ] {
            assert_eq!(
                try_set(&mut config, "client.package_bytes_max", typed),
                Ok(())
            );
            assert_eq!(config.client.package_bytes_max, bytes);
        }
        for (typed, millis) in [("20ms", 20), ("1s", 1000), ("1s 500ms", 1500)] {
            assert_eq!(try_set(&mut config, "push.flush_interval", typed), Ok(()));
            assert_eq!(config.push.flush_interval, Duration::from_millis(millis));
        }
    }
}
