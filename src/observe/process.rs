//! The `process_*` metrics that every Prometheus client has, read from the kernel.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::exposition::{Exposition, Kind};

/// Writes the metrics. Omits those that require `/proc` if it is not mounted.
pub(super) fn write(to: &mut Exposition, started: SystemTime) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::try_from(cpu).unwrap_or_default().as_secs_f64();
    to.single("process_cpu_seconds_total", Kind::Counter, "CPU time, user and system, in seconds.", cpu);
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the process started, in seconds since 1970.";
    to.single("process_start_time_seconds", Kind::Gauge, help, started);
    if let Some(max) = getrlimit(Resource::Nofile).current {
        to.single("process_max_fds", Kind::Gauge, "File descriptors that may be open.", max);
    }
    if let Some(open) = open_descriptors() {
        to.single("process_open_fds", Kind::Gauge, "File descriptors that are open.", open);
    }
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    if let Some(kilobytes) = field(&status, "VmRSS:") {
        let help = "Resident memory, in bytes.";
        to.single("process_resident_memory_bytes", Kind::Gauge, help, kilobytes * 1024);
    }
    if let Some(kilobytes) = field(&status, "VmSize:") {
        let help = "Virtual memory, in bytes.";
        to.single("process_virtual_memory_bytes", Kind::Gauge, help, kilobytes * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        to.single("process_threads", Kind::Gauge, "Threads.", threads);
    }
}

/// Returns the number of open descriptors: the size of the directory since Linux 6.2 (proc(5)), and else the number of entries.
fn open_descriptors() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // The directory itself is open while it is read.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_process_has_a_plausible_value() {
        let mut to = Exposition::default();
        write(&mut to, SystemTime::now());
        let text = to.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
    }
}
