//! Routes for the exposed ports of the containers that `-name` names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Containers;
use super::select::SelectError;
use crate::diagnostic::{Diagnostic, Place};
use crate::ordered::CollectOrdered;
use crate::route::{Listen, PortRange, Protocol, Route, Target};

/// Ports of one image that become listeners. Some images, such as media servers, expose tens of thousands.
const EXPOSED_MAX: usize = 1024;

/// The routes of `-name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedRoutes {
    pub routes: Vec<Route>,
    pub mistakes: Vec<Diagnostic>,
    /// Names without a container yet, which are not mistakes.
    pub notices: Vec<String>,
}

/// Returns a route for each exposed port of each named container. If two names expose the same port, the first one gets it and
/// the other is a mistake. A name without a container is a notice: the legacy image waits for it as well.
pub(crate) fn named_routes(names: &[String], containers: &Containers) -> NamedRoutes {
    let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
    let (mut mistakes, mut notices) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for name in names.iter().filter(|name| seen.insert(*name)) {
        let place = Place::Name(name.clone());
        let ports = match containers.find(name) {
            Err(SelectError::Absent(why)) => {
                notices.push(format!("{place}: {why}"));
                continue;
            }
            Err(SelectError::Ambiguous(why)) => {
                mistakes.push(Diagnostic::new(place, why));
                continue;
            }
            Ok(found) => exposed_ports(
                found.iter().flat_map(|(_, container)| &container.exposed),
                &place,
                &mut mistakes,
            ),
        };
        for (port, protocol) in ports {
            let route = exposed_port_route(port, protocol, name, place.clone());
            match routes.get(&route.listen) {
                Some(first) => mistakes.push(conflict(&route.listen, first, name, port)),
                None => {
                    routes.insert(route.listen.clone(), route);
                }
            }
        }
    }
    NamedRoutes { routes: routes.into_values().collect(), mistakes, notices }
}

/// Returns these exposed ports, deduplicated and sorted, up to [`EXPOSED_MAX`].
pub(super) fn exposed_ports<'a>(
    ports: impl IntoIterator<Item = &'a (u16, Protocol)>,
    place: &Place,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(u16, Protocol)> {
    let ports: BTreeSet<(u16, Protocol)> = ports.into_iter().copied().collect_ordered();
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

/// Returns the route that listens on this port and leads to the same port of the named container.
pub(super) fn exposed_port_route(port: u16, protocol: Protocol, name: &str, origin: Place) -> Route {
    let listen = Listen::Inet { protocol, ip: None, ports: PortRange::single(port) };
    let target = Target::Docker { name: name.to_owned(), port: Some(port) };
    Route::new(listen, vec![target], origin)
}

fn conflict(listen: &Listen, first: &Route, name: &str, port: u16) -> Diagnostic {
    let message = format!("{listen} is already used by {}, which keeps it", first.origin);
    let suffix = if listen.protocol() == Protocol::Udp { "/udp" } else { "" };
    let other = if port < 1024 { port + 8000 } else { port.checked_add(1).unwrap_or(1024) };
    let help =
        format!("write a route on another port, beside the names: {other}{suffix}=docker://{name}:{port}");
    Diagnostic::new(Place::Name(name.to_owned()), message).help(help)
}

#[cfg(test)]
mod tests;
