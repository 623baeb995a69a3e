//! The control loop, in two halves: `desired` computes which routes are to be open and which endpoints each has, and the
//! rest of this module opens listeners, follows sources and updates clusters to match.
//!
//! One task owns all of it, without a lock: sources send [`SourceUpdate`]s, operators send commands, and sessions and the admin
//! API read what is published.

mod changes;
mod closing;
pub(crate) mod command;
mod desired;
mod effects;
mod open_route;
mod open_routes;
mod overview;
mod problems;
mod shared_ports;
mod sources;
mod trial_probes;
mod updates;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::cluster::health::probe::Network;
use crate::cluster::monitor::MonitorContext;
use crate::config::Config;
use crate::connect::LocalAddrs;
use crate::discovery::SourceUpdate;
use crate::drain::Control;
use crate::events::{EventKind, Events};
use crate::listener::BindError;
use crate::route::Listen;
use crate::session::Shared;
use crate::stall::StallCounts;
use crate::worker::{Loads, ReverseDial, Workers};
use command::{Command, CommandError, CommandRequest, CommandSender, Done, Mode, PendingCommand};
use desired::{DesiredState, Outcome};
use open_routes::{OpenRoutes, Unbound};
use sources::{SourceContext, Sources};
use trial_probes::TrialProbes;

pub use desired::overrides::Override;
pub use desired::switches::{LastSwitch, SwitchPhase};
pub use overview::{ByHand, ConfigFile, Overview, Peering, Refused, RouteView, SourceView};

/// Updates that wait for the control loop. Sources wait while there are as many.
const UPDATES_MAX: usize = 1024;

/// The longest rest after a round, in which further updates are collected.
const REST_MAX: Duration = Duration::from_millis(100);

/// What wakes the control loop.
#[derive(Debug)]
enum Wakeup {
    Update(SourceUpdate),
    Command(PendingCommand),
    /// A listener is to be bound again, a grace period has ended, a problem is to be reported, or a switch is to be judged.
    Due,
}

/// The control loop.
pub(crate) struct Reconciler {
    desired: DesiredState,
    routes: OpenRoutes,
    sources: Sources,
    /// Probes of the endpoints of switches on trial.
    probes: TrialProbes,
    local_addrs: LocalAddrs,
    pending_updates: mpsc::Receiver<SourceUpdate>,
    commands: CommandSender,
    pending_commands: mpsc::Receiver<PendingCommand>,
    events: Arc<Events>,
    loads: Loads,
    stalls: StallCounts,
    overview: Arc<ArcSwap<Overview>>,
    started_at: SystemTime,
    /// When a problem of a route is to be reported.
    next_problem: Option<Instant>,
    /// Until then updates are only collected.
    rest_until: Instant,
}

impl Reconciler {
    /// Creates a control loop that has neither opened a route nor followed a source.
    pub(crate) fn new(
        config: Config,
        workers: Workers,
        shared: Arc<Shared>,
        control: &Control,
        events: Arc<Events>,
        stalls: StallCounts,
    ) -> Reconciler {
        let (updates, pending_updates) = mpsc::channel(UPDATES_MAX);
        let (commands, pending_commands) = CommandSender::channel();
        let monitor_context = MonitorContext::new(Network, config.settings.max_ejected, events.clone());
        let context = SourceContext {
            updates,
            reload: control.reload.clone(),
            trouble: shared.hold_limit.refresh(),
            reverse_peers: shared.peers.reverse_peers(),
        };
        let peer_settings = config.settings.peer.clone();
        Reconciler {
            sources: Sources::new(&config, context),
            desired: DesiredState::new(config),
            loads: workers.loads(),
            routes: OpenRoutes::new(workers, monitor_context, shared, events.clone(), peer_settings),
            probes: TrialProbes::default(),
            local_addrs: LocalAddrs::default(),
            pending_updates,
            commands,
            pending_commands,
            events,
            stalls,
            overview: Arc::default(),
            started_at: SystemTime::now(),
            next_problem: None,
            rest_until: Instant::now(),
        }
    }

    /// Returns where sources send their updates.
    pub(crate) fn updates(&self) -> mpsc::Sender<SourceUpdate> {
        self.sources.updates()
    }

    /// Returns where operators send their commands.
    pub(crate) fn commands(&self) -> CommandSender {
        self.commands.clone()
    }

    /// Returns what is published after each round.
    pub(crate) fn overview(&self) -> Arc<ArcSwap<Overview>> {
        self.overview.clone()
    }

    /// Runs the first round, with what is known before any source has reported.
    ///
    /// # Errors
    ///
    /// Returns the listeners that cannot be bound.
    pub(crate) async fn begin(&mut self) -> Result<(), Vec<BindError>> {
        let failed = self.apply().await;
        if failed.is_empty() { Ok(()) } else { Err(failed.into_iter().map(|(_, error)| error).collect()) }
    }

