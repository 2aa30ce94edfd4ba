//! Kinds of values: each reads a value, checks it, shows it, and names the accepted values.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::Dialect;
use super::types::{
    ClientCertificates, Compat, DuplicateLogin, ListenAddress, LogFormat, Scheduler, TlsMode,
    TlsVersion, Transports,
};
use super::value::{RawValue, ValueError};
use crate::limits;

/// A kind of values of the type `T`. `Display` writes the accepted values, behind "expected".
pub(crate) trait Kind<T>: fmt::Display {
    /// The word for no value, where a knob may be without one.
    const NO_VALUE: Option<&str> = None;

    /// Returns the value as `T`, unless it has another form.
    fn parse(&self, raw: RawValue<'_>) -> Option<T>;

    /// Returns whether a value is in the range of this kind.
    fn admits(&self, _value: &T) -> bool {
        true
    }

    /// Returns the value as `tangelo.toml` has it.
    fn show(&self, value: &T) -> String;

    /// Returns the value as the right side of a line of TOML, or `None` for a knob without a value.
    fn toml(&self, value: &T) -> Option<String> {
        Some(self.show(value))
    }

    /// Checks a value that does not come from a file or a flag.
    fn check(&self, value: &T) -> Result<(), ValueError> {
        match self.admits(value) {
            true => Ok(()),
            false => Err(ValueError::expected(self.show(value), self)),
        }
    }

    /// Reads and checks a written value. A wrong one leaves `into` alone.
    fn read(&self, raw: RawValue<'_>, into: &mut T) -> Result<(), ValueError> {
        let value = self.parse(raw).filter(|value| self.admits(value));
        *into = value.ok_or_else(|| ValueError::expected(raw, self))?;
        Ok(())
    }
}

fn quoted(value: impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// Returns a text as TOML has it.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A knob that may be left out.
impl<T, K: Kind<T>> Kind<Option<T>> for K {
    fn parse(&self, raw: RawValue<'_>) -> Option<Option<T>> {
        match raw.text() {
            Some(text) if Some(text) == K::NO_VALUE => Some(None),
            _ => K::parse(self, raw).map(Some),
        }
    }

    fn admits(&self, value: &Option<T>) -> bool {
        value.as_ref().is_none_or(|value| K::admits(self, value))
    }

    fn show(&self, value: &Option<T>) -> String {
        let no_value = || K::NO_VALUE.map_or_else(|| "none".into(), quoted);
        value
            .as_ref()
            .map_or_else(no_value, |value| K::show(self, value))
    }

    fn toml(&self, value: &Option<T>) -> Option<String> {
        match value {
            Some(value) => K::toml(self, value),
            None => K::NO_VALUE.map(quoted),
        }
    }
}

/// A limit that `off` lifts.
pub(super) struct OrOff<K>(pub(super) K);

impl<K: fmt::Display> fmt::Display for OrOff<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or \"off\"", self.0)
    }
}

// One line for each kind: Rust allows no `impl` for all, beside that of knobs that may be left out.
macro_rules! or_off {
    ($($kind:ty: $value:ty,)*) => {$(
        impl Kind<$value> for OrOff<$kind> {
            const NO_VALUE: Option<&str> = Some("off");

            fn parse(&self, raw: RawValue<'_>) -> Option<$value> {
                self.0.parse(raw)
            }

            fn admits(&self, value: &$value) -> bool {
                self.0.admits(value)
            }

            fn show(&self, value: &$value) -> String {
                self.0.show(value)
            }
        }
    )*};
}

or_off! {
    TimeRange: Duration,
    Count: usize,
    Bytes: usize,
}

/// True or false.
pub(super) struct Switch;

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }
}

impl Kind<bool> for Switch {
    fn parse(&self, raw: RawValue<'_>) -> Option<bool> {
        raw.toml.as_bool()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A text.
pub(super) struct Text;

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes, not an empty one")
    }
}

