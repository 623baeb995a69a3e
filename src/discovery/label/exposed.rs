//! A route for each exposed port: of the containers that `-name` names, and of those our own container links to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::containers::{Container, Containers, Link, Unfound};
use crate::route::{Listen, PortRange, Protocol, Route, Target};

/// An image may expose tens of thousands of ports (media servers do); each would be a listener.
const EXPOSED_MAX: usize = 1024;

/// Routes for `-name NAME`...: each exposed port of each named container. Two names with one port are a mistake, and
/// the first has it. A name that is not there yet has no routes, and is no mistake: the ancestor waits for it too.
pub fn named(names: &[String], containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
    let mut mistakes = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names.iter().filter(|name| seen.insert(*name)) {
        let place = Place::Name(name.clone());
        let ports = match containers.find(name) {
            Err(Unfound::Absent(_)) => continue,
            Err(Unfound::Ambiguous(why)) => {
                mistakes.push(Diagnostic::new(place, why));
                continue;
            }
            Ok(found) => exposed(found.iter().map(|(_, container)| *container), &place, &mut mistakes),
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
    (routes.into_values().collect(), mistakes)
}

/// Routes for the links of our own container: each exposed port of each link's target. Several aliases of one target
/// are one; two targets that expose one port are endpoints of one route, as with link variables.
pub fn own_links(containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (target, alias) in own_targets(containers) {
        let place = Place::Link(format!("{target}:{alias}"));
        let Some(container) = containers.by_id.values().find(|container| container.name == target) else {
            continue;
        };
        for (port, protocol) in exposed([container].into_iter(), &place, &mut mistakes) {
            let new = route(port, protocol, target, place.clone());
            match routes.get_mut(&new.listen) {
                Some(route) => route.targets.extend(new.targets),
                None => {
                    routes.insert(new.listen.clone(), new);
                }
            }
        }
    }
    (routes.into_values().collect(), mistakes)
}

/// Each linked container once, with the alias it is shown by.
fn own_targets(containers: &Containers) -> BTreeMap<&str, &str> {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for Link { target, alias } in containers.own().map(|own| own.links.as_slice()).unwrap_or_default() {
        let shown = targets.entry(target).or_insert(alias);
        *shown = (*shown).min(alias);
    }
    targets
}

/// The exposed ports of these containers together, each once.
fn exposed<'a>(
    containers: impl Iterator<Item = &'a Container>,
    place: &Place,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(u16, Protocol)> {
    let mut ports: BTreeSet<(u16, Protocol)> = BTreeSet::new();
    for container in containers {
        ports.extend(&container.exposed);
    }
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

fn route(port: u16, protocol: Protocol, name: &str, origin: Place) -> Route {
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
