//! One open route: its listeners, its cluster, and why it lacks endpoints.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::desired::DesiredCluster;
use super::problems::Problems;
use crate::address::{EndpointKey, EndpointSpec, Identity};
use crate::cluster::{Cluster, Endpoint, Members, MembershipChange};
use crate::discovery::docker::Containers;
use crate::events::EventKind;
use crate::fd_budget::ListenerFds;
use crate::ordered::CollectOrdered;
use crate::route::{OnRemove, Options};

pub(super) struct OpenRoute {
    pub(super) cluster: Arc<Cluster>,
    /// Has a token for each listener that is open.
    pub(super) listeners: TaskTracker,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) problems: Problems,
    /// Removed endpoints that may still have sessions.
    pub(super) leaving: Vec<Weak<Endpoint>>,
    /// Replaced members that a session may still be choosing from. They are dropped here, since dropping ten thousand
    /// endpoints must not happen on a worker.
    pub(super) retired: Vec<Arc<Members>>,
    /// Closes the listeners.
    pub(super) stop: CancellationToken,
    /// Cancels `stop` when dropped.
    pub(super) _stop_guard: DropGuard,
    /// Checks the endpoints until dropped.
    pub(super) _monitor: AbortOnDropHandle<()>,
    pub(super) _fds: ListenerFds,
}

impl OpenRoute {
    /// Gives the cluster its desired endpoints. Returns what is to be logged.
    pub(super) fn apply(
        &mut self,
        desired: DesiredCluster<'_>,
        containers: Option<&Containers>,
        now: Instant,
    ) -> Vec<EventKind> {
        let DesiredCluster { route, endpoints, problems, cyclic, on_remove, is_paused, .. } = desired;
        // Sessions on a cycle keep each other alive.
        let on_remove = if self.has_any(&cyclic) { OnRemove::Cut } else { on_remove };
        self.cluster.pause(is_paused);
        let mut events = self.update(&route.options, &endpoints, on_remove);
        let is_served = endpoints.iter().any(|endpoint| endpoint.weight > 0);
        events.extend(self.problems.update(&route.options.name, problems, is_served, now));
        self.cluster.set_problem(self.problems.current().first().filter(|_| endpoints.is_empty()));
        events.extend(containers.into_iter().flat_map(|containers| self.set_container_health(containers)));
        events
    }

    fn update(
        &mut self,
        options: &Options,
        endpoints: &[EndpointSpec],
        on_remove: OnRemove,
    ) -> Vec<EventKind> {
        let before = self.cluster.members_arc();
        let change = self.cluster.update_with(options, endpoints, on_remove);
        let gone: BTreeSet<&EndpointKey> = change.left.iter().collect_ordered();
        self.retire(before.clone(), &change);
        let left = before.all().filter(|(_, member)| gone.contains(&member.endpoint.key));
        self.leaving.retain(|endpoint| endpoint.upgrade().is_some_and(|endpoint| endpoint.sessions() > 0));
        self.leaving.extend(left.map(|(_, member)| Arc::downgrade(&member.endpoint)));
        let route = &options.name;
        let removed = change.left.iter().map(|endpoint| EventKind::EndpointRemoved {
            route: route.clone(),
            endpoint: endpoint.to_string(),
        });
        let added = change.joined.iter().map(|endpoint| EventKind::EndpointAdded {
            route: route.clone(),
            endpoint: endpoint.to_string(),
        });
        removed.chain(added).collect()
    }

    fn retire(&mut self, before: Arc<Members>, change: &MembershipChange) {
        self.retired.retain(|members| Arc::strong_count(members) > 1);
        if !change.left.is_empty() {
            self.retired.push(before);
        }
    }

    /// Returns the problems that have lasted long enough to be reported.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<EventKind> {
        self.problems.settle(&self.cluster.members().options.name, now)
    }

    fn has_any(&self, endpoints: &[EndpointKey]) -> bool {
        let members = self.cluster.members();
        !endpoints.is_empty() && members.all().any(|(_, member)| endpoints.contains(&member.endpoint.key))
    }

    /// Returns why the last switch of the route has not settled: it has no endpoint, or removed endpoints have sessions.
    pub(super) fn unsettled(&self, is_pending: bool) -> Option<String> {
        if is_pending || self.cluster.members().is_empty() {
            return Some(self.without_endpoint());
        }
        let sessions: usize =
            self.leaving.iter().filter_map(Weak::upgrade).map(|endpoint| endpoint.sessions()).sum();
        (sessions > 0).then(|| format!("sessions left on the old endpoints: {sessions}"))
    }

    fn without_endpoint(&self) -> String {
        match self.problems.current() {
            [] => "the new targets have no endpoint".to_owned(),
            problems => problems.join("; "),
        }
    }

    /// Copies the health of containers to their endpoints. Returns the endpoints that have recovered.
    fn set_container_health(&self, containers: &Containers) -> Vec<EventKind> {
        let members = self.cluster.members();
        let recovered = members.all().map(|(_, member)| &member.endpoint).filter(|endpoint| {
            let Identity::Container { id, .. } = &endpoint.key.identity else { return false };
            endpoint.set_container_health(containers.health(id))
        });
        let healthy = |endpoint: &Arc<Endpoint>| EventKind::EndpointHealthy {
            route: members.options.name.clone(),
            endpoint: endpoint.key.to_string(),
        };
        recovered.map(healthy).collect()
    }
}
