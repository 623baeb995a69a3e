//! The sources that are followed: Docker, and one for each target that needs one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::desired::DesiredState;
use super::overview::{ConfigFile, SourceView};
use crate::config::etcd::EtcdAccess;
use crate::config::hosts;
use crate::config::{Config, ConsulConfig};
use crate::discovery::consul::Consul;
use crate::discovery::dns::{Dns, Resolver};
use crate::discovery::docker::Docker;
use crate::discovery::endpoint_resolver::EndpointResolver;
use crate::discovery::etcd::Etcd;
use crate::discovery::file::endpoints::EndpointFile;
use crate::discovery::peers::{Peers, PeersReceiver};
use crate::discovery::{LastAnswer, SourceUpdate, follow_observed};
use crate::route::{PeerHost, PeerTarget, Target, TlsHost};

/// The name of Docker as a source.
const DOCKER: &str = "docker";

pub(super) struct Sources {
    targets: BTreeMap<Target, Followed>,
    docker: Option<Followed>,
    /// Sources that are unavailable, and why.
    pub(super) lost: BTreeMap<String, String>,
    /// How often the task of a source has panicked, by name.
    pub(super) panics: BTreeMap<String, u64>,
    /// `None` without a configuration file.
    pub(super) file: Option<ConfigFile>,
    etcd: EtcdAccess,
    consul: ConsulConfig,
    resolver: Resolver,
    context: SourceContext,
}

/// A source that is followed until this is dropped, and its last answer.
type Followed = (AbortOnDropHandle<()>, LastAnswer);

/// What sources share with the rest of the process.
pub(super) struct SourceContext {
    /// Where sources publish.
    pub(super) updates: mpsc::Sender<SourceUpdate>,
    /// SIGHUP, for files of endpoints.
    pub(super) reload: Arc<Notify>,
    /// Notified when endpoints do not answer.
    pub(super) trouble: Arc<Notify>,
    /// The peers that have dialled us.
    pub(super) reverse_peers: PeersReceiver,
}

impl Sources {
    pub(super) fn new(config: &Config, context: SourceContext) -> Sources {
        Sources {
            targets: BTreeMap::new(),
            docker: None,
            lost: BTreeMap::new(),
            panics: BTreeMap::new(),
            file: config.path.clone().map(ConfigFile::loaded),
            etcd: config.etcd.clone(),
            consul: config.consul.clone(),
            resolver: Resolver::from_system().within(config.settings.dns),
            context,
        }
    }

    pub(super) fn updates(&self) -> mpsc::Sender<SourceUpdate> {
        self.context.updates.clone()
    }

    /// Follows the sources that the desired state needs, and no others.
    pub(super) fn follow_needed(&mut self, desired: &mut DesiredState) {
        self.follow_docker(desired);
        self.bind_credentials(desired);
        let needed = desired.followed_targets();
        self.targets.retain(|target, _| needed.contains(target));
        desired.retain_targets(&needed);
        self.follow_targets(needed);
        if !self.lost.is_empty() || !self.panics.is_empty() {
            let names: HashSet<String> = self.views().into_iter().map(|source| source.name).collect();
            self.lost.retain(|source, _| names.contains(source));
            self.panics.retain(|source, _| names.contains(source));
        }
    }

    fn follow_docker(&mut self, desired: &mut DesiredState) {
        match desired.docker_host() {
            Some(host) if self.docker.is_none() => {
                let docker = Docker { host: host.clone(), trouble: self.context.trouble.clone() };
                self.docker = Some(follow_observed(docker, self.updates()));
            }
            Some(_) => {}
            None => {
                self.docker = None;
                self.lost.remove(DOCKER);
                desired.forget_docker();
            }
        }
    }

    /// Restarts the sources of registries if the hosts that may receive credentials have changed.
    fn bind_credentials(&mut self, desired: &DesiredState) {
        let Sources { etcd, consul, .. } = self;
        if etcd.login.is_none() && etcd.client.is_none() && consul.token.is_none() {
            return;
        }
        let hosts = desired.credential_hosts();
        if etcd.hosts != hosts || consul.hosts != hosts {
            (etcd.hosts, consul.hosts) = (hosts.clone(), hosts);
            self.targets.retain(|target, _| !matches!(target, Target::Etcd(_) | Target::Consul(_)));
        }
    }

