//! Which sources are followed: those that a route of the table, or a switch on its way, has a target of.

use std::collections::HashSet;

use tokio_util::task::AbortOnDropHandle;

use super::Reconciler;
use crate::discovery::consul::Consul;
use crate::discovery::dns::Dns;
use crate::discovery::docker::Docker;
use crate::discovery::etcd::Etcd;
use crate::discovery::file::endpoints::EndpointFile;
use crate::discovery::follow;
use crate::discovery::knowledge::followed;
use crate::route::{Route, Target};

impl Reconciler {
    /// Follows the targets that routes have now, and no longer those that none has.
    pub(super) fn follow_targets(&mut self) {
        let needed = followed(self.table.values().chain(self.moves.before()));
        self.followed.retain(|target, _| needed.contains(target));
        self.knowledge.targets.retain(|target, _| needed.contains(target));
        if !self.lost.is_empty() {
            let names: HashSet<String> = needed.iter().map(Target::to_string).collect();
            self.lost.retain(|source, _| source == "docker" || names.contains(source));
        }
        for target in needed {
            if !self.followed.contains_key(&target)
                && let Some(task) = self.follow(&target)
            {
                self.followed.insert(target, task);
            }
        }
    }

    /// `None` for a target that needs no source of its own.
    fn follow(&self, target: &Target) -> Option<AbortOnDropHandle<()>> {
        let (resolver, news) = (self.resolver.clone(), self.news.clone());
        match target {
            Target::Host { .. } | Target::Srv { .. } => {
                Some(follow(Dns::of(target, resolver, self.shared.gate.trouble())?, news))
            }
            Target::Etcd(keys) => {
                Some(follow(Etcd::new(keys.clone(), self.config.etcd.clone(), resolver), news))
            }
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
                let docker = Docker { host: host.clone(), trouble: self.shared.gate.trouble() };
                self.docker = Some(follow(docker, self.news.clone()));
            }
            Some(_) => {}
            None => {
                self.docker = None;
                self.knowledge.docker = None;
                self.lost.remove("docker");
            }
        }
    }
}
