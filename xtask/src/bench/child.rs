//! Processes that the benchmark starts: none of them outlives it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::command;

/// A process that ends when this is dropped, with all of its group.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::null()))
    }

    /// With an input to write to.
    pub(super) fn start_piped(command: &mut Command) -> Result<Process> {
        Process::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Result<Process> {
        // An interrupt is for us alone.
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

/// A program that the kernel kills when we are.
pub(super) fn tied(program: &Path) -> Command {
    let mut command = command("setpriv --pdeathsig KILL");
    command.arg(program);
    command
}
