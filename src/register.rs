//! `ambassador register`: registers this host's containers in etcd or Consul, while they and this process run.
//!
//! ```text
//!   Docker ──snapshot──► desired ──► registrar ──► registry: keys under a lease, or services with a check
//!                                      ▲   │
//!                                      └───┘ renews and compares three times in each TTL
//! ```

pub(crate) mod args;
mod desired;
mod registrar;
mod registry;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{DockerHost, LogConfig};
use crate::discovery::docker::Docker;
use crate::discovery::follow;
use crate::drain::StopSignals;
pub(crate) use desired::{Choice, Via};
use registrar::Registrar;
use registry::Registry;
pub(crate) use registry::RegistryConfig;

/// The configuration of the registrar.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub docker: DockerHost,
    pub choice: Choice,
    pub registry: RegistryConfig,
    /// How long entries outlive a host or process that fails.
    pub ttl: Duration,
    pub log: LogConfig,
}

/// Registers containers until SIGTERM or SIGINT, and withdraws everything then.
pub(crate) async fn run(plan: Plan) -> io::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = StopSignals::install()?;
    let signals = async {
        signals.recv().await;
        stop.cancel();
    };
    let Plan { docker, choice, registry, ttl, log: _ } = plan;
    let (sender, updates) = mpsc::channel(16);
    let _docker = follow(Docker { host: docker, trouble: Arc::default() }, sender);
    let registry = Registry::new(registry, ttl, choice.advertise);
    let registrar = Registrar::new(choice, registry, ttl, stop.clone());
    futures_util::join!(signals, registrar.run(updates));
    Ok(())
}

/// Fuzz target: reads a registry's response.
#[doc(hidden)]
pub fn read_any(response: &[u8]) {
    registry::read_any(response);
}
