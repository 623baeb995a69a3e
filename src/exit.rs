//! The exit codes of all subcommands. Pure.

use std::process::ExitCode;

/// The program's exit codes (sysexits.h for 64 and 69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// Invalid arguments, configuration or request (`EX_USAGE`).
    Usage = 64,
    /// An address cannot be bound, or the running ambassador cannot be reached (`EX_UNAVAILABLE`).
    Unavailable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
