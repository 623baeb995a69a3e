//! Monitors one cluster: runs health checks, ejects outliers, reports outages, and publishes the conditions that sessions read.
//!
//! ```text
//!   a task per endpoint ── passed, failed ──► ClusterMonitor ──► Condition of each endpoint, wake held sessions
//!   sessions ── counters, a wake-up ───────────────▲
//! ```
//!
//! It runs on the control plane's thread and is the only one that ejects, so that the last two endpoints are never ejected at
//! the same time. It also logs how many sessions were left out of the access log ([`super::log_limit`]).

mod permits;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::condition::{Condition, Preference};
use super::health::probe::{self, Probe};
use super::health::{History, State};
use super::log_limit;
use super::outage::{OutageReport, Outages};
use super::outlier::{Outliers, StatusChange};
use super::{Cluster, ConnectError, Endpoint, Members};
use crate::address::EndpointKey;
use crate::events::{EventKind, Events};
use crate::route::{Check, Health, OnUnhealthy};
use permits::{ProbePermits, ProbePool};

pub use permits::OWN_PROBES;

/// Check results in the queue. A check that finds it full waits.
const RESULTS_MAX: usize = 64;

/// What the monitors of all clusters share.
#[derive(Debug)]
pub struct MonitorContext<P> {
    probe: P,
    pool: ProbePool,
    /// The percentage of a cluster's endpoints that may be ejected.
    max_ejected: u8,
    events: Arc<Events>,
}

impl<P: Probe> MonitorContext<P> {
    /// Creates a context. `max_ejected` is the percentage of a cluster's endpoints that may be ejected.
    pub fn new(probe: P, max_ejected: u8, events: Arc<Events>) -> MonitorContext<P> {
        MonitorContext { probe, pool: ProbePool::default(), max_ejected, events }
    }
}

struct ClusterMonitor<P> {
    cluster: Arc<Cluster>,
    context: Arc<MonitorContext<P>>,
    permits: Arc<ProbePermits>,
    outliers: Outliers<EndpointKey>,
    outages: Outages<EndpointKey>,
    /// The policy of the running checks.
    policy: Health,
    /// What each of them sends first.
    proxy_header: &'static [u8],
    checks: BTreeMap<EndpointKey, EndpointCheck>,
    /// The members that `checks` was built for.
    checked_members: Option<Arc<Members>>,
    results: mpsc::Sender<CheckResult>,
    /// All endpoints are a last resort; logged once.
    is_panic: bool,
    /// When to log how many sessions were left out of the access log.
    log_due: Option<Instant>,
}

/// The health check of one endpoint.
struct EndpointCheck {
    endpoint: Arc<Endpoint>,
    history: History,
    /// Runs the checks until it is dropped.
    _task: AbortOnDropHandle<()>,
}

/// The result of one check; an error is for people.
struct CheckResult {
    endpoint: Arc<Endpoint>,
    result: Result<(), String>,
}

/// Starts the monitor of a cluster. It runs until the handle is dropped.
pub fn spawn<P: Probe>(cluster: Arc<Cluster>, context: Arc<MonitorContext<P>>) -> AbortOnDropHandle<()> {
    let (results, inbox) = mpsc::channel(RESULTS_MAX);
    let monitor = ClusterMonitor {
        outliers: Outliers::new(context.max_ejected),
        outages: Outages::default(),
        cluster,
        context,
        permits: Arc::default(),
        policy: Health::default(),
        proxy_header: &[],
        checks: BTreeMap::new(),
        checked_members: None,
        results,
        is_panic: false,
        log_due: None,
    };
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    AbortOnDropHandle::new(tokio::spawn(monitor.run(inbox)))
}

impl<P: Probe> ClusterMonitor<P> {
    async fn run(mut self, mut inbox: mpsc::Receiver<CheckResult>) {
        loop {
            let members = self.cluster.members_arc();
            self.sync_checks(&members);
            self.detect_outliers(&members);
            self.report_outages(&members);
            self.publish_conditions(&members);
            self.log_omitted(Instant::now());
            self.wait(&mut inbox, &members).await;
        }
    }

    /// Waits until there is something to do. Results that change nothing are consumed here: with ten thousand endpoints several
    /// arrive every millisecond, and a pass over all endpoints for each would take all of the thread's time.
    async fn wait(&mut self, inbox: &mut mpsc::Receiver<CheckResult>, members: &Members) {
        let due = self.outliers.next().into_iter().chain(self.outages.next()).map(Instant::from_std);
        let due = due.chain(self.log_due).min();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let mut timer = pin!(timer);
        loop {
            tokio::select! {
                biased;
                // `self.results` keeps the channel open.
                Some(result) = inbox.recv() => {
                    let mut is_changed = self.apply(&result, members);
                    while let Ok(result) = inbox.try_recv() {
                        is_changed |= self.apply(&result, members);
                    }
                    if is_changed {
                        return;
                    }
                }
                () = self.cluster.monitor_wakeup.notified() => return,
                () = &mut timer => return,
            }
        }
    }

