//! Endpoints that a switch on trial has yet to reach. Each is connected to, or its health check is run where the route has
//! one, until it answers. The tasks run beside the control loop, which looks at their results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{BACKUP_TIER, EndpointAddr, EndpointKey, EndpointSpec};
use crate::cluster::health::probe::Probe;
use crate::route::{Check, Options, Protocol, Route};

/// Between two attempts at one endpoint.
const RETRY: Duration = Duration::from_millis(250);

/// Attempts at a time, over all routes: each takes a file descriptor.
const ATTEMPTS_MAX: usize = 16;

/// By the name of their route.
#[derive(Debug)]
pub(super) struct Proofs {
    routes: BTreeMap<String, BTreeMap<EndpointKey, Proof>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Proof {
    /// Ends when the endpoint has answered.
    task: AbortOnDropHandle<()>,
    failure: Arc<ArcSwapOption<String>>,
    seen: Progress,
}

/// What the control loop has seen of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Asked,
    Failed,
    Answered,
}

impl Proof {
    fn progress(&self) -> Progress {
        match self.failure.load().is_some() {
            _ if self.task.is_finished() => Progress::Answered,
            true => Progress::Failed,
            false => Progress::Asked,
        }
    }

    /// Its progress, where that is new.
    fn news(&mut self) -> Option<Progress> {
        let progress = self.progress();
        (std::mem::replace(&mut self.seen, progress) != progress).then_some(progress)
    }
}

impl Default for Proofs {
    fn default() -> Proofs {
        let permits = Arc::new(Semaphore::new(ATTEMPTS_MAX));
        Proofs { routes: BTreeMap::new(), permits }
    }
}

impl Proofs {
    /// Asks the endpoints of the route's targets, but not its backups. Those that are asked already, or have answered, are
    /// not asked again.
    pub(super) fn ask<P: Probe + Clone>(&mut self, route: &Route, endpoints: &[EndpointSpec], probe: &P) {
        let Some((check, timeout)) = check(route) else { return };
        let mut before = self.routes.remove(&route.options.name).unwrap_or_default();
        let targets = endpoints.iter().filter(|endpoint| endpoint.tier < BACKUP_TIER);
        let proofs = targets.map(|EndpointSpec { key, .. }| {
            let proof = before.remove(key).unwrap_or_else(|| {
                let failure = Arc::default();
                let permits = self.permits.clone();
                let asking = until_answered(
                    probe.clone(),
                    check.clone(),
                    key.addr.clone(),
                    timeout,
                    permits,
                    Arc::clone(&failure),
                );
                #[expect(clippy::disallowed_methods, reason = "its handle is kept, and ends it when dropped")]
                let task = AbortOnDropHandle::new(tokio::spawn(asking));
                Proof { task, failure, seen: Progress::default() }
            });
            (key.clone(), proof)
        });
        let proofs = proofs.collect();
        self.routes.insert(route.options.name.clone(), proofs);
    }

    pub(super) fn forget(&mut self, route: &str) {
        self.routes.remove(route);
    }

    pub(super) fn retain(&mut self, is_on_trial: impl Fn(&str) -> bool) {
        self.routes.retain(|route, _| is_on_trial(route));
    }

    /// Whether an endpoint has answered, or failed for the first time, since this was last called.
    pub(super) fn has_news(&mut self) -> bool {
        let proofs = self.routes.values_mut().flat_map(BTreeMap::values_mut);
        proofs.filter_map(Proof::news).count() > 0
    }

    /// The first endpoint that has not answered, and why. `None` when all have.
    pub(super) fn missing(&self, route: &str) -> Option<String> {
        let mut proofs = self.routes.get(route)?.iter();
        let (key, proof) = proofs.find(|(_, proof)| !proof.task.is_finished())?;
        let failure = proof.failure.load();
        let why = failure.as_deref().map_or("no answer yet", String::as_str);
        Some(format!("{key}: {why}"))
    }
}

/// `None` for UDP, where a connect shows nothing.
fn check(route: &Route) -> Option<(Check, Duration)> {
    let Options { health, connect_timeout, .. } = &route.options;
    match (&health.check, route.listen.protocol()) {
        (Check::Off, Protocol::Udp) => None,
        (Check::Off, Protocol::Tcp) => Some((Check::Tcp, *connect_timeout)),
        (check, _) => Some((check.clone(), health.timeout)),
    }
}

async fn until_answered<P: Probe>(
    probe: P,
    check: Check,
    addr: EndpointAddr,
    timeout: Duration,
    permits: Arc<Semaphore>,
    failure: Arc<ArcSwapOption<String>>,
) {
    // The semaphore is never closed.
    while let Ok(permit) = permits.acquire().await {
        let Err(why) = probe.probe(&check, &addr, timeout).await else { return };
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
        async fn probe(&self, _: &Check, _: &EndpointAddr, _: Duration) -> Result<(), String> {
            if self.0.load(Relaxed) { Ok(()) } else { Err("connection refused".to_owned()) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_asked_until_it_answers_and_a_backup_is_not() {
        let route = parse_route("80=127.0.0.1:1?name=r", &Place::Built).unwrap();
        let (mut proofs, probe) = (Proofs::default(), Switchable::default());
        let spec = EndpointSpec::new(EndpointAddr::Inet(([127, 0, 0, 1], 1).into()), Identity::Literal);
        let backup = EndpointSpec {
            tier: BACKUP_TIER,
            ..EndpointSpec::new(EndpointAddr::Inet(([127, 0, 0, 1], 2).into()), Identity::Literal)
        };
        let endpoints = [spec, backup];
        proofs.ask(&route, &endpoints, &probe);
        assert_eq!(proofs.missing("r").as_deref(), Some("127.0.0.1:1: no answer yet"));
        tokio::time::sleep(RETRY / 2).await;
        assert!(proofs.has_news() && !proofs.has_news());
        assert_eq!(proofs.missing("r").as_deref(), Some("127.0.0.1:1: connection refused"));
        probe.0.store(true, Relaxed);
        tokio::time::sleep(RETRY).await;
        assert!(proofs.has_news());
        proofs.ask(&route, &endpoints, &probe);
        assert_eq!(proofs.missing("r"), None);
        proofs.retain(|_| false);
        assert_eq!(proofs.routes.len(), 0);
    }

    #[test]
    fn udp_without_a_health_check_is_not_asked() {
        let route = |text| parse_route(text, &Place::Built).unwrap();
        assert_eq!(check(&route("53/udp=127.0.0.1:1")), None);
        assert_eq!(
            check(&route("53=127.0.0.1:1?connect-timeout=1s")),
            Some((Check::Tcp, Duration::from_secs(1)))
        );
    }
}
