//! One name as a source: its published addresses and the times of its queries.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador::address::EndpointAddr;
use ambassador::backoff::jittered_by;
use ambassador::config::dns::TTL_FLOOR;
use ambassador::discovery::dns::{Dns, Resolver, SILENCE_MAX};
use ambassador::discovery::{Snapshot, SourceUpdate, follow_by};
use ambassador::route::Target;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::model::{Model, Outcome, TICK};
use super::resolver::{LOOKUP_TIMEOUT, Round, Shared, asking};
use super::{BACKOFF_MAX, RETRY, limits, settle, time};
use crate::simulation::rng::Rng;

struct SingleName {
    zone: Shared,
    model: Model,
    /// Queried, no response yet.
    under_way: Option<Round>,
    trouble: Arc<Notify>,
    /// Events since the last round.
    troubles: Vec<Instant>,
    update: mpsc::Receiver<SourceUpdate>,
    standing: Vec<IpAddr>,
    is_lost: bool,
    _source: AbortOnDropHandle<()>,
}

pub(in crate::simulation) async fn run(mut rng: Rng, steps: usize) {
    let mut followed = SingleName::new(&mut rng);
    for _ in 0..steps {
        let event = followed.random_event(&mut rng);
        followed.advance(time(&mut rng), &event).await;
    }
    let recovered = followed.zone.lock().unwrap().recover("redis");
    // The maximum TTL, a hanging lookup, and the pause after it.
    followed.advance(Duration::from_secs(30) + LOOKUP_TIMEOUT + BACKOFF_MAX, "recovery").await;
    assert_eq!((followed.standing, followed.is_lost), (recovered, false));
}

impl SingleName {
    fn new(rng: &mut Rng) -> SingleName {
        let (zone, trouble, limits) = (Shared::default(), Arc::<Notify>::default(), limits(rng));
        let target = Target::Host { host: "redis".to_owned(), port: 6379 };
        let resolver = Resolver::with_query(asking(&zone)).within(limits);
        let source = Dns::of(&target, resolver, trouble.clone()).unwrap();
        let (sender, update) = mpsc::channel(16);
        let jitter = Mutex::new(Rng::new(rng.bits()));
        let source =
            follow_by(source, sender, move |pause| jittered_by(pause, jitter.lock().unwrap().bits()));
        SingleName {
            zone,
            model: Model::new(limits),
            under_way: None,
            trouble,
            troubles: Vec::new(),
            update,
            standing: Vec::new(),
            is_lost: false,
            _source: source,
        }
    }

    fn random_event(&mut self, rng: &mut Rng) -> String {
        match rng.below(4) {
            0 | 1 => self.zone.lock().unwrap().change("redis", rng),
            2 => {
                self.trouble.notify_waiters();
                self.troubles.push(Instant::now());
                "sessions find no endpoint".to_owned()
            }
            _ => "nothing".to_owned(),
        }
    }

    /// Advances the clock; checks the invariants after each update and at the end.
    async fn advance(&mut self, time: Duration, event: &str) {
        let end = Instant::now() + time;
        loop {
            settle().await;
            while let Ok(update) = self.update.try_recv() {
                self.handle_update(update, event);
            }
            self.check(event);
            if Instant::now() >= end {
                return;
            }
            if let Ok(update) = timeout_at(end, self.update.recv()).await {
                self.handle_update(update.expect("a source that runs"), event);
            }
        }
    }

    fn handle_update(&mut self, update: SourceUpdate, event: &str) {
        match update {
            SourceUpdate::Snapshot(snapshot) => {
                let endpoints = endpoints(snapshot);
                assert!(
                    self.is_lost || self.standing != endpoints || endpoints.is_empty(),
                    "{event}: no news"
                );
                (self.standing, self.is_lost) = (endpoints, false);
            }
            SourceUpdate::Expired(snapshot) => {
                let endpoints = endpoints(snapshot);
                let is_less = endpoints.iter().all(|ip| self.standing.contains(ip));
                assert!(
                    is_less && endpoints != self.standing,
                    "{event}: {endpoints:?} of {:?}",
                    self.standing
                );
                self.standing = endpoints;
            }
            SourceUpdate::Lost { why, .. } => {
                assert!(!self.is_lost, "{event}: lost twice, {why}");
                self.is_lost = true;
            }
            SourceUpdate::Panicked { why, .. } | SourceUpdate::FileRefused { why } => {
                panic!("{event}: {why}")
            }
        }
    }

