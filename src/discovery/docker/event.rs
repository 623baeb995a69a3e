//! What an event means for what we know. Pure.
//!
//! An event is a reason to look again, never the news itself, but for two: what a container loses it loses at once,
//! because its address may serve another before an inspection is answered.

use serde_json::Value;

use super::api::{container_id, text};
use crate::discovery::containers::{ContainerId, Leaving};

/// What is asked of the engine: the rest (`exec_*` of health checks above all) never crosses the socket. `oom` is not
/// among them: a container that dies of it says `die`.
pub(super) const WANTED: [&str; 13] = [
    "create",
    "start",
    "restart",
    "unpause",
    "pause",
    "kill",
    "stop",
    "die",
    "destroy",
    "rename",
    "connect",
    "disconnect",
    // `health_status: healthy`. An engine compares by beginnings once it is asked for this, which suits the others too.
    "health_status",
];

/// Signals that mean an end wherever they are sent: INT, KILL, TERM. `docker stop` sends the image's.
const ENDING_SIGNALS: [&str; 3] = ["2", "9", "15"];

/// QUIT, with which nginx stops gracefully and a JVM prints its threads; WINCH, Apache's graceful stop. HUP and USR1 ask for
/// a reload or for new log files.
const PERHAPS_ENDING_SIGNALS: [&str; 2] = ["3", "28"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something about it changed.
    Touched(ContainerId),
    /// It was told to stop, and has until the engine loses its patience.
    Leaving(ContainerId, Leaving),
    /// Its process ended: it has no endpoint from now on.
    Stopped(ContainerId),
    /// It left one network.
    Left { container: ContainerId, network: String },
    /// It is no more.
    Destroyed(ContainerId),
}

impl Event {
    pub(super) fn container(&self) -> &ContainerId {
        match self {
            Event::Touched(id)
            | Event::Leaving(id, _)
            | Event::Stopped(id)
            | Event::Left { container: id, .. }
            | Event::Destroyed(id) => id,
        }
    }
}

/// One line of `GET /events`; `None` for what does not concern us.
pub(super) fn event(line: &Value) -> Option<Event> {
    let action = text(line, "/Action").or_else(|| text(line, "/status"))?;
    match text(line, "/Type") {
        Some("container") | None => {
            let id = text(line, "/Actor/ID").or_else(|| text(line, "/id"))?;
            let signal = text(line, "/Actor/Attributes/signal").unwrap_or_default();
            of_container(container_id(id)?, action, signal)
        }
        Some("network") => {
            let container = container_id(text(line, "/Actor/Attributes/container")?)?;
            match (action, text(line, "/Actor/ID")) {
                ("disconnect", Some(network)) => Some(Event::Left { container, network: network.to_owned() }),
                _ => Some(Event::Touched(container)),
            }
        }
        Some(_) => None,
    }
}

fn of_container(id: ContainerId, action: &str, signal: &str) -> Option<Event> {
    match action {
        "kill" => leaving(signal).map(|leaving| Event::Leaving(id, leaving)),
        "die" | "pause" => Some(Event::Stopped(id)),
        "destroy" => Some(Event::Destroyed(id)),
        _ => Some(Event::Touched(id)),
    }
}

fn leaving(signal: &str) -> Option<Leaving> {
    if ENDING_SIGNALS.contains(&signal) {
        return Some(Leaving::Surely);
    }
    PERHAPS_ENDING_SIGNALS.contains(&signal).then_some(Leaving::Perhaps)
}

#[cfg(test)]
mod tests;
