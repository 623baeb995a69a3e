//! A route for each exposed port of the containers that `-name` names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Implied;
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::containers::{Containers, Unfound};
use crate::route::{Listen, PortRange, Protocol, Route, Target};

/// An image may expose tens of thousands of ports (media servers do); each would be a listener.
const EXPOSED_MAX: usize = 1024;

/// Routes for `-name NAME`...: each exposed port of each named container. Two names with one port are a mistake, and
/// the first has it. A name that is not there yet has no routes, and is no mistake but a notice: the ancestor waits for it too.
pub fn named(names: &[String], containers: &Containers) -> Implied {
    let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
    let (mut mistakes, mut notices) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for name in names.iter().filter(|name| seen.insert(*name)) {
        let place = Place::Name(name.clone());
        let ports = match containers.find(name) {
            Err(Unfound::Absent(why)) => {
                notices.push(format!("{place}: {why}"));
                continue;
            }
            Err(Unfound::Ambiguous(why)) => {
                mistakes.push(Diagnostic::new(place, why));
                continue;
            }
            Ok(found) => {
                exposed(found.iter().flat_map(|(_, container)| &container.exposed), &place, &mut mistakes)
            }
        };
        for (port, protocol) in ports {
            let route = route(port, protocol, name, place.clone());
            match routes.get(&route.listen) {
                Some(first) => mistakes.push(taken(&route.listen, first, name, port)),
                None => {
                    routes.insert(route.listen.clone(), route);
                }
            }
        }
    }
    Implied { routes: routes.into_values().collect(), mistakes, notices }
}

/// These exposed ports, each once.
pub(super) fn exposed<'a>(
    ports: impl IntoIterator<Item = &'a (u16, Protocol)>,
    place: &Place,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(u16, Protocol)> {
    let ports: BTreeSet<(u16, Protocol)> = ports.into_iter().copied().collect();
    if ports.is_empty() {
        let help = "write the route out, LISTEN=docker://NAME:PORT, or give the image an EXPOSE";
        mistakes.push(
            Diagnostic::new(place.clone(), "exposes no port, so there is nothing to listen on").help(help),
        );
    }
    if ports.len() > EXPOSED_MAX {
        let message = format!("exposes {} ports; only the first {EXPOSED_MAX} are served", ports.len());
        let help = "write the range out: 10000-20000/udp=docker://NAME";
        mistakes.push(Diagnostic::new(place.clone(), message).help(help));
    }
    ports.into_iter().take(EXPOSED_MAX).collect()
}

pub(super) fn route(port: u16, protocol: Protocol, name: &str, origin: Place) -> Route {
    let listen = Listen::Inet { protocol, ip: None, ports: PortRange::single(port) };
    let target = Target::Docker { name: name.to_owned(), port: Some(port) };
    Route::new(listen, vec![target], origin)
}

fn taken(listen: &Listen, first: &Route, name: &str, port: u16) -> Diagnostic {
    let message = format!("{listen} is already that of {}, which stands", first.origin);
    let suffix = if listen.protocol() == Protocol::Udp { "/udp" } else { "" };
    let other = if port < 1024 { port + 8000 } else { port.checked_add(1).unwrap_or(1024) };
    let help =
        format!("write a route on another port, beside the names: {other}{suffix}=docker://{name}:{port}");
    Diagnostic::new(Place::Name(name.to_owned()), message).help(help)
}
