//! What the control loop publishes: one immutable value, replaced as a whole after each round. Its counters are live.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::Reconciler;
use super::desired::overrides::Override;
use super::desired::switches::LastSwitch;
use crate::cluster::{Cluster, Endpoint};
use crate::config::Config;
use crate::config::peer::PeerDial;
use crate::discovery::LastAnswer;
use crate::history::History;
use crate::route::{Route, Target};
use crate::stall::StallCounts;
use crate::tls::Tls;
use crate::tunnel::Peers;
use crate::worker::Loads;

/// What runs, for the admin API.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// In the order of their listeners.
    pub routes: Vec<RouteView>,
    /// When the control loop was created. `None` before the first round.
    pub started_at: Option<SystemTime>,
    /// All sources that are followed.
    pub sources: Vec<SourceView>,
    /// Sources that are unavailable, by name, and why.
    pub lost: BTreeMap<String, String>,
    /// `None` without a configuration file.
    pub file: Option<ConfigFile>,
    /// How often the task of a source has panicked and was restarted, by name. Only sources that are followed.
    pub panics: BTreeMap<String, u64>,
    /// Mistakes that exist now.
    pub mistakes: Vec<String>,
    /// What was requested and does not exist yet, such as the container of a `-name`, or any label.
    pub notices: Vec<String>,
    /// The names of the routes that an operator removed.
    pub removed: Vec<String>,
    /// Sources that have not reported since they are followed. Names of DNS are omitted.
    pub unanswered: Vec<String>,
    /// What counts the connections that belong to no route, by the address of the port that routes share.
    pub unnamed: Vec<(String, Arc<Cluster>)>,
    /// The sessions of each worker.
    pub workers: Loads,
    /// The stalls of each thread.
    pub stalls: StallCounts,
    /// The peers. `None` without credentials.
    pub peering: Option<Peering>,
    /// The certificates and CAs of routes.
    pub tls: Arc<Tls>,
    /// The history of the routes, live.
    pub history: Arc<History>,
    /// The configuration, with the file that was read last. `None` before the first round.
    pub config: Option<Arc<Config>>,
}

/// The peers, live.
#[derive(Clone, Debug)]
pub struct Peering {
    /// The tunnels.
    pub peers: Arc<Peers>,
    /// The addresses on which peers can dial us.
    pub listen: Vec<SocketAddr>,
    /// The peers of `--peer-dial`.
    pub dial: Vec<PeerDial>,
}

/// The configuration file, and the result of the last attempt to read it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The path of the file.
    pub path: PathBuf,
    /// When the routes in use were read.
    pub loaded_at: SystemTime,
    /// The same time, as for other sources.
    pub answered: LastAnswer,
    /// Set if the last attempt failed. The routes of the last valid file stay in use.
    pub refused: Option<Refused>,
}

/// Why and when a configuration file was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What is wrong with the file.
    pub why: String,
    /// When it was read.
    pub at: SystemTime,
}

impl ConfigFile {
    pub(super) fn loaded(path: PathBuf) -> ConfigFile {
        let answered = LastAnswer::default();
        let mut file = ConfigFile { path, loaded_at: SystemTime::now(), answered, refused: None };
        file.load();
        file
    }

    /// Records that the file was read and has no mistake.
    pub(super) fn load(&mut self) {
        self.answered.record();
        (self.loaded_at, self.refused) = (SystemTime::now(), None);
    }

    /// Returns the name of its source, as [`Source::name`](crate::discovery::Source::name).
    pub fn source(&self) -> String {
        format!("file:{}", self.path.display())
    }
}

/// A source that is followed.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// As [`Source::name`](crate::discovery::Source::name).
    pub name: String,
    /// Its last answer, live.
    pub answered: LastAnswer,
}

/// One route of the table.
#[derive(Clone, Debug)]
pub struct RouteView {
    /// The route, with the overrides of the operator.
    pub route: Route,
    /// `None` if the listener is not bound.
    pub cluster: Option<Arc<Cluster>>,
    /// The bound addresses. Empty for a unix socket.
    pub addrs: Vec<SocketAddr>,
    /// Why the listener is not bound, or a target has no endpoint.
    pub problems: Vec<String>,
    /// What an operator changed of it.
    pub by_hand: ByHand,
    /// Removed endpoints that may still have sessions.
    pub leaving: Vec<Weak<Endpoint>>,
}

/// What an operator changed of a route.
#[derive(Clone, Debug, Default)]
pub struct ByHand {
    /// The overrides, empty if there are none.
    pub change: Override,
    /// The targets that the sources report, if they are overridden.
    pub instead_of: Option<Vec<Target>>,
    /// The last switch.
    pub switch: Option<LastSwitch>,
    /// The previous endpoints keep serving: the new targets have no endpoint yet, or one on trial that has not answered.
    pub waiting: bool,
}

impl Overview {
    /// Returns why a source is unavailable, or is a configuration file that was refused. `None` if it is neither.
    pub fn lost(&self, source: &str) -> Option<&str> {
        let of_file = self.file.as_ref().filter(|file| file.source() == source);
        let refused = of_file.and_then(|file| file.refused.as_ref()).map(|refused| refused.why.as_str());
        self.lost.get(source).map(String::as_str).or(refused)
    }
}

impl Reconciler {
    /// Replaces the overview. The configuration in it is shared with the previous one unless the file has changed.
    pub(super) fn publish(&self) {
        let config = self.overview.load().config.clone();
        let (mistakes, notices) = self.desired.findings();
        self.overview.store(Arc::new(Overview {
            routes: self.desired.table().values().map(|route| self.route_view(route)).collect(),
            started_at: Some(self.started_at),
            sources: self.sources.views(),
            lost: self.sources.lost.clone(),
            file: self.sources.file.clone(),
            panics: self.sources.panics.clone(),
            mistakes,
            notices,
            removed: self.desired.removed(),
            unanswered: self.sources.unanswered(&self.desired),
            workers: self.loads.clone(),
            stalls: self.stalls.clone(),
            peering: self.routes.peering(),
            tls: self.routes.tls(),
            history: self.routes.history(),
            unnamed: self.routes.unnamed(),
            config: Some(self.desired.config(config)),
        }));
    }

    fn route_view(&self, route: &Route) -> RouteView {
        let open = self.routes.of(&route.listen);
        let unbound = self.routes.unbound(&route.listen);
        let problems = open.map(|open| open.problems.current().to_vec()).unwrap_or_default();
        RouteView {
            route: route.clone(),
            cluster: open.map(|open| open.cluster.clone()),
            addrs: open.map(|open| open.addrs.clone()).unwrap_or_default(),
            problems: unbound.cloned().into_iter().chain(problems).collect(),
            by_hand: self.by_hand(route),
            leaving: open.map(|open| open.leaving.clone()).unwrap_or_default(),
        }
    }

    fn by_hand(&self, route: &Route) -> ByHand {
        let name = &route.options.name;
        let change = self.desired.override_of(name).cloned().unwrap_or_default();
        let source_targets = self.desired.source_targets(&route.listen);
        let instead_of = source_targets.filter(|_| change.targets.is_some()).map(<[Target]>::to_vec);
        let mut switch = self.desired.last_switch(name).cloned();
        if let Some(switch) = &mut switch {
            switch.why = switch.why.take().or_else(|| self.probes.unanswered(name));
        }
        ByHand { change, instead_of, switch, waiting: self.desired.is_switch_pending(name) }
    }
}
