//! The routes that share a port, chosen by the name that a TLS client asks for, as a snapshot for the workers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::fd_budget::RouteFds;
use crate::route::{Options, ProxySender, ProxyVersion, ServerNames};

/// The routes of one port.
#[derive(Debug)]
pub struct PortRoutes {
    routes: ArcSwap<NameTable>,
    /// Counts and logs the connections that belong to no route. It has no endpoints.
    unnamed: Arc<Cluster>,
}

/// The routes of one port at one moment.
#[derive(Debug, Default)]
pub struct NameTable {
    /// The clusters by the names of their listeners.
    pub names: ServerNames<Arc<Cluster>>,
    /// The clients that send a PROXY protocol header, which comes before the name: those of all routes.
    pub accept_proxy: Vec<ProxySender>,
    /// The version of the header that an endpoint gets, the latest of all routes.
    pub send_proxy: Option<ProxyVersion>,
}

impl PortRoutes {
    /// Creates the routes of a port that is called `name` in the log. They share the descriptors.
    pub fn new(name: String, fds: Arc<RouteFds>, force: CancellationToken) -> PortRoutes {
        let unnamed = Cluster::new(Options::named(name), force).within(fds);
        PortRoutes { routes: ArcSwap::default(), unnamed: Arc::new(unnamed) }
    }

    /// Replaces all routes.
    pub fn publish(&self, routes: NameTable) {
        self.routes.store(Arc::new(routes));
    }

    /// Returns the descriptors of the port.
    pub fn fds(&self) -> &Arc<RouteFds> {
        &self.unnamed.fds
    }

    /// Returns the cluster that counts the connections that belong to no route.
    pub fn unnamed(&self) -> &Arc<Cluster> {
        &self.unnamed
    }

    pub(super) fn load(&self) -> Arc<NameTable> {
        self.routes.load_full()
    }
}
