//! `ambassador`: see the library for what it does.

use std::process::ExitCode;

use ambassador::cli;
use ambassador::config::vars::Vars;

fn main() -> ExitCode {
    let arguments = std::env::args_os().collect();
    cli::run(arguments, &Vars::from_process()).into()
}