    /// Starts checks for new members and stops those of former ones.
    fn sync_checks(&mut self, members: &Arc<Members>) {
        if self.checked_members.as_ref().is_some_and(|checked| Arc::ptr_eq(checked, members)) {
            return;
        }
        self.checked_members = Some(members.clone());
        let proxy_header = probe::proxy_header(&members.options);
        if members.options.health != self.policy || proxy_header != self.proxy_header {
            self.policy = members.options.health.clone();
            self.proxy_header = proxy_header;
            self.checks.clear();
        }
        if self.policy.check == Check::Off {
            return;
        }
        let mut before = std::mem::take(&mut self.checks);
        for (_, member) in members.all() {
            let known = before.remove(&member.endpoint.key);
            let known = known.filter(|check| Arc::ptr_eq(&check.endpoint, &member.endpoint));
            let check = known.unwrap_or_else(|| self.start_check(&member.endpoint));
            self.checks.insert(member.endpoint.key.clone(), check);
        }
    }

    fn start_check(&self, endpoint: &Arc<Endpoint>) -> EndpointCheck {
        let checks = check_repeatedly(
            self.cluster.clone(),
            endpoint.clone(),
            (self.policy.clone(), self.proxy_header),
            self.context.clone(),
            self.permits.clone(),
            self.results.clone(),
        );
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and ends it when dropped")]
        let task = AbortOnDropHandle::new(tokio::spawn(checks));
        EndpointCheck { endpoint: endpoint.clone(), history: History::default(), _task: task }
    }

    /// Applies a result. Returns whether the state of the endpoint has changed.
    fn apply(&mut self, CheckResult { endpoint, result }: &CheckResult, members: &Members) -> bool {
        let check = self.checks.get_mut(&endpoint.key);
        let Some(check) = check.filter(|check| Arc::ptr_eq(&check.endpoint, endpoint)) else {
            return false;
        };
        let before = check.history.state();
        endpoint.checked(result.as_ref().copied().map_err(String::as_str));
        let changed = check.history.add(result.is_ok(), &self.policy);
        match (changed, result) {
            (Some(State::Unhealthy), Err(why)) => {
                self.emit_ejected(members, &endpoint.key, format!("unhealthy: {why}"));
                if members.options.on_unhealthy == OnUnhealthy::Cut {
                    endpoint.cut_sessions();
                }
            }
            (Some(State::Healthy), _) if before == State::Unhealthy => {
                self.emit_returned(members, &endpoint.key);
            }
            (_, Err(why)) => tracing::debug!(endpoint = %endpoint.key, why, "health check failed"),
            (_, Ok(())) => {}
        }
        changed.is_some()
    }

    fn detect_outliers(&mut self, members: &Members) {
        let takers = || members.all().map(|(_, member)| member).filter(|member| member.weight > 0);
        let streaks: Vec<_> =
            takers().map(|member| (&member.endpoint.key, member.endpoint.streak())).collect();
        for (key, change) in self.outliers.update(Instant::now().into_std(), &streaks) {
            match change {
                StatusChange::Ejected { cause, time } => {
                    let time = humantime::format_duration(time);
                    self.emit_ejected(members, &key, format!("{}; for {time}", cause.name()));
                }
                StatusChange::Returned => {
                    self.emit_returned(members, &key);
                    let returned = takers().filter(|member| member.endpoint.key == key);
                    returned.for_each(|member| member.endpoint.clear_streak());
                }
            }
        }
    }

    /// Emits an event for each endpoint that became unreachable or reachable.
    fn report_outages(&mut self, members: &Members) {
        let endpoints = || members.all().map(|(_, member)| &member.endpoint);
        let failing: Vec<_> = endpoints().map(|endpoint| (&endpoint.key, endpoint.is_failing())).collect();
        for (key, report) in self.outages.update(Instant::now().into_std(), &failing) {
            let (route, endpoint) = (members.options.name.clone(), key.to_string());
            self.context.events.emit(match report {
                OutageReport::Reachable => EventKind::EndpointReachable { route, endpoint },
                OutageReport::Unreachable => {
                    let why =
                        endpoints().find(|endpoint| endpoint.key == key).map(|found| why(found, members));
                    EventKind::EndpointUnreachable { route, endpoint, why: why.unwrap_or_default() }
                }
            });
        }
        let happened =
            endpoints().filter(|endpoint| endpoint.set_awaited(self.outages.awaited(&endpoint.key)));
        if happened.count() > 0 {
            self.cluster.monitor_wakeup.notify_one();
        }
    }

