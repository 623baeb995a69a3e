//! The command line: what is typed, what is printed, and with which code the program ends.

mod register;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::admin::address::Choice;
use crate::admin::client::{self, ClientError};
use crate::app::{self, BuildError};
use crate::config::ancestor::ancestor;
use crate::config::args::RunArgs;
use crate::config::vars::Vars;
use crate::config::{self, Config};
use crate::diagnostic::{Diagnostic, Place};
use crate::observe::log;
use crate::observe::status::Status;
use crate::register::args::RegisterArgs;

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

/// A stable place to connect to, for a service that moves.
#[derive(Debug, Parser)]
#[command(
    name = "ambassador",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
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
    Demo {
        /// One round; exit 1 if a single request failed
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
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

/// Where the running ambassador is asked.
#[derive(Debug, clap::Args)]
struct At {
    /// Its admin address: unix:/path or HOST:PORT [env: AMBASSADOR_ADMIN] [default: where `ambassador` itself puts it]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// Reads the command line and does what it says.
pub fn run(arguments: Vec<OsString>, vars: &Vars) -> Exit {
    match Cli::try_parse_from(ancestor(arguments)) {
        Ok(cli) => dispatch(cli, vars),
        Err(error) => {
            // Nobody to tell when the terminal is gone.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

fn dispatch(cli: Cli, vars: &Vars) -> Exit {
    match cli.verb {
        None => serve(&cli.run, vars),
        Some(Verb::Check { run, json }) => check(&run, json, vars),
        Some(Verb::Demo { once }) => crate::demo::run(once, vars),
        Some(Verb::Register { args }) => register::register(&args, vars),
        Some(Verb::Health { at }) => ask(&at, vars, "/ready", |answer| Ok(answer.to_owned())),
        Some(Verb::Status { at, json: true }) => ask(&at, vars, "/status", pretty),
        Some(Verb::Status { at, json: false }) => ask(&at, vars, "/status", table),
        Some(Verb::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ambassador", &mut script);
            out(&String::from_utf8_lossy(&script));
            Exit::Done
        }
    }
}

fn serve(run: &RunArgs, vars: &Vars) -> Exit {
    let config = match config::load(run, vars) {
        Ok(config) => config,
        Err(mistakes) => {
            err(&config::check::mistakes(&mistakes, false));
            return Exit::Usage;
        }
    };
    if config.is_empty() {
        err(&config.nothing_to_do(vars));
        return Exit::Usage;
    }
    let _log = log::start(config.log, vars);
    match block_on(run_until_stopped(config)) {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) => {
            tracing::error!("{error}");
            Exit::Unavailable
        }
        Err(error) => {
            tracing::error!("cannot start: {error}");
            Exit::Failed
        }
    }
}

async fn run_until_stopped(config: Config) -> Result<(), BuildError> {
    let bound = app::build(config).await?;
    let obey = bound.control().obey_signals()?;
    tokio::select! {
        () = bound.run() => {}
        () = obey => {}
    }
    Ok(())
}

fn check(run: &RunArgs, json: bool, vars: &Vars) -> Exit {
    match config::load(run, vars) {
        Ok(config) if config.is_empty() => {
            err(&config.nothing_to_do(vars));
            Exit::Usage
        }
        Ok(config) if json => {
            out(&format!("{:#}\n", config::check::json(&config)));
            Exit::Done
        }
        Ok(config) => {
            out(&config::check::table(&config));
            Exit::Done
        }
        Err(mistakes) if json => {
            out(&config::check::mistakes(&mistakes, true));
            Exit::Usage
        }
        Err(mistakes) => {
            err(&config::check::mistakes(&mistakes, false));
            Exit::Usage
        }
    }
}

fn ask(at: &At, vars: &Vars, path: &str, show: impl Fn(&str) -> Result<String, String>) -> Exit {
    let choice = match at.choice(vars) {
        Ok(choice) => choice,
        Err(mistake) => {
            err(&mistake.to_string());
            return Exit::Usage;
        }
    };
    let answer = match block_on(client::get(&choice, path)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error @ ClientError::Unreachable(_))) => {
            err(&error.to_string());
            return Exit::Unavailable;
        }
        Ok(Err(error)) => return fail(&error.to_string()),
        Err(error) => return fail(&error.to_string()),
    };
    match show(&answer.body) {
        Ok(text) if answer.ok => {
            out(&text);
            Exit::Done
        }
        Ok(text) => fail(text.trim_end()),
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> Exit {
    err(why);
    Exit::Failed
}

impl At {
    fn choice(&self, vars: &Vars) -> Result<Choice, Diagnostic> {
        let given = match (&self.admin, vars.value("AMBASSADOR_ADMIN")) {
            (Some(text), _) => Some(config::parse_admin(text, &Place::Flag("admin".to_owned()))?),
            (None, Some(text)) => {
                Some(config::parse_admin(text, &Place::Variable("AMBASSADOR_ADMIN".to_owned()))?)
            }
            (None, None) => None,
        };
        Ok(Choice::new(given, vars.value("XDG_RUNTIME_DIR").map(std::path::Path::new)))
    }
}

fn pretty(body: &str) -> Result<String, String> {
    let value: serde_json::Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    Ok(format!("{value:#}\n"))
}

fn table(body: &str) -> Result<String, String> {
    let status: Status = serde_json::from_str(body).map_err(|error| error.to_string())?;
    Ok(status.table())
}

fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Standard output is for results. A reader that left is no failure of ours.
fn out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn err(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
