//! Root, where it can be had without asking: namespaces and daemons need it, building does not.
//!
//! `become_root` starts us again under `sudo`; cargo then still runs as the user who called, so that nothing in
//! `target` belongs to root, and only the test programs run as root, through cargo's runner.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Says to the second of us who the first was.
const USER: &str = "AMBASSADOR_XTASK_USER";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts this command again as root, where `sudo` allows that without a password. Comes back where it does not.
pub(crate) fn become_root() -> Result<()> {
    if is_root() || !sudo_is_free() {
        return Ok(());
    }
    let user = rustix::process::getuid().as_raw();
    let program = std::env::current_exe().context("cannot find ourselves")?;
    let error = sudo()
        .arg("env")
        .arg(with("PATH"))
        .arg(with("HOME"))
        .arg(format!("{USER}={user}"))
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot run sudo")
}

/// A program run as the user who called us.
pub(crate) fn as_user(program: impl AsRef<OsStr>) -> Command {
    let Some(user) = std::env::var_os(USER).filter(|_| is_root()) else {
        return Command::new(program);
    };
    let mut command = sudo();
    command.arg("-u").arg(with_prefix("#", &user));
    command.args(["env".into(), with("PATH"), with("HOME")]).arg(program);
    command
}

/// Has cargo start test programs as root, where cargo itself is not run as root.
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

fn sudo_is_free() -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet(sudo().arg("true")).is_ok_and(|status| status.success())
}

fn with(variable: &str) -> std::ffi::OsString {
    with_prefix(&format!("{variable}="), &std::env::var_os(variable).unwrap_or_default())
}

fn with_prefix(prefix: &str, value: &OsStr) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(value);
    text
}