impl Kind<String> for Text {
    fn parse(&self, raw: RawValue<'_>) -> Option<String> {
        raw.text().map(str::to_owned)
    }

    fn admits(&self, value: &String) -> bool {
        !value.is_empty()
    }

    fn show(&self, value: &String) -> String {
        format!("{value:?}")
    }

    fn toml(&self, value: &String) -> Option<String> {
        Some(toml_text(value))
    }
}

/// Name of an HTTP header.
pub(super) struct HeaderName;

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"the name of a header, such as "X-Real-IP""#)
    }
}

impl Kind<String> for HeaderName {
    fn parse(&self, raw: RawValue<'_>) -> Option<String> {
        Text.parse(raw)
    }

    fn admits(&self, value: &String) -> bool {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !value.is_empty() && value.bytes().all(is_token)
    }

    fn show(&self, value: &String) -> String {
        Text.show(value)
    }

    fn toml(&self, value: &String) -> Option<String> {
        Text.toml(value)
    }
}

/// Path of a URL.
pub(super) struct UrlPath;

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a path of a URL without a query, such as "/health""#)
    }
}

impl Kind<String> for UrlPath {
    fn parse(&self, raw: RawValue<'_>) -> Option<String> {
        Text.parse(raw)
    }

    fn admits(&self, value: &String) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        value.starts_with('/') && value.bytes().all(is_plain)
    }

    fn show(&self, value: &String) -> String {
        Text.show(value)
    }

    fn toml(&self, value: &String) -> Option<String> {
        Text.toml(value)
    }
}

/// Path of a file or a folder.
pub(super) struct FilePath;

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path in quotes")
    }
}

impl Kind<PathBuf> for FilePath {
    fn parse(&self, raw: RawValue<'_>) -> Option<PathBuf> {
        raw.text().map(PathBuf::from)
    }

    fn admits(&self, value: &PathBuf) -> bool {
        !value.as_os_str().is_empty()
    }

    fn show(&self, value: &PathBuf) -> String {
        format!("{value:?}")
    }

    fn toml(&self, value: &PathBuf) -> Option<String> {
        Some(toml_text(&value.to_string_lossy()))
    }
}

/// A list of texts, with an example of the list as `tangelo.toml` has it. `CheckedConfig` parses those that
/// are rules.
pub(super) struct Texts(pub(super) &'static str);

impl fmt::Display for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of texts, such as {}", self.0)
    }
}

impl Kind<Vec<String>> for Texts {
    fn parse(&self, raw: RawValue<'_>) -> Option<Vec<String>> {
        let texts = raw.toml.as_array()?.iter();
        texts
            .map(|item| item.get_ref().as_str().map(String::from))
            .collect()
    }

    fn show(&self, value: &Vec<String>) -> String {
        match value.is_empty() {
            true => "none".into(),
            false => format!("{value:?}"),
        }
    }

    fn toml(&self, value: &Vec<String>) -> Option<String> {
        Some(toml::Value::from(value.clone()).to_string())
    }
}

/// Callers of the RPC port: a list of texts, or one text with commas. `CheckedConfig` parses them.
pub(super) struct CallerList;

impl fmt::Display for CallerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            r#"a list such as ["cluster", "10.0.0.0/8"], or a text such as "cluster, 10.0.0.0/8""#,
        )
    }
}

impl Kind<Vec<String>> for CallerList {
    fn parse(&self, raw: RawValue<'_>) -> Option<Vec<String>> {
        let texts = Texts("").parse(raw);
        texts.or_else(|| {
            Some(
                raw.text()?
                    .split(',')
                    .map(|item| item.trim().into())
                    .collect(),
            )
        })
    }

    fn show(&self, value: &Vec<String>) -> String {
        Texts("").show(value)
    }

    fn toml(&self, value: &Vec<String>) -> Option<String> {
        Texts("").toml(value)
    }
}

