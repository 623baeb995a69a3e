//! What a command will do: it is executed on a copy of the desired state, and the copy is compared with what runs.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Reconciler;
use super::command::{Command, CommandError, Done, Mode, SwitchRequest};
use super::desired::{DesiredState, Outcome};
use super::effects::{After, Before, Change, Serving, effects, undo};
use super::open_route::OpenRoute;
use crate::address::EndpointSpec;
use crate::cluster::Endpoint;
use crate::route::Listen;

const DRY_RUN: &str = "dry run: nothing was changed";

impl Reconciler {
    /// Returns the result of a command that has not been executed.
    pub(super) fn preview(&mut self, command: &Command, mode: Mode) -> Result<Done, CommandError> {
        let (mut next, now) = (self.desired.clone(), Instant::now());
        let outcome = next.execute(command, |listen| self.routes.endpoints(listen), now)?;
        // What this would log is logged when it happens.
        let _ = next.update(now);
        let trial = match command {
            Command::Switch(SwitchRequest { trial, .. }) => *trial,
            _ => None,
        };
        let followed =
            next.followed_targets().difference(&self.desired.followed_targets()).cloned().collect();
        let max_held = self.desired.max_held();
        let after = self.after(&next, &outcome.route);
        let change = Change { before: self.before(&outcome.route), after, trial, followed, max_held };
        let (effects, undo) = (effects(&change), undo(&change));
        // The check of a route may have read its CAs.
        self.routes.tls().retain(self.desired.table().values());
        let message = if mode == Mode::DryRun { DRY_RUN.to_owned() } else { outcome.message };
        let Outcome { route, endpoint, .. } = outcome;
        Ok(Done { message, route, endpoint, effects, undo })
    }

    fn before(&self, name: &str) -> Option<Before<'_>> {
        let route = self.desired.route(name)?;
        let open = self.routes.of(&route.listen);
        let counters = open.map(|open| &open.cluster.counters);
        let held = counters.map_or(0, |counters| counters.held.load(Relaxed));
        let active = counters.map_or(0, |counters| counters.active.load(Relaxed));
        Some(Before {
            source: self.desired.source_route(name)?,
            route,
            serving: &self.desired.serving(route).targets,
            change: self.desired.override_of(name).cloned().unwrap_or_default(),
            open: active.saturating_sub(held),
            held,
            endpoints: open.map(serving).unwrap_or_default(),
        })
    }

    /// Returns the route as `next` has it. Its listener counts as bound, although it may not be.
    fn after<'n>(&mut self, next: &'n DesiredState, name: &str) -> Option<After<'n>> {
        let route = next.route(name)?;
        let Reconciler { routes, local_addrs, .. } = self;
        let unbound: Option<&Listen> = Some(&route.listen).filter(|listen| routes.of(listen).is_none());
        let open = routes.bound().chain(unbound.map(|listen| (listen, &[][..])));
        let plan = next.plan(open, |ip| local_addrs.has(ip));
        let clusters = plan.clusters(|_| false, |ip| local_addrs.has(ip));
        let cluster = clusters.into_iter().find(|cluster| cluster.route.options.name == name)?;
        Some(After {
            route,
            change: next.override_of(name).cloned().unwrap_or_default(),
            endpoints: cluster.endpoints,
            problems: cluster.problems,
            on_remove: cluster.on_remove,
            is_pending: cluster.is_pending,
        })
    }
}

fn serving(open: &OpenRoute) -> Vec<Serving> {
    let members = open.cluster.members_arc();
    let serving = members.all().map(|(tier, member)| {
        let (key, weight, tier) = (member.endpoint.key.clone(), member.weight, tier.number);
        let spec = EndpointSpec { key, weight, tier };
        Serving { spec, sessions: member.endpoint.sessions(), is_ok: is_ok(&member.endpoint) }
    });
    serving.collect()
}

fn is_ok(endpoint: &Endpoint) -> bool {
    let is_failing = endpoint.last_error().is_some_and(|error| error.is_current);
    endpoint.condition().is_eligible() && !endpoint.has_unhealthy_container() && !is_failing
}