    fn follow_targets(&mut self, needed: BTreeSet<Target>) {
        for target in needed {
            if !self.targets.contains_key(&target)
                && let Some(followed) = self.follow(&target)
            {
                self.targets.insert(target, followed);
            }
        }
    }

    /// Returns `None` for a target without a source of its own.
    fn follow(&self, target: &Target) -> Option<Followed> {
        self.warn_about_withheld_credentials(target);
        let (resolver, updates) = (self.resolver.clone(), self.updates());
        let endpoints = || EndpointResolver::new(resolver.clone(), self.context.reverse_peers.clone());
        match target {
            Target::Host { .. }
            | Target::Srv { .. }
            | Target::Tls(TlsHost::Name { .. })
            | Target::Peer(PeerTarget { host: PeerHost::Name { .. }, .. }) => {
                let dns = Dns::of(target, resolver.clone(), self.context.trouble.clone())?;
                Some(follow_observed(dns, updates))
            }
            Target::Etcd(keys) => {
                Some(follow_observed(Etcd::new(keys.clone(), &self.etcd, endpoints()), updates))
            }
            Target::Consul(service) => {
                Some(follow_observed(Consul::new(service.clone(), &self.consul, endpoints()), updates))
            }
            Target::File(path) => Some(follow_observed(
                EndpointFile::new(path.clone(), self.context.reload.clone(), endpoints()),
                updates,
            )),
            Target::Peer(PeerTarget { host: PeerHost::Identity(identity), export }) => {
                let connected = self.context.reverse_peers.clone();
                Some(follow_observed(Peers::new(identity.clone(), export.clone(), connected), updates))
            }
            Target::Addr(_)
            | Target::Unix(_)
            | Target::Docker { .. }
            | Target::Labelled { .. }
            | Target::Tls(TlsHost::Addr(_))
            | Target::Peer(PeerTarget { host: PeerHost::Addr(_), .. }) => None,
        }
    }

    /// Warns about registries of this target that do not receive the configured credentials.
    fn warn_about_withheld_credentials(&self, target: &Target) {
        let warn = |what: &str, host: &str| {
            let help = hosts::HELP;
            tracing::warn!(source = %target, "no credentials are configured for {what} {host}: {help}");
        };
        match target {
            Target::Etcd(keys) => {
                let withheld = |member: &&String| self.etcd.is_withheld(member, keys.tls);
                keys.members.iter().filter(withheld).for_each(|member| warn("etcd", member));
            }
            Target::Consul(service) => {
                let withheld = |agent: &&String| self.consul.is_withheld(agent);
                service.agent.iter().filter(withheld).for_each(|agent| warn("Consul", agent));
            }
            _ => {}
        }
    }

    /// Returns all sources.
    pub(super) fn views(&self) -> Vec<SourceView> {
        let view = |name: String, answered: &LastAnswer| SourceView { name, answered: answered.clone() };
        let file = self.file.as_ref().map(|file| view(file.source(), &file.answered));
        let docker = self.docker.as_ref().map(|(_, answered)| view(DOCKER.to_owned(), answered));
        let targets = self.targets.iter().map(|(target, (_, answered))| view(target.to_string(), answered));
        file.into_iter().chain(docker).chain(targets).collect()
    }

    /// Returns the names of the sources that have not reported since they are followed. Omits the configuration file, which was
    /// read before the first round, and names of DNS: while a service is away, Docker's DNS server often times out instead of
    /// denying its name, and a service that is away does not make the ambassador unready.
    pub(super) fn unanswered(&self, desired: &DesiredState) -> Vec<String> {
        let docker = self.docker.is_some() && desired.containers().is_none();
        let is_name = |target: &&Target| {
            matches!(
                target,
                Target::Host { .. }
                    | Target::Srv { .. }
                    | Target::Tls(TlsHost::Name { .. })
                    | Target::Peer(PeerTarget { host: PeerHost::Name { .. }, .. })
            )
        };
        let targets = self.targets.keys().filter(|target| !is_name(target) && !desired.has_reported(target));
        docker.then(|| DOCKER.to_owned()).into_iter().chain(targets.map(Target::to_string)).collect()
    }
}
