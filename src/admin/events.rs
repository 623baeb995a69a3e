//! `/events`: the kept events of the control plane as lines of JSON, followed by new ones as they occur.

use std::sync::Arc;

use futures_util::stream;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::connections::Streaming;
use super::exchange::{self, Response};
use super::state::AdminState;
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

/// Lines of JSON.
const CONTENT_TYPE: &str = "application/x-ndjson";

pub(super) fn events(state: &AdminState, query: &EventQuery, streaming: &Streaming) -> Response {
    if !query.follow {
        return exchange::response(StatusCode::OK, CONTENT_TYPE, lines(&state.events.since(query.since)));
    }
    streaming.begin();
    let events = state.events.clone();
    let reader = Reader { latest: events.follow(), events, seen: query.since };
    let chunks = stream::unfold(reader, |mut reader| async {
        let chunk = reader.next().await?;
        Some((chunk, reader))
    });
    exchange::stream(CONTENT_TYPE, chunks)
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
