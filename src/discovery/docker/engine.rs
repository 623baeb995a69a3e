//! The state of one engine, as far as it has been read, and what is still to be inspected. Pure: events, lists and inspections
//! go in; requests and snapshots come out.
//!
//! ```text
//!   event, list ──► dirty ──► requested ──► inspected ──► containers ──► snapshot
//!                     ▲           │
//!                     └───────────┘ outdated: an event took something away while the inspection was under way
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api::ContainerSummary;
use super::event::DockerEvent;
use super::model::{Attachment, Container, ContainerId, Containers, Stopping};
use crate::ordered::CollectOrdered;

/// The result of an inspection.
#[derive(Debug)]
pub(super) enum Inspection {
    Found(Box<Container>),
    /// 404.
    NotFound,
    /// No result this time; the container's last state is kept until the next list.
    Failed,
}

/// Whether the result of an inspection that is under way will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Current,
    Outdated,
}

#[derive(Debug, Default)]
pub(super) struct EngineState {
    containers: BTreeMap<ContainerId, Container>,
    dirty: BTreeSet<ContainerId>,
    requests: BTreeMap<ContainerId, Request>,
    /// The containers that were sent a stop signal and have not died. No inspection reports it.
    stopping: BTreeMap<ContainerId, Stopping>,
    /// The containers with an event or an inspection since the list was requested: the list may be older than that.
    updated: BTreeSet<ContainerId>,
    /// The containers to inspect because the list differs, without an event.
    unannounced: BTreeSet<ContainerId>,
    /// Whether a container changed without an event.
    missed_event: bool,
    /// The containers that report an address which another reports as well.
    contested: BTreeSet<ContainerId>,
    /// Candidates for our own container: whole IDs or prefixes of one, the likeliest first.
    own: Vec<String>,
    /// The version of the engine.
    engine: String,
}

impl EngineState {
    pub(super) fn new(own: Vec<String>, engine: String) -> EngineState {
        EngineState { own, engine, ..EngineState::default() }
    }

    pub(super) fn apply_event(&mut self, event: DockerEvent) {
        self.updated.insert(event.container().clone());
        self.unannounced.remove(event.container());
        self.apply(event);
    }

    fn apply(&mut self, event: DockerEvent) {
        match event {
            DockerEvent::Changed(id) => {
                self.dirty.insert(id);
            }
            DockerEvent::Stopping(id, stopping) => {
                let stopping = stopping.max(self.stopping.get(&id).copied().unwrap_or_default());
                if let Some(container) = self.containers.get_mut(&id) {
                    container.stopping = stopping;
                }
                self.stopping.insert(id, stopping);
            }
            DockerEvent::Stopped(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.running = false;
                    container.paused = false;
                    container.stopping = Stopping::No;
                }
                self.stopping.remove(&id);
                self.outdate(&id);
                self.dirty.insert(id);
            }
            DockerEvent::Disconnected { container: id, network } => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.networks.remove(&network);
                }
                self.outdate(&id);
                self.dirty.insert(id);
            }
            DockerEvent::Destroyed(id) => {
                self.containers.remove(&id);
                self.dirty.remove(&id);
                self.stopping.remove(&id);
                self.outdate(&id);
            }
        }
    }

    fn outdate(&mut self, id: &ContainerId) {
        if let Some(request) = self.requests.get_mut(id) {
            *request = Request::Outdated;
        }
    }

    /// Returns the current IDs, to compare with the list that is about to be requested.
    pub(super) fn begin_list(&mut self) -> BTreeSet<ContainerId> {
        self.updated.clear();
        self.containers.keys().cloned().collect_ordered()
    }

    /// Applies a whole list. `before` has the IDs from when it was requested: a container created since, whose event came first,
    /// has not been removed.
    ///
    /// What the list takes away is removed at once, as with an event. All other differences are inspected.
    pub(super) fn apply_list(&mut self, list: &[ContainerSummary], before: &BTreeSet<ContainerId>) {
        let listed: BTreeSet<&ContainerId> = list.iter().map(|summary| &summary.id).collect_ordered();
        for id in before.iter().filter(|id| !listed.contains(id)) {
            self.missed_event |= self.containers.contains_key(id);
            self.apply(DockerEvent::Destroyed(id.clone()));
        }
        let owners = owners(list);
        for summary in list {
            let Some(container) = self.containers.get_mut(&summary.id) else {
                self.inspect_unannounced(summary.id.clone());
                continue;
            };
            let agrees = summary.agrees(container);
            if !agrees && !self.updated.contains(&summary.id) {
                let has_stopped = summary.is_stopped() && container.running;
                let has_lost_address = remove_lost_addresses(container, &summary.id, &owners);
                self.missed_event |= has_stopped || has_lost_address;
                if has_stopped {
                    self.apply(DockerEvent::Stopped(summary.id.clone()));
                }
            }
            if !agrees {
                self.inspect_unannounced(summary.id.clone());
            }
        }
    }

    fn inspect_unannounced(&mut self, id: ContainerId) {
        if !self.updated.contains(&id) {
            self.unannounced.insert(id.clone());
        }
        self.dirty.insert(id);
    }

    /// Returns whether a container has changed without an event since the last call.
    pub(super) fn take_missed_event(&mut self) -> bool {
        std::mem::take(&mut self.missed_event)
    }

    /// Returns the next container to inspect; never one whose inspection is under way.
    pub(super) fn next_inspection(&mut self) -> Option<ContainerId> {
        let id = self.dirty.iter().find(|id| !self.requests.contains_key(*id))?.clone();
        self.dirty.remove(&id);
        self.requests.insert(id.clone(), Request::Current);
        Some(id)
    }

    pub(super) fn apply_inspection(&mut self, id: ContainerId, inspection: Inspection) {
        self.updated.insert(id.clone());
        let is_unannounced = self.unannounced.remove(&id);
        match (self.requests.remove(&id), inspection) {
            // What the container lost is applied already. It was marked dirty again then, unless it was destroyed.
            (Some(Request::Outdated) | None, _) | (_, Inspection::Failed) => {}
            (Some(Request::Current), Inspection::Found(container)) => {
                let stopping = self.stopping.get(&id).copied().unwrap_or_default();
                let container = Container { stopping, ..*container };
                self.missed_event |= is_unannounced && self.containers.get(&id) != Some(&container);
                self.containers.insert(id, container);
            }
            (Some(Request::Current), Inspection::NotFound) => {
                self.containers.remove(&id);
                self.dirty.remove(&id);
            }
        }
    }

    /// Returns whether nothing is left to inspect and no inspection is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.requests.is_empty()
    }

    /// Returns the number of containers to inspect.
    pub(super) fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// Returns a snapshot to publish. Containers that begin to contest an address are to be inspected after this.
    pub(super) fn snapshot(&mut self) -> Containers {
        let mut by_id = self.containers.clone();
        let contested = remove_contested_addresses(&mut by_id);
        self.dirty.extend(contested.difference(&self.contested).cloned());
        self.contested = contested;
        Containers { own_id: self.own_id(), engine: self.engine.clone(), by_id }
    }

    fn own_id(&self) -> Option<ContainerId> {
        self.own.iter().find_map(|candidate| {
            let mut matching = self
                .containers
                .range(ContainerId(candidate.clone())..)
                .take_while(|(id, _)| id.0.starts_with(candidate));
            let (id, _) = matching.next()?;
            matching.next().is_none().then(|| id.clone())
        })
    }
}

