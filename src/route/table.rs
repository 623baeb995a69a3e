//! Layers joined into the table that runs, and the way from one table to another.

use std::collections::BTreeMap;

use super::index::RouteIndex;
use super::{Listen, Route};
use crate::diagnostic::{Diagnostic, Place};

/// The routes that run, by listener. Built by [`merge`], compared by [`diff`].
pub type RouteTable = BTreeMap<Listen, Route>;

/// One place that routes come from, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub routes: Vec<Route>,
}

/// Joins the layers: where a listener, or a name, is wanted by several, the earlier layer's route stands (within one
/// layer, the earlier route) and the later is returned as shadowed. So no two routes of a table are in each other's way,
/// and a name means one route.
pub fn merge(layers: &[Layer]) -> (RouteTable, Vec<Shadowed>) {
    let (mut table, mut taken) = (RouteTable::new(), RouteIndex::default());
    let mut shadowed = Vec::new();
    for route in layers.iter().flat_map(|layer| &layer.routes) {
        if let Some(winner) = in_the_way(&taken, route) {
            shadowed.push(Shadowed { route: route.clone(), by: winner.origin.clone() });
        } else {
            taken.add(route);
            table.insert(route.listen.clone(), route.clone());
        }
    }
    (table, shadowed)
}

/// A label takes no port of the operator's on the other family's addresses either: a client of `localhost` that tries
/// `::1` first must not find a container where the operator listens on 127.0.0.1.
fn in_the_way<'r>(taken: &RouteIndex<'r>, route: &Route) -> Option<&'r Route> {
    let is_label = |route: &Route| matches!(route.origin, Place::Label { .. });
    let other_family = route.listen.on_other_family().filter(|_| is_label(route));
    let operators = other_family.and_then(|listen| taken.by_listen(&listen)).filter(|first| !is_label(first));
    operators.or_else(|| taken.excludes(route))
}

/// A route that an earlier one keeps from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    pub route: Route,
    pub by: Place,
}

impl Shadowed {
    pub(crate) fn diagnostic(&self) -> Diagnostic {
        let text = format!("{} is not used: {} comes first", self.route, self.by);
        Diagnostic::new(self.route.origin.clone(), text)
    }
}

/// What to do to go from one table to another. Routes that run alike are in none of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub open: Vec<Route>,
    /// The listener stays open; targets or options changed.
    pub replace: Vec<Route>,
    pub close: Vec<Listen>,
}

pub fn diff(old: &RouteTable, new: &RouteTable) -> Diff {
    let mut diff = Diff::default();
    for (listen, route) in new {
        match old.get(listen) {
            None => diff.open.push(route.clone()),
            Some(running) if !running.runs_like(route) => diff.replace.push(route.clone()),
            Some(_) => {}
        }
    }
    diff.close = old.keys().filter(|listen| !new.contains_key(*listen)).cloned().collect();
    diff
}
