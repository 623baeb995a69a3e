//! The route table: layers are merged into it, and two tables are compared. Pure.

use std::collections::BTreeMap;

use super::index::RouteIndex;
use super::{Listen, Route};
use crate::diagnostic::{Diagnostic, Place};

/// The active routes, by listener. Built by [`merge`], compared by [`diff`].
pub type RouteTable = BTreeMap<Listen, Route>;

/// The routes of one source.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// In the order of precedence.
    pub routes: Vec<Route>,
}

/// Merges layers, given in order of precedence, into a table without conflicts.
///
/// Of two routes whose listeners overlap or whose names are equal, the one of the earlier layer is used (within one layer, the
/// earlier route), and the other is returned as shadowed.
///
/// ```
/// use ambassador::config::grammar::parse_route;
/// use ambassador::diagnostic::Place;
/// use ambassador::route::{Layer, merge};
///
/// let layer = |text, n| Layer { routes: vec![parse_route(text, &Place::Argument(n)).unwrap()] };
/// let (table, shadowed) = merge(&[layer("8000-8100=web", 1), layer("8080=api", 2), layer("9000=api", 3)]);
///
/// let routes: Vec<String> = table.values().map(ToString::to_string).collect();
/// assert_eq!(routes, ["8000-8100=web:8000", "9000=api:9000"]);
/// assert_eq!(shadowed[0].route.to_string(), "8080=api:8080");
/// assert_eq!(shadowed[0].by, Place::Argument(1));
/// ```
pub fn merge(layers: &[Layer]) -> (RouteTable, Vec<Shadowed>) {
    let (mut table, mut index) = (RouteTable::new(), RouteIndex::default());
    let mut shadowed = Vec::new();
    for route in layers.iter().flat_map(|layer| &layer.routes) {
        if let Some(winner) = conflict(&index, route) {
            shadowed.push(Shadowed { route: route.clone(), by: winner.origin.clone() });
        } else {
            index.add(route);
            table.insert(route.listen.clone(), route.clone());
        }
    }
    (table, shadowed)
}

/// Returns a route that excludes this one. A label also cannot use a port that the operator uses on the other address family:
/// a client that resolves `localhost` to `::1` would connect to the container instead of the operator's 127.0.0.1.
fn conflict<'r>(index: &RouteIndex<'r>, route: &Route) -> Option<&'r Route> {
    let is_label = |route: &Route| matches!(route.origin, Place::Label { .. });
    let other_family = route.listen.on_other_family().filter(|_| is_label(route));
    let operator = other_family.and_then(|listen| index.by_listen(&listen)).filter(|first| !is_label(first));
    operator
        .or_else(|| index.conflict(route))
        .or_else(|| is_label(route).then(|| takes_names(index, route))?)
}

/// Returns the operator's route that serves a name of this label, which would take it over by being more specific.
fn takes_names<'r>(index: &RouteIndex<'r>, route: &Route) -> Option<&'r Route> {
    let Listen::Names { port, names } = &route.listen else { return None };
    let serving = names.iter().filter_map(|name| index.serving(*port, name));
    serving.into_iter().find(|first| !matches!(first.origin, Place::Label { .. }))
}

/// A route that is not used because of a conflict with one of higher precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The route that is not used.
    pub route: Route,
    /// The origin of the route that is used instead.
    pub by: Place,
}

impl Shadowed {
    pub(crate) fn diagnostic(&self) -> Diagnostic {
        let text = format!("{} is not used: hidden by {}", self.route, self.by);
        Diagnostic::new(self.route.origin.clone(), text)
    }
}

/// The difference between two tables. Routes that are equal but for their origin are in none of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Routes with a new listener.
    pub open: Vec<Route>,
    /// Routes whose listener stays open, with other targets or options.
    pub replace: Vec<Route>,
    /// Listeners without a route.
    pub close: Vec<Listen>,
}

/// Returns the difference from `old` to `new`.
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
