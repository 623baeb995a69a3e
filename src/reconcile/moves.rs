//! Switches on their way: until the new targets have an endpoint, which under a trial has answered, those before serve on.
//!
//! A name is yet to be resolved, a container yet to be started, or mistyped: nobody is refused or cut for that.

use std::collections::{BTreeMap, BTreeSet};

use crate::route::{OnRemove, Route, RouteTable};

/// By the name of their route.
#[derive(Debug, Default)]
pub(super) struct Moves {
    moves: BTreeMap<String, Move>,
}

#[derive(Debug)]
struct Move {
    /// The route whose endpoints serve on.
    before: Route,
    /// How they leave.
    policy: OnRemove,
}

impl Moves {
    /// The route is about to have other targets. Where it was on its way already, what serves on is what did.
    pub(super) fn begin(&mut self, before: &Route, policy: OnRemove) {
        let name = before.options.name.clone();
        let entry = self.moves.entry(name).or_insert_with(|| Move { before: before.clone(), policy });
        entry.policy = policy;
    }

    /// The new targets have an endpoint: how the others leave, the first time this is asked.
    pub(super) fn finish(&mut self, name: &str) -> Option<OnRemove> {
        self.moves.remove(name).map(|done| done.policy)
    }

    /// The routes whose endpoints serve on.
    pub(super) fn before(&self) -> impl Iterator<Item = &Route> {
        self.moves.values().map(|under_way| &under_way.before)
    }

    /// What serves on for the route of this name.
    pub(super) fn of(&self, name: &str) -> Option<&Route> {
        self.moves.get(name).map(|under_way| &under_way.before)
    }

    /// Forgets those of routes that are no more.
    pub(super) fn retain(&mut self, table: &RouteTable) {
        if self.moves.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = table.values().map(|route| route.options.name.as_str()).collect();
        self.moves.retain(|name, _| names.contains(name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grammar::parse_route;
    use crate::diagnostic::Place;

    fn route(line: &str) -> Route {
        parse_route(line, &Place::Built).unwrap()
    }

    #[test]
    fn what_served_before_the_first_of_two_switches_serves_on() {
        let mut moves = Moves::default();
        moves.begin(&route("80=a"), OnRemove::Drain);
        moves.begin(&route("80=nowhere"), OnRemove::Cut);
        assert_eq!(moves.of("80"), Some(&route("80=a")));
        assert_eq!(moves.before().count(), 1);
        assert_eq!((moves.finish("80"), moves.finish("80")), (Some(OnRemove::Cut), None));
    }

    #[test]
    fn a_route_that_is_gone_is_on_no_way() {
        let mut moves = Moves::default();
        moves.begin(&route("80=a"), OnRemove::Drain);
        moves.retain(&RouteTable::new());
        assert_eq!(moves.of("80"), None);
    }
}
