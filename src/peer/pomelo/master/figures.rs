//! Figures of this process, printed as genuine servers print theirs.

use std::time::Duration;

use serde_json::json;

use super::MasterConfig;
use crate::limits::RPC_FRAME_BYTES_MAX;
use crate::wire::json;

/// Past this many bytes a list of logins ends: with the escapes of the second encoding it still is
/// a frame that any receiver takes. The count next to it is complete.
pub(super) const LOGINS_BYTES_MAX: usize = RPC_FRAME_BYTES_MAX / 4;

/// Resources that this process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Memory that is resident.
    pub rss_bytes: u64,
    /// Memory the allocator has taken.
    pub heap_total_bytes: u64,
    /// Memory of it that is in use.
    pub heap_used_bytes: u64,
    /// Time since the start.
    pub uptime: Duration,
}

impl Figures {
    /// The answer to `list` of the console. Sizes are in 2^20 bytes.
    pub(super) fn list_json(&self, config: &MasterConfig) -> Vec<u8> {
        const UNIT: u64 = 1 << 20;
        let body = json!({
            "serverId": config.id,
            "serverType": config.server_type,
            "pid": config.pid,
            "rss": two_decimals(self.rss_bytes, UNIT),
            "heapTotal": two_decimals(self.heap_total_bytes, UNIT),
            "heapUsed": two_decimals(self.heap_used_bytes, UNIT),
            "uptime": self.uptime_minutes(),
        });
        of_server(&config.id, &print(&body))
    }

    /// The answer to `servers` of `watchServer`. Sizes are in 10^6 bytes.
    pub(super) fn watch_json(&self, config: &MasterConfig) -> Vec<u8> {
        let mut body = json!({"serverId": config.id, "serverType": config.server_type});
        for name in ["host", "port"] {
            // As pomelo: what was registered without one is answered without one.
            if let Some(value) = config.info.get(name) {
                body[name] = value.clone();
            }
        }
        body["pid"] = config.pid.into();
        body["heapUsed"] = two_decimals(self.heap_used_bytes, 1_000_000).into();
        body["uptime"] = self.uptime_minutes().into();
        of_server(&config.id, &print(&body))
    }

    fn uptime_minutes(&self) -> String {
        let milliseconds = u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX);
        two_decimals(milliseconds, 60_000)
    }
}

/// Connections and logins of this server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Connections of clients.
    pub connections: u64,
    /// Users that are logged in.
    pub logged_in: u64,
    /// They, one entry for each, the latest; it may hold fewer.
    pub logins: Vec<LoginEntry>,
}

/// A user that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginEntry {
    /// When, milliseconds since the epoch.
    pub time_ms: u64,
    /// JSON text of the uid.
    pub uid: String,
    /// Address of the client.
    pub address: String,
}

impl Statistics {
    /// The answer to `connections` and `logins` of `watchServer`, and what `onlineUser` collects.
    pub fn json(&self, id: &str) -> Vec<u8> {
        let mut digits = itoa::Buffer::new();
        let mut out = b"{\"serverId\":".to_vec();
        json::write_string(&mut out, id);
        out.extend_from_slice(b",\"totalConnCount\":");
        out.extend_from_slice(digits.format(self.connections).as_bytes());
        out.extend_from_slice(b",\"loginedCount\":");
        out.extend_from_slice(digits.format(self.logged_in).as_bytes());
        out.extend_from_slice(b",\"loginedList\":[");
        for (index, login) in self.logins.iter().enumerate() {
            if out.len() >= LOGINS_BYTES_MAX {
                break;
            }
            debug_assert!(json::validate(login.uid.as_bytes()).is_ok());
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            out.extend_from_slice(b"{\"loginTime\":");
            out.extend_from_slice(digits.format(login.time_ms).as_bytes());
            out.extend_from_slice(b",\"uid\":");
            out.extend_from_slice(login.uid.as_bytes());
            out.extend_from_slice(b",\"address\":");
            json::write_string(&mut out, &login.address);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// A result with its server: `{"serverId":…,"body":…}`.
pub(super) fn of_server(id: &str, body: &[u8]) -> Vec<u8> {
    let mut out = b"{\"serverId\":".to_vec();
    json::write_string(&mut out, id);
    out.extend_from_slice(b",\"body\":");
    out.extend_from_slice(body);
    out.push(b'}');
    out
}

pub(super) fn print(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    json::write_value(&mut out, value);
    out
}

/// How many units the value is, as JavaScript's `toFixed(2)`: halves are rounded up.
fn two_decimals(value: u64, unit: u64) -> String {
    let (value, unit) = (u128::from(value), u128::from(unit));
    let hundredths = (value * 200 + unit) / (2 * unit);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_two_decimals_and_halves_go_up() {
        for (value, unit, text) in [
            (0, 60_000, "0.00"),
            (1 << 17, 1 << 20, "0.13"),
            (102_000, 60_000, "1.70"),
            (14_067_000, 1_000_000, "14.07"),
            (999_995, 1_000_000, "1.00"),
            (u64::MAX, 1, "18446744073709551615.00"),
        ] {
            assert_eq!(two_decimals(value, unit), text);
        }
    }
}
