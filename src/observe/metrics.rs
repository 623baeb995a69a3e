//! The metrics of `/metrics`, read from the atomic counters of sessions without a lock.
//!
//! Labels are routes, endpoints, sources, workers, peers and closed sets. Their values come from the configuration, from sources
//! and from certificates of our CA, never from a client.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::exposition::{Exposition, Kind};
use super::{peers, process, tls};
use crate::cluster::condition::Preference;
use crate::cluster::timings::{Histogram, Timings};
use crate::cluster::{Cluster, Endpoint, Member};
use crate::reconcile::{Overview, SourceView, SwitchPhase};

pub(crate) const CONTENT_TYPE: &str = super::exposition::CONTENT_TYPE;

/// The open routes, by name.
type Open<'a> = [(&'a str, &'a Cluster)];

/// Returns all metrics in Prometheus' text format.
pub fn text(overview: &Overview, started: SystemTime) -> String {
    let mut to = Exposition::default();
    let open: Vec<(&str, &Cluster)> = overview
        .routes
        .iter()
        .filter_map(|view| Some((view.route.options.name.as_str(), view.cluster.as_deref()?)))
        .collect();
    to.family("ambassador_build_info", Kind::Gauge, "The version.");
    to.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    routes(&mut to, overview);
    descriptors(&mut to, &open);
    sessions(&mut to, &open);
    unnamed(&mut to, overview);
    timings(&mut to, &open);
    endpoints(&mut to, &open);
    sources(&mut to, overview);
    mistakes(&mut to, overview);
    config(&mut to, overview);
    workers(&mut to, overview);
    peers::metrics(&mut to, overview);
    tls::metrics(&mut to, overview);
    process::write(&mut to, started);
    to.finish()
}

fn routes(to: &mut Exposition, overview: &Overview) {
    to.family("ambassador_route_open", Kind::Gauge, "Whether the route's listener is bound.");
    for view in &overview.routes {
        to.sample(&[("route", &view.route.options.name)], u8::from(view.cluster.is_some()));
    }
    to.family("ambassador_route_paused", Kind::Gauge, "Whether an operator has paused the route.");
    for view in &overview.routes {
        to.sample(&[("route", &view.route.options.name)], u8::from(view.by_hand.change.paused));
    }
    let help = "Whether the last switch of the route is neither complete nor rolled back.";
    to.family("ambassador_route_switch_on_trial", Kind::Gauge, help);
    for view in &overview.routes {
        let is_on_trial =
            view.by_hand.switch.as_ref().is_some_and(|switch| switch.phase == SwitchPhase::OnTrial);
        to.sample(&[("route", &view.route.options.name)], u8::from(is_on_trial));
    }
}

fn unnamed(to: &mut Exposition, overview: &Overview) {
    let help = "Connections to a port shared by server names that belong to no route, by ending.";
    to.family("ambassador_unnamed_connections_total", Kind::Counter, help);
    for (listener, cluster) in &overview.unnamed {
        for (ending, count) in cluster.counters.endings().filter(|(_, count)| *count > 0) {
            to.sample(&[("listener", listener), ("ending", ending.name())], count);
        }
    }
}

fn descriptors(to: &mut Exposition, open: &Open<'_>) {
    to.family("ambassador_route_fds", Kind::Gauge, "File descriptors of the route's sessions now.");
    for (route, cluster) in open {
        to.sample(&[("route", route)], cluster.fds.used());
    }
    let help = "File descriptors that are reserved for the route's sessions.";
    to.family("ambassador_route_fds_guaranteed", Kind::Gauge, help);
    for (route, cluster) in open {
        to.sample(&[("route", route)], cluster.fds.guaranteed());
    }
    let help = "Whether new connections wait in the backlog because the route is out of file descriptors.";
    to.family("ambassador_route_accept_paused", Kind::Gauge, help);
    for (route, cluster) in open {
        to.sample(&[("route", route)], u8::from(cluster.fds.is_accept_paused()));
    }
}

fn sessions(to: &mut Exposition, open: &Open<'_>) {
    to.family("ambassador_sessions_total", Kind::Counter, "Sessions that ended, by ending.");
    for (route, cluster) in open {
        for (ending, count) in cluster.counters.endings() {
            to.sample(&[("route", route), ("ending", ending.name())], count);
        }
    }
    to.family("ambassador_sessions_active", Kind::Gauge, "Current sessions, including held ones.");
    for (route, cluster) in open {
        to.sample(&[("route", route)], cluster.counters.active.load(Relaxed));
    }
    to.family("ambassador_sessions_held", Kind::Gauge, "Current sessions that wait for an endpoint.");
    for (route, cluster) in open {
        to.sample(&[("route", route)], cluster.counters.held.load(Relaxed));
    }
    let help = "Bytes relayed: up to the service, down to the consumer. Counted during a session.";
    to.family("ambassador_bytes_total", Kind::Counter, help);
    for (route, cluster) in open {
        to.sample(&[("route", route), ("direction", "up")], cluster.counters.traffic.up());
        to.sample(&[("route", route), ("direction", "down")], cluster.counters.traffic.down());
    }
    let help = "UDP datagrams that were dropped, because a peer receives them too slowly.";
    to.family("ambassador_peer_datagrams_dropped_total", Kind::Counter, help);
    for (route, cluster) in open {
        to.sample(&[("route", route)], cluster.counters.dropped.load(Relaxed));
    }
}

