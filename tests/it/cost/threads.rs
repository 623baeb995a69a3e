//! The threads of a process, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::pause;

/// The interval of reads.
const POLL: Duration = Duration::from_millis(1);
/// For a traced process beside many other tests on two cores.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until all threads of this process sleep, so that no work is pending. Returns the number of open descriptors.
pub(crate) fn at_rest(pid: u32) -> usize {
    wait(pid, |_| true)
}

/// Waits until all threads sleep with this many open descriptors.
pub(crate) fn settled(pid: u32, descriptors: usize) {
    wait(pid, |open| open == descriptors);
}

fn wait(pid: u32, condition: impl Fn(usize) -> bool) -> usize {
    let started = Instant::now();
    loop {
        let (open, asleep) = (open(pid), all_asleep(pid));
        if asleep && condition(open) {
            return open;
        }
        assert!(started.elapsed() < TIMEOUT, "never settled: {open} descriptors, {:?}", each(pid, "stat"));
        pause(POLL);
    }
}

/// No thread was switched to during the reads: otherwise one might have woken in the meantime.
fn all_asleep(pid: u32) -> bool {
    let before = switches(pid);
    each(pid, "stat").iter().all(|(_, stat)| is_asleep(stat)) && switches(pid) == before
}

/// Returns the number of open descriptors.
fn open(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that lives").count()
}

/// Returns the number of context switches of each thread, by id and name.
pub(crate) fn switches(pid: u32) -> BTreeMap<String, u64> {
    let count = |(thread, status): (String, String)| {
        let lines = status.lines().filter_map(|line| line.split_once(":\t"));
        let name = lines.clone().find(|(key, _)| *key == "Name").map_or("", |(_, name)| name);
        let switches = lines.filter(|(key, _)| key.ends_with("_ctxt_switches"));
        let sum = switches.map(|(_, count)| count.parse::<u64>().expect("a number")).sum();
        (format!("{thread} {name}"), sum)
    };
    each(pid, "status").into_iter().map(count).collect()
}

/// Returns the threads that wait with a timeout, each with its call.
pub(crate) fn timers(pid: u32) -> Vec<String> {
    let calls = each(pid, "syscall").into_iter();
    calls
        .filter(|(_, call)| !waits_indefinitely(call))
        .map(|(thread, call)| format!("{thread}: {call}"))
        .collect()
}

/// Waits until the log's thread waits without a timeout.
pub(crate) fn log_is_quiet(pid: u32) {
    let names = each(pid, "comm");
    let (log, _) = names.iter().find(|(_, name)| name == "log\n").expect("a thread for the log");
    let started = Instant::now();
    while let Some(timer) = timers(pid).into_iter().find(|timer| timer.starts_with(log)) {
        assert!(started.elapsed() < TIMEOUT, "the log never slept: {timer}");
        pause(POLL);
    }
}

/// Parses the number of a call and its arguments (proc(5)). Both calls have their timeout as the fourth argument: -1
/// milliseconds, or no `timespec`.
fn waits_indefinitely(call: &str) -> bool {
    let (epoll, futex) = if cfg!(target_arch = "x86_64") { ("232", "202") } else { ("22", "98") };
    let words: Vec<&str> = call.split(' ').collect();
    match words.as_slice() {
        [number, _, _, _, timeout, ..] if *number == epoll => timeout.ends_with("ffffffff"),
        [number, _, _, _, timeout, ..] if *number == futex => *timeout == "0x0",
        _ => false,
    }
}

/// The state follows the name, which is in parentheses and may contain parentheses itself.
fn is_asleep(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Reads a file of each live thread, by thread id.
fn each(pid: u32, file: &str) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that lives");
    let read = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join(file)).ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), text))
    };
    threads.flatten().filter_map(read).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn timer_is_recognised_by_the_waiting_call() {
    for (call, for_ever) in [
        ("232 0x3 0x5565 0x400 0xffffffff 0x0 0x0 0x7ffd 0x7f30", true),
        ("232 0x3 0x5565 0x400 0x39b 0x0 0x0 0x7ffd 0x7f30", false),
        ("202 0x5565 0x89 0xffffffff 0x0 0x0 0xffffffff 0x7ffd 0x7f30", true),
        ("202 0x5565 0x89 0xffffffff 0x7f50 0x0 0xffffffff 0x7ffd 0x7f30", false),
        ("230 0x0 0x0 0x7f50 0x7f50 0x0 0x0 0x7ffd 0x7f30", false),
        ("running", false),
    ] {
        assert_eq!(waits_indefinitely(call), for_ever, "{call}");
    }
}
