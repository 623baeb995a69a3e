//! What a package installs beside the program: completions and man pages, made from the command line's own definition.

use std::io;
use std::path::Path;

use clap::CommandFactory;

use super::{Cli, Exit, fail, out};

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
            match clap_mangen::Man::new(Cli::command()).render(&mut page) {
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
    clap_mangen::generate_to(Cli::command(), dir)
}
