//! What an operator has to know first: whether all is well, and what needs attention since when. Pure.

use std::time::{Duration, SystemTime};

use crate::observe::status::{RouteStatus, Status};
use crate::observe::table::age;

/// A certificate is mentioned from two weeks before its end.
const CERTIFICATE_SECONDS: i64 = 14 * 86_400;

/// Returns the first sentence, and the highest severity.
pub(super) fn sentence(status: &Status, now: SystemTime) -> (u8, String) {
    let mut bad: Vec<&RouteStatus> = status.routes.iter().filter(|route| route.severity > 0).collect();
    bad.sort_by_key(|route| std::cmp::Reverse(route.severity));
    let Some(first) = bad.first() else {
        return (
            0,
            match status.routes.len() {
                0 => "There are no routes.".to_owned(),
                1 => "All is well: 1 route.".to_owned(),
                count => format!("All is well: {count} routes."),
            },
        );
    };
    let list: Vec<String> = bad.iter().map(|route| described(route, now)).collect();
    let verb = if bad.len() == 1 { "needs" } else { "need" };
    let text =
        format!("{} of {} routes {verb} attention: {}", bad.len(), status.routes.len(), list.join("; "));
    (first.severity, text)
}

fn described(route: &RouteStatus, now: SystemTime) -> String {
    let since =
        since(&route.state_since, now).map(|since| format!(" for {}", age(since))).unwrap_or_default();
    format!("{} {}{since}", route.name, problem(route))
}

/// Returns the state of a route, or how many of its endpoints have a problem.
pub(super) fn problem(route: &RouteStatus) -> String {
    let flawed: Vec<&str> = route.endpoints.iter().filter_map(|endpoint| endpoint.flaws().next()).collect();
    let is_on_trial = route
        .by_hand
        .switch
        .as_ref()
        .is_some_and(|switch| switch.state == crate::observe::status::SwitchState::OnTrial);
    match flawed.first() {
        _ if route.state != "ok" => route.state.clone(),
        _ if is_on_trial => "switch on trial".to_owned(),
        Some(first) => format!("{} of {} {first}", flawed.len(), route.endpoints.len()),
        None if !route.problems.is_empty() => "a target has a problem".to_owned(),
        None => route.state.clone(),
    }
}

/// Returns how long ago a time was.
pub(super) fn since(time: &str, now: SystemTime) -> Option<Duration> {
    humantime::parse_rfc3339(time).ok().map(|time| now.duration_since(time).unwrap_or_default())
}

/// Returns what else needs attention, one line each: sources, peers, certificates, the configuration.
pub(super) fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    if status.draining {
        notes.push("draining: no new sessions are accepted".to_owned());
    }
    notes.extend(status.lost.iter().map(|(source, why)| format!("source {source} is lost: {why}")));
    let refused = status.config.as_ref().and_then(|config| config.error.as_ref());
    notes.extend(refused.map(|why| format!("the configuration file was refused: {why}")));
    let peers = status.peering.iter().flat_map(|peering| &peering.peers);
    notes.extend(peers.filter(|peer| peer.state == "down").map(|peer| {
        let why = peer.last_error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("peer {} ({}) is down{why}", peer.peer, peer.address)
    }));
    let of_peers = status.peering.iter().flat_map(|peering| &peering.certificates);
    let certificates = of_peers.chain(status.tls.iter().flat_map(|tls| &tls.certificates));
    notes.extend(
        certificates.filter(|certificate| certificate.expires_in_seconds < CERTIFICATE_SECONDS).map(
            |certificate| match u64::try_from(certificate.expires_in_seconds) {
                Ok(left) => {
                    format!("certificate {} expires in {}", certificate.name, age(Duration::from_secs(left)))
                }
                Err(_) => format!("certificate {} has expired", certificate.name),
            },
        ),
    );
    notes.extend(status.mistakes.iter().cloned());
    notes
}