/// The strategies of `[route]`, by server type: [`read_strategy`](super::read_strategy) reads each.
pub(super) struct Strategies;

impl fmt::Display for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section [route] with keys default and any server type")
    }
}

impl Kind<BTreeMap<String, String>> for Strategies {
    fn parse(&self, _: RawValue<'_>) -> Option<BTreeMap<String, String>> {
        None
    }

    fn show(&self, value: &BTreeMap<String, String>) -> String {
        match value.is_empty() {
            true => "none".into(),
            false => format!("{value:?}"),
        }
    }

    fn toml(&self, value: &BTreeMap<String, String>) -> Option<String> {
        let strategy = |(server_type, strategy): (&String, &String)| {
            format!("{} = {}", toml_text(server_type), toml_text(strategy))
        };
        let strategies: Vec<String> = value.iter().map(strategy).collect();
        Some(format!("{{ {} }}", strategies.join(", ")))
    }
}

/// An address with a port.
pub(super) struct Address;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses")
    }
}

impl Kind<SocketAddr> for Address {
    fn parse(&self, raw: RawValue<'_>) -> Option<SocketAddr> {
        raw.toml.as_str()?.parse().ok()
    }

    fn show(&self, value: &SocketAddr) -> String {
        quoted(value)
    }
}

/// An address whose port others know, so the kernel cannot choose it; with a text about the port.
pub(super) struct KnownAddress(pub(super) &'static str);

impl fmt::Display for KnownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ADDR:PORT with {}", self.0)
    }
}

impl Kind<SocketAddr> for KnownAddress {
    fn parse(&self, raw: RawValue<'_>) -> Option<SocketAddr> {
        Address.parse(raw)
    }

    fn admits(&self, value: &SocketAddr) -> bool {
        value.port() != 0
    }

    fn show(&self, value: &SocketAddr) -> String {
        Address.show(value)
    }
}

/// A TCP address, with an example, or the path of a unix socket.
pub(super) struct Endpoint(pub(super) &'static str);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (example, max) = (self.0, limits::SOCKET_PATH_BYTES_MAX);
        write!(
            f,
            "ADDR:PORT, such as {example}, or unix: with an absolute path of up to {max} bytes"
        )
    }
}

impl Kind<ListenAddress> for Endpoint {
    fn parse(&self, raw: RawValue<'_>) -> Option<ListenAddress> {
        let text = raw.toml.as_str()?;
        match text.strip_prefix("unix:") {
            Some(path) => Some(ListenAddress::Unix(path.into())),
            None => text.parse().ok().map(ListenAddress::Tcp),
        }
    }

    fn admits(&self, value: &ListenAddress) -> bool {
        match value {
            ListenAddress::Tcp(_) => true,
            ListenAddress::Unix(path) => {
                path.is_absolute() && path.as_os_str().len() <= limits::SOCKET_PATH_BYTES_MAX
            }
        }
    }

    fn show(&self, value: &ListenAddress) -> String {
        match value {
            ListenAddress::Tcp(address) => Address.show(address),
            ListenAddress::Unix(_) => format!("{:?}", value.to_string()),
        }
    }
}

/// The transports of a listener.
pub(super) struct TransportList;

impl TransportList {
    /// Returns the words of a value.
    fn words(value: Transports) -> Vec<&'static str> {
        let words = [("tcp", value.tcp), ("websocket", value.websocket)];
        let taken = words.into_iter().filter(|(_, is_taken)| *is_taken);
        taken.map(|(word, _)| word).collect()
    }
}

impl fmt::Display for TransportList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a list of "tcp" and "websocket", or of one of them"#)
    }
}

impl Kind<Transports> for TransportList {
    fn parse(&self, raw: RawValue<'_>) -> Option<Transports> {
        let mut transports = Transports {
            tcp: false,
            websocket: false,
        };
        let words: Vec<String> = Texts("").parse(raw)?;
        for word in &words {
            match word.as_str() {
                "tcp" => transports.tcp = true,
                "websocket" => transports.websocket = true,
                _ => return None,
            }
        }
        Some(transports)
    }

