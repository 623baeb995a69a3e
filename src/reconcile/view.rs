//! What the control loop publishes: one value, whole at each change, for whoever shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::Reconciler;
use super::overrides::Override;
use super::trial::Switch;
use crate::cluster::{Cluster, Endpoint};
use crate::config::Config;
use crate::route::{Layer, Route, Target};
use crate::stall::StallCounts;
use crate::worker::Loads;

/// What runs, for the admin API. Counters in it are live.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// In the order of their listeners.
    pub routes: Vec<RouteView>,
    /// Every source that is followed, by name.
    pub sources: Vec<String>,
    /// By name: why they are lost.
    pub lost: BTreeMap<String, String>,
    /// `None` without a configuration file.
    pub file: Option<ConfigFile>,
    /// By name: how often the task of a source has panicked, and was started again. Of those that are followed.
    pub panics: BTreeMap<String, u64>,
    pub mistakes: Vec<String>,
    /// What was asked for and does not exist yet: `-name`s, any label at all.
    pub notices: Vec<String>,
    /// Routes that an operator removed, by name.
    pub removed: Vec<String>,
    /// Sources of `sources`, names of DNS left out, that have not answered once since they are followed.
    pub unanswered: Vec<String>,
    pub workers: Loads,
    pub stalls: StallCounts,
    /// As it is now: with the file that was read last. `None` before the first round.
    pub config: Option<Arc<Config>>,
}

/// The configuration file, and what became of the last attempt to read it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub path: PathBuf,
    /// When the routes in use were read.
    pub loaded_at: SystemTime,
    /// The last attempt failed; the routes of the last good file are in use.
    pub refused: Option<Refused>,
}

#[derive(Clone, Debug)]
pub struct Refused {
    pub why: String,
    pub at: SystemTime,
}

impl ConfigFile {
    pub(super) fn loaded(path: PathBuf) -> ConfigFile {
        ConfigFile { path, loaded_at: SystemTime::now(), refused: None }
    }

    /// As [`Source::name`](crate::discovery::Source::name).
    pub fn source(&self) -> String {
        format!("file:{}", self.path.display())
    }
}

#[derive(Clone, Debug)]
pub struct RouteView {
    pub route: Route,
    /// `None` where the listener is not bound.
    pub cluster: Option<Arc<Cluster>>,
    /// As bound. Empty for a unix socket.
    pub addrs: Vec<SocketAddr>,
    /// Why it does not listen, or why a target has no endpoint.
    pub problems: Vec<String>,
    pub by_hand: ByHand,
    /// Endpoints that left and may have sessions still.
    pub leaving: Vec<Weak<Endpoint>>,
}

/// What an operator changed of a route.
#[derive(Clone, Debug, Default)]
pub struct ByHand {
    pub change: Override,
    /// The targets that the sources tell, while others are put in their place.
    pub instead_of: Option<Vec<Target>>,
    /// The last switch.
    pub switch: Option<Switch>,
    /// The targets have no endpoint yet, or one on trial that has not answered: those that they are to replace serve on.
    pub waiting: bool,
}

impl Overview {
    /// A source that fails, or a configuration file that was refused.
    pub fn is_lost(&self, source: &str) -> bool {
        let refused = self.file.as_ref().filter(|file| file.refused.is_some());
        self.lost.contains_key(source) || refused.is_some_and(|file| file.source() == source)
    }
}

impl Reconciler {
    pub(super) fn publish(&self) {
        self.overview.store(Arc::new(Overview {
            routes: self.table.values().map(|route| self.view(route)).collect(),
            sources: self.sources(),
            lost: self.lost.clone(),
            file: self.file.clone(),
            panics: self.panics.clone(),
            mistakes: self.mistakes.iter().cloned().collect(),
            notices: self.notices.clone(),
            removed: self.overrides.removed.iter().cloned().collect(),
            unanswered: self.unanswered(),
            workers: self.loads.clone(),
            stalls: self.stalls.clone(),
            config: Some(self.config_now()),
        }));
    }

    pub(super) fn sources(&self) -> Vec<String> {
        let file = self.file.as_ref().map(ConfigFile::source);
        let docker = self.docker.is_some().then(|| "docker".to_owned());
        let targets = self.followed.keys().map(Target::to_string);
        file.into_iter().chain(docker).chain(targets).collect()
    }

    /// Neither the file, which was read before the first round, nor names of DNS: where a service is away, Docker's DNS
    /// server often times out instead of denying its name, and a service that is away is no reason not to be ready.
    fn unanswered(&self) -> Vec<String> {
        let docker = self.docker.is_some() && self.discovery.docker.is_none();
        let is_name = |target: &Target| matches!(target, Target::Host { .. } | Target::Srv { .. });
        let targets = self.followed.keys().filter(|target| !is_name(target));
        let silent = targets.filter(|target| !self.discovery.targets.contains_key(target));
        docker.then(|| "docker".to_owned()).into_iter().chain(silent.map(Target::to_string)).collect()
    }

    /// Shared with the overview before, unless the file has changed.
    fn config_now(&self) -> Arc<Config> {
        let before = self.overview.load().config.clone();
        let same = |config: &Arc<Config>| config.file.routes == self.discovery.file.routes;
        before.filter(same).unwrap_or_else(|| {
            let file = Layer { routes: self.discovery.file.routes.clone() };
            Arc::new(Config { file, ..self.config.clone() })
        })
    }

    fn view(&self, route: &Route) -> RouteView {
        let running = self.running.get(&route.listen);
        let unbound = self.unbound.get(&route.listen);
        let problems = running.map(|running| running.problems.current().to_vec()).unwrap_or_default();
        RouteView {
            route: route.clone(),
            cluster: running.map(|running| running.cluster.clone()),
            addrs: running.map(|running| running.addrs.clone()).unwrap_or_default(),
            problems: unbound.cloned().into_iter().chain(problems).collect(),
            by_hand: self.by_hand(route),
            leaving: running.map(|running| running.leaving.clone()).unwrap_or_default(),
        }
    }

    fn by_hand(&self, route: &Route) -> ByHand {
        let name = &route.options.name;
        let change = self.overrides.of(name).cloned().unwrap_or_default();
        let told = self.told.get(&route.listen).map(|told| told.targets.clone());
        let instead_of = told.filter(|_| change.targets.is_some());
        let mut switch = self.trials.of(name).cloned();
        if let Some(switch) = &mut switch {
            switch.why = switch.why.take().or_else(|| self.proofs.missing(name));
        }
        ByHand { change, instead_of, switch, waiting: self.moves.of(name).is_some() }
    }
}
