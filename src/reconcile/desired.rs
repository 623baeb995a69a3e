//! The desired state: which routes are to be open and which endpoints each has. Pure.
//!
//! ```text
//!   sources ──► layers ──► merge ──► source table ──► table ──► endpoints
//!                 ▲          + removal grace ▲          ▲
//!        routes added, removed            targets    weights, drained
//! ```
//!
//! Computed from what the sources report, what the operator overrides, removed routes within their grace period, and
//! switches that are pending or on trial. The clock is an argument. The rest of `reconcile` opens listeners and updates
//! clusters to match.

mod commands;
mod cycles;
mod findings;
pub(super) mod overrides;
mod plan;
mod removal_grace;
pub(super) mod switches;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::hosts::Hosts;
use crate::config::peer::PeerCredentials;
use crate::config::{AdminAddr, Config, DockerHost};
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::Snapshot;
use crate::discovery::docker::Containers;
use crate::discovery::docker::labels::Policy;
use crate::discovery::state::{DiscoveryState, DockerLayers, Resolved, followed};
use crate::events::EventKind;
use crate::ordered::CollectOrdered;
use crate::route::{self, Layer, Listen, Route, RouteTable, Shadowed, Target};
use crate::tls::Tls;
use findings::Findings;
use overrides::{Override, Overrides};
use removal_grace::{RemovalGrace, is_from_docker};
use switches::{LastSwitch, RolledBack, Switches};

pub(super) use commands::Outcome;
pub(super) use plan::{BoundRoute, DesiredCluster};

pub(super) struct DesiredState {
    config: Config,
    discovery: DiscoveryState,
    overrides: Overrides,
    removal_grace: RemovalGrace,
    switches: Switches,
    findings: Findings,
    /// The routes that the sources report, before the overrides.
    source_table: RouteTable,
    /// The routes to open.
    table: RouteTable,
}

/// What commands change.
pub(super) struct Commanded {
    overrides: Overrides,
    switches: Switches,
}

impl Commanded {
    /// Returns the route whose endpoints serve for this route: an earlier one while its last switch is pending.
    pub(super) fn serving<'r>(&'r self, route: &'r Route) -> &'r Route {
        self.switches.previous(&route.options.name).unwrap_or(route)
    }

    pub(super) fn override_of(&self, name: &str) -> Override {
        self.overrides.of(name).cloned().unwrap_or_default()
    }
}

/// The routes that the sources report, and what is wrong with others.
struct Merged {
    source_table: RouteTable,
    shadowed: Vec<Shadowed>,
    mistakes: Vec<Diagnostic>,
    notices: Vec<String>,
}

impl DesiredState {
    pub(super) fn new(config: Config) -> DesiredState {
        DesiredState {
            discovery: DiscoveryState { file: config.file.clone(), ..DiscoveryState::default() },
            config,
            overrides: Overrides::default(),
            removal_grace: RemovalGrace::default(),
            switches: Switches::default(),
            findings: Findings::default(),
            source_table: RouteTable::new(),
            table: RouteTable::new(),
        }
    }

    /// Replaces what one source reports. Takes effect with the next [`DesiredState::update`].
    pub(super) fn apply(&mut self, snapshot: Snapshot) {
        self.discovery.apply(snapshot);
    }

    /// Recomputes the table of routes. Returns what is to be logged.
    pub(super) fn update(&mut self, now: Instant) -> Vec<EventKind> {
        let Merged { mut source_table, shadowed, mut mistakes, notices } = self.merged(now);
        self.supersede_variables(&shadowed);
        let shadowed = shadowed.iter().filter(|shadow| !is_same_link(shadow));
        mistakes.extend(shadowed.map(Shadowed::diagnostic));
        let mut events = self.findings.update(&mistakes, notices);
        self.removal_grace.extend(&self.source_table, &mut source_table, now);
        events.extend(route::diff(&self.source_table, &source_table).replace.iter().map(replaced));
        self.source_table = source_table;
        self.table = self.overrides.table(&self.source_table);
        self.switches.retain(&self.table);
        events
    }

    fn merged(&self, now: Instant) -> Merged {
        let written = self.written_layers().map(Layer::clone);
        let DockerLayers { layers, mistakes, notices } = self.docker_layers(&written, now);
        let (source_table, shadowed) = route::merge(&self.layers(written, layers));
        Merged { source_table, shadowed, mistakes, notices }
    }

    /// Calls `read` with the table of the next update.
    pub(super) fn ahead<T>(&mut self, now: Instant, read: impl FnOnce(&DesiredState) -> T) -> T {
        let mut source_table = self.merged(now).source_table;
        self.removal_grace.clone().extend(&self.source_table, &mut source_table, now);
        let next = self.overrides.table(&source_table);
        let table = std::mem::replace(&mut self.table, next);
        let result = read(self);
        self.table = table;
        result
    }

