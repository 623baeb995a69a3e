//! The events of the control plane: a closed set, written to the log and kept in a ring buffer for `/events`.
//!
//! One call does both, so log and `/events` contain the same. The ends of sessions are not events: they are in the access log.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;
use tracing::Level;
use tracing::field::display;

/// Events kept for later readers: 200 KB, at about 200 bytes each.
const EVENTS_MAX: usize = 1_000;

/// The kinds of events. `route` is a route's name; `endpoint` is an address and its identity, as in `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Its listener is bound.
    RouteOpened {
        /// Name of the route.
        route: String,
        /// The route with its options, in the syntax of an argument.
        line: String,
        /// Where the route is configured, as in `status`.
        origin: String,
    },
    /// Targets or options changed; the listener stayed open.
    RouteReplaced {
        /// Name of the route.
        route: String,
        /// The route with its options, in the syntax of an argument.
        line: String,
        /// Where the route is configured, as in `status`.
        origin: String,
    },
    /// Its listener is closed; its sessions may continue.
    RouteClosed {
        /// Name of the route.
        route: String,
    },
    /// Its listener cannot be bound, which is retried.
    RouteNotBound {
        /// Name of the route.
        route: String,
        /// Error of the bind.
        why: String,
    },
    /// It was added to the cluster of the route.
    EndpointAdded {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// It was removed from the cluster of the route.
    EndpointRemoved {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// It takes no new sessions for a while: a health check or its own sessions failed.
    EndpointEjected {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
        /// Cause, for people.
        why: String,
    },
    /// It takes sessions again.
    EndpointReturned {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// A session could not connect to it. Reported once, until a session has connected again.
    EndpointUnreachable {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
        /// Cause, for people.
        why: String,
    },
    /// A session has connected to it again.
    EndpointReachable {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// Its container passes its own health check again.
    EndpointHealthy {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// No endpoint takes new sessions.
    RouteDown {
        /// Name of the route.
        route: String,
        /// Cause, for people.
        why: String,
    },
    /// An endpoint takes new sessions, after [`EventKind::RouteDown`].
    RouteUp {
        /// Name of the route.
        route: String,
    },
    /// Why a target has no endpoint, or fewer than it could have.
    TargetProblem {
        /// Name of the route.
        route: String,
        /// Cause, for people.
        why: String,
    },
    /// The source published its first snapshot.
    SourceAnswered {
        /// Name of the source, such as `docker`.
        source: String,
        /// Summary of the snapshot.
        why: String,
    },
    /// The source failed; its last snapshot is kept.
    SourceLost {
        /// Name of the source, such as `docker`.
        source: String,
        /// Cause, for people.
        why: String,
    },
    /// The source has failed for so long that its last snapshot is no longer used.
    SourceExpired {
        /// Name of the source, such as `docker`.
        source: String,
    },
    /// The source reports again, after [`EventKind::SourceLost`].
    SourceBack {
        /// Name of the source, such as `docker`.
        source: String,
    },
    /// A label is invalid, or a route conflicts with an earlier one.
    Mistake {
        /// The mistake with its place, in one line.
        why: String,
    },
    /// Something that is configured does not exist yet.
    Notice {
        /// What does not exist yet, in one line.
        why: String,
    },
    /// The configuration file is invalid or cannot be read. The routes of the last valid one stay in use.
    FileRefused {
        /// Path of the configuration file.
        path: String,
        /// The mistakes or the error of the read, in one line.
        why: String,
    },
    /// The configuration file was read again.
    FileRead {
        /// Path of the configuration file.
        path: String,
        /// Number of routes in the file.
        routes: usize,
    },
    /// An operator paused the route: new sessions are held.
    Paused {
        /// Name of the route.
        route: String,
    },
    /// An operator ended the pause.
    Resumed {
        /// Name of the route.
        route: String,
    },
    /// An operator replaced the targets of the route.
    Switched {
        /// Name of the route.
        route: String,
        /// Targets that now apply, separated by commas.
        targets: String,
        /// Targets that applied before, in the same form.
        instead_of: String,
    },
    /// An operator ended the override of the targets.
    SwitchReset {
        /// Name of the route.
        route: String,
        /// Targets of the sources, which apply again, separated by commas.
        targets: String,
    },
    /// The deadline of its trial passed.
    SwitchRolledBack {
        /// Name of the route.
        route: String,
        /// Targets that apply again, separated by commas, or `the targets of its source`.
        targets: String,
        /// Why the switch had not settled.
        why: String,
    },
    /// An operator set the weight of an endpoint, or reset it to that of its source.
    EndpointWeighted {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
        /// Weight that now applies.
        weight: u32,
    },
    /// An operator drained an endpoint: it takes no new sessions.
    EndpointDrained {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// An operator ended the drain of an endpoint.
    EndpointUndrained {
        /// Name of the route.
        route: String,
        /// Address and description of the endpoint, as in `status`.
        endpoint: String,
    },
    /// An operator added the route.
    RouteAdded {
        /// Name of the route.
        route: String,
        /// The route with its options, in the syntax of an argument.
        line: String,
    },
    /// An operator removed the route.
    RouteRemoved {
        /// Name of the route.
        route: String,
    },
    /// An operator restored a removed route.
    RouteRestored {
        /// Name of the route.
        route: String,
    },
    /// A tunnel was made, and the peer has answered.
    TunnelOpened {
        /// Identity of the peer.
        peer: String,
        /// Its address.
        remote: String,
        /// `dialled` by this process, or `accepted`.
        direction: &'static str,
    },
    /// A tunnel ended, after [`EventKind::TunnelOpened`].
    TunnelClosed {
        /// Identity of the peer.
        peer: String,
        /// Its address.
        remote: String,
        /// `dialled` by this process, or `accepted`.
        direction: &'static str,
        /// Cause, for people: it begins with `lost`, `revoked`, `refused`, `drained`, `idle` or `closed`.
        why: String,
    },
    /// There is no tunnel to a peer that is dialled. Reported once, until there is one again.
    PeerDown {
        /// Identity of the peer, or the host in the route if the peer has not answered yet.
        peer: String,
        /// Its address.
        remote: String,
        /// Cause, for people.
        why: String,
    },
    /// There is a tunnel again, after [`EventKind::PeerDown`].
    PeerUp {
        /// Identity of the peer.
        peer: String,
        /// Its address.
        remote: String,
    },
    /// The files of the credentials have changed. New tunnels use them.
    CredentialsReloaded {
        /// Our identity.
        identity: String,
        /// The end of the validity of our certificate: RFC 3339, UTC.
        until: String,
    },
    /// The files of the credentials have changed and cannot be used. The previous ones stay in use.
    CredentialsRefused {
        /// The mistake with its place, in one line.
        why: String,
    },
    /// The files of a certificate of routes have changed. New connections use it.
    CertificateReloaded {
        /// Its name.
        certificate: String,
        /// Whose it is.
        identity: String,
        /// The end of its validity: RFC 3339, UTC.
        until: String,
    },
    /// A file of a certificate or of CAs of routes has changed and cannot be used. What was read before stays in use.
    CertificateRefused {
        /// The mistake with its place, in one line.
        why: String,
    },
    /// A certificate expires within a week, or has expired. Reported daily.
    CertificateExpiring {
        /// `peer-cert` or `peer-ca`, or the name of a certificate of routes.
        certificate: String,
        /// Whose it is.
        identity: String,
        /// The end of its validity: RFC 3339, UTC.
        until: String,
    },
}

/// An event, with its number and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counts from 1, without a gap.
    pub seq: u64,
    /// RFC 3339, UTC, to the millisecond.
    pub time: String,
    /// The message of the log.
    pub message: &'static str,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The last [`EVENTS_MAX`] events. Only the control plane writes them, and workers when a tunnel is made or ends; no session takes
/// the lock.
#[derive(Debug)]
pub struct Events {
    /// Guards the ring and the next number; locked only to push or to copy.
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    latest: u64,
}

/// The events after a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// The number of events that are not kept any more.
    pub missed: u64,
    /// Those that are kept, oldest first.
    pub events: Vec<Event>,
}

impl Default for Events {
    fn default() -> Events {
        Events { ring: Mutex::default(), latest: watch::Sender::new(0) }
    }
}

impl Events {
    /// Writes an event to the log, and keeps it.
    pub fn emit(&self, kind: EventKind) {
        kind.log();
        self.keep(kind);
    }

    /// Keeps an event that is in the log already.
    pub fn keep(&self, kind: EventKind) {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let seq = self.ring().push(time, kind);
        self.latest.send_replace(seq);
    }

    /// Returns the events after this number; all that are kept after 0.
    pub fn since(&self, seq: u64) -> Unseen {
        self.ring().since(seq)
    }

    /// Returns a receiver of the number of the latest event.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, time: String, kind: EventKind) -> u64 {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.latest += 1;
        self.events.push_back(Event { seq: self.latest, time, message: kind.message(), kind });
        self.latest
    }

    /// A number that has not been reached yet is from an earlier process, whose reader has seen none of these events.
    fn since(&self, seq: u64) -> Unseen {
        let seq = if seq > self.latest { 0 } else { seq };
        let first = self.events.front().map_or(self.latest + 1, |event| event.seq);
        let events = self.events.iter().filter(|event| event.seq > seq).cloned().collect();
        Unseen { missed: first.saturating_sub(seq.saturating_add(1)), events }
    }
}

impl EventKind {
    /// Returns the message of the log.
    pub fn message(&self) -> &'static str {
        match self {
            EventKind::RouteOpened { .. } => "route opened",
            EventKind::RouteReplaced { .. } => "route replaced",
            EventKind::RouteClosed { .. } => "route closed",
            EventKind::RouteNotBound { .. } => "route not opened",
            EventKind::RouteDown { .. } => "route down: no endpoint takes new sessions",
            EventKind::RouteUp { .. } => "route up",
            EventKind::EndpointAdded { .. } => "endpoint added",
            EventKind::EndpointRemoved { .. } => "endpoint removed",
            EventKind::EndpointEjected { .. } => "endpoint ejected",
            EventKind::EndpointReturned { .. } => "endpoint returned",
            EventKind::EndpointUnreachable { .. } => "endpoint unreachable",
            EventKind::EndpointReachable { .. } => "endpoint reachable again",
            EventKind::EndpointHealthy { .. } => "endpoint healthy again",
            EventKind::TargetProblem { .. } => "target problem",
            EventKind::SourceAnswered { .. } => "source connected",
            EventKind::SourceLost { .. } => "source unavailable; keeping its last snapshot",
            EventKind::SourceExpired { .. } => "source expired; removing its endpoints",
            EventKind::SourceBack { .. } => "source available again",
            EventKind::Mistake { .. } => "invalid label or route",
            EventKind::Notice { .. } => "notice",
            EventKind::FileRefused { .. } => "configuration refused; keeping the previous routes",
            EventKind::FileRead { .. } => "configuration reloaded",
            EventKind::Paused { .. } => "paused by hand",
            EventKind::Resumed { .. } => "resumed by hand",
            EventKind::Switched { .. } => "switched by hand",
            EventKind::SwitchReset { .. } => "switch reset by hand",
            EventKind::SwitchRolledBack { .. } => "switch rolled back",
            EventKind::EndpointWeighted { .. } => "weight set by hand",
            EventKind::EndpointDrained { .. } => "endpoint drained by hand",
            EventKind::EndpointUndrained { .. } => "endpoint undrained by hand",
            EventKind::RouteAdded { .. } => "route added by hand",
            EventKind::RouteRemoved { .. } => "route removed by hand",
            EventKind::RouteRestored { .. } => "route restored by hand",
            EventKind::TunnelOpened { .. } => "tunnel opened",
            EventKind::TunnelClosed { .. } => "tunnel closed",
            EventKind::PeerDown { .. } => "peer down",
            EventKind::PeerUp { .. } => "peer up",
            EventKind::CredentialsReloaded { .. } => "peer credentials reloaded",
            EventKind::CredentialsRefused { .. } => {
                "peer credentials not reloaded, the previous ones stay in use"
            }
            EventKind::CertificateReloaded { .. } => "certificate reloaded",
            EventKind::CertificateRefused { .. } => {
                "certificate or CA not reloaded, the previous one stays in use"
            }
            EventKind::CertificateExpiring { .. } => "certificate expires soon or has expired",
        }
    }

    /// Returns an error where an operator has to act, a warning where something is wrong.
    fn level(&self) -> Level {
        match self {
            EventKind::RouteNotBound { .. }
            | EventKind::FileRefused { .. }
            | EventKind::CredentialsRefused { .. }
            | EventKind::CertificateRefused { .. } => Level::ERROR,
            EventKind::EndpointEjected { .. }
            | EventKind::EndpointUnreachable { .. }
            | EventKind::RouteDown { .. }
            | EventKind::SourceLost { .. }
            | EventKind::SourceExpired { .. }
            | EventKind::Mistake { .. }
            | EventKind::SwitchRolledBack { .. }
            | EventKind::PeerDown { .. }
            | EventKind::CertificateExpiring { .. } => Level::WARN,
            _ => Level::INFO,
        }
    }

    fn log(&self) {
        let fields = serde_json::to_value(self).unwrap_or_default();
        let text = |key: &str| fields.get(key).and_then(serde_json::Value::as_str).map(display);
        let number = |key: &str| fields.get(key).and_then(serde_json::Value::as_u64);
        let message = self.message();
        // `tracing` requires a constant level for each call.
        macro_rules! write {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    route = text("route"),
                    endpoint = text("endpoint"),
                    source = text("source"),
                    peer = text("peer"),
                    remote = text("remote"),
                    direction = text("direction"),
                    targets = text("targets"),
                    instead_of = text("instead_of"),
                    line = text("line"),
                    origin = text("origin"),
                    weight = number("weight"),
                    path = text("path"),
                    routes = number("routes"),
                    why = text("why"),
                    "{message}"
                )
            };
        }
        match self.level() {
            Level::ERROR => write!(Level::ERROR),
            Level::WARN => write!(Level::WARN),
            _ => write!(Level::INFO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(n: usize) -> EventKind {
        EventKind::EndpointAdded { route: "r".to_owned(), endpoint: n.to_string() }
    }

    #[test]
    fn events_are_numbered_without_gaps_and_the_oldest_are_dropped() {
        let events = Events::default();
        assert_eq!(events.since(0), Unseen::default());
        for n in 1..=EVENTS_MAX + 3 {
            events.emit(added(n));
        }
        let Unseen { missed, events: all } = events.since(0);
        assert_eq!((missed, all.len()), (3, EVENTS_MAX));
        assert_eq!(all.first().map(|event| event.seq), Some(4));
        assert_eq!(all.last().map(|event| event.kind.clone()), Some(added(EVENTS_MAX + 3)));
        let Unseen { missed, events: late } = events.since(1_001);
        assert_eq!((missed, late.iter().map(|event| event.seq).collect::<Vec<_>>()), (0, vec![1_002, 1_003]));
        assert_eq!(events.since(9_999), events.since(0), "a number of an earlier process");
    }

    #[tokio::test]
    async fn follower_is_notified_of_events() {
        let events = Events::default();
        let mut latest = events.follow();
        events.emit(added(1));
        latest.changed().await.unwrap();
        assert_eq!(*latest.borrow_and_update(), 1);
    }

    #[test]
    fn event_is_one_flat_json_object() {
        let events = Events::default();
        events.emit(EventKind::SourceLost { source: "docker".to_owned(), why: "refused".to_owned() });
        let value = serde_json::to_value(&events.since(0).events[0]).unwrap();
        assert_eq!(value["seq"], 1);
        assert_eq!(value["event"], "source-lost");
        assert_eq!(value["message"], "source unavailable; keeping its last snapshot");
        assert_eq!((&value["source"], &value["why"]), (&"docker".into(), &"refused".into()));
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }
}
