//! The order of routes by how urgently an operator has to look at them, for `/status`, `ambassador top` and the page. Pure.

use super::{RouteStatus, SwitchState};

/// Ascending: 0 is a route without a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Ok,
    /// An endpoint takes no or fewer new sessions, or a target has none.
    Flawed,
    /// A switch has not settled yet.
    OnTrial,
    /// By an operator.
    Paused,
    OutOfDescriptors,
    /// Sessions wait for an endpoint.
    Held,
    /// No endpoint takes new sessions.
    Unavailable,
    NoEndpoint,
    NotBound,
}

/// Returns the number of the most urgent problem of a route, whose `state` is set.
pub(super) fn of(route: &RouteStatus) -> u8 {
    severity(route) as u8
}

fn severity(route: &RouteStatus) -> Severity {
    let is_usable =
        route.endpoints.iter().any(|endpoint| endpoint.flaws().all(|flaw| flaw == "not checked yet"));
    let is_flawed = || route.endpoints.iter().any(|endpoint| endpoint.flaws().next().is_some());
    match route.state.as_str() {
        "not bound" => Severity::NotBound,
        "paused" => Severity::Paused,
        "no endpoint" => Severity::NoEndpoint,
        _ if !is_usable => Severity::Unavailable,
        "held" => Severity::Held,
        "out of descriptors" => Severity::OutOfDescriptors,
        _ if route.by_hand.switch.as_ref().is_some_and(|switch| switch.state == SwitchState::OnTrial) => {
            Severity::OnTrial
        }
        _ if is_flawed() || !route.problems.is_empty() => Severity::Flawed,
        _ => Severity::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(change: impl FnOnce(&mut serde_json::Value)) -> Severity {
        let mut value = serde_json::json!({
            "name": "r", "state": "ok", "listen": "80", "addresses": [], "targets": [], "origin": "argument 1",
            "balance": "p2c", "leaving": [], "active": 0, "held": 0, "bytes_up": 0, "bytes_down": 0, "endings": {},
            "by_hand": { "paused": false, "weights": {}, "drained": [], "waiting": false },
            "endpoints": [endpoint("healthy"), endpoint("healthy")], "problems": [],
        });
        change(&mut value);
        severity(&serde_json::from_value(value).unwrap())
    }

    fn endpoint(health: &str) -> serde_json::Value {
        serde_json::json!({
            "address": "a:1", "description": "a:1", "backup": false, "tier": 0, "weight": 1, "drained": false,
            "sessions": 0, "health": health,
        })
    }

    #[test]
    fn most_urgent_problem_decides() {
        let state = |state: &'static str| move |route: &mut serde_json::Value| route["state"] = state.into();
        assert_eq!(route(|_| {}), Severity::Ok);
        assert_eq!(route(|route| route["endpoints"][0] = endpoint("unhealthy")), Severity::Flawed);
        assert_eq!(route(|route| route["problems"] = serde_json::json!(["no address"])), Severity::Flawed);
        let on_trial = |route: &mut serde_json::Value| {
            route["by_hand"]["switch"] = serde_json::json!({ "number": 1, "state": "on-trial" });
        };
        assert_eq!(route(on_trial), Severity::OnTrial);
        assert_eq!(route(state("paused")), Severity::Paused);
        assert_eq!(route(state("out of descriptors")), Severity::OutOfDescriptors);
        assert_eq!(route(state("held")), Severity::Held);
        let all_unhealthy = |route: &mut serde_json::Value| {
            route["state"] = "held".into();
            route["endpoints"] = serde_json::json!([endpoint("unhealthy")]);
        };
        assert_eq!(route(all_unhealthy), Severity::Unavailable);
        let unchecked = |route: &mut serde_json::Value| {
            route["endpoints"] = serde_json::json!([endpoint("unknown")]);
        };
        assert_eq!(route(unchecked), Severity::Flawed);
        assert_eq!(route(state("no endpoint")), Severity::NoEndpoint);
        assert_eq!(route(state("not bound")), Severity::NotBound);
    }

    #[test]
    fn ok_is_zero_and_the_numbers_ascend() {
        assert_eq!((Severity::Ok as u8, Severity::NotBound as u8), (0, 8));
    }
}