    fn admits(&self, value: &Transports) -> bool {
        value.tcp || value.websocket
    }

    fn show(&self, value: &Transports) -> String {
        format!("{:?}", Self::words(*value))
    }
}

/// A whole number in a range.
pub(super) struct Count(pub(super) RangeInclusive<usize>);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {} to {}", self.0.start(), self.0.end())
    }
}

macro_rules! count {
    ($($number:ty),*) => {$(
        impl Kind<$number> for Count {
            fn parse(&self, raw: RawValue<'_>) -> Option<$number> {
                raw.integer()?.try_into().ok()
            }

            fn admits(&self, value: &$number) -> bool {
                usize::try_from(*value).is_ok_and(|value| self.0.contains(&value))
            }

            fn show(&self, value: &$number) -> String {
                value.to_string()
            }
        }
    )*};
}

count!(usize, u32, u16);

/// Close code of a WebSocket server that goes away or restarts, of the IANA registry.
pub(super) struct CloseCode;

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1001 or 1012")
    }
}

impl Kind<u16> for CloseCode {
    fn parse(&self, raw: RawValue<'_>) -> Option<u16> {
        raw.integer()?.try_into().ok()
    }

    fn admits(&self, value: &u16) -> bool {
        matches!(value, 1001 | 1012)
    }

    fn show(&self, value: &u16) -> String {
        value.to_string()
    }
}

/// A number of bytes in a range.
pub(super) struct Bytes(pub(super) RangeInclusive<usize>);

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const GIB: usize = 1 << 30;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = [self.0.start(), self.0.end()].map(|end| size(*end));
        write!(
            f,
            r#"a size from {low} to {high} bytes, such as 65536, "64KiB" or "4MiB""#
        )
    }
}

impl Kind<usize> for Bytes {
    fn parse(&self, raw: RawValue<'_>) -> Option<usize> {
        let DeValue::String(text) = raw.toml else {
            return raw.integer();
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            _ => return None,
        };
        number.parse::<usize>().ok()?.checked_mul(factor)
    }

    fn admits(&self, value: &usize) -> bool {
        self.0.contains(value)
    }

    fn show(&self, value: &usize) -> String {
        let text = size(*value);
        match text.ends_with('B') {
            true => quoted(text),
            false => text,
        }
    }
}

/// Returns a number of bytes with the largest unit that needs no fraction.
fn size(bytes: usize) -> String {
    let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    let whole = units
        .iter()
        .find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
    whole.map_or_else(
        || bytes.to_string(),
        |(size, unit)| format!("{}{unit}", bytes / size),
    )
}

/// A duration in a range.
pub(super) struct TimeRange(pub(super) RangeInclusive<Duration>);

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] =
            [self.0.start(), self.0.end()].map(|end| humantime::format_duration(*end));
        write!(
            f,
            r#"a duration from {low} to {high}, such as "3s" or "250ms""#
        )
    }
}

impl Kind<Duration> for TimeRange {
    fn parse(&self, raw: RawValue<'_>) -> Option<Duration> {
        humantime::parse_duration(raw.toml.as_str()?).ok()
    }

    fn admits(&self, value: &Duration) -> bool {
        self.0.contains(value)
    }

    fn show(&self, value: &Duration) -> String {
        quoted(humantime::format_duration(*value))
    }
}

/// A duration of whole seconds, as clients get it.
pub(super) struct WholeSeconds(pub(super) RangeInclusive<Duration>);

impl fmt::Display for WholeSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] =
            [self.0.start(), self.0.end()].map(|end| humantime::format_duration(*end));
        write!(f, r#"whole seconds from {low} to {high}, such as "3s""#)
    }
}

