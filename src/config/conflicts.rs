//! Routes of one source that cannot stand beside each other. Pure.

use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::index::RouteIndex;
use crate::route::{Route, Target};

/// One mistake for each route that wants a listener, or a name, that an earlier one of the same source has.
pub fn conflicts(routes: &[Route]) -> Vec<Diagnostic> {
    let (mut found, mut earlier) = (Vec::new(), RouteIndex::default());
    for route in routes {
        if let Some(first) = earlier.by_listen(&route.listen) {
            found.push(listener_twice(first, route).at(&route.origin));
        } else if let Some(first) = earlier.by_name(&route.options.name) {
            found.push(name_twice(first, route).at(&route.origin));
        }
        earlier.add(route);
    }
    found
}

fn listener_twice(first: &Route, second: &Route) -> Mistake {
    let other = elsewhere(&first.origin, &second.origin);
    if first.listen == second.listen {
        let targets: Vec<String> =
            first.targets.iter().chain(&second.targets).map(Target::to_string).collect();
        return Mistake::new(format!("`{}` is listened on twice, first {other}", second.listen)).help(
            format!(
                "for several endpoints behind one listener write `{}={}`",
                second.listen,
                targets.join(",")
            ),
        );
    }
    Mistake::new(format!("`{}` overlaps `{}` {other}", second.listen, first.listen))
        .help("let each port of an address be in one route only")
}

fn name_twice(first: &Route, second: &Route) -> Mistake {
    let name = &second.options.name;
    Mistake::new(format!(
        "two routes are named `{name}`, the first {}",
        elsewhere(&first.origin, &second.origin)
    ))
    .help("give one of them another `name`, or none: then it is called after its listener")
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
    fn routes_that_can_stand_together_are_left_alone() {
        assert_eq!(found(&["80=a", "80/udp=a", "127.0.0.1:81=a", "127.0.0.2:81=b", "/run/x=a:1"]), [""; 0]);
    }

    #[test]
    fn the_same_listener_twice_names_both_places_and_the_comma_list() {
        assert_eq!(
            found(&["80=a", "80=b:81"]),
            ["argument 2: `80` is listened on twice, first at argument 1\n  \
              help: for several endpoints behind one listener write `80=a:80,b:81`"]
        );
    }

    #[test]
    fn a_port_of_all_addresses_overlaps_that_of_one() {
        let found = found(&["80-90=a", "127.0.0.1:85=b"]);
        assert!(
            found[0].starts_with("argument 2: `127.0.0.1:85` overlaps `80-90` at argument 1"),
            "{found:?}"
        );
    }

    #[test]
    fn two_routes_do_not_share_a_name() {
        let found = found(&["80=a?name=web", "81=b?name=web", "82=c?name=80"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("two routes are named `web`, the first at argument 1"), "{found:?}");
    }
}
