//! The processes of the benchmark: all of them end with it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::command;

/// A process that is killed with its whole group when this value is dropped.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::null()))
    }

    /// Starts a process with a piped standard input.
    pub(super) fn start_piped(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Result<Process> {
        // An interrupt goes to the benchmark alone.
        let child = command.process_group(0).spawn();
        Ok(Process(child.with_context(|| format!("cannot run {command:?}"))?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.0), Signal::KILL).ok();
        self.0.wait().ok();
    }
}

/// Returns a command whose process the kernel kills when the benchmark ends.
pub(super) fn killed_with_parent(program: &Path) -> Command {
    let mut command = command("setpriv --pdeathsig KILL");
    command.arg(program);
    command
}
