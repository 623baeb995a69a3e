//! The endpoints that the cluster of each open route is to have. Pure.

use std::net::{IpAddr, SocketAddr};

use super::DesiredState;
use super::cycles::{self, Candidate, Ports};
use crate::address::{EndpointKey, EndpointSpec};
use crate::discovery::state::Resolved;
use crate::route::{Listen, OnRemove, Route};

/// A route that is open, and the addresses that its listeners are bound to.
pub(in crate::reconcile) type BoundRoute<'b> = (&'b Listen, &'b [SocketAddr]);

/// The desired cluster of one route.
#[derive(Debug)]
pub(in crate::reconcile) struct DesiredCluster<'d> {
    pub(in crate::reconcile) route: &'d Route,
    pub(in crate::reconcile) endpoints: Vec<EndpointSpec>,
    pub(in crate::reconcile) problems: Vec<String>,
    /// Endpoints that are excluded because they lead back to the route.
    pub(in crate::reconcile) cyclic: Vec<EndpointKey>,
    /// What happens to the sessions of the endpoints that are removed now.
    pub(in crate::reconcile) on_remove: OnRemove,
    pub(in crate::reconcile) is_paused: bool,
    /// The endpoints are those from before a pending switch.
    pub(in crate::reconcile) is_pending: bool,
}

/// The endpoints of all open routes.
pub(in crate::reconcile) struct Plan<'d> {
    desired: &'d DesiredState,
    ports: Ports<'d>,
    candidates: Vec<Candidate<'d>>,
}

impl DesiredState {
    /// Resolves the targets of the open routes. `is_local` returns whether an address belongs to this host.
    pub(in crate::reconcile) fn plan<'b>(
        &self,
        open: impl Iterator<Item = BoundRoute<'b>>,
        is_local: impl FnMut(IpAddr) -> bool,
    ) -> Plan<'_> {
        let (mut ports, mut candidates) = (Ports::default(), Vec::new());
        for (listen, addrs) in open {
            let Some(route) = self.table.get(listen) else { continue };
            ports.add(route, addrs);
            let Resolved { endpoints, problems } = self.resolve(route);
            candidates.push(Candidate { route, endpoints, problems, cyclic: Vec::new() });
        }
        cycles::exclude(&ports, &mut candidates, is_local);
        Plan { desired: self, ports, candidates }
    }
}

impl<'d> Plan<'d> {
    /// Returns the routes whose last switch is on trial, with their endpoints.
    pub(in crate::reconcile) fn on_trial(&self) -> impl Iterator<Item = (&Route, &[EndpointSpec])> {
        let is_on_trial =
            |candidate: &&Candidate<'_>| self.desired.switches.is_on_trial(&candidate.route.options.name);
        self.candidates
            .iter()
            .filter(is_on_trial)
            .map(|candidate| (candidate.route, candidate.endpoints.as_slice()))
    }

    /// Returns the clusters. A route whose switch is pending keeps its previous endpoints while the new targets have none, or
    /// one of theirs `is_unconfirmed`: on trial, and without an answer.
    pub(in crate::reconcile) fn clusters(
        mut self,
        is_unconfirmed: impl Fn(&str) -> bool,
        is_local: impl FnMut(IpAddr) -> bool,
    ) -> Vec<DesiredCluster<'d>> {
        let keep_previous = |candidate: &mut Candidate<'d>| {
            let name = &candidate.route.options.name;
            let is_usable = !candidate.endpoints.is_empty() && !is_unconfirmed(name);
            let previous = self.desired.switches.previous(name).filter(|_| !is_usable);
            if let Some(previous) = previous {
                candidate.endpoints = self.desired.resolve(previous).endpoints;
            }
            previous.is_some()
        };
        let pending: Vec<bool> = self.candidates.iter_mut().map(keep_previous).collect();
        if pending.contains(&true) {
            cycles::exclude(&self.ports, &mut self.candidates, is_local);
        }
        let clusters = self.candidates.into_iter().zip(pending);
        clusters.map(|(candidate, is_pending)| self.desired.cluster(candidate, is_pending)).collect()
    }
}

impl DesiredState {
    fn cluster<'d>(&self, candidate: Candidate<'d>, is_pending: bool) -> DesiredCluster<'d> {
        let Candidate { route, endpoints, problems, cyclic } = candidate;
        let name = &route.options.name;
        let switched = self.switches.on_remove(name).filter(|_| !is_pending);
        DesiredCluster {
            route,
            endpoints,
            problems,
            cyclic,
            on_remove: switched.unwrap_or(route.options.on_remove),
            is_paused: self.is_paused(name),
            is_pending,
        }
    }
}