    fn log_omitted(&mut self, now: Instant) {
        if self.log_due.is_some_and(|due| due <= now) {
            self.log_due = None;
            log_omitted(&self.cluster);
        }
        if self.log_due.is_none() && !self.cluster.log_limit.is_quiet() {
            self.log_due = Some(now + log_limit::INTERVAL);
        }
    }

    fn emit_ejected(&self, members: &Members, key: &EndpointKey, why: String) {
        let (route, endpoint) = (members.options.name.clone(), key.to_string());
        self.context.events.emit(EventKind::EndpointEjected { route, endpoint, why });
    }

    fn emit_returned(&self, members: &Members, key: &EndpointKey) {
        let (route, endpoint) = (members.options.name.clone(), key.to_string());
        self.context.events.emit(EventKind::EndpointReturned { route, endpoint });
    }

    /// Writes the conditions that sessions read. Held sessions are woken when an endpoint becomes more preferred.
    fn publish_conditions(&mut self, members: &Members) {
        let (mut is_better, mut is_reordered) = (false, false);
        for (_, member) in members.all() {
            let endpoint = &member.endpoint;
            let before = endpoint.condition();
            let condition = self.condition(&endpoint.key);
            if condition == before {
                continue;
            }
            endpoint.set_condition(condition);
            is_reordered |= condition.preference() != before.preference();
            if condition.preference() < before.preference() {
                is_better = true;
                if before.preference() == Preference::LastResort || before.ejected.is_some() {
                    endpoint.warm_from(Instant::now());
                }
            }
        }
        if is_reordered {
            // The endpoints are the same, so their checks need no synchronization.
            self.checked_members = Some(self.cluster.rebuild_plans());
        }
        if is_better {
            self.cluster.changed.notify_waiters();
        }
        self.log_panic(members);
    }

    fn condition(&self, key: &EndpointKey) -> Condition {
        Condition {
            health: self.checks.get(key).map(|check| check.history.state()),
            ejected: self.outliers.ejected(key),
        }
    }

    fn log_panic(&mut self, members: &Members) {
        let is_last_resort = |endpoint: &Endpoint| endpoint.preference() == Preference::LastResort;
        let is_panic =
            !members.is_empty() && members.all().all(|(_, member)| is_last_resort(&member.endpoint));
        if is_panic && !self.is_panic {
            tracing::warn!(route = %members.options.name, "all endpoints are unhealthy; trying all of them");
        }
        self.is_panic = is_panic;
    }
}

impl<P> Drop for ClusterMonitor<P> {
    /// The route is closed: logs what would be logged at the end of the interval.
    fn drop(&mut self) {
        log_omitted(&self.cluster);
    }
}

/// Returns why sessions do not reach an endpoint, and whether they are held because they reach no other.
fn why(endpoint: &Endpoint, members: &Members) -> String {
    let cause = endpoint.connect_error().map(ConnectError::one_line).unwrap_or_default();
    let is_last = members.all().all(|(_, member)| member.weight == 0 || member.endpoint.refuses_connects());
    let is_held = is_last && !members.options.hold.is_zero();
    if is_held { format!("{cause}; holding sessions") } else { cause }
}

fn log_omitted(cluster: &Cluster) {
    for (ending, count) in cluster.log_limit.take() {
        let route = &cluster.members().options.name;
        tracing::info!(target: "access", %route, %ending, count, "sessions omitted");
    }
}

/// Checks an endpoint at once, and then again after each interval.
async fn check_repeatedly<P: Probe>(
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    (policy, proxy_header): (Health, &'static [u8]),
    context: Arc<MonitorContext<P>>,
    permits: Arc<ProbePermits>,
    results: mpsc::Sender<CheckResult>,
) {
    loop {
        let permit = permits.acquire(&context.pool).await;
        let probe = context.probe.probe(&policy.check, &endpoint.key.addr, proxy_header, policy.timeout);
        let result = probe.await;
        drop(permit);
        if results.send(CheckResult { endpoint: endpoint.clone(), result }).await.is_err() {
            return;
        }
        // Shortened by up to a quarter, so that checks which began together spread over the interval.
        tokio::time::sleep(policy.interval / 2 + cluster.jittered(policy.interval / 2)).await;
    }
}

#[cfg(test)]
mod tests;
