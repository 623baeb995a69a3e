//! The control loop: knowledge comes in, the merged table of routes comes out, and the difference to what runs is done.
//!
//! One owner for all of it, and no lock: sources send [`News`], sessions and the admin API read what is published.

mod linger;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Cluster;
use crate::cluster::health::probe::Network;
use crate::cluster::watch::{Means, watch};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::dns::{Host, Resolver};
use crate::discovery::docker::Docker;
use crate::discovery::knowledge::{Knowledge, followed};
use crate::discovery::{News, follow};
use crate::listener::{self, BindError};
use crate::room::Seat;
use crate::route::{self, Layer, Listen, Route, RouteTable, Shadowed, Target};
use crate::session::Shared;
use crate::worker::{Loads, Workers};
use linger::Linger;

/// How long after a listener could not be bound it is tried again.
const REBIND_PAUSE: Duration = Duration::from_secs(1);

/// All that wakes the control loop.
#[derive(Debug)]
enum Event {
    News(News),
    /// Time to try again what could not be bound, or to close what has lingered.
    Due,
}

pub struct Reconciler {
    config: Config,
    knowledge: Knowledge,
    table: RouteTable,
    running: BTreeMap<Listen, Running>,
    /// Why these listeners of the table do not run.
    unbound: BTreeMap<Listen, String>,
    linger: Linger,
    /// Mistakes that are there now, so that each is logged once.
    mistakes: BTreeSet<String>,
    /// Sources that are lost, and why.
    lost: BTreeMap<String, String>,
    resolver: Resolver,
    followed: BTreeMap<Target, AbortOnDropHandle<()>>,
    docker: Option<AbortOnDropHandle<()>>,
    news: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    /// `None` once no new listener shall be opened.
    workers: Option<Workers>,
    loads: Loads,
    means: Arc<Means<Network>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    overview: Arc<ArcSwap<Overview>>,
}

/// An open route.
struct Running {
    cluster: Arc<Cluster>,
    addrs: Vec<SocketAddr>,
    problems: Vec<String>,
    /// Closes the listeners when dropped.
    _stop: DropGuard,
    _watch: AbortOnDropHandle<()>,
    _seat: Seat,
}

/// A link's variable and the same link from Docker.
fn is_one_link_told_twice(shadow: &Shadowed) -> bool {
    matches!((&shadow.route.origin, &shadow.by), (Place::Variable(_), Place::Link(_)))
}

/// What runs, for the admin API. Published whole at each change; counters in it are live.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// In the order of their listeners.
    pub routes: Vec<RouteView>,
    /// By name: why they are lost.
    pub lost: BTreeMap<String, String>,
    pub mistakes: Vec<String>,
    /// Docker was asked for and has not answered, nor failed.
    pub waiting_for_docker: bool,
    pub workers: Loads,
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
}

impl Reconciler {
    pub fn new(config: Config, workers: Workers, shared: Arc<Shared>, stop: CancellationToken) -> Reconciler {
        // Sources wait while the loop is busy; a burst of this many snapshots is applied one after the other.
        let (news, inbox) = mpsc::channel(64);
        let means = Arc::new(Means::new(Network, config.max_ejected));
        Reconciler {
            knowledge: Knowledge { file: config.file.clone(), ..Knowledge::default() },
            config,
            table: RouteTable::new(),
            running: BTreeMap::new(),
            unbound: BTreeMap::new(),
            linger: Linger::default(),
            mistakes: BTreeSet::new(),
            lost: BTreeMap::new(),
            resolver: Resolver::from_system(),
            followed: BTreeMap::new(),
            docker: None,
            news,
            inbox,
            loads: workers.loads(),
            means,
            workers: Some(workers),
            shared,
            stop,
            overview: Arc::default(),
        }
    }

    pub fn news(&self) -> mpsc::Sender<News> {
        self.news.clone()
    }

    pub fn overview(&self) -> Arc<ArcSwap<Overview>> {
        self.overview.clone()
    }

