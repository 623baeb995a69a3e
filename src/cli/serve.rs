//! `ambassador` itself, and `ambassador check`.

use tracing::field::display;

use super::{as_process_1, err, no_routes, out};
use crate::app::{self, BuildError};
use crate::config::args::RunArgs;
use crate::config::vars::Vars;
use crate::config::{self, Config, LogConfig, LogFormat};
use crate::diagnostic::{Diagnostic, Place};
use crate::drain::Signals;
use crate::exit::Exit;
use crate::log;
use crate::observe::config as show;
use crate::stall::StallMonitor;
use crate::web;

pub(super) fn serve(run: &RunArgs, vars: &Vars) -> Exit {
    let config = match config::load(run, vars) {
        Ok(config) => config,
        Err(mistakes) => {
            return match config::log_format(run, vars) {
                LogFormat::Text => usage(&show::mistakes(&mistakes, false)),
                LogFormat::Json => json_usage(&mistakes, vars),
            };
        }
    };
    if config.is_empty() {
        let why = no_routes::message(&config, vars);
        return match config.settings.log.format {
            LogFormat::Text => usage(&why),
            LogFormat::Json => json_usage(&[Diagnostic::new(Place::Built, why)], vars),
        };
    }
    let _log = match start_log(config.settings.log, vars) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    match watched_block_on(|stalls| run_until_stopped(config, stalls)) {
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

fn usage(why: &str) -> Exit {
    err(why);
    Exit::Usage
}

/// Logs mistakes as JSON, one line each.
pub(super) fn json_usage(mistakes: &[Diagnostic], vars: &Vars) -> Exit {
    let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
    let _log = match start_log(config, vars) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    for Diagnostic { place, message, help } in mistakes {
        let place = (*place != Place::Built).then(|| display(place));
        tracing::error!(place, help = help.as_deref(), "{}", message.trim_end());
    }
    Exit::Usage
}

pub(super) fn start_log(config: LogConfig, vars: &Vars) -> Result<log::Guard, Exit> {
    log::start(config, vars).map_err(|error| {
        err(&format!("error: cannot start the log: {error}\n"));
        Exit::Failed
    })
}

/// Runs a future on this thread, which becomes that of the control plane.
fn watched_block_on<F: Future>(run: impl FnOnce(StallMonitor) -> F) -> std::io::Result<F::Output> {
    let stalls = StallMonitor::start()?;
    let (runtime, _watched) = stalls.runtime("control")?;
    Ok(runtime.block_on(as_process_1(run(stalls))))
}

async fn run_until_stopped(config: Config, stalls: StallMonitor) -> Result<(), BuildError> {
    let signals = Signals::install()?;
    let bound = app::build_watched(config, stalls).await?;
    let control = bound.control();
    tokio::select! {
        () = bound.run() => {}
        () = signals.handle(control) => {}
    }
    Ok(())
}

pub(super) fn check(run: &RunArgs, json: bool, vars: &Vars) -> Exit {
    match config::load(run, vars).and_then(with_credentials) {
        Ok(config) if config.is_empty() => {
            err(&no_routes::message(&config, vars));
            Exit::Usage
        }
        Ok(config) if json => {
            out(&format!("{:#}\n", show::json(&config)));
            Exit::Done
        }
        Ok(config) => {
            out(&show::table(&config));
            Exit::Done
        }
        Err(mistakes) if json => {
            out(&show::mistakes(&mistakes, true));
            Exit::Usage
        }
        Err(mistakes) => {
            err(&show::mistakes(&mistakes, false));
            Exit::Usage
        }
    }
}

/// Checks the credentials for peers, the certificates of routes, the routes that need them, and the token of the web page.
fn with_credentials(mut config: Config) -> Result<Config, Vec<Diagnostic>> {
    app::read_credentials(&mut config)?;
    app::read_certificates(&config)?;
    web::check_token(&config.settings.web).map_err(|mistake| vec![mistake])?;
    Ok(config)
}
