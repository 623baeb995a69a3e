//! The program as a process of this machine or in the network of a Docker host.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Namespace, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ambassador");
/// Generous for a debug build beside many others on two cores.
const START: Duration = Duration::from_secs(30);

/// A running ambassador; killed when dropped.
pub(crate) struct Ambassador {
    process: Child,
    log: Arc<Mutex<String>>,
    dir: tempfile::TempDir,
}

/// The settings of an ambassador. It inherits no environment variables of the test.
#[derive(Default)]
pub(crate) struct Builder {
    args: Vec<String>,
    vars: Vec<(String, String)>,
    namespace: Option<Namespace>,
    files: Option<u64>,
    resolv_conf: Option<PathBuf>,
    hostname: Option<String>,
    /// The program; the one of this build by default.
    program: Option<String>,
}

impl Ambassador {
    /// Returns a builder with these arguments, separated by spaces, without quotes.
    pub(crate) fn with(args: &str) -> Builder {
        Builder { args: args.split_whitespace().map(str::to_owned).collect(), ..Builder::default() }
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("a reader that lives").clone()
    }

    /// Returns the first address of a route from `status`.
    pub(crate) fn addr(&self, route: &str) -> std::net::SocketAddr {
        let status: serde_json::Value = serde_json::from_slice(&self.verb("status --json").stdout).unwrap();
        let routes = status["routes"].as_array().unwrap();
        let route = routes.iter().find(|r| r["name"] == route).expect("a route of this name");
        let addr: std::net::SocketAddr = route["addresses"][0].as_str().unwrap().parse().unwrap();
        // A wildcard listener is reachable on loopback.
        if addr.ip().is_unspecified() { ([127, 0, 0, 1], addr.port()).into() } else { addr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the anonymous memory of the process in bytes (`Pss_Anon` of `/proc/PID/smaps_rollup`,
    /// proc_pid_smaps(5)).
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = std::fs::read_to_string(path).expect("a process that lives");
        let line = text.lines().find(|line| line.starts_with("Pss_Anon:")).expect("a line for it");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kilobytes") * 1024
    }

    /// Returns the CPU time of all threads: `/proc/PID/task/*/schedstat` has a resolution of nanoseconds.
    pub(crate) fn cpu(&self) -> Duration {
        let dir =
            std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("a process that lives");
        let texts =
            dir.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
        let spent = |text: String| text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        Duration::from_nanos(texts.filter_map(spent).sum())
    }

    /// Returns the number of open descriptors by kind: `socket`, `pipe`, `anon_inode`.
    pub(crate) fn descriptors(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("a process that lives");
        for link in dir.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
            let link = link.to_string_lossy();
            let kind =
                if link.starts_with('/') { "file" } else { link.split(':').next().unwrap_or_default() };
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Returns the path of its admin socket.
    pub(crate) fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Runs a command such as `status --json` on this ambassador.
    pub(crate) fn verb(&self, words: &str) -> std::process::Output {
        let mut command = Command::new(PROGRAM);
        command
            .args(words.split_whitespace())
            .env("AMBASSADOR_ADMIN", format!("unix:{}", self.admin().display()));
        command.output().expect("the program")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a process that lives");
    }

    /// Waits for the process to end.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let log = Arc::clone(&self.log);
        within(limit, "the program's end", || match self.process.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(log.lock().expect("a reader that lives").clone()),
            Err(why) => Err(why.to_string()),
        })
    }

    fn wait_until_ready(&mut self) {
        within(START, "ready", || {
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("it ended at once, {status}:\n{}", self.log());
            }
            let health = self.verb("health");
            if health.status.success() { Ok(()) } else { Err(self.log()) }
        });
    }
}

impl Builder {
    pub(crate) fn var(mut self, name: &str, value: &str) -> Builder {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the number of open files.
    pub(crate) fn limited_to(mut self, files: u64) -> Builder {
        self.files = Some(files);
        self
    }

    /// Runs it in the network of a Docker host.
    pub(crate) fn inside(mut self, namespace: &Namespace) -> Builder {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Uses this file as its `/etc/resolv.conf`, which needs root.
    pub(crate) fn resolving_by(mut self, resolv_conf: &Path) -> Builder {
        self.resolv_conf = Some(resolv_conf.to_owned());
        self
    }

    /// Sets its host name, which needs root.
    pub(crate) fn on_host(mut self, hostname: &str) -> Builder {
        self.hostname = Some(hostname.to_owned());
        self
    }

    /// Uses another build.
    pub(crate) fn of(mut self, program: String) -> Builder {
        self.program = Some(program);
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Ambassador {
        let mut ambassador = self.spawn();
        ambassador.wait_until_ready();
        ambassador
    }

    /// Starts it and waits until its admin API replies: its sources may not be ready yet.
    pub(crate) fn start_unready(self) -> Ambassador {
        let ambassador = self.spawn();
        within(START, "an answer", || match ambassador.verb("health").status.code() {
            Some(0 | 1) => Ok(()),
            _ => Err(ambassador.log()),
        });
        ambassador
    }

    /// Starts it without waiting: it may be expected to fail.
    pub(crate) fn spawn(self) -> Ambassador {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = self.command();
        command.env_clear().env("AMBASSADOR_ADMIN", format!("unix:{}/admin.sock", dir.path().display()));
        command.envs(self.vars).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program");
        let log = Arc::new(Mutex::new(String::new()));
        collect(process.stdout.take(), &log);
        collect(process.stderr.take(), &log);
        Ambassador { process, log, dir }
    }

    fn command(&self) -> Command {
        let program = self.program.as_deref().unwrap_or(PROGRAM);
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut nsenter = Command::new("/usr/bin/nsenter");
                nsenter.arg(format!("--net={}", namespace.path().display())).arg(program);
                nsenter
            }
        };
        command.args(&self.args);
        // prlimit(1) and unshare(1) belong to util-linux, which is always installed on Debian.
        if let Some(files) = self.files {
            let limit = format!("--nofile={files}:{files}");
            command = wrapped(Command::new("/usr/bin/prlimit").arg(limit), &command);
        }
        if let Some(resolv_conf) = &self.resolv_conf {
            let mount = "/bin/mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
            let mut unshare = Command::new("/usr/bin/unshare");
            command = wrapped(unshare.args(["--mount", "/bin/sh", "-c", mount]).arg(resolv_conf), &command);
        }
        if let Some(hostname) = &self.hostname {
            let rename = "echo \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"";
            let mut unshare = Command::new("/usr/bin/unshare");
            command = wrapped(unshare.args(["--uts", "/bin/sh", "-c", rename]).arg(hostname), &command);
        }
        command
    }
}

/// Returns a command that runs `command` through a wrapper program.
fn wrapped(by: &Command, command: &Command) -> Command {
    let mut wrapped = Command::new(by.get_program());
    wrapped.args(by.get_args()).arg(command.get_program()).args(command.get_args());
    wrapped
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Collects lines until the end of the stream.
fn collect(stream: Option<impl Read + Send + 'static>, log: &Arc<Mutex<String>>) {
    let Some(stream) = stream else { return };
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("a test that has not failed");
            log.push_str(&line);
            log.push('\n');
        }
    });
}
