//! `ambassador register`: tells etcd or Consul where this host's containers are, for as long as they and this process
//! live.
//!
//! ```text
//!   Docker ──snapshot──► wanted ──► registrar ──► registry: keys under a lease, or services with a check
//!                                     ▲   │
//!                                     └───┘ keeps the lease alive, and compares, three times in its time
//! ```

pub mod args;
mod consul;
mod etcd;
mod refusals;
mod registrar;
mod registry;
mod wanted;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{DockerHost, LogConfig};
use crate::discovery::docker::Docker;
use crate::discovery::follow;
use crate::drain::StopSignals;
use registrar::Registrar;
use registry::Registry;
pub use registry::RegistryConfig;
pub use wanted::Choice;

/// What will run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub docker: DockerHost,
    pub choice: Choice,
    pub registry: RegistryConfig,
    /// How long what is registered outlives a host or process that dies.
    pub ttl: Duration,
    pub log: LogConfig,
}

/// Registers until SIGTERM or SIGINT, and takes everything back then.
pub async fn run(plan: Plan) -> io::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = StopSignals::install()?;
    let obey = async {
        signals.recv().await;
        stop.cancel();
    };
    let Plan { docker, choice, registry, ttl, log: _ } = plan;
    let (sender, news) = mpsc::channel(16);
    let _docker = follow(Docker { host: docker, trouble: Arc::default() }, sender);
    let registry = Registry::new(registry, ttl, choice.advertise);
    let registrar = Registrar::new(choice, registry, ttl, stop.clone());
    futures_util::join!(obey, registrar.run(news));
    Ok(())
}

/// What the fuzz targets feed: a registry's answer.
#[doc(hidden)]
pub fn read_any(answer: &[u8]) {
    consul::read_any(answer);
    etcd::read_any(answer);
}
