//! What the handlers of the admin API share, and the responses that several of them return.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::body::{self, BodyError};
use super::exchange::{self, Response};
use crate::diagnostic::{Diagnostic, Mistake};
use crate::events::Events;
use crate::observe::status::RouteStatus;
use crate::reconcile::Overview;
use crate::reconcile::command::{CommandError, CommandRequest, CommandSender, Done, Mode};

/// What the handlers read and send commands to.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub overview: Arc<ArcSwap<Overview>>,
    pub commands: CommandSender,
    pub events: Arc<Events>,
    /// Cancelled once the process drains.
    pub stop: CancellationToken,
    pub started: SystemTime,
}

impl AdminState {
    /// Returns the status of the route of this name.
    pub(super) fn route(&self, name: &str) -> Option<RouteStatus> {
        let overview = self.overview.load();
        let view = overview.routes.iter().find(|view| view.route.options.name == name);
        view.map(|view| RouteStatus::of(view, &overview.history))
    }

    /// Returns the response to a request with an unknown route.
    pub(super) fn unknown_route(&self, name: String) -> Response {
        let overview = self.overview.load();
        let known = overview.routes.iter().map(|view| view.route.options.name.clone()).collect();
        command_error(&CommandError::Unknown { what: "route", name, known })
    }

    /// Executes a command. Returns what was done, with the route as it is now, or why the command failed.
    pub(super) async fn execute(&self, request: Result<CommandRequest, BodyError>) -> Response {
        let request = match request {
            Ok(request) => request,
            Err(error) => return body_error(&error),
        };
        let dry_run = request.mode == Mode::DryRun;
        match self.commands.send(request).await {
            Ok(Done { message, route, endpoint, effects, undo }) => {
                let done = json!({
                    "message": message,
                    "endpoint": endpoint,
                    "effects": effects,
                    "undo": undo.as_ref().map(body::request),
                    "route": self.route(&route),
                    "dry_run": dry_run,
                });
                exchange::json(StatusCode::OK, &done)
            }
            Err(error) => command_error(&error),
        }
    }
}

fn body_error(error: &BodyError) -> Response {
    let mut value = json!({ "error": error.to_string() });
    if let BodyError::Timeout(Mistake { message, help }) = error {
        value["diagnostics"] = json!([{ "message": message, "help": help }]);
    }
    exchange::json(StatusCode::BAD_REQUEST, &value)
}

fn command_error(error: &CommandError) -> Response {
    let mut value = json!({ "error": error.to_string() });
    let status = match error {
        CommandError::Unknown { known, .. } => {
            value["known"] = known.clone().into();
            StatusCode::NOT_FOUND
        }
        CommandError::Invalid(mistakes) => {
            let mistake = |Diagnostic { place: _, message, help }: &Diagnostic| json!({ "message": message, "help": help });
            value["diagnostics"] = mistakes.iter().map(mistake).collect();
            StatusCode::BAD_REQUEST
        }
        CommandError::Conflict(_) => StatusCode::CONFLICT,
        CommandError::NotBound(_) | CommandError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    exchange::json(status, &value)
}