    fn check(&mut self, event: &str) {
        let rounds = self.zone.lock().unwrap().take_rounds("redis");
        for round in rounds {
            self.round_ends(Instant::now());
            assert!(self.under_way.is_none(), "{event}: queried twice at once");
            self.is_queried_in_time(round.begun, event);
            self.troubles.clear();
            self.under_way = Some(round);
        }
        self.round_ends(Instant::now());
        if let (None, Some((_, latest))) = (&self.under_way, self.due()) {
            assert!(Instant::now() <= latest + TICK, "{event}: not queried in time: {:?}", self.model);
        }
        let last = self.model.last.as_ref().map(|(_, outcome)| *outcome);
        // The first lookup is reported while servers do not respond.
        let is_silent = |round: &Round| last.is_none() && round.begun + SILENCE_MAX <= Instant::now();
        let is_lost = matches!(last, Some(Outcome::Lost | Outcome::Denied))
            || self.under_way.as_ref().is_some_and(is_silent);
        let expected = (self.model.expected(), is_lost);
        assert_eq!((self.standing.clone(), self.is_lost), expected, "{event}: {:?}", self.model);
        self.model.check_bounds(&self.standing, event);
    }

    fn round_ends(&mut self, now: Instant) {
        if let Some(round) = self.under_way.take_if(|round| round.ended() <= now) {
            self.model.ended(round);
        }
    }
    fn is_queried_in_time(&self, queried: Instant, event: &str) {
        let Some((earliest, latest)) = self.due() else { return };
        let early = earliest.saturating_duration_since(queried);
        let late = queried.saturating_duration_since(latest + TICK);
        assert!(early.is_zero(), "{event}: queried {early:?} too early: {:?}", self.model);
        assert!(late.is_zero(), "{event}: queried {late:?} too late: {:?}", self.model);
    }

    /// Returns the earliest and latest time of the next query after the last round.
    fn due(&self) -> Option<(Instant, Instant)> {
        let (round, outcome) = self.model.last.as_ref()?;
        let ended = round.ended();
        let (mut earliest, mut latest) = match outcome {
            Outcome::Good(pause) => (ended + *pause, ended + *pause),
            Outcome::Absent => (ended + TTL_FLOOR, ended + RETRY),
            Outcome::Lost | Outcome::Denied => {
                let earliest = round.begun + TTL_FLOOR;
                let stale = self.model.stale_at().map(|at| at.max(ended + TTL_FLOOR));
                (earliest, stale.map_or(ended + BACKOFF_MAX, |at| at.min(ended + BACKOFF_MAX)))
            }
        };
        // Earlier if a session finds no endpoint. Simultaneous events may have either order.
        let is_heard_from = if matches!(outcome, Outcome::Good(_)) { ended } else { ended + TTL_FLOOR };
        for at in self.troubles.iter().filter(|at| **at >= is_heard_from) {
            let wanted = (*at).max(ended + TTL_FLOOR);
            earliest = earliest.min(wanted);
            if *at > is_heard_from {
                latest = latest.min(wanted);
            }
        }
        Some((earliest, latest))
    }
}

fn endpoints(snapshot: Snapshot) -> Vec<IpAddr> {
    let Snapshot::Target { endpoints, .. } = snapshot else { panic!("{snapshot:?}") };
    let ip = |addr: &EndpointAddr| match addr {
        EndpointAddr::Inet(addr) => addr.ip(),
        other => panic!("{other}"),
    };
    endpoints.iter().map(|endpoint| ip(&endpoint.key.addr)).collect()
}
