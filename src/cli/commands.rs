//! CommandSender to the running ambassador.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{self, Ask, refused, unanswered};
use super::{block_on, fail, out};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest, escaped};
use crate::config::vars::Vars;
use crate::escape;
use crate::exit::Exit;
use crate::observe::status::{RouteStatus, SwitchState};
use crate::observe::table::aligned;

/// Between two looks at a switch that is waited for.
const PACE: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum OrderVerb {
    /// Hold new sessions of a route, even when its endpoints answer
    ///
    /// Open sessions go on. What connects from now on waits, and is served at `resume`: for as long as that takes, since
    /// the route's `hold` does not run in a pause. `--max-held` bounds how many wait.
    Pause {
        /// The route's name, as `status` shows it
        route: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// End a pause: those who waited are served first
    Resume {
        /// The route's name, as `status` shows it
        route: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Send a route's new sessions to other targets, until the next restart
    ///
    /// The sources go on being read underneath, but a route that was switched keeps its new targets whatever they say.
    /// `status` shows that it was switched, and from what. Its options and backups stay.
    #[command(after_help = SWITCH_EXAMPLES)]
    Switch(Switch),
    /// Give an endpoint another share of new sessions, until the next restart
    Weight {
        /// The route's name, as `status` shows it
        route: String,
        /// Its address, its container's name, or the whole of what `status` shows
        endpoint: String,
        /// Relative to the other endpoints, which have 1 unless told otherwise; 0 for no new sessions
        #[arg(required_unless_present = "reset", conflicts_with = "reset")]
        weight: Option<u32>,
        /// Back to the weight that its source gives it
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Let an endpoint have no new sessions; those it has go on
    Drain {
        /// The route's name, as `status` shows it
        route: String,
        /// Its address, its container's name, or the whole of what `status` shows
        endpoint: String,
        /// Let it have sessions again
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// List the routes; open one, or close one, until the next restart
    #[command(args_conflicts_with_subcommands = true)]
    Routes {
        #[command(subcommand)]
        verb: Option<RoutesVerb>,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RoutesVerb {
    /// Open a route, in the words of the command line: 6379=redis:6379
    Add {
        /// LISTEN=TARGET[,TARGET...][?option=value[&...]]
        route: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Close a route, wherever it was written
    Remove {
        /// The route's name, as `status` shows it
        name: String,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The route's name, as `status` shows it
    route: String,
    /// TARGET[,TARGET...] as in a route: db2:5432, docker://db2
    #[arg(value_name = "TARGET", required_unless_present = "reset", conflicts_with = "reset")]
    targets: Option<String>,
    /// End the switch: back to the targets that the sources tell
    #[arg(long)]
    reset: bool,
    /// Reset the sessions of the endpoints that leave
    #[arg(long, conflicts_with = "drain")]
    cut: bool,
    /// Let the sessions of the endpoints that leave finish [default: as the route's `on-remove` says]
    #[arg(long)]
    drain: bool,
    /// Return when each new endpoint has answered and the old endpoints have no session; until then the old ones serve on
    #[arg(long)]
    wait: bool,
    /// Roll the switch back, and exit 1, when that is not so in this time: 30s, 5m
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

const SWITCH_EXAMPLES: &str = "\
Examples:
  New sessions go to db2, old ones finish on db1:
    ambassador switch pg db2:5432
  Wait until db1 has no session left, else roll back:
    ambassador switch pg db2:5432 --wait --timeout 5m
  Move everybody now:
    ambassador switch pg db2:5432 --cut
  As the configuration says again:
    ambassador switch pg --reset";

/// Gives the command and says what came of it.
pub(super) fn send(command: &OrderVerb, vars: &Vars) -> Exit {
    match command {
        OrderVerb::Pause { route, ask } => post(ask, vars, route, "pause", &json!({})),
        OrderVerb::Resume { route, ask } => post(ask, vars, route, "resume", &json!({})),
        OrderVerb::Switch(command) => switch(command, vars),
        OrderVerb::Weight { route, endpoint, weight, reset, ask } => {
            let body = json!({ "endpoint": endpoint, "weight": weight, "reset": reset });
            post(ask, vars, route, "weight", &body)
        }
        OrderVerb::Drain { route, endpoint, undo, ask } => {
            post(ask, vars, route, "drain", &json!({ "endpoint": endpoint, "undo": undo }))
        }
        OrderVerb::Routes { verb, ask } => match verb {
            None => ask::show(ask, vars, &AdminRequest::get("/routes"), list),
            Some(verb) => change_routes(verb, vars),
        },
    }
}

fn change_routes(verb: &RoutesVerb, vars: &Vars) -> Exit {
    match verb {
        RoutesVerb::Add { route, ask } => {
            ask::show(ask, vars, &AdminRequest::post("/routes", &json!({ "route": route })), sentence)
        }
        RoutesVerb::Remove { name, ask } => {
            let question = AdminRequest { method: hyper::Method::DELETE, ..AdminRequest::get(path(name)) };
            ask::show(ask, vars, &question, sentence)
        }
    }
}

/// The answer to `GET /routes`.
#[derive(Deserialize)]
struct RouteList {
    routes: Vec<RouteStatus>,
}

/// One line a route. `status` shows the endpoints.
fn list(list: &RouteList) -> String {
    let mut rows = vec![["ROUTE", "LISTEN", "TARGETS", "ORIGIN"].map(str::to_owned)];
    rows.extend(list.routes.iter().map(|route| {
        let RouteStatus { name, listen, targets, origin, .. } = route;
        let targets: Vec<String> = targets.iter().map(|target| named(target, origin)).collect();
        [name.clone(), listen.clone(), targets.join(","), origin.clone()]
    }));
    aligned(&rows)
}

/// A container that a label's route means by its ID, with its name.
fn named(target: &str, origin: &str) -> String {
    let id = target.strip_prefix("docker://").and_then(|rest| rest.get(..12));
    let is_id = id.is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match origin.strip_prefix("container ").and_then(|rest| rest.split_once(", label ")) {
        Some((name, _)) if is_id => format!("{target} ({name})"),
        _ => target.to_owned(),
    }
}

fn post(ask: &Ask, vars: &Vars, route: &str, verb: &str, body: &Value) -> Exit {
    ask::show(ask, vars, &AdminRequest::post(format!("{}/{verb}", path(route)), body), sentence)
}

fn path(route: &str) -> String {
    format!("/routes/{}", escaped(route))
}

fn sentence(answer: &Value) -> String {
    format!("{}\n", escape::escaped(answer.get("message").and_then(Value::as_str).unwrap_or("done")))
}

fn switch(command: &Switch, vars: &Vars) -> Exit {
    let Switch { route, targets, reset, cut, drain, wait, timeout, ask } = command;
    let old = if *cut { Some("cut") } else { drain.then_some("drain") };
    let mut body = json!({ "reset": reset, "wait": wait });
    let fields = [("targets", targets.as_deref()), ("old", old), ("timeout", timeout.as_deref())];
    for (key, value) in fields.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        body[key] = value.into();
    }
    if !wait {
        return post(ask, vars, route, "switch", &body);
    }
    let question = AdminRequest::post(format!("{}/switch", path(route)), &body);
    let answer = match ask::ask(&ask.at, vars, &question) {
        Ok(answer) if answer.is_ok() => answer,
        Ok(answer) => return refused(&answer, ask.json),
        Err(exit) => return exit,
    };
    let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let Some(number) = answer.pointer("/route/by_hand/switch/number").and_then(Value::as_u64) else {
        return fail("the route is gone");
    };
    let Ok(choice) = ask.at.choice(vars) else { return Exit::Usage };
    let waited = block_on(wait_until_over(&choice, &path(route), number));
    match waited.unwrap_or_else(|error| Err(fail(&error.to_string()))) {
        Ok((state, status)) => told(ask, state, &status),
        Err(exit) => exit,
    }
}

/// Looks at the route until its switch is kept and has settled, or was rolled back.
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
        let status: RouteStatus = ask::read(&answer.body).map_err(|why| fail(&why))?;
        let switch = status.by_hand.switch.clone().filter(|switch| switch.number == number);
        let Some(switch) = switch else { return Err(fail("another switch came between")) };
        match switch.state {
            SwitchState::RolledBack => return Ok((switch.state, status)),
            SwitchState::Kept if status.has_settled() => return Ok((switch.state, status)),
            SwitchState::Kept | SwitchState::OnTrial => tokio::time::sleep(PACE).await,
        }
    }
}

fn told(ask: &Ask, state: SwitchState, status: &RouteStatus) -> Exit {
    if ask.json {
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
        return fail(&format!("the switch was rolled back: {why}; route {name} uses {targets} as before"));
    }
    if !ask.json {
        out(&format!("route {name} is switched to {targets}: the old endpoints have no session left\n"));
    }
    Exit::Done
}
