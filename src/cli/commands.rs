//! Commands that change the running ambassador.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{self, RequestArgs, refused, unanswered};
use super::{block_on, fail, out};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest, escaped};
use crate::config::vars::Vars;
use crate::escape;
use crate::exit::Exit;
use crate::observe::status::{RouteStatus, SwitchState};
use crate::observe::table::aligned;

/// The interval between requests for the state of a switch.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum CommandVerb {
    /// Hold new sessions of a route, even if its endpoints are available
    ///
    /// Open sessions continue. New sessions are held until `resume`, without a limit on the time: the route's `hold` does not
    /// apply during a pause. `--max-held` limits their number.
    Pause {
        /// Name of the route in `status`
        route: String,
        #[command(flatten)]
        args: RequestArgs,
    },
    /// End a pause: held sessions are connected first
    Resume {
        /// Name of the route in `status`
        route: String,
        #[command(flatten)]
        args: RequestArgs,
    },
    /// Connect new sessions of a route to other targets, until the next restart
    ///
    /// The switch takes precedence over later changes of the route's targets in the configuration and other sources.
    /// `status` shows the switch and the original targets. Options and backups are unchanged.
    #[command(after_help = SWITCH_EXAMPLES)]
    Switch(Switch),
    /// Change the weight of an endpoint, until the next restart
    Weight {
        /// Name of the route in `status`
        route: String,
        /// Address, name of the container, or the whole text in `status`
        endpoint: String,
        /// Weight relative to the other endpoints, 1 by default; 0 for no new sessions
        #[arg(required_unless_present = "reset", conflicts_with = "reset")]
        weight: Option<u32>,
        /// Restore the weight of the endpoint's source
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        args: RequestArgs,
    },
    /// Send no new sessions to an endpoint; its open sessions continue
    Drain {
        /// Name of the route in `status`
        route: String,
        /// Address, name of the container, or the whole text in `status`
        endpoint: String,
        /// Send new sessions to the endpoint again
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        args: RequestArgs,
    },
    /// List the routes, or add or remove one until the next restart
    #[command(args_conflicts_with_subcommands = true)]
    Routes {
        #[command(subcommand)]
        verb: Option<RoutesVerb>,
        #[command(flatten)]
        args: RequestArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RoutesVerb {
    /// Add a route with the syntax of the command line: 6379=redis:6379
    Add {
        /// LISTEN=TARGET[,TARGET...][?option=value[&...]]
        route: String,
        #[command(flatten)]
        args: RequestArgs,
    },
    /// Remove a route, whatever its origin
    Remove {
        /// Name of the route in `status`
        name: String,
        #[command(flatten)]
        args: RequestArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct Switch {
    /// Name of the route in `status`
    route: String,
    /// TARGET[,TARGET...] as in a route: db2:5432, docker://db2
    #[arg(value_name = "TARGET", required_unless_present = "reset", conflicts_with = "reset")]
    targets: Option<String>,
    /// End the switch: restore the targets of the configuration and other sources
    #[arg(long)]
    reset: bool,
    /// Reset the sessions of removed endpoints
    #[arg(long, conflicts_with = "drain")]
    cut: bool,
    /// Let the sessions of removed endpoints finish [default: the route's `on-remove`]
    #[arg(long)]
    drain: bool,
    /// Wait until each new endpoint has answered and the old endpoints have no sessions; until then the old endpoints remain
    /// in use
    #[arg(long)]
    wait: bool,
    /// Roll the switch back and exit 1 if that takes longer than this: 30s, 5m
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<String>,
    #[command(flatten)]
    args: RequestArgs,
}

const SWITCH_EXAMPLES: &str = "\
Examples:
  Connect new sessions to db2; open ones finish on db1:
    ambassador switch pg db2:5432
  Wait until db1 has no sessions; roll back after 5 minutes:
    ambassador switch pg db2:5432 --wait --timeout 5m
  Reset the sessions on db1:
    ambassador switch pg db2:5432 --cut
  Restore the configured target:
    ambassador switch pg --reset";

/// Sends a command and prints its result.
pub(super) fn send(command: &CommandVerb, vars: &Vars) -> Exit {
    match command {
        CommandVerb::Pause { route, args } => post(args, vars, route, "pause", &json!({})),
        CommandVerb::Resume { route, args } => post(args, vars, route, "resume", &json!({})),
        CommandVerb::Switch(command) => switch(command, vars),
        CommandVerb::Weight { route, endpoint, weight, reset, args } => {
            let body = json!({ "endpoint": endpoint, "weight": weight, "reset": reset });
            post(args, vars, route, "weight", &body)
        }
        CommandVerb::Drain { route, endpoint, undo, args } => {
            post(args, vars, route, "drain", &json!({ "endpoint": endpoint, "undo": undo }))
        }
        CommandVerb::Routes { verb, args } => match verb {
            None => request::show(args, vars, &AdminRequest::get("/routes"), list),
            Some(verb) => change_routes(verb, vars),
        },
    }
}

fn change_routes(verb: &RoutesVerb, vars: &Vars) -> Exit {
    match verb {
        RoutesVerb::Add { route, args } => {
            request::show(args, vars, &AdminRequest::post("/routes", &json!({ "route": route })), sentence)
        }
        RoutesVerb::Remove { name, args } => {
            let request = AdminRequest { method: hyper::Method::DELETE, ..AdminRequest::get(path(name)) };
            request::show(args, vars, &request, sentence)
        }
    }
}

/// The response of `GET /routes`.
#[derive(Deserialize)]
struct RouteList {
    routes: Vec<RouteStatus>,
}

/// Returns one line per route.
fn list(list: &RouteList) -> String {
    let mut rows = vec![["ROUTE", "LISTEN", "TARGETS", "ORIGIN"].map(str::to_owned)];
    rows.extend(list.routes.iter().map(|route| {
        let RouteStatus { name, listen, targets, origin, .. } = route;
        let targets: Vec<String> = targets.iter().map(|target| named(target, origin)).collect();
        [name.clone(), listen.clone(), targets.join(","), origin.clone()]
    }));
    aligned(&rows)
}

/// Adds the name of the container to a target by ID, as in routes of labels.
fn named(target: &str, origin: &str) -> String {
    let id = target.strip_prefix("docker://").and_then(|rest| rest.get(..12));
    let is_id = id.is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match origin.strip_prefix("container ").and_then(|rest| rest.split_once(", label ")) {
        Some((name, _)) if is_id => format!("{target} ({name})"),
        _ => target.to_owned(),
    }
}

fn post(args: &RequestArgs, vars: &Vars, route: &str, verb: &str, body: &Value) -> Exit {
    request::show(args, vars, &AdminRequest::post(format!("{}/{verb}", path(route)), body), sentence)
}

fn path(route: &str) -> String {
    format!("/routes/{}", escaped(route))
}

fn sentence(answer: &Value) -> String {
    format!("{}\n", escape::escaped(answer.get("message").and_then(Value::as_str).unwrap_or("done")))
}

fn switch(command: &Switch, vars: &Vars) -> Exit {
    let Switch { route, targets, reset, cut, drain, wait, timeout, args } = command;
    let old = if *cut { Some("cut") } else { drain.then_some("drain") };
    let mut body = json!({ "reset": reset, "wait": wait });
    let fields = [("targets", targets.as_deref()), ("old", old), ("timeout", timeout.as_deref())];
    for (key, value) in fields.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        body[key] = value.into();
    }
    if !wait {
        return post(args, vars, route, "switch", &body);
    }
    let request = AdminRequest::post(format!("{}/switch", path(route)), &body);
    let answer = match request::send(&args.admin, vars, &request) {
        Ok(answer) if answer.is_ok() => answer,
        Ok(answer) => return refused(&answer, args.json),
        Err(exit) => return exit,
    };
    let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let Some(number) = answer.pointer("/route/by_hand/switch/number").and_then(Value::as_u64) else {
        return fail("the route was removed");
    };
    let Ok(choice) = args.admin.choice(vars) else { return Exit::Usage };
    let waited = block_on(wait_until_over(&choice, &path(route), number));
    match waited.unwrap_or_else(|error| Err(fail(&error.to_string()))) {
        Ok((state, status)) => print_switch(args, state, &status),
        Err(exit) => exit,
    }
}

/// Polls the route until its switch is kept and has settled, or was rolled back.
async fn wait_until_over(
    choice: &Choice,
    path: &str,
    number: u64,
) -> Result<(SwitchState, RouteStatus), Exit> {
    loop {
        let answer =
            client::send(choice, &AdminRequest::get(path)).await.map_err(|error| unanswered(&error))?;
        if !answer.is_ok() {
            return Err(refused(&answer, false));
        }
        let status: RouteStatus = request::read(&answer.body).map_err(|why| fail(&why))?;
        let switch = status.by_hand.switch.clone().filter(|switch| switch.number == number);
        let Some(switch) = switch else { return Err(fail("the route was switched again meanwhile")) };
        match switch.state {
            SwitchState::RolledBack => return Ok((switch.state, status)),
            SwitchState::Kept if status.has_settled() => return Ok((switch.state, status)),
            SwitchState::Kept | SwitchState::OnTrial => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

fn print_switch(args: &RequestArgs, state: SwitchState, status: &RouteStatus) -> Exit {
    if args.json {
        out(&format!("{:#}\n", json!({ "route": status })));
    }
    let RouteStatus { name, targets, .. } = status;
    let targets = targets.join(",");
    if state == SwitchState::RolledBack {
        let why = status
            .by_hand
            .switch
            .as_ref()
            .and_then(|switch| switch.why.as_deref())
            .unwrap_or("unknown cause");
        return fail(&format!("the switch was rolled back: {why}; route {name} uses {targets} again"));
    }
    if !args.json {
        out(&format!("route {name} is switched to {targets}; the old endpoints have no sessions\n"));
    }
    Exit::Done
}
