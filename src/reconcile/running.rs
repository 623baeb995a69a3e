//! One open route.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::problems::Problems;
use crate::address::{EndpointKey, EndpointSpec, Identity};
use crate::cluster::{Cluster, Endpoint, Members, MembershipChange};
use crate::discovery::docker::Containers;
use crate::events::EventKind;
use crate::fd_budget::ListenerFds;
use crate::route::Options;

pub(super) struct Running {
    pub(super) cluster: Arc<Cluster>,
    /// Has a token for each listener that is open.
    pub(super) listeners: TaskTracker,
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) problems: Problems,
    /// Endpoints that left and may have sessions still.
    pub(super) leaving: Vec<Weak<Endpoint>>,
    /// Members of before that a session is choosing from still: whoever drops them last takes ten thousand endpoints apart,
    /// and that shall not be a worker.
    pub(super) retired: Vec<Arc<Members>>,
    /// Closes the listeners.
    pub(super) stop: CancellationToken,
    /// When it is dropped.
    pub(super) _closes: DropGuard,
    /// Checks its endpoints, until dropped.
    pub(super) _monitor: AbortOnDropHandle<()>,
    pub(super) _fds: ListenerFds,
}

impl Running {
    /// Gives the cluster its endpoints, and returns what that changed.
    pub(super) fn update(&mut self, options: &Options, endpoints: &[EndpointSpec]) -> Vec<EventKind> {
        let before = self.cluster.members_arc();
        let change = self.cluster.update(options, endpoints);
        let gone: BTreeSet<&EndpointKey> = change.left.iter().collect();
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

    /// Problems that have lasted long enough to be reported.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<EventKind> {
        self.problems.settle(&self.cluster.members().options.name, now)
    }

    pub(super) fn has_any(&self, endpoints: &[EndpointKey]) -> bool {
        let members = self.cluster.members();
        !endpoints.is_empty() && members.all().any(|(_, member)| endpoints.contains(&member.endpoint.key))
    }

    /// Why its last switch has not settled. `None` when there is an endpoint, and none that left has a session.
    pub(super) fn unsettled(&self) -> Option<String> {
        if self.cluster.members().is_empty() {
            return Some(self.without_endpoint());
        }
        match sessions(&self.leaving) {
            0 => None,
            count => Some(format!("sessions left on the old endpoints: {count}")),
        }
    }

    pub(super) fn without_endpoint(&self) -> String {
        match self.problems.current() {
            [] => "the new targets have no endpoint".to_owned(),
            problems => problems.join("; "),
        }
    }

    /// Tells endpoints whether their containers are unhealthy. Returns those that no longer are.
    pub(super) fn note_health(&self, containers: &Containers) -> Vec<EventKind> {
        let members = self.cluster.members();
        let recovered = members.all().map(|(_, member)| &member.endpoint).filter(|endpoint| {
            let Identity::Container { id, .. } = &endpoint.key.identity else { return false };
            endpoint.set_container_health(containers.health(id))
        });
        let (route, endpoint) = (&members.options.name, |endpoint: &Arc<Endpoint>| endpoint.key.to_string());
        let healthy =
            |recovered| EventKind::EndpointHealthy { route: route.clone(), endpoint: endpoint(recovered) };
        recovered.map(healthy).collect()
    }
}

/// On endpoints that left.
fn sessions(leaving: &[Weak<Endpoint>]) -> usize {
    leaving.iter().filter_map(Weak::upgrade).map(|endpoint| endpoint.sessions()).sum()
}
