//! A description of the machine from its kernel.

use std::collections::BTreeMap;
use std::fs;

/// Describes the machine and its load before the benchmark.
pub(super) fn describe() -> BTreeMap<String, String> {
    let first_value = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    BTreeMap::from(
        [
            ("cores", cores.to_string()),
            ("cpu", first_value("/proc/cpuinfo", "model name")),
            ("kernel", text("/proc/sys/kernel/osrelease")),
            ("load before", load().to_string()),
            ("memory", first_value("/proc/meminfo", "MemTotal")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Returns the load average of the last minute.
pub(super) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}
