//! What this process uses, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// Use of memory, processor and descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Processor time of all threads, user and system.
    pub processor_time: Duration,
    /// Open descriptors.
    pub open_files: u64,
}

/// Asks the kernel; what it does not say is 0.
#[must_use]
pub fn usage() -> Usage {
    Usage { resident_bytes: resident_bytes(), processor_time: processor_time(), open_files: open_files() }
}

/// Time that the hypervisor gave to others while this machine had work, over all its cores; `None` where the kernel does not
/// say. A utilization measured while others had the core is too high by it.
#[must_use]
pub fn stolen_time() -> Option<Duration> {
    // proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, in units that are 1/100 s to programs everywhere.
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let hundredths: u64 = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()?;
    Some(Duration::from_millis(hundredths * 10))
}

fn resident_bytes() -> u64 {
    // In kB here; statm counts pages, whose size would have to be asked for.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is ours to fill in. The clock exists on every Linux; should it not, the time stays 0.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn open_files() -> u64 {
    // The directory's own descriptor is among those listed.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 100_000 && usage.open_files >= 3, "{usage:?}");
        assert!(usage.processor_time > Duration::ZERO);
        assert!(stolen_time().is_some());
    }
}
