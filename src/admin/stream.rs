//! `/events`: what the control plane did, as lines of JSON, and what it does from now on.

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

use super::api::{Knows, failure};
use super::crowd::Follows;
use crate::events::{Events, Unseen};

/// Which events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those after this number. 0, and all that are kept, by default.
    #[serde(default)]
    since: u64,
    /// Whether to go on with those to come.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn events(
    State(knows): State<Knows>,
    Extension(follows): Extension<Follows>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let Which { since, follow } = match which {
        Ok(Query(which)) => which,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why.body_text()),
    };
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    if !follow {
        return (kind, lines(&knows.events.since(since))).into_response();
    }
    follows.begin();
    let reader = Reader { latest: knows.events.follow(), events: knows.events, seen: since };
    let pieces = stream::unfold(reader, |mut reader| async {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), reader))
    });
    (kind, Body::from_stream(pieces)).into_response()
}

/// One who follows. It owns no queue: what it has not taken is in the ring, or is missed.
struct Reader {
    events: Arc<Events>,
    latest: watch::Receiver<u64>,
    seen: u64,
}

impl Reader {
    /// Waits for events it has not seen. `None` when there will be none any more.
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
