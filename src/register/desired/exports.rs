//! The exports of a container: its labels `ambassador.listen.peer:NAME=PORT`, which the ambassador of this host offers to its peers. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Address, Port};
use crate::config::grammar::target::container_name;
use crate::config::grammar::{Author, parse_listen};
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::discovery::docker::Container;
use crate::route::Listen;

const PREFIX: &str = "ambassador.listen.";
const LABEL: &str = "ambassador.listen.peer:";

/// Returns the exports, each as a service of its name at `peer`, the address of the ambassador for its peers.
pub(super) fn exports(container: &Container, peer: SocketAddr, problems: &mut BTreeSet<String>) -> Vec<Port> {
    if container.is_oneoff() {
        return Vec::new();
    }
    let labels = container.labels.range(LABEL.to_owned()..);
    let labels = labels.take_while(|(label, _)| label.starts_with(LABEL));
    let mut exports = Vec::new();
    for (label, value) in labels {
        match export(container, label, value, peer) {
            Ok(export) => exports.push(export),
            Err(mistake) => {
                problems.insert(mistake.one_line());
            }
        }
    }
    exports
}

fn export(container: &Container, label: &str, value: &str, peer: SocketAddr) -> Result<Port, Diagnostic> {
    let place = Place::Label { container: container.name.clone(), label: label.to_owned() };
    let listen = parse_listen(label.strip_prefix(PREFIX).unwrap_or_default(), Author::Label, &place)?;
    let Listen::Peer { protocol, name } = listen else {
        return Err(Mistake::new("not the name of an export").at(&place));
    };
    let port = value.split('?').next().unwrap_or_default().trim();
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Mistake::new(format!("invalid port {port:?} of this container"))
            .help("write a port such as 6379")
            .at(&place)
    })?;
    let service = container_name(&name).map_err(|_| {
        Mistake::new(format!("the export `{name}` cannot be registered"))
            .help("the name of a registered export has letters, digits and `_.-`")
            .at(&place)
    })?;
    Ok((service, port, protocol, Address { addr: peer, export: Some(name) }))
}
