//! The system calls of a process, by strace(1).

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::table::Counts;

/// A strace that is attached to all threads of a process.
pub(crate) struct Trace {
    strace: Child,
    log: tempfile::NamedTempFile,
    /// Kept open: without its standard error strace dies when it detaches, and its log is truncated.
    _stderr: BufReader<ChildStderr>,
}

/// The recorded calls.
pub(crate) struct CallLog {
    pub(crate) calls: Counts,
    log: String,
}

impl Trace {
    /// Records every call from now on; returns the reason if that is impossible.
    pub(crate) fn of(pid: u32) -> Result<Trace, String> {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(log.path());
        let strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = strace.map_err(|why| format!("strace: {why}"))?;
        let mut said = String::new();
        let mut stderr = BufReader::new(strace.stderr.take().expect("a pipe"));
        stderr.read_line(&mut said).expect("a line");
        let trace = Trace { strace, log, _stderr: stderr };
        if said.contains(" attached") { Ok(trace) } else { Err(said.trim().to_owned()) }
    }

    /// Detaches from the process.
    pub(crate) fn end(mut self) -> CallLog {
        kill_process(Pid::from_child(&self.strace), Signal::INT).expect("a strace that lives");
        self.strace.wait().expect("its end");
        let log = std::fs::read_to_string(self.log.path()).expect("its log");
        let mut calls = Counts::new();
        for call in log.lines().filter_map(name) {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
        CallLog { calls, log }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.strace.kill().ok();
        self.strace.wait().ok();
    }
}

impl CallLog {
    /// Returns the last lines.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Returns `recvfrom` for `4242 recvfrom(11, ..`; `None` for the rest of a resumed call, a signal or an exit.
fn name(line: &str) -> Option<&str> {
    let (_thread, call) = line.split_once(' ')?;
    let (name, _) = call.trim_start().split_once('(')?;
    match name {
        // The name of epoll_wait(2) on newer architectures.
        "epoll_pwait" => Some("epoll_wait"),
        name => name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name),
    }
}

#[test]
fn resumed_call_is_counted_once() {
    for (line, expected) in [
        ("42 recvfrom(11, \"x\", 65536, 0, NULL, NULL) = 1", Some("recvfrom")),
        ("42 epoll_wait(5,  <unfinished ...>", Some("epoll_wait")),
        ("42 epoll_pwait(5, [], 1024, -1, NULL, 8) = 1", Some("epoll_wait")),
        ("42 <... epoll_wait resumed>[], 1024, -1) = 0", None),
        ("42 --- SIGCHLD {si_signo=SIGCHLD} ---", None),
        ("42 +++ exited with 0 +++", None),
    ] {
        assert_eq!(name(line), expected, "{line}");
    }
}
