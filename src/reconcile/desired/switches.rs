//! The last switch of each route, until it has settled or was rolled back. Pure.
//!
//! ```text
//!                 the new targets have an endpoint,          no session is left
//!                 which has answered if on trial             on the old endpoints
//!   command ──► pending ─────────────────────────► in use ─────────────────────► kept
//!                  └──────── deadline of the trial ───┴──────────► rolled back
//! ```
//!
//! While a switch is pending, the endpoints of the previous targets keep serving: a name may not resolve yet, a container may
//! not have started, or either may be mistyped. The control loop owns the trial, not the command that requested it, so that
//! a switch is completed or rolled back even if the terminal is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ordered::CollectOrdered;
use crate::route::{OnRemove, Route, RouteTable, Target};

/// Interval at which switches on trial are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The outcome of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchPhase {
    /// It has neither settled nor reached its deadline.
    OnTrial,
    /// It has settled, or was made without a trial.
    Kept,
    /// Its deadline passed, and the previous targets apply again.
    RolledBack,
}

/// A route's last switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSwitch {
    /// Counts from 1 over all routes, so that a client that waits for one switch notices another.
    pub number: u64,
    /// The outcome so far.
    pub phase: SwitchPhase,
    /// Why it was rolled back, or has not settled yet.
    pub why: Option<String>,
}

/// The terms of a switch on trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrialTerms {
    /// `None` to wait until the switch has settled.
    pub(super) deadline: Option<Instant>,
    /// The overriding targets before the switch.
    pub(super) rollback_targets: Option<Vec<Target>>,
}

/// A switch to roll back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RolledBack {
    pub(super) route: String,
    pub(super) rollback_targets: Option<Vec<Target>>,
    pub(super) why: String,
}

/// The last switches, by route name.
#[derive(Clone, Debug, Default)]
pub(super) struct Switches {
    latest: u64,
    records: BTreeMap<String, Record>,
}

#[derive(Clone, Debug)]
struct Record {
    last: LastSwitch,
    terms: TrialTerms,
    pending: Option<Pending>,
}

/// A switch whose new targets are not used yet.
#[derive(Clone, Debug)]
struct Pending {
    /// The route whose endpoints keep serving.
    previous: Route,
    /// What happens to the sessions of these endpoints afterwards.
    on_remove: OnRemove,
}

impl Switches {
    /// Records a switch of the route `name` without a trial.
    pub(super) fn keep(&mut self, name: &str) {
        self.record(name, SwitchPhase::Kept, TrialTerms::default());
    }

    /// Records a switch of the route `name` that is on trial.
    pub(super) fn begin_trial(&mut self, name: &str, terms: TrialTerms) {
        self.record(name, SwitchPhase::OnTrial, terms);
    }

    fn record(&mut self, name: &str, phase: SwitchPhase, terms: TrialTerms) {
        self.latest += 1;
        let last = LastSwitch { number: self.latest, phase, why: None };
        let pending = self.records.remove(name).and_then(|record| record.pending);
        self.records.insert(name.to_owned(), Record { last, terms, pending });
    }

    /// Lets the endpoints of `serving` keep serving until the new targets have one. If an earlier switch is pending, the
    /// endpoints that serve now are those from before it.
    pub(super) fn keep_serving(&mut self, serving: &Route, on_remove: OnRemove) {
        let Some(record) = self.records.get_mut(&serving.options.name) else { return };
        let pending = record.pending.get_or_insert_with(|| Pending { previous: serving.clone(), on_remove });
        pending.on_remove = on_remove;
    }

    /// Returns the route whose endpoints keep serving for the route `name`.
    pub(super) fn previous(&self, name: &str) -> Option<&Route> {
        self.pending(name).map(|pending| &pending.previous)
    }

    /// Returns the routes whose endpoints keep serving.
    pub(super) fn all_previous(&self) -> impl Iterator<Item = &Route> {
        self.records.values().filter_map(|record| record.pending.as_ref()).map(|pending| &pending.previous)
    }

    /// Returns what happens to the sessions of the endpoints that a pending switch replaces.
    pub(super) fn on_remove(&self, name: &str) -> Option<OnRemove> {
        self.pending(name).map(|pending| pending.on_remove)
    }

    /// Ends the pending state: the new targets are in use.
    pub(super) fn complete(&mut self, name: &str) {
        if let Some(record) = self.records.get_mut(name) {
            record.pending = None;
        }
    }

    fn pending(&self, name: &str) -> Option<&Pending> {
        self.records.get(name)?.pending.as_ref()
    }

    pub(super) fn last(&self, name: &str) -> Option<&LastSwitch> {
        self.records.get(name).map(|record| &record.last)
    }

    pub(super) fn is_on_trial(&self, name: &str) -> bool {
        self.records.get(name).is_some_and(Record::is_on_trial)
    }

    /// Removes the records of routes that are not in `table`, except those on trial.
    pub(super) fn retain(&mut self, table: &RouteTable) {
        if self.records.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = table.values().map(|route| route.options.name.as_str()).collect_ordered();
        self.records.retain(|name, record| names.contains(name.as_str()) || record.is_on_trial());
        for (_, record) in self.records.iter_mut().filter(|(name, _)| !names.contains(name.as_str())) {
            record.pending = None;
        }
    }

