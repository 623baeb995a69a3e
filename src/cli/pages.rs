//! Shell completions and man pages, generated from the definition of the command line.

use std::io;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::{Cli, fail, out};
use crate::exit::Exit;

const NAME: &str = "ambassador";

pub(super) fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    out(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// Writes a page for the program and one for each command to a directory, or prints that of the program.
pub(super) fn man(dir: Option<&Path>) -> Exit {
    match dir {
        None => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(described()).render(&mut page) {
                Ok(()) => {
                    out(&String::from_utf8_lossy(&page));
                    Exit::Done
                }
                Err(error) => fail(&error.to_string()),
            }
        }
        Some(dir) => match write(dir) {
            Ok(()) => Exit::Done,
            Err(error) => fail(&format!("cannot write man pages into {}: {error}", dir.display())),
        },
    }
}

fn write(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(described(), dir)
}

/// Returns the command line with a synopsis that shows the value of each option, which clap_mangen omits.
fn described() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    with_synopsis(command)
}

fn with_synopsis(command: Command) -> Command {
    let name = command.get_bin_name().unwrap_or(NAME);
    let mut synopsis = vec![name.to_owned()];
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| arg.is_positional());
    synopsis.extend(options.into_iter().map(|option| format!("[{option}]")));
    synopsis.extend(positionals.into_iter().map(ToString::to_string));
    if command.has_subcommands() {
        synopsis.push("[COMMAND]".to_owned());
    }
    command.override_usage(synopsis.join(" ")).mut_subcommands(with_synopsis)
}
