//! `/watch`: the status and its changes as Server-Sent Events (WHATWG HTML, 9.2), for the web page.
//!
//! A reader has no queue. What it has not read is not computed: each message is what changed since the previous one.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::mem;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::Streaming;
use super::exchange::{self, Response};
use super::state::AdminState;
use crate::history::Viewer;
use crate::observe::status::{RouteStatus, Status};

/// Between two looks at the counters.
const PERIOD: Duration = Duration::from_secs(1);
/// After a look at the counters there is none for this many times as long as it took, so that a reader costs about 1% of a core,
/// however many routes there are.
const REST: u32 = 100;
/// From an event of the control plane to the status that shows it: events come in groups.
const GROUPED: Duration = Duration::from_millis(50);
/// A stream without changes sends a comment, so that each side notices when the other is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The events to send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchQuery {
    /// Sends the kept events after this number, then new ones. 0 by default, which is all that are kept.
    #[serde(default)]
    since: u64,
}

pub(super) fn watch(state: &AdminState, query: &WatchQuery, streaming: &Streaming) -> Response {
    streaming.begin();
    let watcher = Watcher::new(state.clone(), query.since);
    let messages = stream::unfold(watcher, |mut watcher| async {
        let message = watcher.next().await?;
        Some((message, watcher))
    });
    exchange::stream("text/event-stream", messages)
}

struct Watcher {
    state: AdminState,
    latest: watch::Receiver<u64>,
    /// The number of the last event that was sent.
    seen: u64,
    sent: Sent,
    /// When to look at the counters again. `None` before the first message.
    due: Option<Instant>,
    /// Not before then, whatever happens.
    earliest: Instant,
    last_message: Instant,
    /// The counters are sampled while somebody watches.
    _viewer: Viewer,
}

/// The first message, with everything.
#[derive(Serialize)]
struct Whole<'a> {
    at_ms: u128,
    status: &'a Status,
}

/// What has changed since the previous message.
#[derive(Serialize)]
struct Change<'a> {
    at_ms: u128,
    routes: Vec<&'a RouteStatus>,
    removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<&'a Status>,
}

impl Watcher {
    fn new(state: AdminState, seen: u64) -> Watcher {
        let latest = state.events.follow();
        // A greater number than the last is of an earlier run.
        let seen = if seen > *latest.borrow() { 0 } else { seen };
        let _viewer = state.overview.load().history.view();
        Watcher {
            state,
            latest,
            seen,
            sent: Sent::default(),
            due: None,
            earliest: Instant::now(),
            last_message: Instant::now(),
            _viewer,
        }
    }

    /// Waits for the next message. Returns `None` once there will be no more.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.wait().await?;
            self.latest.borrow_and_update();
            let is_due = self.due.is_none_or(|due| due <= Instant::now());
            let status = if is_due { self.status() } else { String::new() };
            let message = status + &self.events();
            if !message.is_empty() {
                self.last_message = Instant::now();
                return Some(message);
            }
            if self.last_message.elapsed() >= SILENCE_MAX {
                self.last_message = Instant::now();
                return Some(": no change\n\n".to_owned());
            }
        }
    }

    /// Waits until it is time to look at the counters, or the control plane has done something.
    async fn wait(&mut self) -> Option<()> {
        let Some(due) = self.due else { return Some(()) };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            changed = self.latest.changed() => {
                changed.ok()?;
                tokio::time::sleep(GROUPED).await;
                self.due = Some(due.min(self.earliest));
            }
        }
        Some(())
    }

    /// Returns what has changed, or an empty string.
    fn status(&mut self) -> String {
        let began = Instant::now();
        let status = Status::of(&self.state.overview.load(), self.state.stop.is_cancelled());
        let message = self.sent.changes(status, now_ms());
        let rest = began.elapsed() * REST;
        self.earliest = Instant::now() + rest;
        self.due = Some(Instant::now() + rest.max(PERIOD));
        message
    }

    fn events(&mut self) -> String {
        let unseen = self.state.events.since(self.seen);
        let mut text = String::new();
        for event in unseen.events {
            self.seen = event.seq;
            if let Ok(data) = serde_json::to_string(&event) {
                text += &format!("event: event\nid: {}\ndata: {data}\n\n", event.seq);
            }
        }
        text
    }
}

/// Digests of what the reader has.
#[derive(Default)]
struct Sent {
    hasher: RandomState,
    routes: HashMap<String, u64>,
    /// Of everything except the routes. `None` before the first message.
    rest: Option<u64>,
}

impl Sent {
    /// Returns the first message, then what differs from the previous one, or an empty string if nothing does.
    fn changes(&mut self, mut status: Status, at_ms: u128) -> String {
        let digests: HashMap<String, u64> =
            status.routes.iter().map(|route| (route.name.clone(), self.digest(route))).collect();
        let before = mem::replace(&mut self.routes, digests);
        let Some(rest_before) = self.rest else {
            let message = message("status", &Whole { at_ms, status: &status });
            self.rest = Some(self.digest_rest(&mut status).0);
            return message;
        };
        let (rest, routes) = self.digest_rest(&mut status);
        self.rest = Some(rest);
        let is_new = |route: &&RouteStatus| before.get(&route.name) != self.routes.get(&route.name);
        let change = Change {
            at_ms,
            routes: routes.iter().filter(is_new).collect(),
            removed: before.keys().filter(|name| !self.routes.contains_key(*name)).cloned().collect(),
            rest: (rest != rest_before).then_some(&status),
        };
        if change.routes.is_empty() && change.removed.is_empty() && change.rest.is_none() {
            return String::new();
        }
        message("change", &change)
    }

    /// Takes the routes out of a status. Returns the digest of the rest, and the routes.
    fn digest_rest(&self, status: &mut Status) -> (u64, Vec<RouteStatus>) {
        let routes = mem::take(&mut status.routes);
        (self.digest(status), routes)
    }

    /// Ages are left out: that they grow is not a change.
    fn digest(&self, value: &impl Serialize) -> u64 {
        let text = serde_json::to_string(value).unwrap_or_default();
        let parts =
            text.split("_ms_ago\":").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        self.hasher.hash_one(parts.collect::<Vec<_>>())
    }
}

/// JSON has no line break, so that a message is one line of data.
fn message(event: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {event}\ndata: {data}\n\n")
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
