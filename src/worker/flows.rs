//! The UDP flows that peers open on one worker, with the limits of a UDP listener for each export.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{FLOWS_MAX, UNANSWERED_FLOWS_MAX};
use crate::client_net::ClientNet;
use crate::cluster::Cluster;
use crate::udp::Unanswered;

/// The flows of all exports.
#[derive(Debug, Default)]
pub(super) struct PeerFlows(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the address of the cluster, which each of its flows keeps alive.
    exports: HashMap<usize, ExportFlows>,
    serial: u64,
}

#[derive(Debug, Default)]
struct ExportFlows {
    /// Without those that were evicted.
    count: usize,
    /// With the serial number of each flow, and what evicts it.
    unanswered: Unanswered<(u64, CancellationToken)>,
}

/// A flow, until it is dropped.
#[derive(Debug)]
pub(super) struct PeerFlow {
    flows: Arc<PeerFlows>,
    cluster: Arc<Cluster>,
    serial: u64,
    evicted: CancellationToken,
}

impl PeerFlows {
    /// Counts a flow. At a limit, the oldest flow without a response is evicted. Returns `None` if every flow has one.
    pub(super) fn enter(self: &Arc<PeerFlows>, cluster: &Arc<Cluster>, client: IpAddr) -> Option<PeerFlow> {
        let mut state = self.lock();
        state.serial += 1;
        let serial = state.serial;
        let export = state.exports.entry(key(cluster)).or_default();
        let source = ClientNet::of(client);
        if let Some(oldest) = export.unanswered.oldest_of(source, UNANSWERED_FLOWS_MAX).cloned() {
            export.evict(oldest);
        }
        if export.count >= FLOWS_MAX && !export.evict_oldest() {
            return None;
        }
        let evicted = CancellationToken::new();
        export.count += 1;
        export.unanswered.add(serial, source, (serial, evicted.clone()));
        Some(PeerFlow { flows: self.clone(), cluster: cluster.clone(), serial, evicted })
    }

    /// Evicts the oldest flow without a response. Returns `false` if every flow has one.
    pub(super) fn evict_oldest(&self, cluster: &Arc<Cluster>) -> bool {
        self.lock().exports.get_mut(&key(cluster)).is_some_and(ExportFlows::evict_oldest)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExportFlows {
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.unanswered.oldest().cloned();
        oldest.map(|oldest| self.evict(oldest)).is_some()
    }

    fn evict(&mut self, (serial, evicted): (u64, CancellationToken)) {
        self.unanswered.remove(serial);
        self.count -= 1;
        evicted.cancel();
    }
}

impl PeerFlow {
    /// Records the first response.
    pub(super) fn answered(&self) {
        if let Some(export) = self.flows.lock().exports.get_mut(&key(&self.cluster)) {
            export.unanswered.remove(self.serial);
        }
    }

    /// Resolves when the flow must end in favour of another one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for PeerFlow {
    fn drop(&mut self) {
        if self.evicted.is_cancelled() {
            return;
        }
        let (mut state, key) = (self.flows.lock(), key(&self.cluster));
        let Some(export) = state.exports.get_mut(&key) else { return };
        export.unanswered.remove(self.serial);
        export.count -= 1;
        if export.count == 0 {
            state.exports.remove(&key);
        }
    }
}

fn key(cluster: &Arc<Cluster>) -> usize {
    Arc::as_ptr(cluster).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Options;

    fn cluster() -> Arc<Cluster> {
        Arc::new(Cluster::new(Options::named("dns"), CancellationToken::new()))
    }

    fn ip(last: usize) -> IpAddr {
        IpAddr::from([10, 0, u8::try_from(last / 256).unwrap(), u8::try_from(last % 256).unwrap()])
    }

    fn fill(flows: &Arc<PeerFlows>, cluster: &Arc<Cluster>) -> Vec<PeerFlow> {
        (0..FLOWS_MAX).map(|n| flows.enter(cluster, ip(n)).unwrap()).collect()
    }

    #[test]
    fn oldest_unanswered_flow_of_an_export_is_evicted_at_its_limit() {
        let (flows, dns, other) = (Arc::<PeerFlows>::default(), cluster(), cluster());
        let _other = flows.enter(&other, ip(0)).unwrap();
        let open = fill(&flows, &dns);
        open[0].answered();
        let late = flows.enter(&dns, ip(0)).unwrap();
        let evicted: Vec<usize> = (0..FLOWS_MAX).filter(|n| open[*n].evicted.is_cancelled()).collect();
        assert_eq!(evicted, [1], "the first one has a response");
        drop((open, late));
        assert_eq!(flows.lock().exports.len(), 1, "the flows of the other export");
    }

    #[test]
    fn flow_is_refused_if_all_have_a_response() {
        let (flows, dns) = (Arc::<PeerFlows>::default(), cluster());
        let open = fill(&flows, &dns);
        open.iter().for_each(PeerFlow::answered);
        assert!(flows.enter(&dns, ip(0)).is_none());
        assert!(!flows.evict_oldest(&dns));
    }

    #[test]
    fn client_with_many_unanswered_flows_loses_its_oldest() {
        let (flows, dns) = (Arc::<PeerFlows>::default(), cluster());
        let first = flows.enter(&dns, ip(2)).unwrap();
        let own: Vec<PeerFlow> =
            (0..=UNANSWERED_FLOWS_MAX).map(|_| flows.enter(&dns, ip(1)).unwrap()).collect();
        assert!(own[0].evicted.is_cancelled());
        assert!(!own[1].evicted.is_cancelled() && !first.evicted.is_cancelled());
    }
}
