//! The open routes: listeners are opened and closed until they match the desired table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::closing::ClosingRoutes;
use super::desired::{BoundRoute, DesiredState};
use super::open_route::OpenRoute;
use super::overview::Peering;
use super::problems::Problems;
use super::shared_ports::SharedPorts;
use crate::address::EndpointKey;
use crate::cluster::Cluster;
use crate::cluster::health::probe::Network;
use crate::cluster::monitor::{self, MonitorContext, OWN_PROBES};
use crate::config::peer::PeerSettings;
use crate::events::{EventKind, Events};
use crate::fd_budget::ListenerFds;
use crate::history::History;
use crate::listener::{self, BindError, Listener};
use crate::route::{Listen, Route};
use crate::session::Shared;
use crate::session::exports::ExportMap;
use crate::tls::Tls;
use crate::worker::{ReverseDial, Serves, Workers};

/// Retry interval of listeners that could not be bound.
const REBIND_PAUSE: Duration = Duration::from_secs(1);

/// Routes closed in a row before a pause, in which the workers, which close their listeners, serve sessions.
pub(super) const CLOSE_BURST: usize = 64;
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// Routes opened in a row before the loop yields to the rest of the control thread, signals included.
const OPEN_BURST: usize = 64;

/// What the listener for tunnels is called where routes have a name.
const PEERS: &str = "peers";

/// A listener that could not be bound, with the name of its route.
pub(super) type Unbound = (String, BindError);

pub(super) struct OpenRoutes {
    open: BTreeMap<Listen, OpenRoute>,
    /// Why these listeners of the table are not open.
    unbound: BTreeMap<Listen, String>,
    closing: ClosingRoutes,
    /// The listeners of routes that share one.
    shared_ports: SharedPorts,
    /// `None` once no listener is to be opened.
    workers: Option<Workers>,
    monitor_context: Arc<MonitorContext<Network>>,
    shared: Arc<Shared>,
    events: Arc<Events>,
    peer_settings: PeerSettings,
    /// The listener for tunnels, once a route has needed it.
    peer_listener: Option<PeerListener>,
}

/// The listener of `--peer-listen`. Open until the process stops: a route that needs it may be back soon.
struct PeerListener {
    addrs: Vec<SocketAddr>,
    stop: CancellationToken,
    _open: TaskTracker,
    _fds: ListenerFds,
}

impl OpenRoutes {
    pub(super) fn new(
        workers: Workers,
        monitor_context: MonitorContext<Network>,
        shared: Arc<Shared>,
        events: Arc<Events>,
        peer_settings: PeerSettings,
    ) -> OpenRoutes {
        OpenRoutes {
            open: BTreeMap::new(),
            unbound: BTreeMap::new(),
            closing: ClosingRoutes::default(),
            shared_ports: SharedPorts::default(),
            workers: Some(workers),
            monitor_context: Arc::new(monitor_context),
            shared,
            events,
            peer_settings,
            peer_listener: None,
        }
    }

    /// Opens and closes listeners until they match the desired table. Returns those that could not be bound, unless they were
    /// unbound before.
    ///
    /// Dropping the future at any await loses nothing: what was opened belongs to `self` before the next await, and each call
    /// compares what is open with the table, not with the intent of an earlier call.
    pub(super) async fn apply(&mut self, desired: &DesiredState) -> Vec<Unbound> {
        self.close_removed(desired).await;
        let mut failed = self.open_missing(desired).await;
        self.shared.divide(self.open.values().map(|route| &*route.cluster));
        self.shared.exports.publish(self.exports());
        self.shared.tls.retain(desired.table().values());
        self.shared_ports.publish(&self.open, desired.table(), self.workers.as_mut());
        // After the exports, so that the first peer finds them.
        failed.extend(self.listen_for_peers(desired));
        failed
    }

