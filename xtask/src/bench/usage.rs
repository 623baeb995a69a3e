//! CPU time and memory of all processes of a proxy, as the kernel counts them.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// A process in `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own time, in ticks.
    own: u64,
    /// The time of its children that it waited for.
    ended: u64,
}

/// Returns the CPU seconds of a process and its descendants, including those that have ended.
pub(super) fn cpu_seconds(root: u32) -> Result<f64> {
    let stats = stats()?;
    let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
    let seconds = |pid: &u32| {
        let Stat { own, ended, .. } = stats[pid];
        // Ticks are truncated: fifty processes of 9 ms each would count as 0. The time of threads that have ended is in
        // the ticks alone.
        scheduled_seconds(*pid).max(own as f64 * tick) + ended as f64 * tick
    };
    Ok(tree(root, &stats).iter().map(seconds).sum())
}

/// Returns the run time of the threads of a process in seconds, from nanoseconds; 0 if the kernel does not report it.
fn scheduled_seconds(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = |text: String| text.split(' ').next()?.parse::<u64>().ok();
    let ran =
        threads.filter_map(|thread| nanoseconds(fs::read_to_string(thread.path().join("schedstat")).ok()?));
    ran.sum::<u64>() as f64 / 1e9
}

/// Returns megabytes of anonymous memory, which the process itself has written. Pages of files are shared with other
/// processes and can be dropped by the kernel.
pub(super) fn memory_mb(root: u32) -> Result<f64> {
    let mut kilobytes = 0;
    for pid in tree(root, &stats()?) {
        // A process that has ended in the meantime has no memory.
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        kilobytes += anonymous_kilobytes(&rollup).unwrap_or(0);
    }
    Ok(kilobytes as f64 * 1024.0 / 1e6)
}

fn stats() -> Result<HashMap<u32, Stat>> {
    let entries = fs::read_dir("/proc").context("no /proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stat = |pid| Some((pid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?));
    Ok(pids.filter_map(stat).collect())
}

/// Returns the process and its descendants.
fn tree(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, stat) in stats {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut found: Vec<u32> = stats.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.get(pid).into_iter().flatten());
        next += 1;
    }
    found
}

/// Parses a line. The name in brackets may contain spaces and brackets, so fields are counted from behind it.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // utime, stime, cutime and cstime: fields 14 to 17 of proc_pid_stat(5); `fields` starts at the third.
    let (own, ended) = (number(11)? + number(12)?, number(13)? + number(14)?);
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, own, ended })
}

fn anonymous_kilobytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Stat, anonymous_kilobytes, parse_stat, tree};

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_move_the_fields() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3000 400 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, own: 120, ended: 3400 }));
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn tree_is_the_root_and_its_descendants() {
        let stat = |parent| Stat { parent, own: 1, ended: 0 };
        let stats = HashMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        let mut found = tree(5, &stats);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7]);
        assert!(tree(99, &stats).is_empty());
    }

    #[test]
    fn only_anonymous_pages_count() {
        let rollup = "00400000-7fff [rollup]\nRss:     900 kB\nPss:  500 kB\nPss_Anon:  321 kB\n";
        assert_eq!(anonymous_kilobytes(rollup), Some(321));
    }
}
