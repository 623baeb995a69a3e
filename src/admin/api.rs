//! The paths of the admin API, and the guard in front of them.

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::guard::Guard;
use super::state::{AdminState, failure};
use super::{body, events, history, watch};
use crate::observe::sessions::{SESSIONS_MAX, Sessions};
use crate::observe::status::{RouteStatus, Status};
use crate::observe::{self, metrics};
use crate::ready;
use crate::reconcile::command::{Command, CommandRequest};

/// The longest body is a route, which has some thousand bytes at most.
const BODY_BYTES_MAX: usize = 64 << 10;

const PATHS: &str = "GET /live, /ready, /metrics, /status, /routes, /routes/NAME, /sessions, /config, /events, /history, /watch; POST /routes, \
                     /routes/NAME/{pause,resume,switch,weight,drain,restore}; DELETE /routes/NAME";

/// Returns the handlers of all paths.
pub(crate) fn router(state: AdminState, guard: Guard) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/sessions", get(sessions))
        .route("/config", get(config))
        .route("/events", get(events::events))
        .route("/watch", get(watch::watch))
        .route("/history", get(history::history))
        .route("/routes", get(routes).post(add))
        // A route name may contain slashes (`53/udp`), so the handlers split the rest of the path.
        .route("/routes/{*rest}", get(route).delete(remove).merge(post(command)))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, &format!("unknown path: use one of {PATHS}")) })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, &format!("method not allowed: use one of {PATHS}"))
        })
        .layer(middleware::from_fn_with_state(guard, guarded))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

/// Refuses requests that the guard does not allow.
pub(crate) async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => failure(status, &why),
    }
}

async fn ready(State(state): State<AdminState>) -> Response {
    let reasons = ready::reasons(&state.overview.load(), state.stop.is_cancelled());
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
    }
}

async fn status(State(state): State<AdminState>) -> Json<Status> {
    Json(Status::of(&state.overview.load(), state.stop.is_cancelled()))
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let text = metrics::text(&state.overview.load(), state.started);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// The sessions to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    route: Option<String>,
    peer: Option<String>,
    limit: Option<usize>,
}

async fn sessions(
    State(state): State<AdminState>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Response {
    let SessionQuery { route, peer, limit } = match query {
        Ok(Query(query)) => query,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    if let Some(name) = route.as_ref().filter(|name| state.route(name).is_none()) {
        return state.unknown_route(name.clone());
    }
    let workers = state.overview.load().workers.clone();
    let limit = limit.unwrap_or(SESSIONS_MAX).min(SESSIONS_MAX);
    Json(Sessions::of(&workers, route.as_deref(), peer.as_deref(), limit).await).into_response()
}

/// Returns the configuration, and what an operator changed of it.
async fn config(State(state): State<AdminState>) -> Response {
    let overview = state.overview.load();
    let mut value = overview.config.as_deref().map(observe::config::json).unwrap_or_default();
    value["running"] = overview.routes.iter().map(|view| view.route.to_string()).collect();
    value["removed_by_hand"] = overview.removed.clone().into();
    Json(value).into_response()
}

async fn routes(State(state): State<AdminState>) -> Response {
    let overview = state.overview.load();
    let status = |view| RouteStatus::of(view, &overview.history);
    let routes: Vec<_> = overview.routes.iter().map(status).collect();
    Json(json!({ "routes": routes })).into_response()
}

async fn route(State(state): State<AdminState>, Path(name): Path<String>) -> Response {
    match state.route(&name) {
        Some(status) => Json(status).into_response(),
        None => state.unknown_route(name),
    }
}

async fn add(State(state): State<AdminState>, bytes: Bytes) -> Response {
    state.execute(body::add(&bytes)).await
}

/// A command without a body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn remove(
    State(state): State<AdminState>,
    Path(route): Path<String>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Response {
    let RemoveQuery { dry_run } = match query {
        Ok(Query(query)) => query,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    state.execute(Ok(CommandRequest { command: Command::Remove { route }, mode: body::mode(dry_run) })).await
}

async fn command(State(state): State<AdminState>, Path(rest): Path<String>, bytes: Bytes) -> Response {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    state.execute(body::command(name, verb, &bytes)).await
}
