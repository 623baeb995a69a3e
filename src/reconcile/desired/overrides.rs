//! What an operator changed at run time, until the next restart: a layer over what the sources report. Pure.
//!
//! The sources keep reporting underneath, so that a file that is read again undoes no override, and undoing an override shows
//! what the sources report by then.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{EndpointKey, EndpointSpec};
use crate::diagnostic::Place;
use crate::ordered::CollectOrdered;
use crate::route::{Layer, Route, RouteTable, Target};

/// More than an operator types between two restarts. Bounds a script that runs out of control.
pub(super) const OVERRIDES_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    /// Routes of `routes add`: the first layer.
    pub(super) added: Vec<Route>,
    /// The names given to `routes remove`, with what was changed of the routes before.
    pub(super) removed: BTreeMap<String, Override>,
    /// By route name. None is empty.
    changed: BTreeMap<String, Override>,
}

/// What was changed of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// New sessions are held.
    pub paused: bool,
    /// Replaces the targets that the sources report.
    pub targets: Option<Vec<Target>>,
    /// Replaces the weights of these endpoints.
    pub weights: BTreeMap<EndpointKey, u32>,
    /// Endpoints that take no new sessions.
    pub drained: BTreeSet<EndpointKey>,
}

/// The limit [`OVERRIDES_MAX`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Overrides {
    /// Returns the layers to merge, with the added routes first and without the removed ones.
    pub(super) fn layers(&self, mut layers: Vec<Layer>) -> Vec<Layer> {
        for layer in &mut layers {
            layer.routes.retain(|route| !self.removed.contains_key(&route.options.name));
        }
        std::iter::once(Layer { routes: self.added.clone() }).chain(layers).collect()
    }

    /// Returns the table of the routes to open. Omits removed routes that are within their removal grace period.
    pub(super) fn table(&self, source_table: &RouteTable) -> RouteTable {
        let stays = |route: &Route| {
            route.origin == Place::Operator || !self.removed.contains_key(&route.options.name)
        };
        let overridden = |route: &Route| {
            let targets = self.of(&route.options.name).and_then(|change| change.targets.clone());
            Route { targets: targets.unwrap_or_else(|| route.targets.clone()), ..route.clone() }
        };
        let staying = source_table.iter().filter(|(_, route)| stays(route));
        staying.map(|(listen, route)| (listen.clone(), overridden(route))).collect_ordered()
    }

    /// Sets the weights of a route's endpoints. A drained endpoint has weight 0 and takes no new sessions.
    pub(super) fn weigh(&self, route: &str, endpoints: &mut [EndpointSpec]) {
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

    /// Returns what was changed of one route.
    pub(super) fn of(&self, route: &str) -> Option<&Override> {
        self.changed.get(route)
    }

    pub(super) fn is_paused(&self, route: &str) -> bool {
        self.of(route).is_some_and(|change| change.paused)
    }

    /// Changes the override of one route: of a removed one, that which it will be restored with. An override that becomes empty
    /// is removed.
    pub(super) fn change(&mut self, route: &str, change: impl FnOnce(&mut Override)) -> Result<(), TooMany> {
        let is_added = self.is_added(route);
        if let Some(kept) = self.removed.get_mut(route).filter(|_| !is_added) {
            change(kept);
            return Ok(());
        }
        let mut changed = self.of(route).cloned().unwrap_or_default();
        change(&mut changed);
        if changed == Override::default() {
            self.changed.remove(route);
            return Ok(());
        }
        let others = self.changed.iter().filter(|(name, _)| *name != route).map(|(_, other)| other);
        let sizes = others.chain(self.removed.values()).map(Override::size);
        if sizes.sum::<usize>() + changed.size() > OVERRIDES_MAX {
            return Err(TooMany);
        }
        self.changed.insert(route.to_owned(), changed);
        Ok(())
    }

    /// Adds a route. The caller has checked that no other route has its listener or name.
    pub(super) fn add(&mut self, route: Route) -> Result<(), TooMany> {
        if self.added.len() >= OVERRIDES_MAX {
            return Err(TooMany);
        }
        self.added.push(route);
        Ok(())
    }

    /// Removes a route that was added with its override, or else hides the route of this name and keeps its override for
    /// [`Overrides::restore`].
    pub(super) fn remove(&mut self, name: &str) -> Result<(), TooMany> {
        if self.is_added(name) {
            self.added.retain(|route| route.options.name != name);
            self.changed.remove(name);
            return Ok(());
        }
        if self.removed.len() >= OVERRIDES_MAX {
            return Err(TooMany);
        }
        let change = self.changed.remove(name).unwrap_or_default();
        self.removed.insert(name.to_owned(), change);
        Ok(())
    }

    /// Undoes [`Overrides::remove`] of a route that was not added. Returns whether the route was removed.
    pub(super) fn restore(&mut self, name: &str) -> bool {
        let Some(change) = self.removed.remove(name) else { return false };
        if change != Override::default() {
            self.changed.insert(name.to_owned(), change);
        }
        true
    }

    pub(super) fn is_added(&self, name: &str) -> bool {
        self.added.iter().any(|route| route.options.name == name)
    }
}

impl Override {
    fn size(&self) -> usize {
        let Override { paused, targets, weights, drained } = self;
        usize::from(*paused) + targets.as_ref().map_or(0, Vec::len) + weights.len() + drained.len()
    }
}

#[cfg(test)]
mod tests;
