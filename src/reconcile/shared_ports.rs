//! The ports that several routes share, each of which serves other names of TLS clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::open_route::OpenRoute;
use crate::cluster::Cluster;
use crate::cluster::health::probe::Network;
use crate::cluster::monitor::{self, MonitorContext};
use crate::fd_budget::{ListenerFds, RouteFds};
use crate::listener::Listener;
use crate::route::{Listen, Protocol, Route, RouteTable, SharedPort};
use crate::session::Shared;
use crate::session::port_routes::{NameTable, PortRoutes};
use crate::worker::{Serves, Workers};

/// The bound ports.
#[derive(Default)]
pub(super) struct SharedPorts(BTreeMap<SharedPort, Port>);

/// One bound port.
struct Port {
    routes: Arc<PortRoutes>,
    addrs: Vec<SocketAddr>,
    /// Bound, but not given to the workers yet.
    waiting: Vec<Listener>,
    stop: CancellationToken,
    /// Has a token for each listener that is open.
    open: TaskTracker,
    /// Logs how many connections were left out of the access log, until dropped.
    _monitor: AbortOnDropHandle<()>,
    _fds: ListenerFds,
}

impl SharedPorts {
    /// Returns whether the port of this listener is bound already.
    pub(super) fn is_bound(&self, listen: &Listen) -> bool {
        listen.shared_port().is_some_and(|port| self.0.contains_key(&port))
    }

    /// Adds the listeners of a port that was just bound, if any. Returns the addresses and the descriptors of the port.
    pub(super) fn add(
        &mut self,
        shared_port: SharedPort,
        listeners: Vec<Listener>,
        shared: &Shared,
        monitor_context: &Arc<MonitorContext<Network>>,
    ) -> (Vec<SocketAddr>, Arc<RouteFds>) {
        let port = self.0.entry(shared_port).or_insert_with(|| {
            let addrs: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.addr).collect();
            let name = addrs.first().map(ToString::to_string).unwrap_or_default();
            let routes = PortRoutes::new(name, shared.fds.route(Protocol::Tcp), shared.force.clone());
            Port {
                _monitor: monitor::spawn(routes.unnamed().clone(), monitor_context.clone()),
                routes: Arc::new(routes),
                _fds: shared.fds.listeners(listeners.len()),
                addrs,
                waiting: listeners,
                stop: CancellationToken::new(),
                open: TaskTracker::new(),
            }
        });
        (port.addrs.clone(), port.routes.fds().clone())
    }

    /// Gives the workers the current routes of each port, and then the listeners that were bound since the last call.
    pub(super) fn publish(
        &mut self,
        open: &BTreeMap<Listen, OpenRoute>,
        desired: &RouteTable,
        workers: Option<&mut Workers>,
    ) {
        if self.0.is_empty() {
            return;
        }
        let mut tables: BTreeMap<SharedPort, NameTable> = BTreeMap::new();
        for (listen, route) in open {
            let Listen::Names { port, names } = listen else { continue };
            let table = tables.entry(*port).or_default();
            names.iter().for_each(|name| table.names.insert(name, route.cluster.clone()));
            if let Some(Route { options, .. }) = desired.get(listen) {
                table.accept_proxy.extend_from_slice(&options.accept_proxy);
                table.send_proxy = table.send_proxy.max(options.send_proxy);
            }
        }
        for (shared_port, table) in tables {
            if let Some(port) = self.0.get(&shared_port) {
                port.routes.publish(table);
            }
        }
        let Some(workers) = workers else { return };
        for port in self.0.values_mut() {
            for listener in port.waiting.drain(..) {
                let serves = Serves::Names(port.routes.clone());
                workers.listen(listener, serves, port.stop.clone(), port.open.token());
            }
        }
    }

    /// Closes the port of a closed route, if it was the last one. Returns what has a token until the listeners are closed.
    pub(super) fn close_unused(
        &mut self,
        closed: &Listen,
        open: &BTreeMap<Listen, OpenRoute>,
    ) -> Option<TaskTracker> {
        let shared_port = closed.shared_port()?;
        if open.keys().any(|listen| listen.shared_port() == Some(shared_port)) {
            return None;
        }
        let port = self.0.remove(&shared_port)?;
        port.stop.cancel();
        port.open.close();
        Some(port.open)
    }

    /// Returns what counts the connections that belong to no route, by the address of the port.
    pub(super) fn unnamed(&self) -> Vec<(String, Arc<Cluster>)> {
        let of_port = |port: &Port| {
            let cluster = port.routes.unnamed().clone();
            (cluster.members().options.name.clone(), cluster)
        };
        self.0.values().map(of_port).collect()
    }

    /// Closes all ports.
    pub(super) fn stop(&self) {
        self.0.values().for_each(|port| port.stop.cancel());
    }
}