    pub(super) fn commanded(&self) -> Commanded {
        Commanded { overrides: self.overrides.clone(), switches: self.switches.clone() }
    }

    /// Undoes commands that no update has followed.
    pub(super) fn restore_commanded(&mut self, Commanded { overrides, switches }: Commanded) {
        (self.overrides, self.switches) = (overrides, switches);
    }

    /// Returns the layers of routes in order of precedence: routes added by the operator, then those that are written for
    /// this process, then those of Docker's containers.
    fn layers(&self, written: [Layer; 3], docker: Vec<Layer>) -> Vec<Layer> {
        // Link variables come after the same links as Docker reports them: the address in a variable may be out of date.
        let variables = std::iter::once(self.config.links.clone());
        self.overrides.layers(written.into_iter().chain(docker).chain(variables).collect())
    }

    /// Returns the layers whose routes are written for this process, in order of precedence.
    fn written_layers(&self) -> [&Layer; 3] {
        [&self.config.arguments, &self.config.environment, &self.discovery.file]
    }

    fn docker_layers(&self, written: &[Layer], now: Instant) -> DockerLayers {
        let Some(docker) = &self.config.docker else { return DockerLayers::default() };
        let policy = docker.implicit.then(|| self.label_policy(docker.share_labels, now));
        self.discovery.docker_layers(&docker.names, policy.as_ref(), written)
    }

