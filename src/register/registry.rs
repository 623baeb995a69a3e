//! The registry that entries are written to: etcd or Consul, behind one interface.

mod consul;
mod etcd;
mod refusals;

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::desired::Entries;
use crate::config::ConsulConfig;
use crate::config::etcd::EtcdAccess;
use crate::discovery::etcd::client::EtcdError;
use crate::discovery::http::HttpError;
use crate::route::EtcdKeys;
use consul::Consul;
use etcd::Etcd;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegistryConfig {
    Etcd { keys: EtcdKeys, access: EtcdAccess },
    Consul(ConsulConfig),
}

/// Concurrent requests: enough to hide their latency, few enough not to be a burst to the registry.
const CONCURRENT_MAX: usize = 16;

pub(super) enum Registry {
    Etcd(Etcd),
    Consul(Consul),
}

/// Why the registry as a whole cannot be used. The refusal of one entry does not affect the others and is not an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Consul(#[from] HttpError),
}

impl Registry {
    pub(super) fn new(config: RegistryConfig, ttl: Duration, advertise: IpAddr) -> Registry {
        match config {
            RegistryConfig::Etcd { keys, access } => Registry::Etcd(Etcd::new(keys, &access, ttl)),
            RegistryConfig::Consul(config) => Registry::Consul(Consul::new(config, ttl, advertise)),
        }
    }

    /// Renews what is registered, and compares it with what should be: called before the first [`Registry::sync`], three times in
    /// each TTL, and after each failure. Cancel safe.
    pub(super) async fn keep_alive(&mut self) -> Result<(), RegistryError> {
        match self {
            Registry::Etcd(etcd) => Ok(etcd.keep_alive().await?),
            Registry::Consul(consul) => Ok(consul.keep_alive().await?),
        }
    }

    /// Registers and withdraws entries until these are registered. Cancel safe: an incomplete change is made again.
    pub(super) async fn sync(&mut self, desired: &Entries) -> Result<(), RegistryError> {
        match self {
            Registry::Etcd(etcd) => Ok(etcd.sync(desired).await?),
            Registry::Consul(consul) => Ok(consul.sync(desired).await?),
        }
    }

    /// Returns when to retry an entry that was refused.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Registry::Etcd(etcd) => etcd.retry_at(),
            Registry::Consul(consul) => consul.retry_at(),
        }
    }

    /// Withdraws all entries.
    pub(super) async fn withdraw_all(&mut self) -> Result<(), RegistryError> {
        match self {
            Registry::Etcd(etcd) => Ok(etcd.withdraw_all().await?),
            Registry::Consul(consul) => Ok(consul.withdraw_all().await?),
        }
    }
}

/// Fuzz target: reads a registry's response.
pub(super) fn read_any(response: &[u8]) {
    consul::read_any(response);
    etcd::read_any(response);
}
