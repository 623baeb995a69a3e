//! Runs programs, each in a process group of its own, so that an interrupt ends the whole group and waits for it.

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

/// The time that a program has to end after an interrupt; the tests remove their containers in it.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Builds a command from words: `command("ip link set lo up")`.
pub(crate) fn command(words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}

/// Returns a command for the cargo that started this program.
pub(crate) fn cargo(words: &str) -> Command {
    let mut cargo = crate::sudo::as_user(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words.split_whitespace());
    cargo
}

/// Runs a command with inherited output; fails if its exit status is not 0.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    match status(command)? {
        status if status.success() => Ok(()),
        status => bail!("`{}`: {status}", display(command)),
    }
}

/// Runs a command with inherited output and returns its exit status.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    interrupt::check()?;
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", display(command)))?;
    wait(&mut child)
}

/// Runs a command and returns its standard output; the error contains its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    output_with(command, Vec::new())
}

/// Does the same with `input` on its standard input.
pub(crate) fn output_with(command: &mut Command, input: Vec<u8>) -> Result<String> {
    interrupt::check()?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", display(command)))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program may exit without reading all of its input; its exit status decides.
    let writer = thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output()?;
    writer.join().ok();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", display(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Waits for the process to end; passes an interrupt on to its whole group.
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
    let interrupted_at = Instant::now();
    while child.try_wait()?.is_none() {
        if interrupted_at.elapsed() > GRACE {
            kill_process_group(group, Signal::KILL).ok();
            child.wait()?;
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Polls `condition` until it returns true, or returns `false` after `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> Result<bool> {
    let started = Instant::now();
    while !condition() {
        interrupt::check()?;
        if started.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Finds a program in `PATH` and in the directories of daemons, which a user's `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&path).chain(more).chain(postgresqls());
    dirs.map(|dir| dir.join(program)).find(|file| executable(file))
}

/// Returns the directories of PostgreSQL: Debian has one per version.
fn postgresqls() -> impl Iterator<Item = PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin"))
}

fn executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Formats a command as it would be typed.
fn display(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        write!(text, " {}", arg.to_string_lossy()).ok();
    }
    text
}
