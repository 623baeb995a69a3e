//! Readiness: the result of `/ready` and `ambassador health`. Pure.

use crate::reconcile::Overview;

/// Returns why the ambassador is not ready, or nothing if it is. A source that fails after its first answer is not a reason,
/// since its last snapshot is in use. A source that has never answered is: routes or endpoints may be missing.
pub(crate) fn reasons(overview: &Overview, draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("draining: the process is stopping".to_owned());
    }
    reasons.extend(overview.unanswered.iter().map(|source| unanswered(source, overview.lost.get(source))));
    let unbound = overview.routes.iter().filter(|view| view.cluster.is_none());
    reasons.extend(
        unbound.map(|view| format!("route {}: {}", view.route.options.name, view.problems.join("; "))),
    );
    reasons
}

fn unanswered(source: &str, why: Option<&String>) -> String {
    let name = if source == "docker" { "Docker" } else { source };
    match why {
        Some(why) => format!("{name} has not answered yet: {why}"),
        None => format!("{name} has not answered yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;
    use crate::reconcile::{ByHand, RouteView};
    use crate::route::{Listen, Route};

    #[test]
    fn unbound_listener_unanswered_source_and_drain_are_reasons() {
        let listen = Listen::Unix("/run/x.sock".into());
        let view = RouteView {
            route: Route::new(listen, Vec::new(), Place::Built),
            cluster: None,
            addrs: Vec::new(),
            problems: vec!["taken".to_owned()],
            by_hand: ByHand::default(),
            leaving: Vec::new(),
        };
        let overview = Overview {
            routes: vec![view],
            unanswered: vec!["docker".to_owned(), "etcd://e:2379/db".to_owned()],
            lost: [("docker".to_owned(), "permission denied".to_owned())].into(),
            ..Overview::default()
        };
        assert_eq!(
            reasons(&overview, true),
            [
                "draining: the process is stopping",
                "Docker has not answered yet: permission denied",
                "etcd://e:2379/db has not answered yet",
                "route /run/x.sock: taken"
            ]
        );
        assert_eq!(reasons(&Overview::default(), false), [""; 0]);
    }
}
