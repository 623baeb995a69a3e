//! The control loop: discovery comes in, the merged table of routes comes out, and the difference to what runs is done.
//!
//! One owner for all of it, and no lock: sources send [`SourceUpdate`], sessions and the admin API read what is published.

mod closing;
mod follow;
mod hear;
mod linger;
mod loops;
mod moves;

pub mod command;
mod commands;
pub mod overrides;
mod problems;
mod proof;
mod running;
pub mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::address::EndpointSpec;
use crate::cluster::Cluster;
use crate::cluster::health::probe::Network;
use crate::cluster::monitor::{self, MonitorContext, OWN_PROBES};
use crate::config::{AdminAddr, Config};
use crate::connect::LocalAddrs;
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::SourceUpdate;
use crate::discovery::dns::Resolver;
use crate::discovery::label::Policy;
use crate::discovery::state::{DiscoveryState, DockerLayers, Resolved};
use crate::drain::Control;
use crate::events::{EventKind, Events};
use crate::listener::{self, BindError, Listener};
use crate::route::{self, Layer, Listen, OnRemove, Route, RouteTable, Shadowed, Target};
use crate::session::Shared;
use crate::stall::StallCounts;
use crate::worker::{Loads, Workers};
use closing::Closing;
use command::{CommandSender, PendingCommand};
use linger::Linger;
use loops::{Ports, Wanted};
use moves::Moves;
use overrides::Overrides;
use problems::Problems;
use proof::Proofs;
use running::Running;
use trial::Trials;

pub use view::{ByHand, ConfigFile, Overview, Refused, RouteView};

/// How long after a listener could not be bound it is tried again.
const REBIND_PAUSE: Duration = Duration::from_secs(1);

/// Snapshots on their way; all that wait are applied at once. Sources wait while there are so many.
const UPDATES_MAX: usize = 1024;

/// How long the loop rests at most after a long round, while sources have more to say.
const REST_MAX: Duration = Duration::from_millis(100);

/// Routes closed in a row before the workers, which close their listeners, get time for their sessions.
const CLOSE_BURST: usize = 64;
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// Routes opened in a row before the rest of the control thread, signals included, gets its turn.
const OPEN_BURST: usize = 64;

/// Lines kept to be logged once. When there are more, they are forgotten.
const REPORTED_MAX: usize = 4096;

/// All that wakes the control loop.
#[derive(Debug)]
enum Event {
    SourceUpdate(SourceUpdate),
    Command(PendingCommand),
    /// Time to try again what could not be bound, to close what has lingered, to end what is closed, or to judge a switch.
    Due,
}

pub struct Reconciler {
    config: Config,
    discovery: DiscoveryState,
    table: RouteTable,
    running: BTreeMap<Listen, Running>,
    /// Why these listeners of the table do not run.
    unbound: BTreeMap<Listen, String>,
    closing: Closing,
    linger: Linger,
    /// What the sources tell, before the overrides.
    told: RouteTable,
    overrides: Overrides,
    trials: Trials,
    moves: Moves,
    proofs: Proofs,
    /// Mistakes that are there now.
    mistakes: BTreeSet<String>,
    /// Mistakes and notices that were logged, so that none is repeated. At most [`REPORTED_MAX`].
    reported: BTreeSet<String>,
    notices: Vec<String>,
    /// When a problem of a route is to be reported.
    settling: Option<Instant>,
    /// Sources that are lost, and why.
    lost: BTreeMap<String, String>,
    /// `None` without a configuration file.
    file: Option<ConfigFile>,
    /// How often the task of a source has panicked, by its name.
    panics: BTreeMap<String, u64>,
    resolver: Resolver,
    local_addrs: LocalAddrs,
    followed: BTreeMap<Target, AbortOnDropHandle<()>>,
    docker: Option<AbortOnDropHandle<()>>,
    news: mpsc::Sender<SourceUpdate>,
    inbox: mpsc::Receiver<SourceUpdate>,
    commands: CommandSender,
    pending_commands: mpsc::Receiver<PendingCommand>,
    events: Arc<Events>,
    /// `None` once no new listener shall be opened.
    workers: Option<Workers>,
    loads: Loads,
    stalls: StallCounts,
    means: Arc<MonitorContext<Network>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// `SIGHUP`, for the files of endpoints.
    reload: Arc<Notify>,
    overview: Arc<ArcSwap<Overview>>,
    /// Until then sources get the thread to themselves, if they have more to say.
    rested: Instant,
}

