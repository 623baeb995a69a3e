//! The servers to which credentials are sent. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ordered::CollectOrdered;
use crate::route::{Route, Target};

/// The help for a server that requires credentials and is not one of these.
pub(crate) const HELP: &str = "they are sent only to hosts in routes of the command line, of AMBASSADOR_ROUTES and of \
                               the configuration file: write a route with this host in one of these";

/// A set of servers, each as `etcds://HOST:PORT`: the same host without TLS is a different server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Arc<BTreeSet<String>>);

impl Hosts {
    /// Returns the registries in these routes.
    pub fn of_routes<'r>(routes: impl Iterator<Item = &'r Route>) -> Hosts {
        let named = routes.flat_map(Route::all_targets).flat_map(|target| match target {
            Target::Etcd(keys) => keys.members.iter().map(|member| etcd(keys.tls, member)).collect(),
            Target::Consul(service) => service.agent.iter().map(|agent| consul(agent)).collect(),
            _ => Vec::new(),
        });
        Hosts(Arc::new(named.collect_ordered()))
    }

    /// Returns the members of one etcd cluster.
    pub(crate) fn of_etcd(tls: bool, members: &[String]) -> Hosts {
        Hosts(Arc::new(members.iter().map(|member| etcd(tls, member)).collect_ordered()))
    }

    pub(super) fn has_etcd(&self, tls: bool, member: &str) -> bool {
        self.0.contains(&etcd(tls, member))
    }

    pub(super) fn has_consul(&self, agent: &str) -> bool {
        self.0.contains(&consul(agent))
    }
}

fn etcd(tls: bool, member: &str) -> String {
    format!("etcd{}://{member}", if tls { "s" } else { "" })
}

fn consul(agent: &str) -> String {
    format!("consul://{agent}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grammar::parse_route;
    use crate::diagnostic::Place;

    #[test]
    fn the_hosts_are_those_of_targets_and_backups_with_port_and_scheme() {
        let route = "80=etcds://a,b:1/p,consul://c/web,consul://web,d:80?backup=etcd://e/p";
        let hosts = Hosts::of_routes(std::iter::once(&parse_route(route, &Place::Built).unwrap()));
        for (tls, member, named) in [
            (true, "a:2379", true),
            (true, "b:1", true),
            (false, "e:2379", true),
            (false, "a:2379", false),
            (true, "a:1", false),
            (true, "d:80", false),
        ] {
            assert_eq!(hosts.has_etcd(tls, member), named, "{tls} {member}");
        }
        assert!(hosts.has_consul("c:8500") && !hosts.has_consul("d:80") && !hosts.has_consul("web"));
    }
}
