//! Where entries are written: etcd or Consul, behind one short interface.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::consul::Consul;
use super::etcd::Etcd;
use super::wanted::Entries;
use crate::config::ConsulConfig;
use crate::config::etcd::EtcdAccess;
use crate::route::EtcdKeys;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryConfig {
    Etcd { keys: EtcdKeys, access: EtcdAccess },
    Consul(ConsulConfig),
}

/// Requests under way at once: enough to hide their latency, few enough not to be a burst to the registry.
pub(super) const AT_ONCE: usize = 16;

pub(super) enum Registry {
    Etcd(Etcd),
    Consul(Consul),
}

impl Registry {
    pub(super) fn new(config: RegistryConfig, ttl: Duration, advertise: IpAddr) -> Registry {
        match config {
            RegistryConfig::Etcd { keys, access } => Registry::Etcd(Etcd::new(keys, &access, ttl)),
            RegistryConfig::Consul(config) => Registry::Consul(Consul::new(config, ttl, advertise)),
        }
    }

    /// Tells it that we live, and compares what it has with what we told it: before the first [`Registry::sync`], three
    /// times in each TTL, and after each failure. May be dropped at any time. An error concerns the registry as a whole; an
    /// entry that alone is refused stops no other.
    pub(super) async fn keep_alive(&mut self) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.keep_alive().await,
            Registry::Consul(consul) => consul.keep_alive().await,
        }
    }

    /// Makes what it has of ours equal to this. May be dropped at any time; what it was about to do is done again. Errors
    /// are as above.
    pub(super) async fn sync(&mut self, wanted: &Entries) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.sync(wanted).await,
            Registry::Consul(consul) => consul.sync(wanted).await,
        }
    }

    /// When an entry that was refused is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Registry::Etcd(etcd) => etcd.retry_at(),
            Registry::Consul(consul) => consul.retry_at(),
        }
    }

    /// Takes all of it back.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.end().await,
            Registry::Consul(consul) => consul.end().await,
        }
    }
}
