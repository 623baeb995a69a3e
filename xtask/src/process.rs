//! Runs programs: each in a process group of its own, so that an interrupt ends all of it and waits for it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;

/// How long a program may take to end by itself after an interrupt; the tests remove their containers in it.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A command from words: `command("ip link set lo up")`.
pub(crate) fn command(words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}

/// The cargo that started us.
pub(crate) fn cargo(words: &str) -> Command {
    let mut cargo = crate::sudo::as_user(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words.split_whitespace());
    cargo
}

/// Runs it with our own output, and fails where it fails.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    match status(command)? {
        status if status.success() => Ok(()),
        status => bail!("`{}`: {status}", written(command)),
    }
}

/// Runs it with our own output.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    interrupt::check()?;
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", written(command)))?;
    wait(&mut child)
}

/// Runs it and gives what it printed; what it complained about is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    output_with(command, Vec::new())
}

/// The same, with something to read on its standard input.
pub(crate) fn output_with(command: &mut Command, input: Vec<u8>) -> Result<String> {
    interrupt::check()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", written(command)))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program that does not read it all is no mistake of ours: its exit status says.
    let feeder = thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output()?;
    feeder.join().ok();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", written(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Waits for its end; an interrupt is passed on to its whole group.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt::interrupted() {
            end_group(child)?;
            bail!("interrupted");
        }
        thread::sleep(POLL);
    }
}

fn end_group(child: &mut Child) -> Result<()> {
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::INT).ok();
    let asked = Instant::now();
    while child.try_wait()?.is_none() {
        if asked.elapsed() > GRACE {
            kill_process_group(group, Signal::KILL).ok();
            child.wait()?;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Asks again until it is so, or the time is up.
pub(crate) fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<bool> {
    let started = Instant::now();
    while !is_so() {
        interrupt::check()?;
        if started.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Where a program is. Daemons live in directories that a user's PATH may not name.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&path).chain(more).chain(postgresqls());
    dirs.map(|dir| dir.join(program)).find(|file| executable(file))
}

/// Debian gives each version of PostgreSQL a directory of its own.
fn postgresqls() -> impl Iterator<Item = PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

fn executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// As one would type it.
fn written(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        write!(text, " {}", arg.to_string_lossy()).ok();
    }
    text
}