    fn label_policy(&self, share: bool, now: Instant) -> Policy<'_> {
        let admin_port = match self.config.settings.admin {
            Some(AdminAddr::Tcp(addr)) => Some(addr.port()),
            Some(AdminAddr::Unix(_) | AdminAddr::Abstract(_)) | None => None,
        };
        let serving = self.source_table.iter().filter(|(listen, route)| {
            is_from_docker(&route.origin) && !self.removal_grace.has_ended(listen, now)
        });
        Policy {
            serving: serving.collect_ordered(),
            share,
            admin_port,
            peer: Some(&self.config.settings.peer),
        }
    }

    /// Removes link variables for whose listener Docker has reported the container. The address in a variable is from before
    /// the start of this process, and may belong to another container since then.
    fn supersede_variables(&mut self, shadowed: &[Shadowed]) {
        let is_superseded = |shadow: &&Shadowed| {
            matches!(shadow.route.origin, Place::Variable(_))
                && matches!(shadow.by, Place::Link(_) | Place::Name(_))
        };
        for shadow in shadowed.iter().filter(is_superseded) {
            self.config.links.routes.retain(|route| route.listen != shadow.route.listen);
        }
    }

    /// Returns when the desired state changes by itself or a switch is to be judged.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.removal_grace.next().into_iter().chain(self.switches.next(now)).min()
    }

    /// Returns whether a grace period has ended since the last update.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.removal_grace.is_due(now)
    }

    /// Ends the trials that have settled or failed. Returns what is to be logged. `unsettled` returns why the switch of a
    /// route has not settled; its second argument is whether the switch is pending.
    pub(super) fn judge_switches(
        &mut self,
        now: Instant,
        unsettled: impl Fn(&str, bool) -> Option<String>,
    ) -> Vec<EventKind> {
        let rolled_back = self.switches.judge(now, unsettled);
        let events = rolled_back.into_iter().map(|switch| self.roll_back(switch)).collect();
        self.switches.retain(&self.table);
        events
    }

    fn roll_back(&mut self, RolledBack { route, rollback_targets, why }: RolledBack) -> EventKind {
        let targets =
            rollback_targets.as_deref().map_or_else(|| "the targets of its source".to_owned(), list);
        if let Some(serving) = self.table.values().find(|serving| serving.options.name == route) {
            self.switches.keep_serving(serving, serving.options.on_remove);
        }
        // Cannot exceed the limit: the override before the switch was within it.
        let _ = self.overrides.change(&route, |change| change.targets = rollback_targets);
        EventKind::SwitchRolledBack { route, targets, why }
    }

    /// Returns the number of switches on trial.
    pub(super) fn switches_on_trial(&self) -> usize {
        self.switches.on_trial()
    }

    pub(super) fn is_on_trial(&self, name: &str) -> bool {
        self.switches.is_on_trial(name)
    }

    /// Ends the pending state of these routes' switches: the new targets are in use.
    pub(super) fn complete_switches(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.switches.complete(name));
    }

    /// Returns the routes to open.
    pub(super) fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Returns the endpoints of a route, with the weights that the operator set.
    pub(super) fn resolve(&self, route: &Route) -> Resolved {
        let mut resolved = self.discovery.resolve(route);
        if self.config.settings.peer.credentials() == PeerCredentials::None {
            resolved.remove_peers();
        }
        resolved.problems.extend(Tls::current().refusal(route).map(|refusal| refusal.one_line()));
        self.overrides.weigh(&route.options.name, &mut resolved.endpoints);
        resolved
    }

    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.overrides.is_paused(name)
    }

    /// Returns the targets that need a source of their own.
    pub(super) fn followed_targets(&self) -> BTreeSet<Target> {
        followed(self.serving_routes())
    }

    /// Returns the engine to follow: the one that the configuration requests, or that of a file that was read later.
    pub(super) fn docker_host(&self) -> Option<&DockerHost> {
        match &self.config.docker {
            Some(docker) => Some(&docker.host),
            None => {
                self.config.docker_host.as_ref().filter(|_| self.serving_routes().any(Route::wants_docker))
            }
        }
    }

    /// Returns the hosts that may receive credentials: the registries that written routes name. Labels do not count, nor do
    /// routes added and targets switched at run time, since users of the admin API need not have the credentials.
    pub(super) fn credential_hosts(&self) -> Hosts {
        Hosts::of_routes(self.written_layers().into_iter().flat_map(|layer| &layer.routes))
    }

    /// The routes of the table, and those whose endpoints keep serving during a switch.
    fn serving_routes(&self) -> impl Iterator<Item = &Route> {
        self.table.values().chain(self.switches.all_previous())
    }

    /// Removes what sources reported that are no longer followed.
    pub(super) fn retain_targets(&mut self, followed: &BTreeSet<Target>) {
        self.discovery.targets.retain(|target, _| followed.contains(target));
    }

    pub(super) fn forget_docker(&mut self) {
        self.discovery.docker = None;
    }

    pub(super) fn containers(&self) -> Option<&Containers> {
        self.discovery.docker.as_deref()
    }

    pub(super) fn has_reported(&self, target: &Target) -> bool {
        self.discovery.targets.contains_key(target)
    }

    pub(super) fn findings(&self) -> (Vec<String>, Vec<String>) {
        (self.findings.mistakes().cloned().collect(), self.findings.notices().to_vec())
    }

    /// Returns the names of the routes that the operator removed.
    pub(super) fn removed(&self) -> Vec<String> {
        self.overrides.removed.keys().cloned().collect()
    }

    /// Returns the route of this name that is to be open.
    pub(super) fn route(&self, name: &str) -> Option<&Route> {
        self.table.values().find(|route| route.options.name == name)
    }

    /// Returns the route of this name as the sources report it.
    pub(super) fn source_route(&self, name: &str) -> Option<&Route> {
        self.source_table.values().find(|route| route.options.name == name)
    }

    /// Returns the limit of the sessions that are held.
    pub(super) fn max_held(&self) -> usize {
        self.config.settings.max_held
    }

    /// Returns what the operator overrides of a route.
    pub(super) fn override_of(&self, name: &str) -> Option<&Override> {
        self.overrides.of(name)
    }

    /// Returns the targets that the sources report for a listener.
    pub(super) fn source_targets(&self, listen: &Listen) -> Option<&[Target]> {
        self.source_table.get(listen).map(|route| route.targets.as_slice())
    }

    pub(super) fn last_switch(&self, name: &str) -> Option<&LastSwitch> {
        self.switches.last(name)
    }

    /// Returns whether the endpoints of before a switch keep serving.
    pub(super) fn is_switch_pending(&self, name: &str) -> bool {
        self.switches.previous(name).is_some()
    }

    /// Returns the configuration with the routes of the file that was read last: `before` if these are its routes.
    pub(super) fn config(&self, before: Option<Arc<Config>>) -> Arc<Config> {
        let file = &self.discovery.file.routes;
        before.filter(|config| config.file.routes == *file).unwrap_or_else(|| {
            Arc::new(Config { file: Layer { routes: file.clone() }, ..self.config.clone() })
        })
    }
}

fn replaced(route: &Route) -> EventKind {
    EventKind::RouteReplaced {
        route: route.options.name.clone(),
        line: route.to_string(),
        origin: route.origin.to_string(),
    }
}

/// Returns whether one of the routes is a link's variable, and the other the same link as Docker reports it.
fn is_same_link(shadow: &Shadowed) -> bool {
    matches!((&shadow.route.origin, &shadow.by), (Place::Variable(_), Place::Link(_)))
}

fn list(targets: &[Target]) -> String {
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
