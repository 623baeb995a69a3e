//! Whether consumers can be sent here: what `/ready` and `ambassador health` answer.

use crate::reconcile::Overview;

/// Why not, in words; empty when ready. A source that fails after its first answer is no reason: its last snapshot is in
/// use. One that never answered is: routes may be missing, and the endpoints of others.
pub fn reasons(overview: &Overview, draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("draining: told to stop".to_owned());
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
    fn an_unbound_listener_an_unanswered_source_and_a_drain_are_reasons() {
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
                "draining: told to stop",
                "Docker has not answered yet: permission denied",
                "etcd://e:2379/db has not answered yet",
                "route /run/x.sock: taken"
            ]
        );
        assert_eq!(reasons(&Overview::default(), false), [""; 0]);
    }
}
