//! What an operator changed by hand, until the next restart: a layer over what the sources say. Pure.
//!
//! ```text
//!   sources ──► layers ──► merge ──► told ──► table ──► endpoints
//!                 ▲                     ▲          ▲
//!        routes added, removed     targets     weights, drained
//! ```
//!
//! The sources go on telling underneath, so that a file that is read again changes nothing of this, and taking an
//! override back shows what they say by then.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{EndpointKey, EndpointSpec};
use crate::diagnostic::Place;
use crate::route::{Layer, Route, RouteTable, Target};

/// More than an operator types between two restarts; a script that goes astray ends here.
pub const OVERRIDES_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Of `routes add`: the layer before all others.
    pub added: Vec<Route>,
    /// Of `routes remove`: names, whoever tells of them.
    pub removed: BTreeSet<String>,
    /// By the name of their route. None is empty.
    changed: BTreeMap<String, Override>,
}

/// What was changed of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    pub paused: bool,
    /// Instead of those it has.
    pub targets: Option<Vec<Target>>,
    pub weights: BTreeMap<EndpointKey, u32>,
    pub drained: BTreeSet<EndpointKey>,
}

/// There are [`OVERRIDES_MAX`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Overrides {
    /// The layers as they are merged.
    pub fn layers(&self, mut told: Vec<Layer>) -> Vec<Layer> {
        for layer in &mut told {
            layer.routes.retain(|route| !self.removed.contains(&route.options.name));
        }
        std::iter::once(Layer { routes: self.added.clone() }).chain(told).collect()
    }

    /// The table that runs. A route that only lingers is left out too when it was removed by hand.
    pub fn table(&self, told: &RouteTable) -> RouteTable {
        let stays =
            |route: &Route| route.origin == Place::Operator || !self.removed.contains(&route.options.name);
        let overridden = |route: &Route| {
            let targets = self.of(&route.options.name).and_then(|change| change.targets.clone());
            Route { targets: targets.unwrap_or_else(|| route.targets.clone()), ..route.clone() }
        };
        let staying = told.iter().filter(|(_, route)| stays(route));
        staying.map(|(listen, route)| (listen.clone(), overridden(route))).collect()
    }

    /// Sets the weights of a route's endpoints. One that is drained has none: it takes no new sessions.
    pub fn weigh(&self, route: &str, endpoints: &mut [EndpointSpec]) {
        let Some(change) = self.of(route) else { return };
        for endpoint in endpoints {
            if let Some(weight) = change.weights.get(&endpoint.key) {
                endpoint.weight = *weight;
            }
            if change.drained.contains(&endpoint.key) {
                endpoint.weight = 0;
            }
        }
    }

    pub fn of(&self, route: &str) -> Option<&Override> {
        self.changed.get(route)
    }

    pub fn is_paused(&self, route: &str) -> bool {
        self.of(route).is_some_and(|change| change.paused)
    }

    /// Changes what is overridden of one route. What is no override any more is forgotten.
    pub fn change(&mut self, route: &str, change: impl FnOnce(&mut Override)) -> Result<(), TooMany> {
        let mut changed = self.of(route).cloned().unwrap_or_default();
        change(&mut changed);
        if changed == Override::default() {
            self.changed.remove(route);
            return Ok(());
        }
        let others = self.changed.iter().filter(|(name, _)| *name != route).map(|(_, other)| other.size());
        if others.sum::<usize>() + changed.size() > OVERRIDES_MAX {
            return Err(TooMany);
        }
        self.changed.insert(route.to_owned(), changed);
        Ok(())
    }

    /// Adds a route, which the table has room for.
    pub fn add(&mut self, route: Route) -> Result<(), TooMany> {
        if self.added.len() >= OVERRIDES_MAX {
            return Err(TooMany);
        }
        self.added.push(route);
        Ok(())
    }

    /// Removes a route of this name, and whatever was changed of it.
    pub fn remove(&mut self, name: &str) -> Result<(), TooMany> {
        let before = self.added.len();
        self.added.retain(|route| route.options.name != name);
        if self.added.len() == before {
            if self.removed.len() >= OVERRIDES_MAX {
                return Err(TooMany);
            }
            self.removed.insert(name.to_owned());
        }
        self.changed.remove(name);
        Ok(())
    }
}

impl Override {
    fn size(&self) -> usize {
        let Override { paused: _, targets, weights, drained } = self;
        1 + targets.as_ref().map_or(0, Vec::len) + weights.len() + drained.len()
    }
}

#[cfg(test)]
mod tests;