    /// Runs until `end`. A round that has begun is finished first, so that no command is executed by half.
    ///
    /// Dropping the future at any await loses nothing: see [`OpenRoutes::apply`].
    pub(crate) async fn run_until(&mut self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            let wakeup = tokio::select! {
                biased;
                () = &mut end => return,
                wakeup = self.next_wakeup() => wakeup,
            };
            self.handle(wakeup).await;
        }
    }

    async fn next_wakeup(&mut self) -> Wakeup {
        let now = Instant::now();
        let due = self.routes.next(now).into_iter().chain(self.desired.next(now)).chain(self.next_problem);
        let due = due.min().filter(|_| self.routes.is_listening());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sending halves are part of `self`, so that the channels never close.
            Some(update) = self.pending_updates.recv() => Wakeup::Update(update),
            Some(command) = self.pending_commands.recv() => Wakeup::Command(command),
            () = wait => Wakeup::Due,
        }
    }

    async fn handle(&mut self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Update(update) => {
                self.handle_update(update);
                self.handle_pending_updates().await;
                self.apply_and_log().await;
            }
            Wakeup::Command(PendingCommand { request, reply }) => {
                // The client may have disconnected.
                let _ = reply.send(self.execute(&request).await);
            }
            Wakeup::Due => self.handle_due(Instant::now()).await,
        }
    }

    /// Does what is due. A round follows only if something has changed: switches on trial are judged often.
    async fn handle_due(&mut self, now: Instant) {
        self.routes.finish_closed(now);
        let has_trial_ended = self.judge_switches(now);
        let have_probes_changed = self.probes.have_changed();
        self.log_settled_problems(now);
        if has_trial_ended || have_probes_changed || self.routes.has_unbound() || self.desired.is_due(now) {
            self.apply_and_log().await;
        }
    }

    /// Executes one command, or changes nothing.
    async fn execute(&mut self, request: &CommandRequest) -> Result<Done, CommandError> {
        if !self.routes.is_listening() {
            return Err(CommandError::Unavailable("the ambassador is stopping"));
        }
        let CommandRequest { command, mode } = request;
        let (Outcome { event, must_bind, .. }, done) = self.change(command, *mode)?;
        if *mode == Mode::DryRun {
            return Ok(done);
        }
        if matches!(command, Command::Switch(_)) {
            self.probes.stop(&done.route);
        }
        match must_bind {
            Some(listen) => {
                self.open_added(&listen, &done.route).await?;
                self.emit(event);
            }
            None => {
                self.emit(event);
                self.apply_and_log().await;
            }
        }
        Ok(done)
    }

    /// Opens the route that was added, or undoes the addition.
    async fn open_added(&mut self, listen: &Listen, name: &str) -> Result<(), CommandError> {
        let failed = self.apply().await;
        if self.routes.unbound(listen).is_none() {
            return Ok(());
        }
        self.desired.undo_add(name);
        self.apply_and_log().await;
        let why: Vec<String> = failed.iter().map(|(_, error)| error.to_string()).collect();
        Err(CommandError::NotBound(why.join("; ")))
    }

    /// Ends the trials of switches that have settled or failed. Returns whether any has ended.
    fn judge_switches(&mut self, now: Instant) -> bool {
        let on_trial = self.desired.switches_on_trial();
        let (routes, probes) = (&self.routes, &self.probes);
        let unsettled = |name: &str, is_pending: bool| match routes.named(name) {
            None => Some("the route is not open".to_owned()),
            Some(open) => probes.unanswered(name).or_else(|| open.unsettled(is_pending)),
        };
        let events = self.desired.judge_switches(now, unsettled);
        self.emit(events);
        self.desired.switches_on_trial() < on_trial
    }

    fn log_settled_problems(&mut self, now: Instant) {
        if self.next_problem.is_some_and(|due| due <= now) {
            let events = self.routes.settle_problems(now);
            self.emit(events);
            self.next_problem = self.routes.next_problem();
        }
    }

    async fn apply_and_log(&mut self) {
        let began = Instant::now();
        for (route, error) in self.apply().await {
            self.events.emit(EventKind::RouteNotBound { route, why: error.to_string() });
        }
        self.rest_until = Instant::now() + began.elapsed().min(REST_MAX);
    }

    /// One round: recomputes the desired state, and changes what runs until it matches. Returns the listeners that could not
    /// be bound, unless they were unbound before.
    async fn apply(&mut self) -> Vec<Unbound> {
        let events = self.desired.update(Instant::now());
        self.emit(events);
        let failed = self.routes.apply(&self.desired).await;
        self.sources.follow_needed(&mut self.desired);
        self.update_clusters(Instant::now());
        if self.sources.unanswered(&self.desired).is_empty() {
            self.routes.complete_exports();
        }
        self.publish();
        failed
    }

    fn update_clusters(&mut self, now: Instant) {
        let Reconciler { desired, routes, probes, local_addrs, events, .. } = self;
        let plan = desired.plan(routes.bound(), |ip| local_addrs.has(ip));
        probes.retain(|name| desired.is_on_trial(name));
        plan.on_trial().for_each(|(route, endpoints)| probes.start(route, endpoints, &Network));
        let is_unconfirmed = |name: &str| probes.unanswered(name).is_some();
        let mut completed = Vec::new();
        for cluster in plan.clusters(is_unconfirmed, |ip| local_addrs.has(ip)) {
            if !cluster.is_pending {
                completed.push(cluster.route.options.name.clone());
            }
            if let Some(open) = routes.of_mut(&cluster.route.listen) {
                let changes = open.apply(cluster, desired.containers(), now);
                changes.into_iter().for_each(|event| events.emit(event));
            }
        }
        desired.complete_switches(&completed);
        self.next_problem = self.routes.next_problem();
    }

    fn emit(&self, events: impl IntoIterator<Item = EventKind>) {
        events.into_iter().for_each(|event| self.events.emit(event));
    }

    /// Closes the listeners, and returns the workers to wait for. Sources are still followed, for held sessions.
    pub(crate) fn stop_listening(&mut self) -> Option<Workers> {
        self.routes.stop()
    }

    /// Has each worker keep a tunnel to a peer, in which the peer opens sessions.
    pub(crate) fn dial_reverse(&self, dial: &ReverseDial) {
        self.routes.dial_reverse(dial);
    }

    /// Returns the current sessions of all open routes.
    pub(crate) fn sessions(&self) -> usize {
        self.routes.sessions()
    }
}

#[cfg(test)]
mod tests;
