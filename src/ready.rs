//! Whether consumers can be sent here: what `/ready` and `ambassador health` answer.

use crate::reconcile::Overview;

/// Why not, in words; empty when ready. A source that is lost is no reason: what it said last still serves.
pub fn reasons(overview: &Overview, draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("draining: told to stop".to_owned());
    }
    if overview.waiting_for_docker {
        reasons.push("Docker has not answered yet".to_owned());
    }
    let unbound = overview.routes.iter().filter(|view| view.cluster.is_none());
    reasons.extend(
        unbound.map(|view| format!("route {}: {}", view.route.options.name, view.problems.join("; "))),
    );
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;
    use crate::reconcile::{ByHand, RouteView};
    use crate::route::{Listen, Route};

    #[test]
    fn a_listener_that_is_not_bound_a_silent_docker_and_a_drain_are_reasons() {
        let listen = Listen::Unix("/run/x.sock".into());
        let view = RouteView {
            route: Route::new(listen, Vec::new(), Place::Built),
            cluster: None,
            addrs: Vec::new(),
            problems: vec!["taken".to_owned()],
            by_hand: ByHand::default(),
            leaving: Vec::new(),
        };
        let overview = Overview { routes: vec![view], waiting_for_docker: true, ..Overview::default() };
        assert_eq!(
            reasons(&overview, true),
            ["draining: told to stop", "Docker has not answered yet", "route /run/x.sock: taken"]
        );
        assert_eq!(reasons(&Overview::default(), false), [""; 0]);
    }
}
