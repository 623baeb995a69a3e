//! The effect of an event on the known state of an engine. Pure.
//!
//! An event is a reason to inspect a container, with one exception: what a container loses is removed at once, because its
//! address may be reassigned before the inspection completes.

use serde_json::Value;

use super::api::{container_id, text};
use super::model::{ContainerId, Stopping};

/// The events that are subscribed to; the others (above all `exec_*` of health checks) are not sent. `oom` is not needed: a
/// container that dies of it also reports `die`.
pub(super) const SUBSCRIBED: [&str; 13] = [
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
    // `health_status: healthy`. With this filter, an engine compares prefixes, which works for the other events too.
    "health_status",
];

/// Signals that always end a container: INT, KILL, TERM. `docker stop` sends the one of the image.
const ENDING_SIGNALS: [&str; 3] = ["2", "9", "15"];

/// QUIT stops nginx gracefully and makes a JVM print its threads; WINCH is Apache's graceful stop. HUP and USR1 request a reload
/// or a log rotation.
const POSSIBLY_ENDING_SIGNALS: [&str; 2] = ["3", "28"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DockerEvent {
    /// Something changed.
    Changed(ContainerId),
    /// It was sent a stop signal, and is killed if it does not end in time.
    Stopping(ContainerId, Stopping),
    /// Its process ended: it has no endpoint any more.
    Stopped(ContainerId),
    /// It was disconnected from one network.
    Disconnected { container: ContainerId, network: String },
    /// It was removed.
    Destroyed(ContainerId),
}

impl DockerEvent {
    pub(super) fn container(&self) -> &ContainerId {
        match self {
            DockerEvent::Changed(id)
            | DockerEvent::Stopping(id, _)
            | DockerEvent::Stopped(id)
            | DockerEvent::Disconnected { container: id, .. }
            | DockerEvent::Destroyed(id) => id,
        }
    }
}

/// Reads one line of `GET /events`. Returns `None` for an event that does not concern a container.
pub(super) fn event(line: &Value) -> Option<DockerEvent> {
    let action = text(line, "/Action").or_else(|| text(line, "/status"))?;
    match text(line, "/Type") {
        Some("container") | None => {
            let id = text(line, "/Actor/ID").or_else(|| text(line, "/id"))?;
            let signal = text(line, "/Actor/Attributes/signal").unwrap_or_default();
            container_event(container_id(id)?, action, signal)
        }
        Some("network") => {
            let container = container_id(text(line, "/Actor/Attributes/container")?)?;
            match (action, text(line, "/Actor/ID")) {
                ("disconnect", Some(network)) => {
                    Some(DockerEvent::Disconnected { container, network: network.to_owned() })
                }
                _ => Some(DockerEvent::Changed(container)),
            }
        }
        Some(_) => None,
    }
}

fn container_event(id: ContainerId, action: &str, signal: &str) -> Option<DockerEvent> {
    match action {
        "kill" => stopping(signal).map(|stopping| DockerEvent::Stopping(id, stopping)),
        "die" | "pause" => Some(DockerEvent::Stopped(id)),
        "destroy" => Some(DockerEvent::Destroyed(id)),
        _ => Some(DockerEvent::Changed(id)),
    }
}

fn stopping(signal: &str) -> Option<Stopping> {
    if ENDING_SIGNALS.contains(&signal) {
        return Some(Stopping::Certainly);
    }
    POSSIBLY_ENDING_SIGNALS.contains(&signal).then_some(Stopping::Possibly)
}

#[cfg(test)]
mod tests;
