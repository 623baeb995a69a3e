//! Where entries are written: etcd or Consul, behind one short interface.

use std::net::IpAddr;
use std::time::Duration;

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
    /// times in each TTL, and after each failure. May be dropped at any time.
    pub(super) async fn keep_alive(&mut self) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.keep_alive().await,
            Registry::Consul(consul) => consul.keep_alive().await,
        }
    }

    /// Makes what it has of ours equal to this. May be dropped at any time; what it was about to do is done again.
    pub(super) async fn sync(&mut self, wanted: &Entries) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.sync(wanted).await,
            Registry::Consul(consul) => consul.sync(wanted).await,
        }
    }

    /// Takes all of it back.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        match self {
            Registry::Etcd(etcd) => etcd.end().await,
            Registry::Consul(consul) => consul.sync(&Entries::new()).await,
        }
    }
}
