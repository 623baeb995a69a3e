//! What an event means for what we know. Pure.
//!
//! An event is a reason to look again, never the news itself, but for two: what a container loses it loses at once,
//! because its address may serve another before an inspection is answered.

use serde_json::Value;

use super::api::{container_id, text};
use crate::discovery::containers::ContainerId;

/// What is asked of the engine: the rest (`exec_*` of health checks above all) never crosses the socket. `kill` and
/// `oom` are not among them: a container that dies of either says `die`, one that catches the signal lives.
pub(super) const WANTED: [&str; 12] = [
    "create",
    "start",
    "restart",
    "unpause",
    "pause",
    "stop",
    "die",
    "destroy",
    "rename",
    "connect",
    "disconnect",
    // `health_status: healthy`. An engine compares by beginnings once it is asked for this, which suits the others too.
    "health_status",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something about it changed.
    Touched(ContainerId),
    /// Its process ended: it has no endpoint from now on.
    Stopped(ContainerId),
    /// It left one network.
    Left { container: ContainerId, network: String },
    /// It is no more.
    Destroyed(ContainerId),
}

/// One line of `GET /events`; `None` for what does not concern us.
pub(super) fn event(line: &Value) -> Option<Event> {
    let action = text(line, "/Action").or_else(|| text(line, "/status"))?;
    match text(line, "/Type") {
        Some("container") | None => {
            let id = text(line, "/Actor/ID").or_else(|| text(line, "/id"))?;
            Some(of_container(container_id(id)?, action))
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

fn of_container(id: ContainerId, action: &str) -> Event {
    match action {
        "die" | "pause" => Event::Stopped(id),
        "destroy" => Event::Destroyed(id),
        _ => Event::Touched(id),
    }
}

#[cfg(test)]
mod tests;
