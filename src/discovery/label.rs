//! Routes that Docker tells us: labelled containers, `-name`, and this container's own links. Pure.
//!
//! A stopped container keeps its routes for as long as it exists: a route without an endpoint holds its sessions, so
//! a restart is a pause; a route that went would refuse them.

mod exposed;

use std::collections::BTreeMap;

use super::containers::{Container, ContainerId, Containers};
use crate::config::grammar::{parse_listen, parse_options};
use crate::diagnostic::{Diagnostic, Place};
use crate::route::{Listen, Options, Route, Target};
pub use exposed::{named, own_links};

/// The rest of the label's key is the listener.
const PREFIX: &str = "ambassador.listen.";

/// Anybody who may start a container may label it: what labels cost us has an end. A listener is a socket on each
/// worker, and the hard limit of open files may be a thousand (Docker 29's default).
const PORTS_MAX: usize = 4096;
const LABELS_MAX: usize = 64;
const LABEL_LEN_MAX: usize = 4096;

/// Routes of every container labelled `ambassador.listen.<LISTEN>=<PORT>[?options]`. One bad label never removes
/// another route. Containers with the same listener (replicas of a service) are endpoints of one route.
pub fn labelled(containers: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut others: Vec<(&ContainerId, &Container)> =
        containers.by_id.iter().filter(|(id, _)| !containers.is_own(id)).collect();
    others.sort_by_key(|(id, container)| (&container.name, *id));

    let mut table = Table::default();
    for (id, container) in others {
        let labels = container.labels.range(PREFIX.to_owned()..).take_while(|(label, _)| ours(label));
        for (n, (label, value)) in labels.enumerate() {
            if n == LABELS_MAX {
                table.mistakes.push(too_many(container, label));
                break;
            }
            match Claim::read(id, container, label, value) {
                Ok(claim) => table.add(claim),
                Err(mistakes) => table.mistakes.extend(mistakes),
            }
        }
    }
    (table.routes.into_values().collect(), table.mistakes)
}

fn too_many(container: &Container, label: &str) -> Diagnostic {
    let place = Place::Label { container: container.name.clone(), label: shown(label) };
    let message =
        format!("this container has more than {LABELS_MAX} such labels; from this one on they are not read");
    Diagnostic::new(place, message).help("use a range of ports: ambassador.listen.8000-8100=8000")
}

fn ours(label: &str) -> bool {
    label.starts_with(PREFIX)
}

/// One label, read.
struct Claim {
    listen: Listen,
    target: Target,
    options: Options,
    origin: Place,
}

impl Claim {
    fn read(
        id: &ContainerId,
        container: &Container,
        label: &str,
        value: &str,
    ) -> Result<Claim, Vec<Diagnostic>> {
        let place = Place::Label { container: container.name.clone(), label: shown(label) };
        if label.len() + value.len() > LABEL_LEN_MAX {
            let mistake = format!("this label has more than {LABEL_LEN_MAX} bytes, so it is not read");
            return Err(vec![Diagnostic::new(place, mistake)]);
        }
        let listen = label.strip_prefix(PREFIX).unwrap_or_default();
        let (port, options) = match value.split_once('?') {
            Some((port, options)) => (port, Some(options)),
            None => (value, None),
        };
        let mut mistakes = Vec::new();
        let port = port_of(port, listen, &place).map_err(|mistake| mistakes.push(mistake)).ok();
        let listen = parse_listen(listen, &place).map_err(|mistake| mistakes.push(mistake)).ok();
        let options = listen.as_ref().and_then(|listen| {
            let Some(text) = options else { return Some(Options::named(listen.to_string())) };
            parse_options(text, listen, &place).map_err(|several| mistakes.extend(several)).ok()
        });
        match (listen, port, options) {
            (Some(listen), Some(port), Some(options)) if mistakes.is_empty() => {
                // By ID and not by name: a container renamed keeps its label, one that takes its name does not get it.
                let target = Target::Docker { name: id.0.clone(), port: Some(port) };
                Ok(Claim { listen, target, options, origin: place })
            }
            _ => Err(mistakes),
        }
    }
}

/// A label's key goes to logs whatever its length.
fn shown(label: &str) -> String {
    const SHOWN_MAX: usize = 100;
    if label.chars().count() <= SHOWN_MAX {
        return label.to_owned();
    }
    label.chars().take(SHOWN_MAX).chain("...".chars()).collect()
}

fn port_of(text: &str, listen: &str, place: &Place) -> Result<u16, Diagnostic> {
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            let (text, key) = (shown(text), shown(listen));
            let message = format!("{text:?} is not a port of this container");
            let help = format!(
                "write the port the service has inside: {PREFIX}{key}=6379, options after it: ?hold=30s"
            );
            Err(Diagnostic::new(place.clone(), message).help(help))
        }
    }
}

/// The routes so far; the first to claim a listener has it.
#[derive(Default)]
struct Table {
    routes: BTreeMap<Listen, Route>,
    ports: usize,
    mistakes: Vec<Diagnostic>,
}

impl Table {
    fn add(&mut self, claim: Claim) {
        let Claim { listen, target, options, origin } = claim;
        if let Some(route) = self.routes.get_mut(&listen) {
            if route.options == options {
                route.targets.push(target);
            } else {
                let mistake = differing(route, &options, origin);
                self.mistakes.push(mistake);
            }
            return;
        }
        if let Some(other) = self.routes.values().find(|route| route.listen.overlaps(&listen)) {
            let message = format!("{listen} overlaps {}, which {} has", other.listen, other.origin);
            let help = "give them ports that do not overlap, or exactly the same listener to share it";
            self.mistakes.push(Diagnostic::new(origin, message).help(help));
            return;
        }
        let ports = ports_of(&listen);
        if self.ports + ports > PORTS_MAX {
            let message =
                format!("the labels of all containers ask for more than {PORTS_MAX} listening ports");
            let help = "write a route for the widest range as an argument instead: LISTEN=docker://NAME";
            self.mistakes.push(Diagnostic::new(origin, message).help(help));
            return;
        }
        self.ports += ports;
        let route = Route { listen: listen.clone(), targets: vec![target], options, origin };
        self.routes.insert(listen, route);
    }
}

fn ports_of(listen: &Listen) -> usize {
    match listen {
        Listen::Inet { ports, .. } => ports.count(),
        Listen::Unix(_) => 1,
    }
}

fn differing(route: &Route, options: &Options, origin: Place) -> Diagnostic {
    let keys: Vec<&str> = options.differing(&route.options).iter().map(|(key, _)| *key).collect();
    let message = format!(
        "{} is shared with {}, but the options differ ({}); this container is left out",
        route.listen,
        route.origin,
        keys.join(", ")
    );
    Diagnostic::new(origin, message).help("write the same options on both, or another listener")
}

#[cfg(test)]
mod tests;