impl Reconciler {
    pub fn new(
        config: Config,
        workers: Workers,
        shared: Arc<Shared>,
        control: &Control,
        events: Arc<Events>,
        stalls: StallCounts,
    ) -> Reconciler {
        let (news, inbox) = mpsc::channel(UPDATES_MAX);
        let means = Arc::new(MonitorContext::new(Network, config.settings.max_ejected, events.clone()));
        let (commands, pending_commands) = CommandSender::channel();
        Reconciler {
            resolver: Resolver::from_system().within(config.settings.dns),
            discovery: DiscoveryState { file: config.file.clone(), ..DiscoveryState::default() },
            file: config.path.clone().map(ConfigFile::loaded),
            config,
            table: RouteTable::new(),
            running: BTreeMap::new(),
            unbound: BTreeMap::new(),
            closing: Closing::default(),
            linger: Linger::default(),
            told: RouteTable::new(),
            overrides: Overrides::default(),
            trials: Trials::default(),
            moves: Moves::default(),
            proofs: Proofs::default(),
            local_addrs: LocalAddrs::default(),
            mistakes: BTreeSet::new(),
            reported: BTreeSet::new(),
            notices: Vec::new(),
            settling: None,
            lost: BTreeMap::new(),
            panics: BTreeMap::new(),
            followed: BTreeMap::new(),
            docker: None,
            news,
            inbox,
            commands,
            pending_commands,
            events,
            loads: workers.loads(),
            stalls,
            means,
            workers: Some(workers),
            shared,
            stop: control.stop.clone(),
            reload: control.reload.clone(),
            overview: Arc::default(),
            rested: Instant::now(),
        }
    }

    pub fn news(&self) -> mpsc::Sender<SourceUpdate> {
        self.news.clone()
    }

    pub fn commands(&self) -> CommandSender {
        self.commands.clone()
    }

    pub fn overview(&self) -> Arc<ArcSwap<Overview>> {
        self.overview.clone()
    }

    /// The first round: what is known without asking anybody. A listener that cannot be bound now is an error.
    pub async fn begin(&mut self) -> Result<(), Vec<BindError>> {
        let failed = self.apply().await;
        if failed.is_empty() { Ok(()) } else { Err(failed.into_iter().map(|(_, error)| error).collect()) }
    }