impl Kind<Duration> for WholeSeconds {
    fn parse(&self, raw: RawValue<'_>) -> Option<Duration> {
        humantime::parse_duration(raw.toml.as_str()?).ok()
    }

    fn admits(&self, value: &Duration) -> bool {
        self.0.contains(value) && value.subsec_nanos() == 0
    }

    fn show(&self, value: &Duration) -> String {
        quoted(humantime::format_duration(*value))
    }
}

/// An enum whose values are words in the configuration.
pub(super) trait Word: Copy + PartialEq {}

impl Word for Dialect {}
impl Word for Compat {}
impl Word for Scheduler {}
impl Word for DuplicateLogin {}
impl Word for LogFormat {}
impl Word for TlsMode {}
impl Word for TlsVersion {}
impl Word for ClientCertificates {}

/// One word of a few.
pub(super) struct OneOf<T: 'static>(&'static [(&'static str, T)]);

pub(super) const DIALECT: OneOf<Dialect> =
    OneOf(&[("pomelo", Dialect::Pomelo), ("pinus", Dialect::Pinus)]);
pub(super) const COMPAT: OneOf<Compat> =
    OneOf(&[("guarded", Compat::Guarded), ("exact", Compat::Exact)]);
pub(super) const SCHEDULER: OneOf<Scheduler> =
    OneOf(&[("direct", Scheduler::Direct), ("buffer", Scheduler::Buffer)]);
pub(super) const DUPLICATE_LOGIN: OneOf<DuplicateLogin> = OneOf(&[
    ("allow", DuplicateLogin::Allow),
    ("refuse", DuplicateLogin::Refuse),
    ("newest-wins", DuplicateLogin::NewestWins),
]);
pub(super) const LOG_FORMAT: OneOf<LogFormat> =
    OneOf(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
pub(super) const TLS_VERSION: OneOf<TlsVersion> =
    OneOf(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]);
pub(super) const CLIENT_CERTIFICATES: OneOf<ClientCertificates> = OneOf(&[
    ("off", ClientCertificates::Off),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
]);
pub(super) const TLS_MODE: OneOf<TlsMode> = OneOf(&[
    ("off", TlsMode::Off),
    ("required", TlsMode::Required),
    ("optional", TlsMode::Optional),
]);

impl<T> fmt::Display for OneOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        let (last, first) = words.split_last().expect("a kind has words");
        write!(f, "{} or {last}", first.join(", "))
    }
}

impl<T: Word> Kind<T> for OneOf<T> {
    fn parse(&self, raw: RawValue<'_>) -> Option<T> {
        let text = raw.text()?;
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value)
    }

    fn read(&self, raw: RawValue<'_>, into: &mut T) -> Result<(), ValueError> {
        *into = self.parse(raw).ok_or_else(|| match raw.text() {
            Some(_) => ValueError::expected(raw, self),
            // TOML reads some words as numbers.
            None => ValueError::expected(raw, format!("{self}, in quotes")),
        })?;
        Ok(())
    }

    fn show(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, known)| known == value);
        quoted(found.map_or("", |(word, _)| word))
    }
}

pub(super) const PORTS: RangeInclusive<usize> = 1..=u16::MAX as usize;
/// Times for one step of a client.
pub(super) const STEP_TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
pub(super) const FLUSH_INTERVALS: RangeInclusive<Duration> = MILLISECOND..=Duration::from_secs(10);
/// More servers than the configuration may name are never known.
pub(super) const CALLS_CONNECTIONS_MAX: usize = 4 * limits::SERVERS_MAX;
/// A larger share than this of one server type is as good as all of it.
pub(crate) const WEIGHT_MAX: usize = 1_000_000;
/// More than the sessions of all shards can never be open.
pub(crate) const CONNECTIONS_MAX: usize = limits::SHARDS_MAX * limits::SESSIONS_PER_SHARD_MAX;
