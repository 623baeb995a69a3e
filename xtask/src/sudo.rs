//! Root privileges, if available without a password: namespaces and daemons need them, building does not.
//!
//! `become_root` restarts this program under `sudo`; cargo still runs as the calling user, so that no file in `target`
//! belongs to root. Only the test programs run as root, through cargo's runner.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The environment variable by which the restarted program learns the calling user.
const USER: &str = "AMBASSADOR_XTASK_USER";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Restarts this program as root if `sudo` allows that without a password; returns otherwise.
pub(crate) fn become_root() -> Result<()> {
    if is_root() || !sudo_needs_no_password() {
        return Ok(());
    }
    let user = rustix::process::getuid().as_raw();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let error = sudo()
        .arg("env")
        .arg(assignment("PATH"))
        .arg(assignment("HOME"))
        .arg(format!("{USER}={user}"))
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot run sudo")
}

/// Returns a command that runs as the calling user.
pub(crate) fn as_user(program: impl AsRef<OsStr>) -> Command {
    let Some(user) = std::env::var_os(USER).filter(|_| is_root()) else {
        return Command::new(program);
    };
    let mut command = sudo();
    command.arg("-u").arg(with_prefix("#", &user));
    command.args(["env".into(), assignment("PATH"), assignment("HOME")]).arg(program);
    command
}

/// Configures cargo to start test programs as root if cargo itself does not run as root.
pub(crate) fn run_tests_as_root(cargo: &mut Command) {
    if std::env::var_os(USER).is_some() && is_root() {
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n -E");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n -E");
    }
}

fn sudo() -> Command {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "-E"]);
    sudo
}

fn sudo_needs_no_password() -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet(sudo().arg("true")).is_ok_and(|status| status.success())
}

fn assignment(variable: &str) -> std::ffi::OsString {
    with_prefix(&format!("{variable}="), &std::env::var_os(variable).unwrap_or_default())
}

fn with_prefix(prefix: &str, value: &OsStr) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(value);
    text
}