    /// Until `end`. A round that has begun is finished first, so that a command is not carried out by half.
    ///
    /// Dropping it at any await loses nothing either: what was opened belongs to `self` before the next await, and each
    /// round compares what runs with what is to run, not with what the round before meant to do.
    pub async fn run_until(&mut self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let event = tokio::select! {
                biased;
                () = &mut end => return,
                event = self.next_event() => event,
            };
            self.handle(event).await;
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::SourceUpdate(news) => {
                self.handle_update(news);
                self.handle_pending_updates().await;
            }
            Event::Command(PendingCommand { command, reply }) => {
                // Whoever gave it may have left.
                let _ = reply.send(self.execute(command).await);
                return;
            }
            Event::Due => {
                self.closing.finish(Instant::now());
                let is_judged = self.judge_switches();
                let is_proven = self.proofs.has_news();
                self.settle_problems(Instant::now());
                // While a switch is on trial it is asked often, and mostly nothing has come of it.
                if !is_judged && !is_proven && self.unbound.is_empty() && !self.linger.is_due(Instant::now())
                {
                    return;
                }
            }
        }
        self.apply_and_note().await;
    }

    /// Closes the listeners, and returns the workers to wait for. Endpoints are still followed, for held sessions.
    pub fn stop_listening(&mut self) -> Option<Workers> {
        self.stop.cancel();
        self.running.values().for_each(|running| running.stop.cancel());
        self.workers.take()
    }

    /// Sessions now, of all routes that are open.
    pub fn sessions(&self) -> usize {
        let active = |running: &Running| running.cluster.counters.active.load(Ordering::Relaxed);
        self.running.values().map(active).sum()
    }

    async fn next_event(&mut self) -> Event {
        let rebind = (!self.unbound.is_empty()).then(|| Instant::now() + REBIND_PAUSE);
        let judge = self.trials.next(Instant::now());
        let due = rebind
            .into_iter()
            .chain(judge)
            .chain(self.linger.next())
            .chain(self.closing.next())
            .chain(self.settling)
            .min()
            .filter(|_| self.workers.is_some());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sending halves are ours too, so that the channels never close.
            Some(news) = self.inbox.recv() => Event::SourceUpdate(news),
            Some(pending_commands) = self.pending_commands.recv() => Event::Command(pending_commands),
            () = wait => Event::Due,
        }
    }

    async fn apply_and_note(&mut self) {
        let began = Instant::now();
        for (route, error) in self.apply().await {
            self.events.emit(EventKind::RouteNotBound { route, why: error.to_string() });
        }
        self.rested = Instant::now() + began.elapsed().min(REST_MAX);
    }

    /// Makes what runs equal to what is known. Returns the listeners that newly could not be bound, each with its route's
    /// name.
    async fn apply(&mut self) -> Vec<(String, BindError)> {
        let now = Instant::now();
        let mut told = self.merged_table(now);
        self.linger.keep(&self.told, &mut told, now);
        let table = self.overrides.table(&told);
        for route in route::diff(&self.told, &told).replace {
            self.events.emit(replaced(&route));
        }
        self.told = told;
        self.moves.retain(&table);
        self.table = table;
        self.close_others().await;
        let failed = self.open_missing().await;
        self.shared.divide(self.running.values().map(|running| &*running.cluster));
        self.follow_docker();
        self.follow_targets();
        self.update_clusters();
        self.publish();
        failed
    }

    fn merged_table(&mut self, now: Instant) -> RouteTable {
        let mut layers: Vec<Layer> =
            vec![self.config.arguments.clone(), self.config.environment.clone(), self.discovery.file.clone()];
        let mut mistakes = Vec::new();
        if let Some(docker) = &self.config.docker {
            let policy = docker.implicit.then(|| self.label_policy(docker.share_labels, now));
            let DockerLayers { layers: told, mistakes: wrong, notices } =
                self.discovery.docker_layers(&docker.names, policy.as_ref(), &layers);
            layers.extend(told);
            mistakes = wrong;
            self.announce(notices);
        }
        // After this container's links as Docker tells them: a variable says an address of the past.
        layers.push(self.config.links.clone());
        let (table, shadowed) = route::merge(&self.overrides.layers(layers));
        self.supersede_variables(&shadowed);
        let shadowed = shadowed.iter().filter(|shadow| !is_one_link_told_twice(shadow));
        mistakes.extend(shadowed.map(Shadowed::diagnostic));
        self.complain(&mistakes);
        table
    }

    fn label_policy(&self, share: bool, now: Instant) -> Policy<'_> {
        let admin_port = match self.config.settings.admin {
            Some(AdminAddr::Tcp(addr)) => Some(addr.port()),
            Some(AdminAddr::Unix(_) | AdminAddr::Abstract(_)) | None => None,
        };
        let serving = self
            .told
            .iter()
            .filter(|(listen, route)| linger::is_docker(&route.origin) && !self.linger.is_over(listen, now));
        Policy { serving: serving.collect(), share, admin_port }
    }

    /// A link variable has an address from before we were started. Once Docker has named the container that a listener leads to,
    /// the variable is never used again: the address may be another container's.
    fn supersede_variables(&mut self, shadowed: &[Shadowed]) {
        let is_superseded = |shadow: &&Shadowed| {
            matches!(shadow.route.origin, Place::Variable(_))
                && matches!(shadow.by, Place::Link(_) | Place::Name(_))
        };
        for shadow in shadowed.iter().filter(is_superseded) {
            self.config.links.routes.retain(|route| route.listen != shadow.route.listen);
        }
    }

    /// Logs the mistakes that were not logged before.
    fn complain(&mut self, mistakes: &[Diagnostic]) {
        self.mistakes = mistakes.iter().map(Diagnostic::one_line).collect();
        let new: Vec<String> = self.mistakes.difference(&self.reported).cloned().collect();
        for why in new {
            self.remember_report(&why);
            self.events.emit(EventKind::Mistake { why });
        }
    }

    /// The same for notices.
    fn announce(&mut self, notices: Vec<String>) {
        for why in notices.iter().filter(|why| !self.reported.contains(*why)) {
            self.events.emit(EventKind::Notice { why: why.clone() });
        }
        notices.iter().for_each(|why| self.remember_report(why));
        self.notices = notices;
    }

    fn remember_report(&mut self, why: &str) {
        if self.reported.len() >= REPORTED_MAX {
            self.reported.clear();
        }
        self.reported.insert(why.to_owned());
    }

    fn settle_problems(&mut self, now: Instant) {
        if self.settling.is_none_or(|due| now < due) {
            return;
        }
        for running in self.running.values_mut() {
            running.settle(now).into_iter().for_each(|happened| self.events.emit(happened));
        }
        self.settling = self.running.values().filter_map(|running| running.problems.due()).min();
    }

    /// Closes what is not in the table.
    async fn close_others(&mut self) {
        let table = &self.table;
        self.unbound.retain(|listen, _| table.contains_key(listen));
        let others: Vec<Listen> = self.running.keys().filter(|l| !table.contains_key(l)).cloned().collect();
        for (n, listen) in others.iter().enumerate() {
            self.close(listen);
            if n % CLOSE_BURST == CLOSE_BURST - 1 {
                tokio::time::sleep(CLOSE_PAUSE).await;
            }
        }
    }

    /// Opens what is in the table and does not run, until the process is told to stop. Returns those that newly could not
    /// be bound.
    async fn open_missing(&mut self) -> Vec<(String, BindError)> {
        let running = &self.running;
        let missing: Vec<Listen> = self.table.keys().filter(|l| !running.contains_key(l)).cloned().collect();
        let deadline = Closing::deadline();
        let mut failed = Vec::new();
        for (n, listen) in missing.iter().enumerate() {
            if self.stop.is_cancelled() {
                break;
            }
            failed.extend(self.open(listen, deadline).await);
            if n % OPEN_BURST == OPEN_BURST - 1 {
                tokio::task::yield_now().await;
            }
        }
        failed
    }

    fn close(&mut self, listen: &Listen) {
        if let Some(running) = self.running.remove(listen) {
            let route = running.cluster.members().options.name.clone();
            self.events.emit(EventKind::RouteClosed { route });
            self.shared.withdraw(&running.cluster);
            self.closing.add(listen.clone(), running, Instant::now());
        }
    }

    /// Waits for nothing but listeners of ours that close and have the address still, until `deadline` at most.
    async fn open(&mut self, listen: &Listen, deadline: tokio::time::Instant) -> Option<(String, BindError)> {
        self.workers.as_ref()?;
        let mut bound = listener::bind(listen);
        if bound.as_ref().is_err_and(BindError::is_in_use) && self.closing.wait(listen, deadline).await {
            bound = listener::bind(listen);
        }
        match bound {
            Ok(listeners) => {
                self.start(listen, listeners);
                None
            }
            Err(error) => {
                let known = self.unbound.insert(listen.clone(), error.to_string());
                let route = self.table.get(listen).filter(|_| known.is_none())?;
                Some((route.options.name.clone(), error))
            }
        }
    }

    /// Gives the listeners of a route to the workers.
    fn start(&mut self, listen: &Listen, listeners: Vec<Listener>) {
        let (Some(workers), Some(route)) = (&mut self.workers, self.table.get(listen)) else { return };
        self.unbound.remove(listen);
        let cluster = Cluster::new(route.options.clone(), self.shared.force.clone());
        let cluster = Arc::new(cluster.within(self.shared.fds.route(listen.protocol())));
        // A first session must not find a cluster that is empty only because nobody filled it yet.
        let resolved = resolve(&self.discovery, &self.overrides, route);
        cluster.pause(self.overrides.is_paused(&route.options.name));
        cluster.update(&route.options, &resolved.endpoints);
        // No child of the process's: workers and we would meet at the lock of the parent whenever a route closes.
        let stop = CancellationToken::new();
        let addrs: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.addr).collect();
        self.events.emit(opened(route));
        let fds = self.shared.fds.listeners(listeners.len() + OWN_PROBES);
        let open = TaskTracker::new();
        for listener in listeners {
            workers.listen(listener, cluster.clone(), stop.clone(), open.token());
        }
        // What is not known yet at the start is told by `status`, and logged once it changes.
        let monitor = monitor::spawn(cluster.clone(), self.means.clone());
        let running = Running {
            cluster,
            listeners: open,
            addrs,
            problems: Problems::new(resolved.problems, Instant::now()),
            leaving: Vec::new(),
            retired: Vec::new(),
            _closes: stop.clone().drop_guard(),
            stop,
            _monitor: monitor,
            _fds: fds,
        };
        self.running.insert(listen.clone(), running);
    }

    fn update_clusters(&mut self) {
        let now = Instant::now();
        let mut ports = Ports::default();
        let mut wanted = Vec::new();
        for (listen, running) in &self.running {
            let Some(route) = self.table.get(listen) else { continue };
            ports.add(route, &running.addrs);
            let Resolved { endpoints, problems } = resolve(&self.discovery, &self.overrides, route);
            wanted.push(Wanted { route, endpoints, problems, cyclic: Vec::new() });
        }
        loops::leave_out(&ports, &mut wanted, |ip| self.local_addrs.has(ip));
        let trials = &self.trials;
        self.proofs.retain(|name| trials.is_on_trial(name));
        for Wanted { route, endpoints, .. } in &wanted {
            if trials.is_on_trial(&route.options.name) {
                self.proofs.ask(route, endpoints, &Network);
            }
        }
        let serve_on = serve_on(&self.moves, &self.proofs, &mut wanted, |before| {
            resolve(&self.discovery, &self.overrides, before).endpoints
        });
        if !serve_on.is_empty() {
            loops::leave_out(&ports, &mut wanted, |ip| self.local_addrs.has(ip));
        }
        for Wanted { route, endpoints, problems, cyclic } in wanted {
            let Some(running) = self.running.get_mut(&route.listen) else { continue };
            let name = &route.options.name;
            let mut options = route.options.clone();
            if !serve_on.contains(name) {
                options.on_remove = self.moves.finish(name).unwrap_or(options.on_remove);
            }
            if running.has_any(&cyclic) {
                // Sessions on a cycle keep each other alive.
                options.on_remove = OnRemove::Cut;
            }
            running.cluster.pause(self.overrides.is_paused(name));
            let changes = running.update(&options, &endpoints);
            // A different policy applied only to the endpoints that left.
            running.cluster.update(&route.options, &endpoints);
            let healthy = self.discovery.docker.as_deref().map(|containers| running.note_health(containers));
            let is_served = endpoints.iter().any(|endpoint| endpoint.weight > 0);
            let up = running.problems.update(name, problems, is_served, now);
            let problem = running.problems.current().first().filter(|_| endpoints.is_empty());
            running.cluster.set_problem(problem);
            changes
                .into_iter()
                .chain(up)
                .chain(healthy.into_iter().flatten())
                .for_each(|happened| self.events.emit(happened));
        }
        self.settling = self.running.values().filter_map(|running| running.problems.due()).min();
    }
}