fn timings(to: &mut Exposition, open: &Open<'_>) {
    let mut family = |name, help, of: fn(&Timings) -> &Histogram| {
        to.family(name, Kind::Histogram, help);
        for (route, cluster) in open {
            to.histogram(&[("route", route)], &of(&cluster.counters.timings).read());
        }
    };
    family("ambassador_connect_seconds", "Connects to endpoints that succeeded.", |timings| &timings.connect);
    family("ambassador_hold_seconds", "Time for which held sessions waited.", |timings| &timings.hold);
    family("ambassador_session_duration_seconds", "Duration of sessions.", |timings| &timings.duration);
}

/// An address of a route. Two of its endpoints may have the same one, such as successive containers.
#[derive(Default)]
struct Address {
    sessions: usize,
    is_healthy: bool,
    is_reachable: bool,
}

fn endpoints(to: &mut Exposition, open: &Open<'_>) {
    let help = "Endpoints that take new sessions: neither drained nor unhealthy nor ejected.";
    to.family("ambassador_route_endpoints_available", Kind::Gauge, help);
    let mut found: BTreeMap<(&str, String), Address> = BTreeMap::new();
    for (route, cluster) in open {
        let members = cluster.members_arc();
        let available = members.all().filter(|(_, member)| is_available(member)).count();
        to.sample(&[("route", route)], available);
        for (_, Member { endpoint, .. }) in members.all() {
            let address = found.entry((route, endpoint.key.addr.to_string())).or_default();
            address.sessions += endpoint.sessions();
            address.is_healthy |= is_healthy(endpoint);
            address.is_reachable |= !endpoint.is_failing();
        }
    }
    let mut family = |name, help, of: fn(&Address) -> usize| {
        to.family(name, Kind::Gauge, help);
        for ((route, endpoint), address) in &found {
            to.sample(&[("route", route), ("endpoint", endpoint)], of(address));
        }
    };
    let help = "Whether the endpoint is healthy: it passes its checks, if any, and is not ejected.";
    family("ambassador_endpoint_healthy", help, |address| usize::from(address.is_healthy));
    let help = "Whether the last connect to the endpoint succeeded, if there was one.";
    family("ambassador_endpoint_reachable", help, |address| usize::from(address.is_reachable));
    family("ambassador_endpoint_sessions", "Sessions on the endpoint now.", |address| address.sessions);
}

fn is_available(member: &Member) -> bool {
    let Member { endpoint, weight, .. } = member;
    let is_preferred = endpoint.condition().preference() == Preference::Preferred;
    *weight > 0 && is_preferred && !endpoint.has_unhealthy_container()
}

fn is_healthy(endpoint: &Endpoint) -> bool {
    endpoint.condition().is_eligible() && !endpoint.has_unhealthy_container()
}

fn sources(to: &mut Exposition, overview: &Overview) {
    let help = "Whether the source is available; while it is not, its last snapshot is used.";
    to.family("ambassador_discovery_up", Kind::Gauge, help);
    for SourceView { name, .. } in &overview.sources {
        to.sample(&[("source", name)], u8::from(overview.lost(name).is_none()));
    }
    let help = "When the source last answered, with a change or without one.";
    to.family("ambassador_source_last_answer_timestamp_seconds", Kind::Gauge, help);
    for SourceView { name, answered } in &overview.sources {
        if let Some(at) = answered.at() {
            let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            to.sample(&[("source", name)], at.as_secs());
        }
    }
    let help = "Panics of the source's task, which is restarted after each.";
    to.family("ambassador_source_panics_total", Kind::Counter, help);
    for SourceView { name, .. } in &overview.sources {
        to.sample(&[("source", name)], overview.panics.get(name).copied().unwrap_or_default());
    }
}

fn mistakes(to: &mut Exposition, overview: &Overview) {
    let help = "Invalid labels, conflicts of routes and other mistakes that exist now.";
    to.single("ambassador_mistakes", Kind::Gauge, help, overview.mistakes.len());
}

fn config(to: &mut Exposition, overview: &Overview) {
    let Some(file) = &overview.file else { return };
    let help = "Whether the last attempt to read the configuration file succeeded.";
    to.family("ambassador_config_last_reload_successful", Kind::Gauge, help);
    to.sample(&[], u8::from(file.refused.is_none()));
    let help = "When the configuration file was last read without a mistake.";
    to.family("ambassador_config_last_reload_success_timestamp_seconds", Kind::Gauge, help);
    let loaded_at = file.loaded_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    to.sample(&[], loaded_at.as_secs());
}

fn workers(to: &mut Exposition, overview: &Overview) {
    to.family("ambassador_workers_sessions", Kind::Gauge, "Sessions of each worker thread now.");
    for (worker, sessions) in overview.workers.sessions().into_iter().enumerate() {
        to.sample(&[("worker", &worker.to_string())], sessions);
    }
    let help = "Number of times that a thread was blocked for a second or longer.";
    to.family("ambassador_stalls_total", Kind::Counter, help);
    for (thread, count) in overview.stalls.read() {
        to.sample(&[("thread", &thread)], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::LastAnswer;

    #[test]
    fn a_panicked_source_is_down_and_counted() {
        let answered = LastAnswer::default();
        answered.record();
        let overview = Overview {
            sources: ["a", "b"]
                .map(|name| SourceView { name: name.to_owned(), answered: answered.clone() })
                .to_vec(),
            lost: [("a".to_owned(), "it panicked".to_owned())].into(),
            panics: [("a".to_owned(), 2)].into(),
            ..Overview::default()
        };
        let text = text(&overview, SystemTime::now());
        for line in [
            "ambassador_discovery_up{source=\"a\"} 0\n",
            "ambassador_source_last_answer_timestamp_seconds{source=\"a\"} 1",
            "ambassador_source_panics_total{source=\"a\"} 2\n",
            "ambassador_source_panics_total{source=\"b\"} 0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
