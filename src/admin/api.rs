//! The paths of the admin API, and the guard in front of them.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::connections::Streaming;
use super::exchange::{self, Handler, Request, Response, failure};
use super::guard::{Guard, Rejection};
use super::state::AdminState;
use super::{body, events, history, watch};
use crate::observe::sessions::{SESSIONS_MAX, Sessions};
use crate::observe::status::{RouteStatus, Status};
use crate::observe::{self, metrics};
use crate::ready;
use crate::reconcile::command::{Command, CommandRequest};

const PATHS: &str = "GET /live, /ready, /metrics, /status, /routes, /routes/NAME, /sessions, /config, /events, /history, /watch; POST /routes, \
                     /routes/NAME/{pause,resume,switch,weight,drain,restore}; DELETE /routes/NAME";

/// Returns the handler of all paths.
pub(crate) fn handler(state: AdminState, guard: Guard) -> Handler {
    Arc::new(move |request, streaming| {
        let (state, permitted) = (state.clone(), guard.check(&request));
        async move {
            let answered = match permitted {
                Ok(()) => answer(&state, request, &streaming).await,
                Err(rejection) => Err(rejection),
            };
            answered.unwrap_or_else(failure)
        }
        .boxed()
    })
}

async fn answer(state: &AdminState, request: Request, streaming: &Streaming) -> Result<Response, Rejection> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let is_read = matches!(method, Method::GET | Method::HEAD);
    match (uri.path(), uri.path().strip_prefix("/routes/")) {
        // A route name may contain slashes (`53/udp`).
        (_, Some(rest)) => {
            let rest = decoded(rest)?;
            match method {
                Method::POST => command(state, &rest, request).await,
                Method::DELETE => remove(state, rest, &uri).await,
                _ if is_read => Ok(route(state, rest)),
                _ => Err(not_allowed()),
            }
        }
        ("/routes", _) if method == Method::POST => {
            Ok(state.execute(body::add(&exchange::read_body(request).await?)).await)
        }
        (path, _) if READS.contains(&path) && !is_read => Err(not_allowed()),
        (path, _) => read(state, path, &uri, streaming).await,
    }
}

/// The paths that are only read.
const READS: [&str; 10] = [
    "/live",
    "/ready",
    "/metrics",
    "/status",
    "/sessions",
    "/config",
    "/events",
    "/watch",
    "/history",
    "/routes",
];

async fn read(
    state: &AdminState,
    path: &str,
    uri: &Uri,
    streaming: &Streaming,
) -> Result<Response, Rejection> {
    Ok(match path {
        "/live" => exchange::text(StatusCode::OK, "live"),
        "/ready" => ready(state),
        "/metrics" => {
            let text = metrics::text(&state.overview.load(), state.started);
            exchange::response(StatusCode::OK, metrics::CONTENT_TYPE, text)
        }
        "/status" => {
            let status = Status::of(&state.overview.load(), state.stop.is_cancelled());
            exchange::json(StatusCode::OK, &status)
        }
        "/sessions" => sessions(state, exchange::query(uri)?).await,
        "/config" => config(state),
        "/events" => events::events(state, &exchange::query(uri)?, streaming),
        "/watch" => watch::watch(state, &exchange::query(uri)?, streaming),
        "/history" => history::history(state, exchange::query(uri)?),
        "/routes" => routes(state),
        _ => return Err((StatusCode::NOT_FOUND, format!("unknown path: use one of {PATHS}"))),
    })
}

fn not_allowed() -> Rejection {
    (StatusCode::METHOD_NOT_ALLOWED, format!("method not allowed: use one of {PATHS}"))
}

fn decoded(path: &str) -> Result<String, Rejection> {
    let text = percent_decode_str(path).decode_utf8();
    text.map(Into::into).map_err(|_| (StatusCode::BAD_REQUEST, "the path is not UTF-8".to_owned()))
}

fn ready(state: &AdminState) -> Response {
    let reasons = ready::reasons(&state.overview.load(), state.stop.is_cancelled());
    if reasons.is_empty() {
        exchange::text(StatusCode::OK, "ready")
    } else {
        exchange::text(StatusCode::SERVICE_UNAVAILABLE, &reasons.join("\n"))
    }
}

/// The sessions to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    route: Option<String>,
    peer: Option<String>,
    limit: Option<usize>,
}

async fn sessions(state: &AdminState, query: SessionQuery) -> Response {
    let SessionQuery { route, peer, limit } = query;
    if let Some(name) = route.as_ref().filter(|name| state.route(name).is_none()) {
        return state.unknown_route(name.clone());
    }
    let workers = state.overview.load().workers.clone();
    let limit = limit.unwrap_or(SESSIONS_MAX).min(SESSIONS_MAX);
    let sessions = Sessions::of(&workers, route.as_deref(), peer.as_deref(), limit).await;
    exchange::json(StatusCode::OK, &sessions)
}

/// Returns the configuration, and what an operator changed of it.
fn config(state: &AdminState) -> Response {
    let overview = state.overview.load();
    let mut value = overview.config.as_deref().map(observe::config::json).unwrap_or_default();
    value["running"] = overview.routes.iter().map(|view| view.route.to_string()).collect();
    value["removed_by_hand"] = overview.removed.clone().into();
    exchange::json(StatusCode::OK, &value)
}

fn routes(state: &AdminState) -> Response {
    let overview = state.overview.load();
    let status = |view| RouteStatus::of(view, &overview.history);
    let routes: Vec<_> = overview.routes.iter().map(status).collect();
    exchange::json(StatusCode::OK, &json!({ "routes": routes }))
}

fn route(state: &AdminState, name: String) -> Response {
    match state.route(&name) {
        Some(status) => exchange::json(StatusCode::OK, &status),
        None => state.unknown_route(name),
    }
}

/// A command without a body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn remove(state: &AdminState, route: String, uri: &Uri) -> Result<Response, Rejection> {
    let RemoveQuery { dry_run } = exchange::query(uri)?;
    let mode = body::mode(dry_run);
    Ok(state.execute(Ok(CommandRequest { command: Command::Remove { route }, mode })).await)
}

async fn command(state: &AdminState, rest: &str, request: Request) -> Result<Response, Rejection> {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((rest, ""));
    Ok(state.execute(body::command(name, verb, &exchange::read_body(request).await?)).await)
}
