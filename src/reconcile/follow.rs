//! Which sources are followed: those that a route of the table, or a switch on its way, has a target of.

use std::collections::HashSet;

use tokio_util::task::AbortOnDropHandle;

use super::Reconciler;
use crate::config::hosts::{self, Hosts};
use crate::discovery::consul::Consul;
use crate::discovery::dns::Dns;
use crate::discovery::docker::Docker;
use crate::discovery::etcd::Etcd;
use crate::discovery::file::endpoints::EndpointFile;
use crate::discovery::follow;
use crate::discovery::state::followed;
use crate::route::{Route, Target};

impl Reconciler {
    /// Follows the targets that routes have now, and no longer those that none has.
    pub(super) fn follow_targets(&mut self) {
        self.bind_credentials();
        let needed = followed(self.table.values().chain(self.moves.before()));
        self.followed.retain(|target, _| needed.contains(target));
        self.discovery.targets.retain(|target, _| needed.contains(target));
        for target in needed {
            if !self.followed.contains_key(&target)
                && let Some(task) = self.follow(&target)
            {
                self.followed.insert(target, task);
            }
        }
        if !self.lost.is_empty() || !self.panics.is_empty() {
            let sources: HashSet<String> = self.sources().into_iter().collect();
            self.lost.retain(|source, _| sources.contains(source));
            self.panics.retain(|source, _| sources.contains(source));
        }
    }

    /// Credentials are for the registries that an operator's own routes name: not for those of labels, and not for those
    /// that a switch or a route added while it runs names, since who may reach the admin API need not have the credentials.
    /// Where that has changed, registries are followed anew.
    fn bind_credentials(&mut self) {
        let (etcd, consul) = (&mut self.config.etcd, &mut self.config.consul);
        if etcd.login.is_none() && etcd.client.is_none() && consul.token.is_none() {
            return;
        }
        let layers = [&self.config.arguments, &self.config.environment, &self.discovery.file];
        let hosts = Hosts::of_routes(layers.into_iter().flat_map(|layer| &layer.routes));
        if etcd.hosts != hosts || consul.hosts != hosts {
            (etcd.hosts, consul.hosts) = (hosts.clone(), hosts);
            self.followed.retain(|target, _| !matches!(target, Target::Etcd(_) | Target::Consul(_)));
        }
    }

    /// Says which registries of this target get no credentials although there are some.
    fn warn_of_withheld(&self, target: &Target) {
        let warn = |what: &str, host: &str| {
            let help = hosts::HELP;
            tracing::warn!(source = %target, "no credentials are configured for {what} {host}: {help}");
        };
        match target {
            Target::Etcd(keys) => {
                let withheld = |member: &&String| self.config.etcd.is_withheld(member, keys.tls);
                keys.members.iter().filter(withheld).for_each(|member| warn("etcd", member));
            }
            Target::Consul(service) => {
                let withheld = |agent: &&String| self.config.consul.is_withheld(agent);
                service.agent.iter().filter(withheld).for_each(|agent| warn("Consul", agent));
            }
            _ => {}
        }
    }

    /// `None` for a target that needs no source of its own.
    fn follow(&self, target: &Target) -> Option<AbortOnDropHandle<()>> {
        self.warn_of_withheld(target);
        let (resolver, news) = (self.resolver.clone(), self.news.clone());
        match target {
            Target::Host { .. } | Target::Srv { .. } => {
                Some(follow(Dns::of(target, resolver, self.shared.hold_limit.refresh())?, news))
            }
            Target::Etcd(keys) => Some(follow(Etcd::new(keys.clone(), &self.config.etcd, resolver), news)),
            Target::Consul(service) => {
                Some(follow(Consul::new(service.clone(), &self.config.consul, resolver), news))
            }
            Target::File(path) => {
                Some(follow(EndpointFile::new(path.clone(), self.reload.clone(), resolver), news))
            }
            Target::Addr(_) | Target::Unix(_) | Target::Docker { .. } | Target::Labelled { .. } => None,
        }
    }

    /// Docker is asked while something asks for it: the command line, or a route of a file that was read again.
    pub(super) fn follow_docker(&mut self) {
        let host = match &self.config.docker {
            Some(docker) => Some(&docker.host),
            None if self.table.values().chain(self.moves.before()).any(Route::wants_docker) => {
                self.config.docker_host.as_ref()
            }
            None => None,
        };
        match host {
            Some(host) if self.docker.is_none() => {
                let docker = Docker { host: host.clone(), trouble: self.shared.hold_limit.refresh() };
                self.docker = Some(follow(docker, self.news.clone()));
            }
            Some(_) => {}
            None => {
                self.docker = None;
                self.discovery.docker = None;
                self.lost.remove("docker");
            }
        }
    }
}
