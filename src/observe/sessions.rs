//! The sessions, for `ambassador sessions` and `/sessions`.

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{age, aligned, bytes};
use crate::session::live::Live;
use crate::worker::Loads;

/// The maximum number of sessions in a response: 4 MB at about 200 bytes each.
pub(crate) const SESSIONS_MAX: usize = 20_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// Sorted by route and age, the oldest first.
    pub sessions: Vec<SessionStatus>,
    /// Whether there are more sessions than the limit.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    pub route: String,
    pub client: String,
    /// `None` while the session is held.
    pub endpoint: Option<String>,
    /// The identity of the peer, for a session in a tunnel.
    #[serde(default)]
    pub peer: Option<String>,
    pub state: State,
    pub age_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub worker: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Waiting for an endpoint.
    Held,
    Relaying,
}

impl Sessions {
    /// Returns at most `limit` sessions of all routes or of one, through all peers and none, or through one.
    pub(crate) async fn of(
        workers: &Loads,
        route: Option<&str>,
        peer: Option<&str>,
        limit: usize,
    ) -> Sessions {
        let is_asked = |status: &SessionStatus| {
            route.is_none_or(|route| status.route == route)
                && peer.is_none_or(|peer| status.peer.as_deref() == Some(peer))
        };
        let mut found = Sessions::default();
        let collect = |worker: usize, page: Vec<std::sync::Arc<Live>>| {
            let statuses = page.iter().map(|live| SessionStatus::of(live, worker));
            for status in statuses.filter(is_asked) {
                if found.sessions.len() >= limit {
                    found.truncated = true;
                    return false;
                }
                found.sessions.push(status);
            }
            true
        };
        workers.each_session(collect).await;
        found.sessions.sort_by(|a, b| (&a.route, Reverse(a.age_ms)).cmp(&(&b.route, Reverse(b.age_ms))));
        found
    }

    /// Returns the sessions as a table.
    pub(crate) fn table(&self) -> String {
        let head = ["ROUTE", "CLIENT", "ENDPOINT", "PEER", "STATE", "AGE", "SENT", "RECEIVED", "WORKER"]
            .map(str::to_owned);
        let rows: Vec<_> =
            std::iter::once(head).chain(self.sessions.iter().map(SessionStatus::row)).collect();
        let more = if self.truncated { "more sessions are not shown: increase --limit\n" } else { "" };
        format!("{}{more}", aligned(&rows))
    }
}

impl SessionStatus {
    fn of(live: &Live, worker: usize) -> SessionStatus {
        let endpoint = live.endpoint.load().as_ref().map(|endpoint| endpoint.key.to_string());
        SessionStatus {
            route: live.cluster.members().options.name.clone(),
            client: live.client.to_string(),
            peer: live.peer.load().as_deref().map(|peer| peer.identity.to_string()),
            state: if endpoint.is_some() { State::Relaying } else { State::Held },
            endpoint,
            age_ms: u64::try_from(live.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes_up: live.traffic.up(),
            bytes_down: live.traffic.down(),
            worker,
        }
    }

    fn row(&self) -> [String; 9] {
        [
            self.route.clone(),
            self.client.clone(),
            self.endpoint.clone().unwrap_or_else(|| "-".to_owned()),
            self.peer.clone().unwrap_or_else(|| "-".to_owned()),
            match self.state {
                State::Held => "held".to_owned(),
                State::Relaying => "relaying".to_owned(),
            },
            age(Duration::from_millis(self.age_ms)),
            bytes(self.bytes_up),
            bytes(self.bytes_down),
            self.worker.to_string(),
        ]
    }
}
