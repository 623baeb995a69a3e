//! Watches over one cluster: checks its endpoints, ejects its outliers, and writes what sessions read of both.
//!
//! ```text
//!   a task per endpoint ── passed, failed ──► Watch ──► Condition of each endpoint, wake who is held
//!   sessions ── counts, an alarm ──────────────▲
//! ```
//!
//! It lives on the control plane's thread and alone decides, so that no two can eject the last two endpoints at once. It also
//! logs how many sessions were left out of the access log ([`super::repeats`]).

mod permits;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::condition::{Condition, Standing};
use super::health::probe::Probe;
use super::health::{Record, State};
use super::outage::{Outages, Report};
use super::outlier::{Change, Outliers};
use super::repeats;
use super::{Cluster, Endpoint, Members};
use crate::address::EndpointKey;
use crate::events::{EventKind, Events};
use crate::route::{Check, Health, OnUnhealthy};
use permits::{Permits, Pool};

pub use permits::OWN_PROBES;

/// Results on their way; a check that finds no room waits.
const RESULTS_MAX: usize = 64;

/// How endpoints are asked, and how many may be left out.
#[derive(Debug)]
pub struct Means<P> {
    probe: P,
    /// Of checks, for all clusters together.
    pool: Pool,
    /// Percent of a cluster's endpoints.
    max_ejected: u8,
    /// Where it is told who is left out and who is back.
    events: Arc<Events>,
}

impl<P: Probe> Means<P> {
    pub fn new(probe: P, max_ejected: u8, events: Arc<Events>) -> Means<P> {
        Means { probe, pool: Pool::default(), max_ejected, events }
    }
}

struct Watch<P> {
    cluster: Arc<Cluster>,
    means: Arc<Means<P>>,
    permits: Arc<Permits>,
    outliers: Outliers<EndpointKey>,
    outages: Outages<EndpointKey>,
    /// By which `patients` are checked.
    policy: Health,
    patients: BTreeMap<EndpointKey, Patient>,
    /// Whose endpoints are the patients.
    admitted: Option<Arc<Members>>,
    results: mpsc::Sender<Checked>,
    /// Nobody is in good standing; said once.
    is_panic: bool,
    /// When to log how many sessions were left out of the access log, if any.
    repeats_due: Option<Instant>,
}

/// An endpoint that is checked.
struct Patient {
    endpoint: Arc<Endpoint>,
    record: Record,
    /// Checks it until it is dropped.
    _task: AbortOnDropHandle<()>,
}

/// What came of a check.
struct Checked {
    endpoint: Arc<Endpoint>,
    result: Result<(), String>,
}

/// Watches until the handle is dropped.
pub fn watch<P: Probe>(cluster: Arc<Cluster>, means: Arc<Means<P>>) -> AbortOnDropHandle<()> {
    let (results, inbox) = mpsc::channel(RESULTS_MAX);
    let watch = Watch {
        outliers: Outliers::new(means.max_ejected),
        outages: Outages::default(),
        cluster,
        means,
        permits: Arc::default(),
        policy: Health::default(),
        patients: BTreeMap::new(),
        admitted: None,
        results,
        is_panic: false,
        repeats_due: None,
    };
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    AbortOnDropHandle::new(tokio::spawn(watch.run(inbox)))
}

