//! The program itself, as a process of this machine or of a host's network.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Namespace, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ambassador");
/// A debug build beside many others on two cores.
const START: Duration = Duration::from_secs(30);

/// Killed when dropped.
pub(crate) struct Ambassador {
    process: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

/// What to start it with. It inherits no variable of the test's.
#[derive(Default)]
pub(crate) struct Builder {
    args: Vec<String>,
    vars: Vec<(String, String)>,
    namespace: Option<Namespace>,
}

impl Ambassador {
    /// Arguments as one would type them, without quotes.
    pub(crate) fn with(args: &str) -> Builder {
        Builder { args: args.split_whitespace().map(str::to_owned).collect(), ..Builder::default() }
    }

    /// All it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("a reader that lives").clone()
    }

    /// All it has logged, once it has ended.
    pub(crate) fn log_to_its_end(&mut self) -> String {
        for reader in self.readers.drain(..) {
            reader.join().ok();
        }
        self.log()
    }

    /// Where its admin API listens.
    pub(crate) fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// One of its own verbs, spoken to it: `status --json`.
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

    /// Waits for its end.
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

    /// In the network of a Docker host.
    pub(crate) fn inside(mut self, namespace: &Namespace) -> Builder {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Ambassador {
        let mut ambassador = self.spawn();
        ambassador.wait_until_ready();
        ambassador
    }

    /// Starts it, and does not wait: it may be about to refuse.
    pub(crate) fn spawn(self) -> Ambassador {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = self.command();
        command.env_clear().env("AMBASSADOR_ADMIN", format!("unix:{}/admin.sock", dir.path().display()));
        command.envs(self.vars).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program");
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![collect(process.stdout.take(), &log), collect(process.stderr.take(), &log)];
        Ambassador { process, log, readers, dir }
    }

    fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(PROGRAM),
            Some(namespace) => {
                let mut nsenter = Command::new("/usr/bin/nsenter");
                nsenter.arg(format!("--net={}", namespace.path().display())).arg(PROGRAM);
                nsenter
            }
        };
        command.args(&self.args);
        command
    }
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Line by line, until its end.
fn collect(stream: Option<impl Read + Send + 'static>, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let lines = stream.into_iter().flat_map(|stream| BufReader::new(stream).lines());
        for line in lines.map_while(Result::ok) {
            let mut log = log.lock().expect("a test that has not failed");
            log.push_str(&line);
            log.push('\n');
        }
    })
}
