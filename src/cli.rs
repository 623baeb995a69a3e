//! The command line: what is typed, what is printed, and with which code the program ends.

mod ask;
mod commands;
mod no_routes;
mod pages;
mod register;
mod serve;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::args::RunArgs;
use crate::config::legacy_args::translate;
use crate::config::suggest::suggest;
use crate::config::vars::Vars;
use crate::diagnostic::{Diagnostic, Place};
use crate::escape::escaped_lines;
use crate::exit::Exit;
use crate::register::args::RegisterArgs;
use ask::{Ask, At};
use commands::OrderVerb;
use watch::{EventsArgs, SessionsArgs};

/// A stable place to connect to, for a service that moves.
#[derive(Debug, Parser)]
#[command(
    name = "ambassador",
    version,
    args_conflicts_with_subcommands = true,
    after_help = crate::config::args::EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the routes that would run, or every mistake at once
    Check {
        #[command(flatten)]
        run: Box<RunArgs>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the main job with nothing else installed: a service moves, and its consumer never notices
    ///
    /// Repeats until Ctrl-C. Where the output is not a terminal, it ends after one round, as with `--once`.
    Demo {
        /// End after one round; exit 1 if a request failed
        #[arg(long)]
        once: bool,
    },
    /// Say whether the running ambassador is ready: exit 0, or 1 and why not
    Health {
        #[command(flatten)]
        at: At,
    },
    /// Tell etcd or Consul where this host's containers are, for as long as they and this process live
    Register {
        #[command(flatten)]
        args: RegisterArgs,
    },
    /// Show the routes of the running ambassador, their endpoints and sessions
    Status {
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the sessions of the running ambassador: who, where to, since when, how many bytes
    Sessions(SessionsArgs),
    /// Show what the running ambassador did and learned: endpoints, routes, sources, orders
    Events(EventsArgs),
    #[command(flatten)]
    Command(OrderVerb),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the man page, or write it and one for each verb into a directory
    Man {
        /// Where to write them: ambassador.1, ambassador-status.1, ...
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Reads the command line and does what it says.
pub fn run(arguments: Vec<OsString>, vars: &Vars) -> Exit {
    let words = translate(arguments);
    match Cli::try_parse_from(&words) {
        Ok(cli) => dispatch(cli, vars),
        Err(error) if error.use_stderr() && wants_json(&words, vars) => {
            serve::json_usage(&[Diagnostic::new(Place::Built, error.to_string())], vars)
        }
        Err(error) => {
            match unknown_command(&error, &words) {
                Some(why) => err(&why),
                // Nobody to tell when the terminal is gone.
                None => drop(error.print()),
            }
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

/// For a command that does not exist: the nearest one of that place, or all.
fn unknown_command(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let root = Cli::command();
    let mut command = &root;
    for word in words.iter().skip(1).take_while(|word| word.to_str() != Some(unknown)) {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    Some(format!(
        "error: no command `{unknown}`: {}\n  `ambassador help` lists all",
        suggest(unknown, &known)
    ))
}

/// Whether a command line that cannot be read was to start an ambassador whose log is JSON.
fn wants_json(words: &[OsString], vars: &Vars) -> bool {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    if words.get(1).is_some_and(|verb| Cli::command().find_subcommand(verb).is_some()) {
        return false;
    }
    let joined = words.iter().find_map(|word| word.strip_prefix("--log-format="));
    let apart = words.windows(2).find_map(|pair| match pair {
        ["--log-format", value] => Some(*value),
        _ => None,
    });
    joined.or(apart).or(vars.value("AMBASSADOR_LOG_FORMAT")) == Some("json")
}

fn dispatch(cli: Cli, vars: &Vars) -> Exit {
    match cli.verb {
        None => serve::serve(&cli.run, vars),
        Some(Verb::Check { run, json }) => serve::check(&run, json, vars),
        Some(Verb::Demo { once }) => crate::demo::run(once, vars),
        Some(Verb::Register { args }) => register::register(&args, vars),
        Some(Verb::Health { at }) => ask::health(&at, vars),
        Some(Verb::Status { ask }) => ask::status(&ask, vars),
        Some(Verb::Sessions(sessions)) => watch::sessions(&sessions, vars),
        Some(Verb::Events(events)) => watch::events(&events, vars),
        Some(Verb::Command(command)) => commands::send(&command, vars),
        Some(Verb::Completions { shell }) => pages::completions(shell),
        Some(Verb::Man { out }) => pages::man(out.as_deref()),
    }
}

fn fail(why: &str) -> Exit {
    err(why);
    Exit::Failed
}

fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(as_process_1(future)))
}

/// Runs it, and does what the kernel expects of process 1 meanwhile.
async fn as_process_1<T>(future: impl Future<Output = T>) -> T {
    tokio::select! {
        value = future => value,
        never = crate::init::reap_orphans() => match never {},
    }
}

/// Standard output is for results. A reader that left is no failure of ours.
fn out(text: &str) {
    is_read(text);
}

/// The same, and whether somebody reads still.
fn is_read(text: &str) -> bool {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// Text for people that others may have written a part of. Not for JSON, which has escapes of its own.
fn out_words(text: &str) {
    out(&escaped_lines(text));
}

fn err(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", escaped_lines(text.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_is_suggested_for_a_mistyped_first_argument() {
        let cli = Cli::command();
        let mut names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(names, crate::config::COMMANDS);
    }
}
