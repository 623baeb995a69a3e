//! What the admin API answers: the paths, and the guard before them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::body;
use crate::observe::events::Events;
use crate::observe::status::{RouteStatus, Status};
use crate::ready;
use crate::reconcile::Overview;
use crate::reconcile::order::{Order, Orders, Refusal};

/// An order is a route at most: the longest there can be has some thousand bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

const PATHS: &str = "GET /live, /ready, /status, /routes, /routes/NAME; POST /routes, \
                     /routes/NAME/{pause,resume,switch,weight,drain}; DELETE /routes/NAME";

/// What the handlers answer from.
#[derive(Clone)]
pub struct Knows {
    pub overview: Arc<ArcSwap<Overview>>,
    pub orders: Orders,
    pub events: Arc<Events>,
    pub stop: CancellationToken,
}

pub(super) fn router(knows: Knows) -> axum::Router {
    axum::Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/routes", get(routes).post(add))
        // A name may hold slashes (`53/udp`), so it is taken apart by hand.
        .route("/routes/{*rest}", get(route).delete(remove).merge(post(order)))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, &format!("there is {PATHS}")) })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, &format!("there is {PATHS}"))
        })
        .layer(middleware::from_fn(no_browser))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(knows)
}

/// A web page that its reader's browser has open must not give orders on loopback: browsers send `Origin`, and cannot send
/// this content type to a stranger without asking first.
async fn no_browser(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return failure(StatusCode::FORBIDDEN, "browsers are not served: the request has an `Origin`");
    }
    if request.method() == Method::POST && !is_json(headers) {
        return failure(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "an order is JSON: send `content-type: application/json`",
        );
    }
    next.run(request).await
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn failure(status: StatusCode, error: &str) -> Response {
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

async fn routes(State(knows): State<Knows>) -> Response {
    let routes: Vec<_> = knows.overview.load().routes.iter().map(RouteStatus::of).collect();
    Json(json!({ "routes": routes })).into_response()
}

async fn route(State(knows): State<Knows>, Path(name): Path<String>) -> Response {
    match knows.route(&name) {
        Some(status) => Json(status).into_response(),
        None => refusal(&Refusal::Unknown { what: "route", known: knows.names(), name }),
    }
}

async fn add(State(knows): State<Knows>, bytes: Bytes) -> Response {
    knows.obey(body::add(&bytes)).await
}

async fn remove(State(knows): State<Knows>, Path(route): Path<String>) -> Response {
    knows.obey(Ok(Order::Remove { route })).await
}

async fn order(State(knows): State<Knows>, Path(rest): Path<String>, bytes: Bytes) -> Response {
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    knows.obey(body::order(name, verb, &bytes)).await
}

impl Knows {
    fn route(&self, name: &str) -> Option<RouteStatus> {
        let overview = self.overview.load();
        let view = overview.routes.iter().find(|view| view.route.options.name == name);
        view.map(RouteStatus::of)
    }

    fn names(&self) -> Vec<String> {
        self.overview.load().routes.iter().map(|view| view.route.options.name.clone()).collect()
    }

    /// What was done, with the route as it is now; or why nothing was.
    async fn obey(&self, order: Result<Order, String>) -> Response {
        let order = match order {
            Ok(order) => order,
            Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
        };
        match self.orders.give(order).await {
            Ok(done) => {
                let route = self.route(&done.route);
                Json(json!({ "message": done.message, "route": route })).into_response()
            }
            Err(why) => refusal(&why),
        }
    }
}

fn refusal(refusal: &Refusal) -> Response {
    let mut value = json!({ "error": refusal.to_string() });
    let status = match refusal {
        Refusal::Unknown { known, .. } => {
            value["known"] = known.clone().into();
            StatusCode::NOT_FOUND
        }
        Refusal::Mistaken(_) => StatusCode::BAD_REQUEST,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::NotBound(_) | Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(value)).into_response()
}