    /// Opens the listener for tunnels if a route needs it.
    fn listen_for_peers(&mut self, desired: &DesiredState) -> Option<Unbound> {
        let workers = self.workers.as_mut().filter(|_| self.peer_listener.is_none())?;
        let listen = self.peer_settings.listener(desired.table().values())?;
        match listener::bind(&listen) {
            Ok(listeners) => {
                self.unbound.remove(&listen);
                let (stop, open) = (CancellationToken::new(), TaskTracker::new());
                let addrs: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.addr).collect();
                let fds = self.shared.fds.listeners(listeners.len());
                for listener in listeners {
                    let serves = Serves::Peers(self.shared.tunnel_fds.clone());
                    workers.listen(listener, serves, stop.clone(), open.token());
                }
                tracing::info!(listen = %listen, "listening for peers");
                self.peer_listener = Some(PeerListener { addrs, stop, _open: open, _fds: fds });
                None
            }
            Err(error) => {
                let known = self.unbound.insert(listen, error.to_string());
                known.is_none().then(|| (PEERS.to_owned(), error))
            }
        }
    }

    /// Records that every source has reported, so that no further export appears by itself.
    pub(super) fn complete_exports(&self) {
        self.shared.exports.complete();
    }

    /// Returns what is shown of the peers. `None` without credentials.
    pub(super) fn peering(&self) -> Option<Peering> {
        self.shared.peers.credentials()?;
        Some(Peering {
            peers: self.shared.peers.clone(),
            listen: self.peer_listener.as_ref().map(|listener| listener.addrs.clone()).unwrap_or_default(),
            dial: self.peer_settings.dial.clone(),
        })
    }

    /// Returns what counts the connections to shared ports that belong to no route, by the address of the port.
    pub(super) fn unnamed(&self) -> Vec<(String, Arc<Cluster>)> {
        self.shared_ports.unnamed()
    }

    /// Returns the certificates and CAs of routes.
    pub(super) fn tls(&self) -> Arc<Tls> {
        self.shared.tls.clone()
    }

    pub(super) fn history(&self) -> Arc<History> {
        self.shared.history.clone()
    }

    /// Has each worker keep a tunnel to a peer.
    pub(super) fn dial_reverse(&self, dial: &ReverseDial) {
        self.workers.iter().for_each(|workers| workers.dial_reverse(dial));
    }

    /// Returns the open routes that are offered to peers.
    fn exports(&self) -> ExportMap {
        let export = |(listen, route): (&Listen, &OpenRoute)| match listen {
            Listen::Peer { protocol, name } => Some(((*protocol, name.clone()), route.cluster.clone())),
            Listen::Inet { .. } | Listen::Names { .. } | Listen::Unix(_) => None,
        };
        self.open.iter().filter_map(export).collect()
    }

    async fn close_removed(&mut self, desired: &DesiredState) {
        let table = desired.table();
        let peers = self.peer_settings.listener(table.values());
        self.unbound.retain(|listen, _| table.contains_key(listen) || peers.as_ref() == Some(listen));
        let removed: Vec<Listen> = self.open.keys().filter(|l| !table.contains_key(l)).cloned().collect();
        for (n, listen) in removed.iter().enumerate() {
            self.close(listen);
            if n % CLOSE_BURST == CLOSE_BURST - 1 {
                tokio::time::sleep(CLOSE_PAUSE).await;
            }
        }
    }

    /// Opens what the table has and is not open, until the process is stopping.
    async fn open_missing(&mut self, desired: &DesiredState) -> Vec<Unbound> {
        let open = &self.open;
        let missing: Vec<&Route> =
            desired.table().values().filter(|route| !open.contains_key(&route.listen)).collect();
        let deadline = ClosingRoutes::deadline();
        let mut failed = Vec::new();
        for (n, route) in missing.into_iter().enumerate() {
            if self.shared.stop.is_cancelled() {
                break;
            }
            failed.extend(self.open(route, desired, deadline).await);
            if n % OPEN_BURST == OPEN_BURST - 1 {
                tokio::task::yield_now().await;
            }
        }
        failed
    }

    fn close(&mut self, listen: &Listen) {
        if let Some(mut route) = self.open.remove(listen) {
            if let Some(listeners) = self.shared_ports.close_unused(listen, &self.open) {
                route.listeners = listeners;
            }
            let name = route.cluster.members().options.name.clone();
            self.events.emit(EventKind::RouteClosed { route: name });
            self.shared.withdraw(&route.cluster);
            self.closing.add(listen.clone(), route, Instant::now());
        }
    }

    /// Opens one route. Waits only for overlapping listeners that are being closed, and until `deadline` at most.
    async fn open(
        &mut self,
        route: &Route,
        desired: &DesiredState,
        deadline: tokio::time::Instant,
    ) -> Option<Unbound> {
        self.workers.as_ref()?;
        let listen = &route.listen;
        let mut bound =
            if self.shared_ports.is_bound(listen) { Ok(Vec::new()) } else { listener::bind(listen) };
        if bound.as_ref().is_err_and(BindError::is_in_use) && self.closing.wait(listen, deadline).await {
            bound = listener::bind(listen);
        }
        match bound {
            Ok(listeners) => {
                self.start(route, desired, listeners);
                None
            }
            Err(error) => {
                let known = self.unbound.insert(listen.clone(), error.to_string());
                known.is_none().then(|| (route.options.name.clone(), error))
            }
        }
    }

    /// Gives the listeners of a route to the workers.
    fn start(&mut self, route: &Route, desired: &DesiredState, listeners: Vec<Listener>) {
        let Some(workers) = &mut self.workers else { return };
        let Route { listen, options, .. } = route;
        self.unbound.remove(listen);
        let cluster = Cluster::new(options.clone(), self.shared.force.clone());
        let (addrs, route_fds, listeners) = match listen.shared_port() {
            Some(port) => {
                let (addrs, fds) =
                    self.shared_ports.add(port, listeners, &self.shared, &self.monitor_context);
                (addrs, fds, Vec::new())
            }
            None => {
                let addrs = listeners.iter().filter_map(|listener| listener.addr).collect();
                (addrs, self.shared.fds.route(listen.protocol()), listeners)
            }
        };
        let cluster = Arc::new(cluster.within(route_fds));
        // The first session must find the endpoints that are known already.
        let resolved = desired.resolve(route);
        cluster.pause(desired.is_paused(&options.name));
        cluster.update(options, &resolved.endpoints);
        // No child of the process's token: closing a route would contend with the workers for the parent's lock.
        let stop = CancellationToken::new();
        self.events.emit(opened(route));
        let fds = self.shared.fds.listeners(listeners.len() + OWN_PROBES);
        let open = TaskTracker::new();
        for listener in listeners {
            workers.listen(listener, Serves::Route(cluster.clone()), stop.clone(), open.token());
        }
        let monitor = monitor::spawn(cluster.clone(), self.monitor_context.clone());
        let open_route = OpenRoute {
            cluster,
            listeners: open,
            addrs,
            // Those of the start are shown by `status`, and logged only if they last.
            problems: Problems::new(resolved.problems, Instant::now()),
            leaving: Vec::new(),
            retired: Vec::new(),
            _stop_guard: stop.clone().drop_guard(),
            stop,
            _monitor: monitor,
            _fds: fds,
        };
        self.open.insert(listen.clone(), open_route);
    }

    /// Closes the listeners, and returns the workers. Closed routes keep their endpoints for their sessions.
    pub(super) fn stop(&mut self) -> Option<Workers> {
        self.shared.stop.cancel();
        self.open.values().for_each(|route| route.stop.cancel());
        self.shared_ports.stop();
        self.peer_listener.iter().for_each(|listener| listener.stop.cancel());
        self.workers.take()
    }

    /// Returns whether listeners are still opened.
    pub(super) fn is_listening(&self) -> bool {
        self.workers.is_some()
    }

    /// Returns the open route of this listener.
    pub(super) fn of(&self, listen: &Listen) -> Option<&OpenRoute> {
        self.open.get(listen)
    }

    pub(super) fn of_mut(&mut self, listen: &Listen) -> Option<&mut OpenRoute> {
        self.open.get_mut(listen)
    }

    /// Returns the open route of this name.
    pub(super) fn named(&self, name: &str) -> Option<&OpenRoute> {
        self.open.values().find(|route| route.cluster.members().options.name == name)
    }

    /// Returns the listeners that are open, with their addresses.
    pub(super) fn bound(&self) -> impl Iterator<Item = BoundRoute<'_>> {
        self.open.iter().map(|(listen, route)| (listen, route.addrs.as_slice()))
    }

    /// Returns the endpoints of an open route.
    pub(super) fn endpoints(&self, listen: &Listen) -> Vec<EndpointKey> {
        let members = self.open.get(listen).map(|route| route.cluster.members_arc());
        let members = members.iter().flat_map(|members| members.all());
        members.map(|(_, member)| member.endpoint.key.clone()).collect()
    }

    /// Returns why a listener of the table is not open.
    pub(super) fn unbound(&self, listen: &Listen) -> Option<&String> {
        self.unbound.get(listen)
    }

    pub(super) fn has_unbound(&self) -> bool {
        !self.unbound.is_empty()
    }

    /// Returns the current sessions of all open routes.
    pub(super) fn sessions(&self) -> usize {
        self.open.values().map(|route| route.cluster.counters.active.load(Relaxed)).sum()
    }

    /// Returns when to bind again, or to end a closed route. `None` once no listener is to be opened.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let rebind = self.has_unbound().then(|| now + REBIND_PAUSE);
        rebind.into_iter().chain(self.closing.next()).min()
    }

    /// Ends the closed routes whose grace period has passed.
    pub(super) fn finish_closed(&mut self, now: Instant) {
        self.closing.finish(now);
    }

    /// Ends the closed routes to containers.
    pub(super) fn finish_closed_containers(&mut self) {
        self.closing.finish_containers();
    }

    /// Returns the problems of all routes that have lasted long enough to be reported.
    pub(super) fn settle_problems(&mut self, now: Instant) -> Vec<EventKind> {
        self.open.values_mut().flat_map(|route| route.settle(now)).collect()
    }

    /// Returns when a problem of a route is to be reported.
    pub(super) fn next_problem(&self) -> Option<Instant> {
        self.open.values().filter_map(|route| route.problems.due()).min()
    }
}

fn opened(route: &Route) -> EventKind {
    EventKind::RouteOpened {
        route: route.options.name.clone(),
        line: route.to_string(),
        origin: route.origin.to_string(),
    }
}
