//! Routes for the links of our own container. Pure.
//!
//! Docker deletes a link together with its target. The route stays: it holds sessions until a container of that name runs
//! again, and keeps the link's variable out, whose address may have been given to another container.

use std::collections::BTreeMap;

use super::exposed::{exposed, route};
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::containers::{Containers, Link};
use crate::route::{Listen, Protocol, Route};

/// Every link that Docker has reported once and whose target has existed, by alias.
#[derive(Clone, Debug, Default)]
pub struct OwnLinks {
    by_alias: BTreeMap<String, OwnLink>,
}

#[derive(Clone, Debug)]
struct OwnLink {
    /// The name of the container.
    target: String,
    /// What the last container of this name exposed.
    exposed: Vec<(u16, Protocol)>,
}

impl OwnLinks {
    pub fn learn(&mut self, containers: &Containers) {
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

    /// A route for each exposed port of each link's target. Several aliases of one target are one link; two targets that
    /// expose one port are endpoints of one route, as with link variables.
    pub fn routes(&self) -> (Vec<Route>, Vec<Diagnostic>) {
        let mut routes: BTreeMap<Listen, Route> = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (target, (alias, link)) in self.targets() {
            let place = Place::Link(format!("{target}:{alias}"));
            for (port, protocol) in exposed(&link.exposed, &place, &mut mistakes) {
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

    /// Each linked container once, with the alias that it is shown by.
    fn targets(&self) -> BTreeMap<&str, (&str, &OwnLink)> {
        let mut targets = BTreeMap::new();
        for (alias, link) in &self.by_alias {
            targets.entry(link.target.as_str()).or_insert((alias.as_str(), link));
        }
        targets
    }
}