impl<P: Probe> Watch<P> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Checked>) {
        loop {
            let members = self.cluster.members();
            self.admit(&members);
            self.judge(&members);
            self.report(&members);
            self.write(&members);
            self.log_repeats(Instant::now());
            self.until_news(&mut inbox, &members).await;
        }
    }

    /// Takes in checks until one has changed something. Most do not, and of ten thousand endpoints a few come each
    /// millisecond: a look at all of them for each would be all that we do.
    async fn until_news(&mut self, inbox: &mut mpsc::Receiver<Checked>, members: &Members) {
        let due = self.outliers.next().into_iter().chain(self.outages.next()).map(Instant::from_std);
        let due = due.chain(self.repeats_due).min();
        let next = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let mut next = pin!(next);
        loop {
            tokio::select! {
                biased;
                // `results` is ours too, so that the channel never closes.
                Some(checked) = inbox.recv() => {
                    let mut is_news = self.checked(&checked, members);
                    while let Ok(checked) = inbox.try_recv() {
                        is_news |= self.checked(&checked, members);
                    }
                    if is_news {
                        return;
                    }
                }
                () = self.cluster.alarm.notified() => return,
                () = &mut next => return,
            }
        }
    }

    /// Begins to check who has come, and no longer checks who has left.
    fn admit(&mut self, members: &Arc<Members>) {
        if self.admitted.as_ref().is_some_and(|admitted| Arc::ptr_eq(admitted, members)) {
            return;
        }
        self.admitted = Some(members.clone());
        if members.options.health != self.policy {
            self.policy = members.options.health.clone();
            self.patients.clear();
        }
        if self.policy.check == Check::Off {
            return;
        }
        let mut before = std::mem::take(&mut self.patients);
        for (_, member) in members.all() {
            let known = before.remove(&member.endpoint.key);
            let known = known.filter(|patient| Arc::ptr_eq(&patient.endpoint, &member.endpoint));
            let patient = known.unwrap_or_else(|| self.patient(&member.endpoint));
            self.patients.insert(member.endpoint.key.clone(), patient);
        }
    }

    fn patient(&self, endpoint: &Arc<Endpoint>) -> Patient {
        let checks = check_for_ever(
            self.cluster.clone(),
            endpoint.clone(),
            self.policy.clone(),
            self.means.clone(),
            self.permits.clone(),
            self.results.clone(),
        );
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and ends it when dropped")]
        let task = AbortOnDropHandle::new(tokio::spawn(checks));
        Patient { endpoint: endpoint.clone(), record: Record::default(), _task: task }
    }

    /// Returns whether its state is another now.
    fn checked(&mut self, Checked { endpoint, result }: &Checked, members: &Members) -> bool {
        let patient = self.patients.get_mut(&endpoint.key);
        let Some(patient) = patient.filter(|patient| Arc::ptr_eq(&patient.endpoint, endpoint)) else {
            return false;
        };
        let was = patient.record.state();
        endpoint.checked(result.as_ref().copied().map_err(String::as_str));
        let changed = patient.record.checked(result.is_ok(), &self.policy);
        match (changed, result) {
            (Some(State::Unhealthy), Err(why)) => {
                self.tell_ejected(members, &endpoint.key, format!("unhealthy: {why}"));
                if members.options.on_unhealthy == OnUnhealthy::Cut {
                    endpoint.cut_sessions();
                }
            }
            (Some(State::Healthy), _) if was == State::Unhealthy => {
                self.tell_returned(members, &endpoint.key);
            }
            (_, Err(why)) => tracing::debug!(endpoint = %endpoint.key, why, "health check failed"),
            (_, Ok(())) => {}
        }
        changed.is_some()
    }

    fn judge(&mut self, members: &Members) {
        let takers = || members.all().map(|(_, member)| member).filter(|member| member.weight > 0);
        let seen: Vec<_> = takers().map(|member| (&member.endpoint.key, member.endpoint.streak())).collect();
        for (key, change) in self.outliers.judge(Instant::now().into_std(), &seen) {
            match change {
                Change::Ejected { cause, time } => {
                    let time = humantime::format_duration(time);
                    self.tell_ejected(members, &key, format!("{}; for {time}", cause.name()));
                }
                Change::Returned => {
                    self.tell_returned(members, &key);
                    let returned = takers().filter(|member| member.endpoint.key == key);
                    returned.for_each(|member| member.endpoint.forget_streak());
                }
            }
        }
    }

    /// Tells which endpoints sessions no longer reach, and which they reach again.
    fn report(&mut self, members: &Members) {
        let endpoints = || members.all().map(|(_, member)| &member.endpoint);
        let seen: Vec<_> = endpoints().map(|endpoint| (&endpoint.key, endpoint.is_failing())).collect();
        for (key, report) in self.outages.judge(Instant::now().into_std(), &seen) {
            let (route, endpoint) = (members.options.name.clone(), key.to_string());
            self.means.events.emit(match report {
                Report::Reachable => EventKind::EndpointReachable { route, endpoint },
                Report::Unreachable => {
                    let why =
                        endpoints().find(|endpoint| endpoint.key == key).map(|found| why(found, members));
                    EventKind::EndpointUnreachable { route, endpoint, why: why.unwrap_or_default() }
                }
            });
        }
        let happened =
            endpoints().filter(|endpoint| endpoint.set_awaited(self.outages.awaited(&endpoint.key)));
        if happened.count() > 0 {
            self.cluster.alarm.notify_one();
        }
    }

    fn log_repeats(&mut self, now: Instant) {
        let repeats = &self.cluster.repeats;
        if self.repeats_due.is_some_and(|due| due <= now) {
            self.repeats_due = None;
            log_omitted(&self.cluster);
        }
        if self.repeats_due.is_none() && !repeats.is_quiet() {
            self.repeats_due = Some(now + repeats::INTERVAL);
        }
    }

    fn tell_ejected(&self, members: &Members, key: &EndpointKey, why: String) {
        let (route, endpoint) = (members.options.name.clone(), key.to_string());
        self.means.events.emit(EventKind::EndpointEjected { route, endpoint, why });
    }

    fn tell_returned(&self, members: &Members, key: &EndpointKey) {
        let (route, endpoint) = (members.options.name.clone(), key.to_string());
        self.means.events.emit(EventKind::EndpointReturned { route, endpoint });
    }

    /// Lets sessions know. Those that are held are woken when an endpoint stands better than before.
    fn write(&mut self, members: &Members) {
        let (mut is_better, mut is_other) = (false, false);
        for (_, member) in members.all() {
            let endpoint = &member.endpoint;
            let before = endpoint.condition();
            let condition = self.condition(&endpoint.key);
            if condition == before {
                continue;
            }
            endpoint.set_condition(condition);
            is_other |= condition.standing() != before.standing();
            if condition.standing() < before.standing() {
                is_better = true;
                if before.standing() == Standing::Bad || before.ejected.is_some() {
                    endpoint.warm_from(Instant::now());
                }
            }
        }
        if is_other {
            // The same endpoints, in another order.
            self.admitted = Some(self.cluster.regroup());
        }
        if is_better {
            self.cluster.changed.notify_waiters();
        }
        self.tell_panic(members);
    }

    fn condition(&self, key: &EndpointKey) -> Condition {
        Condition {
            health: self.patients.get(key).map(|patient| patient.record.state()),
            ejected: self.outliers.ejected(key),
        }
    }

    fn tell_panic(&mut self, members: &Members) {
        let is_bad = |endpoint: &Endpoint| endpoint.standing() == Standing::Bad;
        let is_panic = !members.is_empty() && members.all().all(|(_, member)| is_bad(&member.endpoint));
        if is_panic && !self.is_panic {
            tracing::warn!(route = %members.options.name, "no endpoint is well: all are tried");
        }
        self.is_panic = is_panic;
    }
}

