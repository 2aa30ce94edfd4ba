//! Reads from the kernel how much of its machine this process uses.

use procfs::process::Process;
use procfs::{Current, CurrentSI, KernelStats, LoadAverage, Meminfo, ProcResult, Uptime};

use crate::net::clock;
use crate::peer::pomelo::master::{CpuShares, DiskUsage, MachineUsage, ProcessUsage};

const SECTOR_BYTES: u64 = 512;

/// Returns the resident memory of this process in bytes, or 0 if the kernel does not report it.
pub(super) fn resident_bytes() -> u64 {
    let read = || Process::myself()?.statm();
    let pages = read().map_or(0, |memory| memory.resident);
    pages * procfs::page_size()
}

/// Reads seven small files.
pub(super) fn usage() -> ProcResult<MachineUsage> {
    let (memory, load) = (Meminfo::current()?, LoadAverage::current()?);
    let since_start = Uptime::current()?.uptime;
    Ok(MachineUsage {
        time: clock::wall_clock()
            .strftime("%Y-%-m-%-d %-I:%M:%S %p")
            .to_string(),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        cpu: cpu()?,
        disk: disk(since_start)?,
        load: [load.one, load.five, load.fifteen],
        memory_bytes: memory.mem_total,
        free_bytes: memory.mem_free,
        process: process(since_start)?,
    })
}

fn cpu() -> ProcResult<CpuShares> {
    let all = KernelStats::current()?.total;
    let (iowait, steal) = (all.iowait.unwrap_or(0), all.steal.unwrap_or(0));
    let interrupts = all.irq.unwrap_or(0) + all.softirq.unwrap_or(0);
    let whole = all.user + all.nice + all.system + all.idle + iowait + steal + interrupts;
    let share = |ticks| percent(ticks, whole as f64);
    Ok(CpuShares {
        user: share(all.user),
        nice: share(all.nice),
        system: share(all.system + interrupts),
        iowait: share(iowait),
        steal: share(steal),
        idle: share(all.idle),
    })
}

/// Returns the first disk that has read or written something, as the console shows only one.
fn disk(since_start: f64) -> ProcResult<DiskUsage> {
    let disks = procfs::diskstats()?;
    let mut used = disks.iter().filter(|disk| disk.reads + disk.writes > 0);
    let Some(disk) = used.next() else {
        return Ok(DiskUsage::default());
    };
    let read_kib = disk.sectors_read * SECTOR_BYTES / 1024;
    let written_kib = disk.sectors_written * SECTOR_BYTES / 1024;
    Ok(DiskUsage {
        transfers_per_second: (disk.reads + disk.writes) as f64 / since_start,
        read_kib,
        written_kib,
        read_kib_per_second: read_kib as f64 / since_start,
        written_kib_per_second: written_kib as f64 / since_start,
    })
}

fn process(since_start: f64) -> ProcResult<ProcessUsage> {
    let stat = Process::myself()?.stat()?;
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let age = since_start * ticks_per_second - stat.starttime as f64;
    let share = |ticks| percent(ticks, age);
    Ok(ProcessUsage {
        user: share(stat.utime),
        system: share(stat.stime),
        guest: share(stat.guest_time.unwrap_or(0)),
        virtual_bytes: stat.vsize,
        resident_bytes: stat.rss * procfs::page_size(),
    })
}

fn percent(part: u64, whole: f64) -> f64 {
    part as f64 * 100.0 / whole.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_much_this_process_uses() {
        let usage = usage().unwrap();
        let CpuShares {
            user,
            nice,
            system,
            iowait,
            steal,
            idle,
        } = usage.cpu;
        let all = user + nice + system + iowait + steal + idle;
        assert!((99.9..100.1).contains(&all), "{usage:?}");
        let ProcessUsage {
            virtual_bytes,
            resident_bytes,
            ..
        } = usage.process;
        assert!(
            resident_bytes > 0 && resident_bytes < virtual_bytes,
            "{usage:?}"
        );
        assert!(usage.free_bytes < usage.memory_bytes, "{usage:?}");
        assert!(!usage.host.is_empty(), "{usage:?}");
    }
}
