//! Probes of the new endpoints of a switch on trial. Each endpoint is connected to, or its health check is run if the route
//! has one, until it answers. The tasks run concurrently with the control loop, which reads their results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{BACKUP_TIER, EndpointAddr, EndpointKey, EndpointSpec};
use crate::cluster::health::probe::{self, Probe};
use crate::ordered::CollectOrdered;
use crate::route::{Check, Options, Protocol, Route};

/// Pause between two attempts at one endpoint.
const RETRY: Duration = Duration::from_millis(250);

/// Concurrent attempts over all routes: each takes a file descriptor.
const ATTEMPTS_MAX: usize = 16;

/// The probes of all switches on trial, by route name.
#[derive(Debug)]
pub(super) struct TrialProbes {
    routes: BTreeMap<String, BTreeMap<EndpointKey, EndpointProbe>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct EndpointProbe {
    /// Ends once the endpoint has answered.
    task: AbortOnDropHandle<()>,
    failure: Arc<ArcSwapOption<String>>,
    /// The progress that was last read.
    seen: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Started,
    Failed,
    Answered,
}

impl EndpointProbe {
    fn start(
        probe: impl Probe,
        check: Check,
        (header, timeout): (&'static [u8], Duration),
        addr: EndpointAddr,
        permits: Arc<Semaphore>,
    ) -> EndpointProbe {
        let failure = Arc::<ArcSwapOption<String>>::default();
        let probing = probe_until_answered(probe, check, (header, timeout), addr, permits, failure.clone());
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and ends it when dropped")]
        let task = AbortOnDropHandle::new(tokio::spawn(probing));
        EndpointProbe { task, failure, seen: Progress::default() }
    }

    fn progress(&self) -> Progress {
        match self.failure.load().is_some() {
            _ if self.task.is_finished() => Progress::Answered,
            true => Progress::Failed,
            false => Progress::Started,
        }
    }

    /// Returns whether the progress differs from that of the last call.
    fn has_changed(&mut self) -> bool {
        let progress = self.progress();
        std::mem::replace(&mut self.seen, progress) != progress
    }
}

impl Default for TrialProbes {
    fn default() -> TrialProbes {
        TrialProbes { routes: BTreeMap::new(), permits: Arc::new(Semaphore::new(ATTEMPTS_MAX)) }
    }
}

impl TrialProbes {
    /// Probes the endpoints of a route's targets, but not its backups. Probes that run or have succeeded are kept.
    pub(super) fn start<P: Probe + Clone>(&mut self, route: &Route, endpoints: &[EndpointSpec], probe: &P) {
        let Some((check, timeout)) = check(route) else { return };
        let mut before = self.routes.remove(&route.options.name).unwrap_or_default();
        let targets = endpoints.iter().filter(|endpoint| endpoint.tier < BACKUP_TIER);
        let header = probe::proxy_header(&route.options);
        let probes = targets.map(|EndpointSpec { key, .. }| {
            let started = before.remove(key).unwrap_or_else(|| {
                let permits = self.permits.clone();
                EndpointProbe::start(
                    probe.clone(),
                    check.clone(),
                    (header, timeout),
                    key.addr.clone(),
                    permits,
                )
            });
            (key.clone(), started)
        });
        let probes = probes.collect_ordered();
        self.routes.insert(route.options.name.clone(), probes);
    }

    /// Stops the probes of one route.
    pub(super) fn stop(&mut self, route: &str) {
        self.routes.remove(route);
    }

    /// Stops the probes of the routes whose switch is not on trial.
    pub(super) fn retain(&mut self, is_on_trial: impl Fn(&str) -> bool) {
        self.routes.retain(|route, _| is_on_trial(route));
    }

    /// Returns whether an endpoint has answered, or failed for the first time, since the last call.
    pub(super) fn have_changed(&mut self) -> bool {
        let probes = self.routes.values_mut().flat_map(BTreeMap::values_mut);
        probes.map(EndpointProbe::has_changed).fold(false, |any, changed| any | changed)
    }

    /// Returns the first endpoint of a route that has not answered, and why. `None` if all have.
    pub(super) fn unanswered(&self, route: &str) -> Option<String> {
        let mut probes = self.routes.get(route)?.iter();
        let (key, probe) = probes.find(|(_, probe)| !probe.task.is_finished())?;
        let failure = probe.failure.load();
        let why = failure.as_deref().map_or("no answer yet", String::as_str);
        Some(format!("{key}: {why}"))
    }
}

/// Returns the check to run and its timeout. `None` for UDP without a health check, where a connect shows nothing.
fn check(route: &Route) -> Option<(Check, Duration)> {
    let Options { health, connect_timeout, .. } = &route.options;
    match (&health.check, route.listen.protocol()) {
        (Check::Off, Protocol::Udp) => None,
        (Check::Off, Protocol::Tcp) => Some((Check::Tcp, *connect_timeout)),
        (check, _) => Some((check.clone(), health.timeout)),
    }
}

async fn probe_until_answered(
    probe: impl Probe,
    check: Check,
    (header, timeout): (&'static [u8], Duration),
    addr: EndpointAddr,
    permits: Arc<Semaphore>,
    failure: Arc<ArcSwapOption<String>>,
) {
    // The semaphore is never closed.
    while let Ok(permit) = permits.acquire().await {
        let Err(why) = probe.probe(&check, &addr, header, timeout).await else { return };
        drop(permit);
        failure.store(Some(Arc::new(why)));
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::address::Identity;
    use crate::config::grammar::parse_route;
    use crate::diagnostic::Place;

    #[derive(Clone, Default)]
    struct Switchable(Arc<AtomicBool>);

    impl Probe for Switchable {
        async fn probe(
            &self,
            _: &Check,
            _: &EndpointAddr,
            _: &'static [u8],
            _: Duration,
        ) -> Result<(), String> {
            if self.0.load(Relaxed) { Ok(()) } else { Err("connection refused".to_owned()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoint_is_probed_until_it_answers_and_a_backup_is_not() {
        let route = parse_route("80=127.0.0.1:1?name=r", &Place::Built).unwrap();
        let (mut probes, probe) = (TrialProbes::default(), Switchable::default());
        let spec = EndpointSpec::new(EndpointAddr::Inet(([127, 0, 0, 1], 1).into()), Identity::Literal);
        let backup = EndpointSpec {
            tier: BACKUP_TIER,
            ..EndpointSpec::new(EndpointAddr::Inet(([127, 0, 0, 1], 2).into()), Identity::Literal)
        };
        let endpoints = [spec, backup];
        probes.start(&route, &endpoints, &probe);
        assert_eq!(probes.unanswered("r").as_deref(), Some("127.0.0.1:1: no answer yet"));
        tokio::time::sleep(RETRY / 2).await;
        assert!(probes.have_changed() && !probes.have_changed());
        assert_eq!(probes.unanswered("r").as_deref(), Some("127.0.0.1:1: connection refused"));
        probe.0.store(true, Relaxed);
        tokio::time::sleep(RETRY).await;
        assert!(probes.have_changed());
        probes.start(&route, &endpoints, &probe);
        assert_eq!(probes.unanswered("r"), None);
        probes.retain(|_| false);
        assert_eq!(probes.routes.len(), 0);
    }

    #[test]
    fn udp_without_a_health_check_is_not_probed() {
        let route = |text| parse_route(text, &Place::Built).unwrap();
        assert_eq!(check(&route("53/udp=127.0.0.1:1")), None);
        assert_eq!(
            check(&route("53=127.0.0.1:1?connect-timeout=1s")),
            Some((Check::Tcp, Duration::from_secs(1)))
        );
    }
}