impl<P> Drop for Watch<P> {
    /// The route is closed.
    fn drop(&mut self) {
        log_omitted(&self.cluster);
    }
}

/// Why sessions do not reach it, and what becomes of them where they reach no other.
fn why(endpoint: &Endpoint, members: &Members) -> String {
    let cause = endpoint.connect_error().map(|error| error.to_string()).unwrap_or_default();
    let is_last = members.all().all(|(_, member)| member.weight == 0 || member.endpoint.refuses_connects());
    let is_held = is_last && !members.options.hold.is_zero();
    if is_held { format!("{cause}; holding sessions") } else { cause }
}

fn log_omitted(cluster: &Cluster) {
    for (ending, count) in cluster.repeats.take() {
        let route = &cluster.glance().options.name;
        tracing::info!(target: "access", %route, %ending, count, "sessions omitted");
    }
}

/// At once, and then with a pause after each check.
async fn check_for_ever<P: Probe>(
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    policy: Health,
    means: Arc<Means<P>>,
    permits: Arc<Permits>,
    results: mpsc::Sender<Checked>,
) {
    loop {
        let permit = permits.take(&means.pool).await;
        let result = means.probe.probe(&policy.check, &endpoint.key.addr, policy.timeout).await;
        drop(permit);
        if results.send(Checked { endpoint: endpoint.clone(), result }).await.is_err() {
            return;
        }
        // Shortened by up to a quarter, so that checks which began together spread.
        tokio::time::sleep(policy.interval / 2 + cluster.jittered(policy.interval / 2)).await;
    }
}

#[cfg(test)]
mod tests;