    /// The first round: what is known without asking anybody. A listener that cannot be bound now is an error.
    pub async fn begin(&mut self) -> Result<(), Vec<BindError>> {
        let failed = self.apply().await;
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Until it is dropped.
    pub async fn run(&mut self) {
        loop {
            match self.next_event().await {
                Event::News(News::Snapshot(snapshot)) => {
                    self.found(&snapshot.source());
                    self.knowledge.learn(snapshot);
                }
                Event::News(News::Lost { source, why }) => {
                    tracing::warn!(source, why, "source lost; what it said last stands");
                    self.lost.insert(source, why);
                }
                Event::Due => {}
            }
            for error in self.apply().await {
                tracing::error!("{error}");
            }
        }
    }

    /// Closes the listeners, and returns the workers to wait for. Endpoints are still followed, for held sessions.
    pub fn stop_listening(&mut self) -> Option<Workers> {
        self.stop.cancel();
        self.workers.take()
    }

    async fn next_event(&mut self) -> Event {
        let rebind = (!self.unbound.is_empty()).then(|| Instant::now() + REBIND_PAUSE);
        let due = rebind.into_iter().chain(self.linger.next()).min().filter(|_| self.workers.is_some());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // `news` is ours too, so that the channel never closes.
            Some(news) = self.inbox.recv() => Event::News(news),
            () = wait => Event::Due,
        }
    }

    fn found(&mut self, source: &str) {
        if self.lost.remove(source).is_some() {
            tracing::info!(source, "source is back");
        }
    }

    /// Makes what runs equal to what is known. Returns the listeners that newly could not be bound.
    async fn apply(&mut self) -> Vec<BindError> {
        let mut table = self.merged_table();
        self.linger.keep(&self.table, &mut table, Instant::now());
        let diff = route::diff(&self.table, &table);
        self.table = table;
        for listen in &diff.close {
            self.close(listen);
        }
        let pending: Vec<Listen> =
            self.table.keys().filter(|l| !self.running.contains_key(l)).cloned().collect();
        let mut failed = Vec::new();
        for listen in pending {
            failed.extend(self.open(&listen).await);
        }
        self.follow_docker();
        self.follow_targets();
        self.update_clusters();
        self.publish();
        failed
    }

    fn merged_table(&mut self) -> RouteTable {
        let mut layers: Vec<Layer> =
            vec![self.config.arguments.clone(), self.config.environment.clone(), self.knowledge.file.clone()];
        let mut mistakes = Vec::new();
        if let Some(docker) = &self.config.docker {
            let (told, wrong) = self.knowledge.docker_layers(&docker.names, docker.implicit);
            layers.extend(told);
            mistakes = wrong;
        }
        // After this container's links as Docker tells them: a variable says an address of the past.
        layers.push(self.config.links.clone());
        let (table, shadowed) = route::merge(&layers);
        for shadow in shadowed.into_iter().filter(|shadow| !is_one_link_told_twice(shadow)) {
            let text = format!("{} is not used: {} comes first", shadow.route, shadow.by);
            mistakes.push(Diagnostic::new(shadow.route.origin, text));
        }
        self.complain(&mistakes);
        table
    }

    /// Logs the mistakes that were not there before.
    fn complain(&mut self, mistakes: &[Diagnostic]) {
        let now: BTreeSet<String> = mistakes.iter().map(ToString::to_string).collect();
        for mistake in now.difference(&self.mistakes) {
            tracing::warn!("{mistake}");
        }
        self.mistakes = now;
    }

    fn close(&mut self, listen: &Listen) {
        self.unbound.remove(listen);
        if let Some(running) = self.running.remove(listen) {
            running.cluster.close();
            tracing::info!(route = %listen, "route closed");
        }
    }

