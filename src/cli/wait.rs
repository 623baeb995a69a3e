//! `switch --wait` and `drain --wait`: the route is polled until the command has taken its whole effect.

use std::time::Duration;

use serde_json::{Value, json};

use super::change::ChangeRequest;
use super::progress::Progress;
use super::request::{self, RequestArgs, refused, unanswered};
use super::{block_on, err, fail, out, out_escaped};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest};
use crate::config::grammar::options::duration;
use crate::config::vars::Vars;
use crate::exit::Exit;
use crate::observe::status::{self, EndpointStatus, RouteStatus, SwitchState};

/// The interval between requests for the state of a route.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How far a command is.
enum Step {
    /// What it waits for.
    Waits(String),
    /// What to print.
    Done(String),
    Failed(String),
}

/// Switches a route, and waits until the switch is complete or was rolled back.
pub(super) fn switch(change: &ChangeRequest<'_>, timeout: Option<&str>, vars: &Vars) -> Exit {
    let answer = match send(change, vars) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let Some(number) = answer.pointer("/route/by_hand/switch/number").and_then(Value::as_u64) else {
        return fail("the route was removed");
    };
    let waiting = Waiting { change, answer: &answer, timeout: timeout.and_then(|text| duration(text).ok()) };
    let rest = match timeout {
        Some(timeout) => format!("it is rolled back if it is not complete {timeout} after it began"),
        None => format!("`ambassador switch {} --reset` ends it", name(&answer)),
    };
    waiting.run(vars, &format!("the switch goes on without this command; {rest}"), |route, _| {
        switch_step(route, number)
    })
}

fn switch_step(route: &RouteStatus, number: u64) -> Step {
    let RouteStatus { name, targets, by_hand, .. } = route;
    let Some(switch) = by_hand.switch.as_ref().filter(|switch| switch.number == number) else {
        return Step::Failed("the route was switched again meanwhile".to_owned());
    };
    let targets = targets.join(",");
    match switch.state {
        SwitchState::RolledBack => {
            let why = switch.why.as_deref().unwrap_or("unknown cause");
            Step::Failed(format!("the switch was rolled back: {why}; route {name} uses {targets} again"))
        }
        SwitchState::Kept if route.has_settled() => {
            Step::Done(format!("route {name} is switched to {targets}; the old endpoints have no sessions"))
        }
        SwitchState::Kept | SwitchState::OnTrial => Step::Waits(match &switch.why {
            Some(why) => format!("waiting for {why}"),
            None if route.leaving.is_empty() => format!("waiting for an endpoint of {targets}"),
            None => left(&route.leaving),
        }),
    }
}

/// Drains an endpoint, and waits until it has no sessions.
pub(super) fn drain(change: &ChangeRequest<'_>, timeout: Option<Duration>, vars: &Vars) -> Exit {
    let answer = match send(change, vars) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let endpoint = answer.get("endpoint").and_then(Value::as_str).unwrap_or_default().to_owned();
    let waiting = Waiting { change, answer: &answer, timeout };
    let rest = format!(
        "{endpoint} stays drained; `ambassador drain {} {} --undo` ends it",
        name(&answer),
        status::address(&endpoint)
    );
    waiting.run(vars, &rest, |route, elapsed| {
        drain_step(route, &endpoint, timeout.filter(|timeout| elapsed >= *timeout))
    })
}

/// `expired` is the timeout, if it has passed.
fn drain_step(route: &RouteStatus, endpoint: &str, expired: Option<Duration>) -> Step {
    let is_it = |found: &&EndpointStatus| found.description == endpoint;
    if route.endpoints.iter().find(is_it).is_some_and(|found| !found.drained) {
        return Step::Failed(format!("{endpoint} takes new sessions again: the drain was undone meanwhile"));
    }
    let draining: Vec<EndpointStatus> =
        route.endpoints.iter().chain(&route.leaving).filter(is_it).cloned().collect();
    match (sessions(&draining), expired) {
        (0, _) => Step::Done(format!("route {}: {endpoint} is drained and has no sessions", route.name)),
        (_, Some(timeout)) => {
            let timeout = humantime::format_duration(timeout);
            Step::Failed(format!("{} after {timeout}; it stays drained", left(&draining)))
        }
        (_, None) => Step::Waits(left(&draining)),
    }
}

