//! What a package installs beside the program: completions and man pages, made from the command line's own definition.

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

/// One page for the program and one for each verb into a directory; or the program's own to standard output.
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

/// The command line, with a synopsis that shows the value of each option: clap_mangen's own leaves it out.
fn described() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    with_synopsis(command)
}

fn with_synopsis(command: Command) -> Command {
    let name = command.get_bin_name().unwrap_or(NAME);
    let mut words = vec![name.to_owned()];
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| arg.is_positional());
    words.extend(options.into_iter().map(|option| format!("[{option}]")));
    words.extend(positionals.into_iter().map(ToString::to_string));
    if command.has_subcommands() {
        words.push("[COMMAND]".to_owned());
    }
    command.override_usage(words.join(" ")).mut_subcommands(with_synopsis)
}