    async fn open(&mut self, listen: &Listen) -> Option<BindError> {
        let (Some(workers), Some(route)) = (&mut self.workers, self.table.get(listen)) else { return None };
        let listeners = match listener::bind(listen) {
            Ok(listeners) => listeners,
            Err(error) => {
                let known = self.unbound.insert(listen.clone(), error.to_string());
                return known.is_none().then_some(error);
            }
        };
        self.unbound.remove(listen);
        let cluster = Arc::new(Cluster::new(route.options.clone(), self.shared.force.clone()));
        // A first session must not find a cluster that is empty only because nobody filled it yet.
        let resolved = self.knowledge.resolve(route);
        cluster.update(&route.options, &resolved.endpoints);
        let stop = self.stop.child_token();
        let addrs: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.addr).collect();
        tracing::info!(route = %route, origin = %route.origin, "route open");
        let seat = self.shared.room.claim(listeners.len());
        for listener in listeners {
            workers.listen(listener, cluster.clone(), stop.clone()).await;
        }
        // What is not known yet at the start is told by `status`, and logged once it changes.
        let watch = watch(cluster.clone(), self.means.clone());
        let (problems, stop) = (resolved.problems, stop.drop_guard());
        let running = Running { cluster, addrs, problems, _stop: stop, _watch: watch, _seat: seat };
        self.running.insert(listen.clone(), running);
        None
    }

    /// Follows the targets that routes have now, and no longer those that none has.
    fn follow_targets(&mut self) {
        let needed = followed(self.table.values());
        self.followed.retain(|target, _| needed.contains(target));
        self.knowledge.targets.retain(|target, _| needed.contains(target));
        self.lost.retain(|source, _| source == "docker" || needed.iter().any(|t| t.to_string() == *source));
        for target in needed {
            if !self.followed.contains_key(&target)
                && let Some(task) = self.follow(&target)
            {
                self.followed.insert(target, task);
            }
        }
    }

    /// `None` for a target that needs no source of its own.
    fn follow(&self, target: &Target) -> Option<AbortOnDropHandle<()>> {
        let Target::Host { host, port } = target else { return None };
        let trouble = self.shared.gate.trouble();
        let source = Host { host: host.clone(), port: *port, resolver: self.resolver.clone(), trouble };
        Some(follow(source, self.news.clone()))
    }

    /// Docker is asked while something asks for it: the command line, or a route of a file that was read again.
    fn follow_docker(&mut self) {
        let host = match &self.config.docker {
            Some(docker) => Some(&docker.host),
            None if self.table.values().any(Route::wants_docker) => self.config.docker_host.as_ref(),
            None => None,
        };
        match host {
            Some(host) if self.docker.is_none() => {
                self.docker = Some(follow(Docker { host: host.clone() }, self.news.clone()));
            }
            Some(_) => {}
            None => {
                self.docker = None;
                self.knowledge.docker = None;
                self.lost.remove("docker");
            }
        }
    }

    fn update_clusters(&mut self) {
        for (listen, running) in &mut self.running {
            let Some(route) = self.table.get(listen) else { continue };
            let resolved = self.knowledge.resolve(route);
            let change = running.cluster.update(&route.options, &resolved.endpoints);
            let name = &route.options.name;
            for endpoint in &change.left {
                tracing::info!(route = %name, endpoint = %endpoint, "endpoint removed");
            }
            for endpoint in &change.joined {
                tracing::info!(route = %name, endpoint = %endpoint, "endpoint added");
            }
            if running.problems != resolved.problems {
                for problem in &resolved.problems {
                    tracing::warn!(route = %name, "{problem}");
                }
                running.problems = resolved.problems;
            }
        }
    }

    fn publish(&self) {
        let docker = self.docker.is_some() && self.knowledge.docker.is_none();
        self.overview.store(Arc::new(Overview {
            routes: self.table.values().map(|route| self.view(route)).collect(),
            lost: self.lost.clone(),
            mistakes: self.mistakes.iter().cloned().collect(),
            waiting_for_docker: docker && !self.lost.contains_key("docker"),
            workers: self.loads.clone(),
        }));
    }

    fn view(&self, route: &Route) -> RouteView {
        let running = self.running.get(&route.listen);
        let unbound = self.unbound.get(&route.listen);
        let problems = running.map(|running| running.problems.clone()).unwrap_or_default();
        RouteView {
            route: route.clone(),
            cluster: running.map(|running| running.cluster.clone()),
            addrs: running.map(|running| running.addrs.clone()).unwrap_or_default(),
            problems: unbound.cloned().into_iter().chain(problems).collect(),
        }
    }
}
