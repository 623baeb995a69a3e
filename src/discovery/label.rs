//! Routes that Docker tells us: labelled containers, `-name`, and this container's own links. Pure.
//!
//! A stopped container keeps its routes for as long as it exists: a route without an endpoint holds its sessions, so
//! a restart is a pause; a route that went would refuse them.

mod exposed;
mod links;
mod table;
mod unknown;

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::containers::{Container, ContainerId, Containers};
use crate::config::grammar::{Author, check_port, parse_listen, parse_options};
use crate::diagnostic::{Diagnostic, Place};
use crate::route::{Listen, Options, Route, Target};
pub use exposed::named;
pub use links::OwnLinks;
use table::Table;

/// The rest of the label's key is the listener.
const PREFIX: &str = "ambassador.listen.";

/// Anybody who may start a container may label it: what labels cost us has an end. A listener is a socket on each
/// worker, and the hard limit of open files may be a thousand (Docker 29's default).
const PORTS_MAX: usize = 4096;
const LABELS_MAX: usize = 64;
const LABEL_LEN_MAX: usize = 4096;
/// Labels of all containers together: each is compared with those before it.
const CLAIMS_MAX: usize = 4096;
/// Reported at a time. Whoever labels a thousand containers wrongly reads the first of them.
const MISTAKES_MAX: usize = 256;

/// What decides, beside the labels themselves, which of them become routes.
#[derive(Clone, Debug, Default)]
pub struct Policy<'a> {
    /// The routes that Docker's containers have now, those that linger included. A label takes none of their listeners.
    pub serving: BTreeMap<&'a Listen, &'a Route>,
    /// Containers that are no replicas of one another may share a listener (`--share-labels`).
    pub share: bool,
    /// The TCP port of the admin API, which no label may listen on.
    pub admin_port: Option<u16>,
}

/// What `-name` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Implied {
    pub routes: Vec<Route>,
    pub mistakes: Vec<Diagnostic>,
    /// No mistakes, but not what an operator expects either: names that no container has.
    pub notices: Vec<String>,
}

/// Routes of every container labelled `ambassador.listen.<LISTEN>=<PORT>[?options]`. One bad label never removes
/// another route. Replicas with the same listener are endpoints of one route. Of containers that want the same, the one
/// that serves keeps it; before any serves, the one that was created first has it.
pub fn labelled(containers: &Containers, policy: &Policy<'_>) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut mistakes = Vec::new();
    let mut claims = Vec::new();
    for (id, container) in containers.by_id.iter().filter(|(id, _)| !containers.is_own(id)) {
        mistakes.extend(of_image(container));
        read(id, container, &mut claims, &mut mistakes);
    }
    claims.sort_by_key(|claim| (!claim.serves(policy), claim.age()));
    if let Some(first) = claims.get(CLAIMS_MAX) {
        let message = format!("all containers have more than {CLAIMS_MAX} such labels; this one is not read");
        mistakes.push(Diagnostic::new(first.origin.clone(), message).help("use ranges of ports"));
        claims.truncate(CLAIMS_MAX);
    }
    let mut table = Table::new(policy, &claims);
    mistakes.extend(claims.into_iter().filter_map(|claim| table.add(claim).err()));
    let others = containers.by_id.iter().filter(|(id, _)| !containers.is_own(id));
    mistakes.extend(others.filter_map(|(_, container)| unknown::label(container)));
    mistakes.truncate(MISTAKES_MAX);
    (table.into_routes(), mistakes)
}

/// A container's labels.
fn read<'a>(
    id: &'a ContainerId,
    container: &'a Container,
    claims: &mut Vec<Claim<'a>>,
    mistakes: &mut Vec<Diagnostic>,
) {
    if container.is_oneoff() {
        return;
    }
    let labels = container.labels.range(PREFIX.to_owned()..).take_while(|(label, _)| ours(label));
    for (n, (label, value)) in labels.enumerate() {
        if n == LABELS_MAX {
            mistakes.push(too_many(container, label));
            break;
        }
        match Claim::read(id, container, label, value) {
            Ok(claim) => claims.push(claim),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
}

fn too_many(container: &Container, label: &str) -> Diagnostic {
    let message =
        format!("this container has more than {LABELS_MAX} such labels; from this one on they are not read");
    Diagnostic::new(place(container, label), message)
        .help("use a range of ports: ambassador.listen.8000-8100=8000")
}

/// That labels which came with the image are not read.
fn of_image(container: &Container) -> Option<Diagnostic> {
    let label = container.inherited.keys().find(|label| ours(label))?;
    let (message, help) = if container.image.is_known {
        (
            "this label comes with the container's image, so it is not read",
            "give the container a label of its own (docker run --label), with another value than the image's",
        )
    } else {
        (
            "the container's image cannot be inspected, so that this label may be the image's: it is not read",
            "let us make the request GET /images/ID/json (IMAGES=1 of a socket proxy)",
        )
    };
    Some(Diagnostic::new(place(container, label), message).help(help))
}

fn place(container: &Container, label: &str) -> Place {
    Place::Label { container: container.name.clone(), label: shown(label) }
}

fn ours(label: &str) -> bool {
    label.starts_with(PREFIX)
}

/// One label, read.
#[derive(Debug)]
struct Claim<'a> {
    id: &'a ContainerId,
    container: &'a Container,
    listen: Listen,
    target: Target,
    options: Options,
    origin: Place,
}

impl<'a> Claim<'a> {
    fn read(
        id: &'a ContainerId,
        container: &'a Container,
        label: &str,
        value: &str,
    ) -> Result<Claim<'a>, Vec<Diagnostic>> {
        let place = place(container, label);
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
        let listen =
            parse_listen(listen, Author::Label, &place).map_err(|mistake| mistakes.push(mistake)).ok();
        if let (Some(port), Some(listen)) = (port, &listen) {
            mistakes.extend(check_port(port, listen).err().map(|mistake| mistake.at(&place)));
        }
        let options = listen.as_ref().and_then(|listen| {
            let Some(text) = options else { return Some(Options::named(listen.to_string())) };
            parse_options(text, listen, Author::Label, &place)
                .map_err(|several| mistakes.extend(several))
                .ok()
        });
        match (listen, port, options) {
            (Some(listen), Some(port), Some(options)) if mistakes.is_empty() => {
                // By ID and not by name: a container renamed keeps its label, one that takes its name does not get it.
                let target = Target::Docker { name: id.0.clone(), port: Some(port) };
                Ok(Claim { id, container, listen, target, options, origin: place })
            }
            _ => Err(mistakes),
        }
    }

    fn route(&self) -> Route {
        Route {
            listen: self.listen.clone(),
            targets: vec![self.target.clone()],
            options: self.options.clone(),
            origin: self.origin.clone(),
        }
    }

    /// Whether it is a part of a route that is open.
    fn serves(&self, policy: &Policy<'_>) -> bool {
        policy.serving.get(&self.listen).is_some_and(|route| route.targets.contains(&self.target))
    }

    /// The oldest first.
    fn age(&self) -> (Option<SystemTime>, &'a str, &'a ContainerId) {
        (self.container.created, &self.container.name, self.id)
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

#[cfg(test)]
mod tests;