/// Gives routes whose new targets have no endpoint yet, or one that is on trial and has not answered, the endpoints of before. Returns the names of these routes.
fn serve_on(
    moves: &Moves,
    proofs: &Proofs,
    wanted: &mut [Wanted<'_>],
    endpoints: impl Fn(&Route) -> Vec<EndpointSpec>,
) -> BTreeSet<String> {
    let mut serve_on = BTreeSet::new();
    for wanted in wanted {
        let name = &wanted.route.options.name;
        if !wanted.endpoints.is_empty() && proofs.missing(name).is_none() {
            continue;
        }
        if let Some(before) = moves.of(name) {
            wanted.endpoints = endpoints(before);
            serve_on.insert(name.clone());
        }
    }
    serve_on
}

/// The endpoints of a route, as the operator weighs them.
fn resolve(discovery: &DiscoveryState, overrides: &Overrides, route: &Route) -> Resolved {
    let mut resolved = discovery.resolve(route);
    overrides.weigh(&route.options.name, &mut resolved.endpoints);
    resolved
}

fn opened(route: &Route) -> EventKind {
    EventKind::RouteOpened {
        route: route.options.name.clone(),
        line: route.to_string(),
        origin: route.origin.to_string(),
    }
}

fn replaced(route: &Route) -> EventKind {
    EventKind::RouteReplaced {
        route: route.options.name.clone(),
        line: route.to_string(),
        origin: route.origin.to_string(),
    }
}

/// A link's variable and the same link from Docker.
fn is_one_link_told_twice(shadow: &Shadowed) -> bool {
    matches!((&shadow.route.origin, &shadow.by), (Place::Variable(_), Place::Link(_)))
}

#[cfg(test)]
mod tests;
