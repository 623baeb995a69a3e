//! Commands that change the running ambassador.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::change::ChangeArgs;
use super::request::{self, RequestArgs};
use super::{err, wait};
use crate::admin::client::{AdminRequest, escaped};
use crate::config::grammar::options::duration;
use crate::config::vars::Vars;
use crate::diagnostic::Place;
use crate::exit::Exit;
use crate::observe::status::RouteStatus;
use crate::observe::table::aligned;

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
        args: ChangeArgs,
    },
    /// End a pause: held sessions are connected first
    Resume {
        /// Name of the route in `status`
        route: String,
        #[command(flatten)]
        args: ChangeArgs,
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
        args: ChangeArgs,
    },
    /// Send no new sessions to an endpoint; its open sessions continue
    Drain(Drain),
    /// List the routes, or add, remove or restore one until the next restart
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
        args: ChangeArgs,
    },
    /// Remove a route, whatever its origin
    Remove {
        /// Name of the route in `status`
        name: String,
        #[command(flatten)]
        args: ChangeArgs,
    },
    /// Restore a removed route as its source has it, with its manual changes
    Restore {
        /// Name of the route in `status`
        name: String,
        #[command(flatten)]
        args: ChangeArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Name of the route in `status`
    route: String,
    /// Address, name of the container, or the whole text in `status`
    endpoint: String,
    /// Send new sessions to the endpoint again
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// Wait until the endpoint has no sessions
    #[arg(long)]
    wait: bool,
    /// Exit 1 if that takes longer than this: 30s, 5m; the endpoint stays drained
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<String>,
    #[command(flatten)]
    args: ChangeArgs,
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
    args: ChangeArgs,
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
    let plain = |args: &ChangeArgs, route: &str, verb: &str| {
        args.post(format!("{}/{verb}", path(route)), json!({})).show(vars)
    };
    match command {
        CommandVerb::Pause { route, args } => plain(args, route, "pause"),
        CommandVerb::Resume { route, args } => plain(args, route, "resume"),
        CommandVerb::Switch(command) => switch(command, vars),
        CommandVerb::Weight { route, endpoint, weight, reset, args } => {
            let body = json!({ "endpoint": endpoint, "weight": weight, "reset": reset });
            args.post(format!("{}/weight", path(route)), body).show(vars)
        }
        CommandVerb::Drain(command) => drain(command, vars),
        CommandVerb::Routes { verb, args } => match verb {
            None => request::show(args, vars, &AdminRequest::get("/routes"), list),
            Some(RoutesVerb::Add { route, args }) => {
                args.post("/routes".to_owned(), json!({ "route": route })).show(vars)
            }
            Some(RoutesVerb::Remove { name, args }) => args.delete(&path(name)).show(vars),
            Some(RoutesVerb::Restore { name, args }) => plain(args, name, "restore"),
        },
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

fn path(route: &str) -> String {
    format!("/routes/{}", escaped(route))
}

fn switch(command: &Switch, vars: &Vars) -> Exit {
    let Switch { route, targets, reset, cut, drain, wait, timeout, args } = command;
    let old = if *cut { Some("cut") } else { drain.then_some("drain") };
    let mut body = json!({ "reset": reset, "wait": wait });
    let fields = [("targets", targets.as_deref()), ("old", old), ("timeout", timeout.as_deref())];
    for (key, value) in fields.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        body[key] = value.into();
    }
    let change = args.post(format!("{}/switch", path(route)), body);
    if *wait && !args.dry_run { wait::switch(&change, timeout.as_deref(), vars) } else { change.show(vars) }
}

fn drain(command: &Drain, vars: &Vars) -> Exit {
    let Drain { route, endpoint, undo, wait, timeout, args } = command;
    let body = json!({ "endpoint": endpoint, "undo": undo });
    let change = args.post(format!("{}/drain", path(route)), body);
    if !*wait || args.dry_run {
        return change.show(vars);
    }
    match timeout.as_deref().map(duration).transpose() {
        Ok(timeout) => wait::drain(&change, timeout, vars),
        Err(mistake) => {
            err(&mistake.at(&Place::Flag("timeout".to_owned())).to_string());
            Exit::Usage
        }
    }
}
