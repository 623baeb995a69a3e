//! `/events`: the kept events of the control plane as lines of JSON, followed by new ones as they occur.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::connections::Streaming;
use super::state::{AdminState, failure};
use crate::events::{Events, Unseen};

/// The events to return.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Returns events after this number. 0 by default, which is all that are kept.
    #[serde(default)]
    since: u64,
    /// Whether to stream new events.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn events(
    State(state): State<AdminState>,
    Extension(streaming): Extension<Streaming>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Response {
    let EventQuery { since, follow } = match query {
        Ok(Query(query)) => query,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    if !follow {
        return (content_type, lines(&state.events.since(since))).into_response();
    }
    streaming.begin();
    let reader = Reader { latest: state.events.follow(), events: state.events, seen: since };
    let chunks = stream::unfold(reader, |mut reader| async {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), reader))
    });
    (content_type, Body::from_stream(chunks)).into_response()
}

/// A client that follows the events. It has no queue: events that it has not read are in the ring, or are missed.
struct Reader {
    events: Arc<Events>,
    latest: watch::Receiver<u64>,
    seen: u64,
}

impl Reader {
    /// Waits for new events. Returns `None` once there will be no more.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.latest.borrow_and_update();
            let unseen = self.events.since(self.seen);
            if let Some(last) = unseen.events.last() {
                self.seen = last.seq;
                return Some(lines(&unseen));
            }
            self.latest.changed().await.ok()?;
        }
    }
}

fn lines(Unseen { missed, events }: &Unseen) -> String {
    let gap = (*missed > 0).then(|| json!({ "event": "missed", "count": missed }).to_string());
    let events = events.iter().filter_map(|event| serde_json::to_string(event).ok());
    gap.into_iter().chain(events).map(|line| line + "\n").collect()
}