fn sessions(endpoints: &[EndpointStatus]) -> usize {
    endpoints.iter().map(|endpoint| endpoint.sessions).sum()
}

fn left(endpoints: &[EndpointStatus]) -> String {
    let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.description.as_str()).collect();
    let (count, names) = (sessions(endpoints), names.join(", "));
    format!("{count} {} left on {names}", if count == 1 { "session" } else { "sessions" })
}

/// Sends the command. Without a response, prints why and returns the exit code.
fn send(change: &ChangeRequest<'_>, vars: &Vars) -> Result<Value, Exit> {
    let RequestArgs { admin, json } = &change.args.request;
    let answer = request::send(admin, vars, &change.request)?;
    if !answer.is_ok() {
        return Err(refused(&answer, *json));
    }
    request::read(&answer.body).map_err(|why| fail(&why))
}

/// Returns the name of the route. Empty if it was removed at once.
fn name(answer: &Value) -> &str {
    answer.pointer("/route/name").and_then(Value::as_str).unwrap_or_default()
}

/// A command that was executed.
struct Waiting<'a> {
    change: &'a ChangeRequest<'a>,
    answer: &'a Value,
    /// Shown with the progress.
    timeout: Option<Duration>,
}

impl Waiting<'_> {
    /// Polls the route until `step` is over, and prints the result. `rest` is what stays if the user interrupts that.
    fn run(&self, vars: &Vars, rest: &str, step: impl Fn(&RouteStatus, Duration) -> Step) -> Exit {
        let args = &self.change.args.request;
        let Ok(choice) = args.admin.choice(vars) else { return Exit::Usage };
        let path = format!("/routes/{}", client::escaped(name(self.answer)));
        let waited = block_on(async {
            tokio::select! {
                over = self.poll(&choice, &path, step) => over,
                _ = tokio::signal::ctrl_c() => {
                    err(&format!("interrupted: {rest}"));
                    Err(Exit::Failed)
                }
            }
        });
        match waited.unwrap_or_else(|error| Err(fail(&error.to_string()))) {
            Ok((status, over)) => print(args, &status, &over),
            Err(exit) => exit,
        }
    }

    async fn poll(
        &self,
        choice: &Choice,
        path: &str,
        step: impl Fn(&RouteStatus, Duration) -> Step,
    ) -> Result<(RouteStatus, Result<String, String>), Exit> {
        let mut progress = Progress::new(self.timeout);
        loop {
            let route = poll_once(choice, path).await?;
            match step(&route, progress.elapsed()) {
                Step::Done(text) => return Ok((route, Ok(text))),
                Step::Failed(why) => return Ok((route, Err(why))),
                Step::Waits(what) => progress.show(&what),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

async fn poll_once(choice: &Choice, path: &str) -> Result<RouteStatus, Exit> {
    let answer = client::send(choice, &AdminRequest::get(path)).await.map_err(|error| unanswered(&error))?;
    if !answer.is_ok() {
        return Err(refused(&answer, false));
    }
    request::read(&answer.body).map_err(|why| fail(&why))
}

fn print(args: &RequestArgs, status: &RouteStatus, over: &Result<String, String>) -> Exit {
    if args.json {
        out(&format!("{:#}\n", json!({ "route": status })));
    }
    match over {
        Err(why) => fail(why),
        Ok(_) if args.json => Exit::Done,
        Ok(text) => {
            out_escaped(&format!("{text}\n"));
            Exit::Done
        }
    }
}
