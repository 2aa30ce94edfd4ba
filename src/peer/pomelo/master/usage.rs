//! How much of its machine this process uses, for two pages of the admin console.

use serde_json::{Value, json};

use super::MasterConfig;

/// Use of the machine and of this process, both since their starts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MachineUsage {
    /// Local time, as a console shows it.
    pub time: String,
    /// Name of the machine.
    pub host: String,
    /// Shares of the time of all CPUs.
    pub cpu: CpuShares,
    /// The first disk.
    pub disk: DiskUsage,
    /// Mean number of busy threads in the last minute, 5 minutes and 15 minutes.
    pub load: [f32; 3],
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Memory that nothing uses.
    pub free_bytes: u64,
    /// This process.
    pub process: ProcessUsage,
}

/// Shares of the time of all CPUs, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CpuShares {
    /// Programs.
    pub user: f64,
    /// Programs that give way to others.
    pub nice: f64,
    /// Kernel.
    pub system: f64,
    /// Waiting for disks.
    pub iowait: f64,
    /// Other machines on the same hardware.
    pub steal: f64,
    /// Nothing.
    pub idle: f64,
}

/// Transfers of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DiskUsage {
    /// Reads and writes, each second.
    pub transfers_per_second: f64,
    /// Bytes read / 1024.
    pub read_kib: u64,
    /// Bytes written / 1024.
    pub written_kib: u64,
    /// The same, each second.
    pub read_kib_per_second: f64,
    /// The same, each second.
    pub written_kib_per_second: f64,
}

/// Use of the machine by one process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcessUsage {
    /// Time of its own code, in percent of one CPU.
    pub user: f64,
    /// Time of the kernel for it, in percent of one CPU.
    pub system: f64,
    /// Time of virtual machines that it runs, in percent of one CPU.
    pub guest: f64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Memory that is resident.
    pub resident_bytes: u64,
}

impl MachineUsage {
    /// Returns the body for `nodeInfo`. As the output of `ps` and `pidstat`, the figures are texts.
    pub(super) fn of_node(&self, config: &MasterConfig) -> Value {
        let process = &self.process;
        let percent = |share: f64| format!("{share:.1}");
        json!({
            "time": self.time,
            "serverId": config.id,
            "serverType": config.server_type,
            "pid": config.pid,
            "cpuAvg": percent(process.user + process.system),
            "memAvg": percent(share(process.resident_bytes, self.memory_bytes)),
            "vsz": (process.virtual_bytes / 1024).to_string(),
            "rss": (process.resident_bytes / 1024).to_string(),
            "usr": format!("{:.2}", process.user),
            "sys": format!("{:.2}", process.system),
            "gue": format!("{:.2}", process.guest),
        })
    }

    /// Returns the body for `systemInfo`. A master throws if a member is missing.
    pub(super) fn of_system(&self) -> Value {
        let (cpu, disk) = (&self.cpu, &self.disk);
        json!({
            "hostname": self.host,
            "loadavg": self.load.map(|load| two_decimals(load.into())),
            "totalmem": self.memory_bytes,
            "freemem": self.free_bytes,
            "iostat": {
                "date": self.time,
                "cpu": {
                    "cpu_user": two_decimals(cpu.user),
                    "cpu_nice": two_decimals(cpu.nice),
                    "cpu_system": two_decimals(cpu.system),
                    "cpu_iowait": two_decimals(cpu.iowait),
                    "cpu_steal": two_decimals(cpu.steal),
                    "cpu_idle": two_decimals(cpu.idle),
                },
                "disk": {
                    "tps": two_decimals(disk.transfers_per_second),
                    "kb_read": disk.read_kib,
                    "kb_wrtn": disk.written_kib,
                    "kb_read_per": two_decimals(disk.read_kib_per_second),
                    "kb_wrtn_per": two_decimals(disk.written_kib_per_second),
                },
            },
        })
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