/// The owner of each address on each network, by a list.
type Owners<'l> = BTreeMap<(&'l String, IpAddr), &'l ContainerId>;

fn owners(list: &[ContainerSummary]) -> Owners<'_> {
    let claims = list.iter().flat_map(|summary| summary.networks().map(move |claim| (&summary.id, claim)));
    let claims = claims.flat_map(|(id, (network, attachment))| {
        addresses(attachment).map(move |address| ((network, address), id))
    });
    claims.collect_ordered()
}

/// Removes the addresses that belong to another container. Returns whether there was one.
fn remove_lost_addresses(container: &mut Container, id: &ContainerId, owners: &Owners<'_>) -> bool {
    let mut has_lost = false;
    for (network, attachment) in &mut container.networks {
        let mut is_own = |ip: IpAddr| {
            let is_own = owners.get(&(network, ip)).is_none_or(|owner| *owner == id);
            has_lost |= !is_own;
            is_own
        };
        attachment.ipv4 = attachment.ipv4.filter(|ip| is_own(IpAddr::V4(*ip)));
        attachment.ipv6 = attachment.ipv6.filter(|ip| is_own(IpAddr::V6(*ip)));
    }
    has_lost
}

/// Removes the addresses that several running containers report, and returns those containers. An address on a network has one
/// owner. Two inspections that were under way while an address was reassigned may both report it; then neither container has it
/// until another inspection shows its owner.
fn remove_contested_addresses(by_id: &mut BTreeMap<ContainerId, Container>) -> BTreeSet<ContainerId> {
    let mut claimed: BTreeMap<(String, IpAddr), usize> = BTreeMap::new();
    for container in by_id.values().filter(|container| container.running) {
        for (network, attachment) in &container.networks {
            for address in addresses(attachment) {
                *claimed.entry((network.clone(), address)).or_default() += 1;
            }
        }
    }
    claimed.retain(|_, claims| *claims > 1);
    let mut contested = BTreeSet::new();
    if claimed.is_empty() {
        return contested;
    }
    for (id, container) in by_id {
        for (network, attachment) in &mut container.networks {
            let mut is_sole = |ip: IpAddr| {
                let is_sole = !claimed.contains_key(&(network.clone(), ip));
                if !is_sole && container.running {
                    contested.insert(id.clone());
                }
                is_sole
            };
            attachment.ipv4 = attachment.ipv4.filter(|ip| is_sole(IpAddr::V4(*ip)));
            attachment.ipv6 = attachment.ipv6.filter(|ip| is_sole(IpAddr::V6(*ip)));
        }
    }
    contested
}

fn addresses(attachment: &Attachment) -> impl Iterator<Item = IpAddr> {
    attachment.ipv4.map(IpAddr::V4).into_iter().chain(attachment.ipv6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests;
