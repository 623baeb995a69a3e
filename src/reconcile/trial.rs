//! A switch on trial: taken back when it has not settled by its deadline. Pure.
//!
//! A switch has settled when the new targets have an endpoint, each of these has answered, and the endpoints that left have
//! no session. The trial is ours, not the operator's command's, so that a terminal that closes leaves no switch half done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::route::Target;

/// How often it is asked whether a switch has settled. Only while one is on trial.
const PACE: Duration = Duration::from_millis(50);

/// What became of a route's last switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Until it settles, or its deadline passes.
    OnTrial,
    /// It stands.
    Kept,
    RolledBack,
}

/// A route's last switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Counts from 1 over all routes, so that whoever waits for one sees when another has come between.
    pub number: u64,
    pub verdict: Verdict,
    /// Why it was rolled back, or is not settled yet.
    pub why: Option<String>,
    deadline: Option<Instant>,
    /// The override before it.
    back_to: Option<Vec<Target>>,
}

/// A switch to take back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RolledBack {
    pub(super) route: String,
    /// The override before it.
    pub(super) back_to: Option<Vec<Target>>,
    pub(super) why: String,
}

/// By the name of their route.
#[derive(Debug, Default)]
pub(super) struct Trials {
    latest: u64,
    switches: BTreeMap<String, Switch>,
}

impl Trials {
    /// Notes a switch that is not tried.
    pub(super) fn keep(&mut self, route: &str) {
        self.note(route, Verdict::Kept, None, None);
    }

    /// Notes a switch on trial, rolled back at the deadline if there is one.
    pub(super) fn begin(&mut self, route: &str, deadline: Option<Instant>, back_to: Option<Vec<Target>>) {
        self.note(route, Verdict::OnTrial, deadline, back_to);
    }

    fn note(
        &mut self,
        route: &str,
        verdict: Verdict,
        deadline: Option<Instant>,
        back_to: Option<Vec<Target>>,
    ) {
        self.latest += 1;
        let switch = Switch { number: self.latest, verdict, why: None, deadline, back_to };
        self.switches.insert(route.to_owned(), switch);
    }

    pub(super) fn is_on_trial(&self, route: &str) -> bool {
        self.of(route).is_some_and(|switch| switch.verdict == Verdict::OnTrial)
    }

    pub(super) fn of(&self, route: &str) -> Option<&Switch> {
        self.switches.get(route)
    }

    /// Forgets the switches of routes that are no more, but for those on trial.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.switches.retain(|route, switch| switch.verdict == Verdict::OnTrial || is_there(route));
    }

    /// Ends the trials that have settled, and returns those to take back. `unsettled` says why a switch has not settled.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        unsettled: impl Fn(&str) -> Option<String>,
    ) -> Vec<RolledBack> {
        let mut failed = Vec::new();
        for (route, switch) in &mut self.switches {
            if switch.verdict != Verdict::OnTrial {
                continue;
            }
            let Some(why) = unsettled(route) else {
                switch.verdict = Verdict::Kept;
                continue;
            };
            if switch.deadline.is_some_and(|deadline| deadline <= now) {
                switch.verdict = Verdict::RolledBack;
                switch.why = Some(why.clone());
                failed.push(RolledBack { route: route.clone(), back_to: switch.back_to.take(), why });
            }
        }
        failed
    }

    /// How many are on trial.
    pub(super) fn count(&self) -> usize {
        self.switches.values().filter(|switch| switch.verdict == Verdict::OnTrial).count()
    }

    /// When to judge again.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        (self.count() > 0).then(|| now + PACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(trials: &Trials) -> Option<Verdict> {
        trials.of("r").map(|switch| switch.verdict)
    }

    fn unsettled() -> Option<String> {
        Some("127.0.0.1:1: connection refused".to_owned())
    }

    #[test]
    fn a_switch_that_settles_in_time_is_kept() {
        let (mut trials, began) = (Trials::default(), Instant::now());
        trials.begin("r", Some(began + Duration::from_secs(9)), None);
        assert_eq!(trials.judge(began, |_| unsettled()), []);
        assert_eq!((verdict(&trials), trials.next(began)), (Some(Verdict::OnTrial), Some(began + PACE)));
        assert_eq!(trials.judge(began + Duration::from_secs(8), |_| None), []);
        assert_eq!((verdict(&trials), trials.next(began)), (Some(Verdict::Kept), None));
        assert_eq!(trials.judge(began + Duration::from_secs(10), |_| unsettled()), [], "and stays so");
    }

    #[test]
    fn one_that_does_not_is_taken_back_to_the_override_before_it() {
        let (mut trials, began) = (Trials::default(), Instant::now());
        let before = Some(vec![Target::Unix("/run/x".into())]);
        trials.begin("r", Some(began), before.clone());
        let why = "127.0.0.1:1: connection refused".to_owned();
        let rolled_back = RolledBack { route: "r".to_owned(), back_to: before, why: why.clone() };
        assert_eq!(trials.judge(began, |_| unsettled()), [rolled_back]);
        assert_eq!(trials.of("r").and_then(|switch| switch.why.clone()), Some(why));
        assert_eq!((verdict(&trials), trials.next(began)), (Some(Verdict::RolledBack), None));
    }

    #[test]
    fn the_next_switch_ends_the_trial_and_has_another_number() {
        let (mut trials, began) = (Trials::default(), Instant::now());
        trials.begin("r", Some(began), None);
        trials.keep("r");
        assert_eq!(trials.judge(began, |_| unsettled()), []);
        assert_eq!(trials.of("r").map(|switch| switch.number), Some(2));
        trials.retain(|_| false);
        assert_eq!(trials.of("r"), None);
    }

    #[test]
    fn without_a_deadline_a_switch_is_on_trial_until_it_settles() {
        let (mut trials, began) = (Trials::default(), Instant::now());
        trials.begin("r", None, None);
        assert_eq!(trials.judge(began + Duration::from_secs(99), |_| unsettled()), []);
        assert!(trials.is_on_trial("r"));
        assert_eq!(trials.judge(began, |_| None), []);
        assert_eq!(verdict(&trials), Some(Verdict::Kept));
    }
}
