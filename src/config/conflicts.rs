//! Conflicts between the routes of one source. Pure.

use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::index::RouteIndex;
use crate::route::{Route, Target};

/// Returns a mistake for each route whose listener or name is used by an earlier route of the same source.
pub fn conflicts(routes: &[Route]) -> Vec<Diagnostic> {
    let (mut found, mut earlier) = (Vec::new(), RouteIndex::default());
    for route in routes {
        if let Some(first) = earlier.by_listen(&route.listen) {
            found.push(duplicate_listener(first, route).at(&route.origin));
        } else if let Some(first) = earlier.by_name(&route.options.name) {
            found.push(duplicate_name(first, route).at(&route.origin));
        }
        earlier.add(route);
    }
    found
}

fn duplicate_listener(first: &Route, second: &Route) -> Mistake {
    let other = elsewhere(&first.origin, &second.origin);
    if first.listen == second.listen {
        let targets: Vec<String> =
            first.targets.iter().chain(&second.targets).map(Target::to_string).collect();
        return Mistake::new(format!("duplicate listener `{}`, first {other}", second.listen)).help(format!(
            "for several endpoints of one listener write `{}={}`",
            second.listen,
            targets.join(",")
        ));
    }
    Mistake::new(format!("`{}` overlaps `{}` {other}", second.listen, first.listen))
        .help("use each port of an address in one route only")
}

fn duplicate_name(first: &Route, second: &Route) -> Mistake {
    let name = &second.options.name;
    Mistake::new(format!("duplicate name `{name}`, first {}", elsewhere(&first.origin, &second.origin)))
        .help("change the `name` of one of them, or remove it to name the route after its listener")
}

fn elsewhere(first: &Place, second: &Place) -> String {
    if first == second { "in the same place".to_owned() } else { format!("at {first}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grammar::parse_route;

    fn found(lines: &[&str]) -> Vec<String> {
        let route = |(n, line): (usize, &&str)| parse_route(line, &Place::Argument(n + 1)).unwrap();
        let routes: Vec<Route> = lines.iter().enumerate().map(route).collect();
        conflicts(&routes).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn routes_without_conflicts_have_no_mistakes() {
        assert_eq!(found(&["80=a", "80/udp=a", "127.0.0.1:81=a", "127.0.0.2:81=b", "/run/x=a:1"]), [""; 0]);
    }

    #[test]
    fn a_duplicate_listener_names_both_places_and_the_comma_list() {
        assert_eq!(
            found(&["80=a", "80=b:81"]),
            ["argument 2: duplicate listener `80`, first at argument 1\n  \
              help: for several endpoints of one listener write `80=a:80,b:81`"]
        );
    }

    #[test]
    fn a_port_of_all_addresses_overlaps_the_port_of_one() {
        let found = found(&["80-90=a", "127.0.0.1:85=b"]);
        assert!(
            found[0].starts_with("argument 2: `127.0.0.1:85` overlaps `80-90` at argument 1"),
            "{found:?}"
        );
    }

    #[test]
    fn two_routes_cannot_have_the_same_name() {
        let found = found(&["80=a?name=web", "81=b?name=web", "82=c?name=80"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("duplicate name `web`, first at argument 1"), "{found:?}");
    }
}