    /// Ends the trials that have settled, and returns those to roll back. `unsettled` returns why a switch has not settled;
    /// its second argument is whether the switch is pending.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        unsettled: impl Fn(&str, bool) -> Option<String>,
    ) -> Vec<RolledBack> {
        let mut rolled_back = Vec::new();
        for (name, record) in self.records.iter_mut().filter(|(_, record)| record.is_on_trial()) {
            let Record { last, terms, pending } = record;
            let Some(why) = unsettled(name, pending.is_some()) else {
                last.phase = SwitchPhase::Kept;
                continue;
            };
            if terms.deadline.is_some_and(|deadline| deadline <= now) {
                last.phase = SwitchPhase::RolledBack;
                last.why = Some(why.clone());
                let rollback_targets = terms.rollback_targets.take();
                rolled_back.push(RolledBack { route: name.clone(), rollback_targets, why });
            }
        }
        rolled_back
    }

    /// Returns the number of switches on trial.
    pub(super) fn on_trial(&self) -> usize {
        self.records.values().filter(|record| record.is_on_trial()).count()
    }

    /// Returns when to call [`Switches::judge`] next.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        (self.on_trial() > 0).then(|| now + CHECK_INTERVAL)
    }
}

impl Record {
    fn is_on_trial(&self) -> bool {
        self.last.phase == SwitchPhase::OnTrial
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

    fn phase(switches: &Switches) -> Option<SwitchPhase> {
        switches.last("r").map(|last| last.phase)
    }

    fn begin(deadline: Option<Instant>) -> Switches {
        let mut switches = Switches::default();
        switches.begin_trial("r", TrialTerms { deadline, rollback_targets: None });
        switches
    }

    fn unsettled(_: &str, _: bool) -> Option<String> {
        Some("127.0.0.1:1: connection refused".to_owned())
    }

    fn settled(_: &str, _: bool) -> Option<String> {
        None
    }

    #[test]
    fn switch_that_settles_before_its_deadline_is_kept() {
        let began = Instant::now();
        let mut switches = begin(Some(began + Duration::from_secs(9)));
        assert_eq!(switches.judge(began, unsettled), []);
        let next = Some(began + CHECK_INTERVAL);
        assert_eq!((phase(&switches), switches.next(began)), (Some(SwitchPhase::OnTrial), next));
        assert_eq!(switches.judge(began + Duration::from_secs(8), settled), []);
        assert_eq!((phase(&switches), switches.next(began)), (Some(SwitchPhase::Kept), None));
        assert_eq!(switches.judge(began + Duration::from_secs(10), unsettled), [], "it stays kept");
    }

    #[test]
    fn switch_that_misses_its_deadline_is_rolled_back_to_the_previous_override() {
        let (mut switches, began) = (Switches::default(), Instant::now());
        let rollback_targets = Some(vec![Target::Unix("/run/x".into())]);
        let terms = TrialTerms { deadline: Some(began), rollback_targets: rollback_targets.clone() };
        switches.begin_trial("r", terms);
        let why = "127.0.0.1:1: connection refused".to_owned();
        let rolled_back = RolledBack { route: "r".to_owned(), rollback_targets, why: why.clone() };
        assert_eq!(switches.judge(began, unsettled), [rolled_back]);
        assert_eq!(switches.last("r").and_then(|last| last.why.clone()), Some(why));
        assert_eq!((phase(&switches), switches.next(began)), (Some(SwitchPhase::RolledBack), None));
    }

    #[test]
    fn next_switch_ends_the_trial_and_has_another_number() {
        let began = Instant::now();
        let mut switches = begin(Some(began));
        switches.keep("r");
        assert_eq!(switches.judge(began, unsettled), []);
        assert_eq!(switches.last("r").map(|last| last.number), Some(2));
        switches.retain(&RouteTable::new());
        assert_eq!(switches.last("r"), None);
    }

    #[test]
    fn switch_without_a_deadline_is_on_trial_until_it_settles() {
        let began = Instant::now();
        let mut switches = begin(None);
        assert_eq!(switches.judge(began + Duration::from_secs(99), unsettled), []);
        assert!(switches.is_on_trial("r"));
        assert_eq!(switches.judge(began, settled), []);
        assert_eq!(phase(&switches), Some(SwitchPhase::Kept));
    }

    #[test]
    fn endpoints_from_before_the_first_of_two_pending_switches_keep_serving() {
        let mut switches = Switches::default();
        switches.keep("80");
        switches.keep_serving(&route("80=a"), OnRemove::Drain);
        switches.keep("80");
        switches.keep_serving(&route("80=nowhere"), OnRemove::Cut);
        assert_eq!(switches.previous("80"), Some(&route("80=a")));
        assert_eq!(switches.all_previous().count(), 1);
        assert_eq!(switches.on_remove("80"), Some(OnRemove::Cut));
        switches.complete("80");
        assert_eq!((switches.previous("80"), switches.on_remove("80")), (None, None));
    }

    #[test]
    fn switch_of_a_removed_route_is_not_pending() {
        let mut switches = Switches::default();
        switches.begin_trial("80", TrialTerms::default());
        switches.keep_serving(&route("80=a"), OnRemove::Drain);
        switches.retain(&RouteTable::new());
        assert!(switches.is_on_trial("80"));
        assert_eq!(switches.previous("80"), None);
    }
}
