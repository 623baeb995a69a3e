//! Commands: the desired state is changed, and compared with what runs. A dry run changes it back.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Reconciler;
use super::command::{Command, CommandError, Done, Mode, SwitchRequest};
use super::desired::{Commanded, DesiredState, Outcome};
use super::effects::{After, Before, Change, Serving, effects, undo};
use super::open_route::OpenRoute;
use super::open_routes::OpenRoutes;
use crate::address::EndpointSpec;
use crate::cluster::Endpoint;
use crate::connect::LocalAddrs;
use crate::route::Listen;

const DRY_RUN: &str = "dry run: nothing was changed";

impl Reconciler {
    /// Changes the desired state, unless this is a dry run. What runs is unchanged until the next round.
    pub(super) fn change(&mut self, command: &Command, mode: Mode) -> Result<(Outcome, Done), CommandError> {
        let (before, now) = (self.desired.commanded(), Instant::now());
        let outcome = self.desired.execute(command, |listen| self.routes.endpoints(listen), now)?;
        let change = self.difference(command, &outcome.route, &before, now);
        let message = match mode {
            Mode::Execute => outcome.message.clone(),
            Mode::DryRun => DRY_RUN.to_owned(),
        };
        if mode == Mode::DryRun {
            self.desired.restore_commanded(before);
            // The check of a route may have read its CAs.
            self.routes.tls().retain(self.desired.table().values());
        }
        let (route, endpoint) = (outcome.route.clone(), outcome.endpoint.clone());
        let done = Done { message, route, endpoint, effects: effects(&change), undo: undo(&change) };
        Ok((outcome, done))
    }

    fn difference(&mut self, command: &Command, name: &str, before: &Commanded, now: Instant) -> Change {
        let before = self.before(name, before);
        let max_held = self.desired.max_held();
        let followed = self.desired.followed_targets();
        let Reconciler { desired, routes, local_addrs, .. } = self;
        desired.ahead(now, |next| Change {
            before,
            after: after(next, name, routes, local_addrs),
            trial: match command {
                Command::Switch(SwitchRequest { trial, .. }) => *trial,
                _ => None,
            },
            followed: next.followed_targets().difference(&followed).cloned().collect(),
            max_held,
        })
    }

    fn before(&self, name: &str, commanded: &Commanded) -> Option<Before> {
        let route = self.desired.route(name)?;
        let open = self.routes.of(&route.listen);
        let counters = open.map(|open| &open.cluster.counters);
        let held = counters.map_or(0, |counters| counters.held.load(Relaxed));
        let active = counters.map_or(0, |counters| counters.active.load(Relaxed));
        Some(Before {
            source: self.desired.source_route(name)?.clone(),
            route: route.clone(),
            serving: commanded.serving(route).targets.clone(),
            change: commanded.override_of(name),
            open: active.saturating_sub(held),
            held,
            endpoints: open.map(serving).unwrap_or_default(),
        })
    }
}

/// Returns the route as `next` has it. Its listener counts as bound, although it may not be.
fn after(
    next: &DesiredState,
    name: &str,
    routes: &OpenRoutes,
    local_addrs: &mut LocalAddrs,
) -> Option<After> {
    let route = next.route(name)?;
    let unbound: Option<&Listen> = Some(&route.listen).filter(|listen| routes.of(listen).is_none());
    let open = routes.bound().chain(unbound.map(|listen| (listen, &[][..])));
    let plan = next.plan(open, |ip| local_addrs.has(ip));
    let clusters = plan.clusters(|_| false, |ip| local_addrs.has(ip));
    let cluster = clusters.into_iter().find(|cluster| cluster.route.options.name == name)?;
    Some(After {
        route: route.clone(),
        change: next.override_of(name).cloned().unwrap_or_default(),
        endpoints: cluster.endpoints,
        problems: cluster.problems,
        on_remove: cluster.on_remove,
        is_pending: cluster.is_pending,
    })
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
