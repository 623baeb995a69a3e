//! The exit codes of all subcommands. Pure.

use std::process::ExitCode;

/// The program's exit codes (sysexits.h for 64 and 69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 64,
    Unavailable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
