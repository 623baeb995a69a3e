//! `ambassador top`: the routes in a terminal, sorted by urgency, with keys for the commands.

mod action;
mod model;
mod samples;
mod sentence;
mod terminal;
mod view;

#[cfg(test)]
mod fixtures;

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::request::{AdminArgs, read, unanswered};
use super::{block_on, err, fail, out};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest, AdminResponse, ClientError};
use crate::config::vars::Vars;
use crate::exit::Exit;
use crate::observe::history::HistoryStatus;
use action::outcome;
use model::{Effect, Fetched, Input, Model};
use terminal::Screen;
use view::Palette;

/// The width of `--once` if the output is not a terminal.
const WIDTH: u16 = 120;
/// The history of all routes by seconds. Refused for more than 100 routes with traffic, which then begin without one.
const HISTORY: &str = "/history?span=10m&points=600";
/// For `--once`, whose rates are means over ten seconds.
const HISTORY_MEANS: &str = "/history?span=10m&points=60";

/// The examples below the help.
const EXAMPLES: &str = "\
Examples:
  ambassador top
  ambassador top --admin unix:/run/ambassador/admin.sock
  docker exec -it ambassador ambassador top
  ssh -t HOST ambassador top

A snapshot as text, for a report or a script:
  ambassador top --once

The key `?` explains the others. NO_COLOR=1 turns colours off.";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print one snapshot as text, and exit
    #[arg(long)]
    once: bool,
    /// Time between two readings, in whole seconds: 1s, 5s
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval =
        humantime::parse_duration(text).map_err(|error| format!("{error}: for example 1s or 5s"))?;
    let is_valid = (1..=3600).contains(&interval.as_secs()) && interval.subsec_nanos() == 0;
    if is_valid { Ok(interval) } else { Err("must be whole seconds, from 1s to 1h".to_owned()) }
}

type Inputs = FuturesUnordered<Pin<Box<dyn Future<Output = Input>>>>;

/// Shows the routes until the user quits.
pub(super) fn run(args: &TopArgs, vars: &Vars) -> Exit {
    let choice = match args.admin.choice(vars) {
        Ok(choice) => choice,
        Err(mistake) => {
            err(&mistake.to_string());
            return Exit::Usage;
        }
    };
    if args.once {
        return once(&choice);
    }
    if let Some(why) = unfit(vars) {
        err(&format!("{why}\n  `ambassador top --once` prints a snapshot without one"));
        return Exit::Usage;
    }
    let palette = if vars.value("NO_COLOR").is_some() { Palette::Plain } else { Palette::Colour };
    match block_on(show(&choice, args.interval, palette)) {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(StartError::Ambassador(error))) => unanswered(&error),
        Ok(Err(StartError::Terminal(error))) | Err(error) => {
            fail(&format!("cannot use the terminal: {error}"))
        }
    }
}

/// Returns why the terminal cannot be used.
fn unfit(vars: &Vars) -> Option<&'static str> {
    match vars.value("TERM") {
        _ if !io::stdin().is_terminal() => {
            Some("`ambassador top` needs a terminal, and standard input is none")
        }
        _ if !io::stdout().is_terminal() => {
            Some("`ambassador top` needs a terminal, and standard output is none")
        }
        Some("dumb") => {
            Some("`ambassador top` needs a terminal that can move the cursor, and TERM is `dumb`")
        }
        _ => None,
    }
}

/// Why nothing can be shown.
enum StartError {
    Ambassador(ClientError),
    Terminal(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Terminal(error)
    }
}

fn once(choice: &Choice) -> Exit {
    let mut model = Model::new(Duration::from_secs(1));
    let fetched = block_on(fetch(choice, 0, Some(HISTORY_MEANS)));
    match fetched {
        Ok(Ok(fetched)) => {
            let width = terminal::width().filter(|_| io::stdout().is_terminal()).unwrap_or(WIDTH);
            let now = SystemTime::now();
            model.update(Input::Fetched(Box::new(fetched)), now);
            out(&view::snapshot(&model, width, now));
            Exit::Done
        }
        Ok(Err(error)) => unanswered(&error),
        Err(error) => fail(&error.to_string()),
    }
}

/// Shows the model until the user quits or a signal ends the process.
async fn show(choice: &Choice, period: Duration, palette: Palette) -> Result<(), StartError> {
    let mut model = Model::new(period);
    // Without an ambassador there is nothing to show yet, and the error is more useful on the command line.
    let first = fetch(choice, 0, Some(HISTORY)).await.map_err(StartError::Ambassador)?;
    model.update(Input::Fetched(Box::new(first)), SystemTime::now());
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let mut screen = Screen::enter()?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let (mut inputs, mut is_fetching) = (Inputs::default(), false);
    loop {
        screen.draw(&model, palette)?;
        let input = tokio::select! {
            key = screen.key() => match key? {
                Some(key) => Input::Key(key),
                // The size has changed.
                None => continue,
            },
            Some(input) = inputs.next() => {
                is_fetching &= !matches!(input, Input::Fetched(_) | Input::Lost(_));
                input
            }
            _ = ticks.tick() => {
                if !is_fetching {
                    is_fetching = true;
                    inputs.push(Box::pin(refreshed(choice.clone(), &model)));
                }
                continue;
            }
            _ = futures_util::future::select_all(ends.iter_mut().map(|end| Box::pin(end.recv()))) => return Ok(()),
        };
        match model.update(input, SystemTime::now()) {
            None => {}
            Some(Effect::Quit) => return Ok(()),
            Some(Effect::Refresh) => ticks.reset_immediately(),
            Some(Effect::Send { action, dry_run }) => {
                let (choice, request) = (choice.clone(), action.request(dry_run));
                inputs.push(Box::pin(async move {
                    let answer = client::send(&choice, &request).await;
                    let result = answer.map_err(|error| error.to_string());
                    Input::Answered { dry_run, result: result.and_then(|a| outcome(a.is_ok(), &a.body)) }
                }));
            }
        }
    }
}

/// Reads the status and the new events.
fn refreshed(choice: Choice, model: &Model) -> impl Future<Output = Input> + use<> {
    let since = model.last_event();
    async move {
        match fetch(&choice, since, None).await {
            Ok(fetched) => Input::Fetched(Box::new(fetched)),
            Err(error) => Input::Lost(error.to_string()),
        }
    }
}

/// Reads the status, the events after a number, and the history from a path.
async fn fetch(choice: &Choice, since: u64, history: Option<&str>) -> Result<Fetched, ClientError> {
    let get = |path: String| async move { client::send(choice, &AdminRequest::get(path)).await };
    let answer = get("/status".to_owned()).await?;
    let status = parsed(&answer)?;
    let at = Instant::now();
    let events = get(format!("/events?since={since}&follow=false")).await?;
    let events = events.body.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
    let history = match history {
        // An ambassador of an earlier version has none.
        Some(path) => read::<HistoryStatus>(&get(path.to_owned()).await?.body).ok(),
        None => None,
    };
    Ok(Fetched { status, events, history, at })
}

fn parsed<T: serde::de::DeserializeOwned>(answer: &AdminResponse) -> Result<T, ClientError> {
    read(&answer.body).map_err(ClientError::Unexpected)
}
