//! Routes for the links of our own container. Pure.
//!
//! Docker deletes a link together with its target. The route remains: it holds sessions until a container of that name runs
//! again, and takes precedence over the link's variable, whose address may have been reassigned to another container.

use std::collections::BTreeMap;

use super::model::{Containers, Link};
use super::named::{exposed_port_route, exposed_ports};
use crate::diagnostic::{Diagnostic, Place};
use crate::route::{Listen, Protocol, Route};

/// Every link that Docker has reported at least once and whose target has existed, by alias.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnLinks {
    by_alias: BTreeMap<String, OwnLink>,
}

#[derive(Clone, Debug)]
struct OwnLink {
    /// The name of the container.
    target: String,
    /// The ports that the last container of this name exposed.
    exposed: Vec<(u16, Protocol)>,
}

impl OwnLinks {
    /// Adds new links and updates the exposed ports of all of them.
    pub(crate) fn update(&mut self, containers: &Containers) {
        for Link { target, alias } in containers.own().map(|own| own.links.as_slice()).unwrap_or_default() {
            if containers.by_name(target).is_some() {
                let link = OwnLink { target: target.clone(), exposed: Vec::new() };
                self.by_alias.insert(alias.clone(), link);
            }
        }
        for link in self.by_alias.values_mut() {
            if let Some(container) = containers.by_name(&link.target) {
                link.exposed.clone_from(&container.exposed);
            }
        }
    }

    /// Returns a route for each exposed port of each target. Several aliases of one target are one link; two targets that
    /// expose the same port are endpoints of one route, as with link variables.
    pub(crate) fn routes(&self) -> (Vec<Route>, Vec<Diagnostic>) {
        let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (target, (alias, link)) in self.targets() {
            let place = Place::Link(format!("{target}:{alias}"));
            for (port, protocol) in exposed_ports(&link.exposed, &place, &mut mistakes) {
                let new = exposed_port_route(port, protocol, target, place.clone());
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

    /// Returns each linked container once, with its first alias.
    fn targets(&self) -> BTreeMap<&str, (&str, &OwnLink)> {
        let mut targets = BTreeMap::new();
        for (alias, link) in &self.by_alias {
            targets.entry(link.target.as_str()).or_insert((alias.as_str(), link));
        }
        targets
    }
}

#[cfg(test)]
mod tests;
