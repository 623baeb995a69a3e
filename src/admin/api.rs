//! What the admin API answers: the paths, and the guard before them.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::body;
use super::guard::Guard;
use crate::events::Events;
use crate::observe::sessions::{SESSIONS_MAX, Sessions};
use crate::observe::status::{RouteStatus, Status};
use crate::observe::{self, metrics};
use crate::ready;
use crate::reconcile::Overview;
use crate::reconcile::command::{Command, CommandError, CommandSender};

/// An command is a route at most: the longest there can be has some thousand bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

const PATHS: &str = "GET /live, /ready, /metrics, /status, /routes, /routes/NAME, /sessions, /config, /events; POST /routes, \
                     /routes/NAME/{pause,resume,switch,weight,drain}; DELETE /routes/NAME";

/// What the handlers answer from.
#[derive(Clone)]
pub struct Knows {
    pub overview: Arc<ArcSwap<Overview>>,
    pub commands: CommandSender,
    pub events: Arc<Events>,
    pub stop: CancellationToken,
    pub started: SystemTime,
}

pub(super) fn router(knows: Knows, guard: Guard) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/sessions", get(sessions))
        .route("/config", get(config))
        .route("/events", get(super::stream::events))
        .route("/routes", get(routes).post(add))
        // A name may hold slashes (`53/udp`), so it is taken apart by hand.
        .route("/routes/{*rest}", get(route).delete(remove).merge(post(command)))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, &format!("there is {PATHS}")) })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, &format!("there is {PATHS}"))
        })
        .layer(middleware::from_fn_with_state(guard, guarded))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(knows)
}

async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => failure(status, &why),
    }
}

pub(super) fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn ready(State(knows): State<Knows>) -> Response {
    let reasons = ready::reasons(&knows.overview.load(), knows.stop.is_cancelled());
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
    }
}

async fn status(State(knows): State<Knows>) -> Json<Status> {
    Json(Status::of(&knows.overview.load(), knows.stop.is_cancelled()))
}

async fn metrics(State(knows): State<Knows>) -> Response {
    let text = metrics::text(&knows.overview.load(), knows.started);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Which sessions to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    route: Option<String>,
    limit: Option<usize>,
}

async fn sessions(State(knows): State<Knows>, which: Result<Query<Which>, QueryRejection>) -> Response {
    let Which { route, limit } = match which {
        Ok(Query(which)) => which,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why.body_text()),
    };
    if let Some(name) = route.as_ref().filter(|name| knows.route(name).is_none()) {
        return knows.unknown(name.clone());
    }
    let workers = knows.overview.load().workers.clone();
    let limit = limit.unwrap_or(SESSIONS_MAX).min(SESSIONS_MAX);
    Json(Sessions::of(&workers, route.as_deref(), limit).await).into_response()
}

/// What was asked for, and what an operator changed of it.
async fn config(State(knows): State<Knows>) -> Response {
    let overview = knows.overview.load();
    let mut value = overview.config.as_deref().map(observe::config::json).unwrap_or_default();
    value["running"] = overview.routes.iter().map(|view| view.route.to_string()).collect();
    value["removed_by_hand"] = overview.removed.clone().into();
    Json(value).into_response()
}

async fn routes(State(knows): State<Knows>) -> Response {
    let routes: Vec<_> = knows.overview.load().routes.iter().map(RouteStatus::of).collect();
    Json(json!({ "routes": routes })).into_response()
}

async fn route(State(knows): State<Knows>, Path(name): Path<String>) -> Response {
    match knows.route(&name) {
        Some(status) => Json(status).into_response(),
        None => knows.unknown(name),
    }
}

async fn add(State(knows): State<Knows>, bytes: Bytes) -> Response {
    knows.execute(body::add(&bytes)).await
}

async fn remove(State(knows): State<Knows>, Path(route): Path<String>) -> Response {
    knows.execute(Ok(Command::Remove { route })).await
}

async fn command(State(knows): State<Knows>, Path(rest): Path<String>, bytes: Bytes) -> Response {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    knows.execute(body::order(name, verb, &bytes)).await
}

impl Knows {
    fn route(&self, name: &str) -> Option<RouteStatus> {
        let overview = self.overview.load();
        let view = overview.routes.iter().find(|view| view.route.options.name == name);
        view.map(RouteStatus::of)
    }

    fn unknown(&self, name: String) -> Response {
        let overview = self.overview.load();
        let known = overview.routes.iter().map(|view| view.route.options.name.clone()).collect();
        refusal(&CommandError::Unknown { what: "route", name, known })
    }

    /// What was done, with the route as it is now; or why nothing was.
    async fn execute(&self, command: Result<Command, String>) -> Response {
        let command = match command {
            Ok(command) => command,
            Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
        };
        match self.commands.send(command).await {
            Ok(done) => {
                let route = self.route(&done.route);
                Json(json!({ "message": done.message, "route": route })).into_response()
            }
            Err(why) => refusal(&why),
        }
    }
}

fn refusal(refusal: &CommandError) -> Response {
    let mut value = json!({ "error": refusal.to_string() });
    let status = match refusal {
        CommandError::Unknown { known, .. } => {
            value["known"] = known.clone().into();
            StatusCode::NOT_FOUND
        }
        CommandError::Mistaken(_) => StatusCode::BAD_REQUEST,
        CommandError::Conflict(_) => StatusCode::CONFLICT,
        CommandError::NotBound(_) | CommandError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(value)).into_response()
}
