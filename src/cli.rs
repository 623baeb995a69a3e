//! The command line: subcommands, output and exit codes.

mod ca;
mod change;
mod commands;
mod dashboard;
mod no_routes;
mod pages;
mod peer;
mod peer_check;
mod progress;
mod register;
mod request;
mod serve;
mod top;
mod wait;
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
use ca::CaCommand;
use commands::CommandVerb;
use dashboard::DashboardArgs;
use peer::PeerCommand;
use request::{AdminArgs, RequestArgs};
use top::TopArgs;
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
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Issue and revoke the certificates of peers, as an alternative to a shared secret
    ///
    /// The CA is a directory. Keep it on one machine, and copy to the hosts only what these commands name.
    #[command(subcommand, after_help = ca::EXAMPLES)]
    Ca(CaCommand),
    /// Print the configured routes, or all mistakes in the configuration
    Check {
        #[command(flatten)]
        run: Box<RunArgs>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve a web page that shows and controls the running ambassador, and print its address
    ///
    /// The page is served on 127.0.0.1. The address contains a token that is valid until this command ends.
    Dashboard(DashboardArgs),
    /// Run a self-contained demonstration: a service moves without an interruption for its consumer
    ///
    /// Repeats until Ctrl-C. If the output is not a terminal, it ends after one round, as with `--once`.
    Demo {
        /// End after one round; exit 1 if a request failed
        #[arg(long)]
        once: bool,
    },
    /// Check whether the running ambassador is ready: exit 0, or 1 with the reason
    Health {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Create the shared secret of peers, or check the way to a peer
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Register this host's containers in etcd or Consul while they and this process run
    Register {
        #[command(flatten)]
        args: RegisterArgs,
    },
    /// Show the routes of the running ambassador, their endpoints and sessions
    Status {
        #[command(flatten)]
        args: RequestArgs,
    },
    /// Show the sessions of the running ambassador: client, endpoint, age and bytes
    Sessions(SessionsArgs),
    /// Show the events of the running ambassador: changes of endpoints, routes and sources, and commands
    Events(EventsArgs),
    /// Show the running ambassador in the terminal: routes sorted by urgency, with keys for the commands
    ///
    /// Needs a terminal of at least 60x16. With `--once`, prints a snapshot instead.
    Top(TopArgs),
    #[command(flatten)]
    Control(CommandVerb),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the man page, or write it and one for each command into a directory
    Man {
        /// Directory for the pages: ambassador.1, ambassador-status.1, ...
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Parses the command line and runs the command.
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
                // An error of standard error cannot be reported.
                None => drop(error.print()),
            }
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

/// Explains an unknown subcommand by the nearest one, or by a list.
fn unknown_command(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let root = Cli::command();
    let mut command = &root;
    for word in words.iter().skip(1).take_while(|word| word.to_str() != Some(unknown)) {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    Some(format!(
        "error: unknown command `{unknown}`: {}\n  `ambassador help` lists all",
        suggest(unknown, &known)
    ))
}

/// Returns whether an invalid command line selects JSON as the format of the log of an ambassador.
fn wants_json(words: &[OsString], vars: &Vars) -> bool {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    if words.get(1).is_some_and(|command| Cli::command().find_subcommand(command).is_some()) {
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
    match cli.command {
        None => serve::serve(&cli.run, vars),
        Some(Command::Ca(command)) => ca::run(&command),
        Some(Command::Check { run, json }) => serve::check(&run, json, vars),
        Some(Command::Dashboard(args)) => dashboard::run(&args, vars),
        Some(Command::Demo { once }) => crate::demo::run(once, vars),
        Some(Command::Peer(command)) => peer::run(&command, vars),
        Some(Command::Register { args }) => register::register(&args, vars),
        Some(Command::Health { admin }) => request::health(&admin, vars),
        Some(Command::Status { args }) => request::status(&args, vars),
        Some(Command::Sessions(sessions)) => watch::sessions(&sessions, vars),
        Some(Command::Events(events)) => watch::events(&events, vars),
        Some(Command::Top(args)) => top::run(&args, vars),
        Some(Command::Control(command)) => commands::send(&command, vars),
        Some(Command::Completions { shell }) => pages::completions(shell),
        Some(Command::Man { out }) => pages::man(out.as_deref()),
    }
}

/// Prints an error.
fn fail(why: &str) -> Exit {
    err(why);
    Exit::Failed
}

fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(as_process_1(future)))
}

/// Runs a future and, as process 1, reaps orphans meanwhile.
async fn as_process_1<T>(future: impl Future<Output = T>) -> T {
    tokio::select! {
        value = future => value,
        never = crate::init::reap_orphans() => match never {},
    }
}

/// Prints a result. A closed standard output is not an error.
fn out(text: &str) {
    try_out(text);
}

/// Prints a result. Returns whether standard output is still open.
fn try_out(text: &str) -> bool {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// Prints text that may contain data of others, with control characters escaped. Not for JSON, which has its own escapes.
fn out_escaped(text: &str) {
    out(&escaped_lines(text));
}

/// Prints to standard error, with control characters escaped.
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
