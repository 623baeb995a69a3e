//! Several names of one source, which are added and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ambassador::config::dns::{Limits, TTL_FLOOR};
use ambassador::discovery::dns::{Names, Resolver};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::model::{Model, Outcome, TICK};
use super::resolver::{LOOKUP_TIMEOUT, Round, Shared, asking};
use super::{RETRY, limits, time};
use crate::simulation::rng::Rng;

const NAMES: [&str; 3] = ["one", "two", "three"];

struct ManyNames {
    zone: Shared,
    limits: Limits,
    names: Names,
    wanted: BTreeSet<String>,
    known: BTreeMap<String, TrackedName>,
    /// The last update.
    last_update: BTreeMap<String, Vec<IpAddr>>,
    last_failures: BTreeMap<String, String>,
}

/// A name, from its addition until the first due query after its removal.
struct TrackedName {
    model: Model,
    /// The times of its next query.
    due: Instant,
    under_way: Option<Round>,
}

pub(in crate::simulation) async fn run(mut rng: Rng, steps: usize) {
    let mut many = ManyNames::new(&mut rng);
    for _ in 0..steps {
        let event = many.random_event(&mut rng);
        many.advance(time(&mut rng), &event).await;
    }
    let recovered = NAMES.map(|name| (name.to_owned(), many.zone.lock().unwrap().recover(name)));
    many.set_wanted(NAMES.map(str::to_owned).into());
    // The maximum TTL, a hanging lookup, and the pause after it.
    many.advance(Duration::from_secs(30) + LOOKUP_TIMEOUT + RETRY, "recovery").await;
    assert_eq!(many.last_update, recovered.into());
}

impl ManyNames {
    fn new(rng: &mut Rng) -> ManyNames {
        let (zone, limits) = (Shared::default(), limits(rng));
        let names = Names::new(Resolver::with_query(asking(&zone)).within(limits));
        let (wanted, known, last_update, last_failures) = Default::default();
        ManyNames { zone, limits, names, wanted, known, last_update, last_failures }
    }

    fn random_event(&mut self, rng: &mut Rng) -> String {
        if rng.one_in(3) {
            let wanted: BTreeSet<String> =
                NAMES.iter().filter(|_| !rng.one_in(3)).map(|name| (*name).to_owned()).collect();
            self.set_wanted(wanted.clone());
            return format!("{wanted:?} are wanted");
        }
        let name = rng.pick(&NAMES);
        self.zone.lock().unwrap().change(name, rng)
    }

    fn set_wanted(&mut self, wanted: BTreeSet<String>) {
        self.names.want(&wanted);
        for name in &wanted {
            let known =
                || TrackedName { model: Model::new(self.limits), due: Instant::now(), under_way: None };
            self.known.entry(name.clone()).or_insert_with(known);
        }
        self.wanted = wanted;
        (self.last_update, self.last_failures) = (self.published(), self.failures());
    }

    fn published(&self) -> BTreeMap<String, Vec<IpAddr>> {
        self.wanted.iter().map(|name| (name.clone(), self.names.addresses(name))).collect()
    }

    /// Returns why names have no address.
    fn failures(&self) -> BTreeMap<String, String> {
        self.names.without_address().map(|(name, why)| (name.to_owned(), why.to_owned())).collect()
    }

    /// Advances the clock; checks the invariants after each change and at the end.
    async fn advance(&mut self, time: Duration, event: &str) {
        let end = Instant::now() + time;
        while timeout_at(end, self.names.changed()).await.is_ok() {
            self.handle_update(event);
        }
        for _ in 0..40 {
            tokio::task::yield_now().await;
            while self.names.changed().now_or_never().is_some() {
                self.handle_update(event);
            }
        }
        self.check(event);
    }

    fn handle_update(&mut self, event: &str) {
        let (published, failures) = (self.published(), self.failures());
        let is_changed = self.last_update != published || self.last_failures != failures;
        assert!(is_changed, "{event}: no change");
        (self.last_update, self.last_failures) = (published, failures);
    }

    fn check(&mut self, event: &str) {
        for name in NAMES {
            let rounds = self.zone.lock().unwrap().take_rounds(name);
            self.rounds(name, rounds.into_iter(), event);
        }
        assert_eq!(self.last_update, self.published(), "{event}: changed without an update");
        for (name, last_update) in &self.last_update {
            let known = &self.known[name];
            assert_eq!(last_update, &known.model.expected(), "{event}: {name} {:?}", known.model);
            known.model.check_bounds(last_update, event);
        }
    }

    /// Checks that each round began when it was due and that none is missing.
    fn rounds(&mut self, name: &str, mut rounds: impl Iterator<Item = Round>, event: &str) {
        while let Some(known) = self.known.get_mut(name)
            && known.is_due_by(Instant::now())
        {
            if known.model.last.is_some() && !self.wanted.contains(name) {
                self.known.remove(name);
                break;
            }
            let Some(round) = rounds.next() else { panic!("{event}: {name} is not queried") };
            let is_in_time = round.begun >= known.due && round.begun <= known.due + TICK;
            assert!(is_in_time, "{event}: {name} at {:?}, due {:?}", round.begun, known.due);
            known.under_way = Some(round);
        }
        assert!(rounds.next().is_none(), "{event}: {name} is queried and not due");
    }
}

impl TrackedName {
    /// Returns whether a query is due by this time.
    fn is_due_by(&mut self, now: Instant) -> bool {
        if let Some(round) = &self.under_way {
            if round.ended() > now {
                return false;
            }
            let ended = round.ended();
            self.model.ended(round.clone());
            self.under_way = None;
            self.due = ended + self.pause(ended);
        }
        self.due <= now
    }

    fn pause(&self, ended: Instant) -> Duration {
        if let Some((_, Outcome::Good(pause))) = &self.model.last {
            return *pause;
        }
        let stale = self.model.stale_at().map_or(RETRY, |at| at - ended);
        RETRY.min(stale).max(TTL_FLOOR)
    }
}
