//! Several names of one source, wanted and not wanted any more.

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
    /// As it was told last.
    told: BTreeMap<String, Vec<IpAddr>>,
}

/// A name, from when it is wanted until it is to be asked for and is not wanted.
struct TrackedName {
    model: Model,
    /// When it is to be asked for.
    due: Instant,
    under_way: Option<Round>,
}

pub(in crate::simulation) async fn run(mut rng: Rng, steps: usize) {
    let mut many = ManyNames::new(&mut rng);
    for _ in 0..steps {
        let event = many.random_event(&mut rng);
        many.advance(time(&mut rng), &event).await;
    }
    let wells = NAMES.map(|name| (name.to_owned(), many.zone.lock().unwrap().recover(name)));
    many.set_wanted(NAMES.map(str::to_owned).into());
    // Of an answer that is good still, of a lookup that hangs, and of the pause after it.
    many.advance(Duration::from_secs(30) + LOOKUP_TIMEOUT + RETRY, "all is well").await;
    assert_eq!(many.told, wells.into());
}

impl ManyNames {
    fn new(rng: &mut Rng) -> ManyNames {
        let (zone, limits) = (Shared::default(), limits(rng));
        let names = Names::new(Resolver::with_query(asking(&zone)).within(limits));
        let (wanted, known, told) = Default::default();
        ManyNames { zone, limits, names, wanted, known, told }
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
        self.told = self.published();
    }

    fn published(&self) -> BTreeMap<String, Vec<IpAddr>> {
        self.wanted.iter().map(|name| (name.clone(), self.names.addresses(name))).collect()
    }

    /// Some time. All must be well after each change, and at its end.
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
        let published = self.published();
        assert_ne!(self.told, published, "{event}: no change");
        self.told = published;
    }

    fn check(&mut self, event: &str) {
        for name in NAMES {
            let rounds = self.zone.lock().unwrap().take_rounds(name);
            self.rounds(name, rounds.into_iter(), event);
        }
        assert_eq!(self.told, self.published(), "{event}: changed and not told");
        for (name, told) in &self.told {
            let known = &self.known[name];
            assert_eq!(told, &known.model.expected(), "{event}: {name} {:?}", known.model);
            known.model.check_bounds(told, event);
        }
    }

    /// Each was begun when it was due, and none was left out.
    fn rounds(&mut self, name: &str, mut rounds: impl Iterator<Item = Round>, event: &str) {
        while let Some(known) = self.known.get_mut(name)
            && known.is_due_by(Instant::now())
        {
            if known.model.last.is_some() && !self.wanted.contains(name) {
                self.known.remove(name);
                break;
            }
            let Some(round) = rounds.next() else { panic!("{event}: {name} is not asked for") };
            let is_in_time = round.begun >= known.due && round.begun <= known.due + TICK;
            assert!(is_in_time, "{event}: {name} at {:?}, due {:?}", round.begun, known.due);
            known.under_way = Some(round);
        }
        assert!(rounds.next().is_none(), "{event}: {name} is asked for and not due");
    }
}

impl TrackedName {
    /// Whether it is due again by then.
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
