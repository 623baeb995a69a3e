//! `/history`: what the routes did in the last ten minutes, or 24 hours.

use http::StatusCode;
use serde::Deserialize;

use super::exchange::{self, Response, failure};
use super::state::AdminState;
use crate::history::{Resolution, Span};
use crate::observe::history::HistoryStatus;

/// Buckets of all routes in a response, which has some 25 bytes for each: 1.5 MB.
const BUCKETS_MAX: usize = 60_000;

/// The history to return.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    #[serde(default)]
    span: SpanName,
    #[serde(default = "default_points")]
    points: usize,
    route: Option<String>,
}

/// A span as it is written.
#[derive(Clone, Copy, Default, Deserialize)]
enum SpanName {
    #[default]
    #[serde(rename = "10m")]
    Minutes10,
    #[serde(rename = "24h")]
    Hours24,
}

fn default_points() -> usize {
    60
}

pub(super) fn history(state: &AdminState, query: HistoryQuery) -> Response {
    let HistoryQuery { span, points, route } = query;
    let span = match span {
        SpanName::Minutes10 => Span::Minutes10,
        SpanName::Hours24 => Span::Hours24,
    };
    let Some(resolution) = Resolution::new(span, points) else {
        let why = format!("invalid points `{points}`: must be between 1 and {}", span.slots());
        return failure((StatusCode::BAD_REQUEST, why));
    };
    let overview = state.overview.load();
    match route {
        Some(name) if !overview.history.has(&name) && state.route(&name).is_none() => {
            state.unknown_route(name)
        }
        None if overview.history.sampled() * points > BUCKETS_MAX => {
            let routes = overview.history.sampled();
            let most = BUCKETS_MAX / routes;
            let why = format!(
                "{points} points of {routes} routes are too many: name a route, or use at most {most} points"
            );
            failure((StatusCode::BAD_REQUEST, why))
        }
        route => exchange::json(StatusCode::OK, &HistoryStatus::of(&overview, resolution, route.as_deref())),
    }
}
