//! What every source said last, and what follows from it: the routes, and the endpoints of each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::containers::{Containers, Resolution};
use super::{Snapshot, label};
use crate::cluster::{EndpointAddr, EndpointSpec, Identity};
use crate::diagnostic::Diagnostic;
use crate::route::{Layer, Route, Target};

/// `None` is "has not said anything yet", which is not "said there is nothing".
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    pub file: Layer,
    pub docker: Option<Arc<Containers>>,
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

/// The endpoints of one route, and why there are not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub primary: Vec<EndpointSpec>,
    pub backup: Vec<EndpointSpec>,
    pub problems: Vec<String>,
}

impl Knowledge {
    pub fn learn(&mut self, snapshot: Snapshot) {
        match snapshot {
            Snapshot::File(routes) => self.file = Layer { routes },
            Snapshot::Docker(containers) => self.docker = Some(containers),
            Snapshot::Host { host, addresses } => {
                self.hosts.insert(host, addresses);
            }
        }
    }

    /// Routes that Docker tells of: `-name`s, and the implicit ones where they are asked for.
    pub fn docker_layers(&self, names: &[String], implicit: bool) -> (Vec<Layer>, Vec<Diagnostic>) {
        let Some(containers) = &self.docker else { return Default::default() };
        let mut told = vec![label::named(names, containers)];
        if implicit {
            told.push(label::own_links(containers));
            told.push(label::labelled(containers));
        }
        let (layers, mistakes): (Vec<_>, Vec<_>) =
            told.into_iter().map(|(routes, mistakes)| (Layer { routes }, mistakes)).unzip();
        (layers, mistakes.concat())
    }

    pub fn resolve(&self, route: &Route) -> Resolved {
        let mut resolved = Resolved::default();
        for target in &route.targets {
            merge(&mut resolved.primary, &mut resolved.problems, self.resolve_target(route, target));
        }
        for target in &route.options.backup {
            merge(&mut resolved.backup, &mut resolved.problems, self.resolve_target(route, target));
        }
        resolved
    }

    fn resolve_target(&self, route: &Route, target: &Target) -> Resolution {
        match target {
            Target::Addr(addr) => one(EndpointAddr::Inet(*addr)),
            Target::Unix(path) => one(EndpointAddr::Unix(path.clone())),
            Target::Host { host, port } => self.resolve_host(host, *port),
            Target::Docker { name, port } => match &self.docker {
                Some(containers) => {
                    containers.resolve(name, *port, route.listen.first_port(), route.listen.protocol())
                }
                None => problem(format!("docker://{name}: Docker has not answered yet")),
            },
        }
    }

    fn resolve_host(&self, host: &str, port: u16) -> Resolution {
        match self.hosts.get(host) {
            None => problem(format!("{host}: its address is not known yet")),
            Some(addresses) if addresses.is_empty() => {
                problem(format!("{host}: DNS has no address for this name"))
            }
            Some(addresses) => {
                let endpoint = |ip: &IpAddr| EndpointSpec {
                    addr: EndpointAddr::Inet(SocketAddr::new(*ip, port)),
                    identity: Identity::Name(host.to_owned()),
                };
                Resolution { endpoints: addresses.iter().map(endpoint).collect(), problems: Vec::new() }
            }
        }
    }
}

/// Every DNS name among the targets of these routes.
pub fn hosts_of<'r>(routes: impl Iterator<Item = &'r Route>) -> BTreeSet<String> {
    let targets = routes.flat_map(|route| route.targets.iter().chain(&route.options.backup));
    targets
        .filter_map(|target| if let Target::Host { host, .. } = target { Some(host.clone()) } else { None })
        .collect()
}

fn one(addr: EndpointAddr) -> Resolution {
    Resolution { endpoints: vec![EndpointSpec { addr, identity: Identity::Literal }], problems: Vec::new() }
}

fn problem(text: String) -> Resolution {
    Resolution { endpoints: Vec::new(), problems: vec![text] }
}

/// Two targets that mean the same endpoint mean it once.
fn merge(tier: &mut Vec<EndpointSpec>, problems: &mut Vec<String>, found: Resolution) {
    for endpoint in found.endpoints {
        if !tier.contains(&endpoint) {
            tier.push(endpoint);
        }
    }
    problems.extend(found.problems);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;
    use crate::route::{Listen, PortRange, Protocol};

    fn route(targets: Vec<Target>) -> Route {
        let listen = Listen::Inet { protocol: Protocol::Tcp, ip: None, ports: PortRange::single(6379) };
        Route::new(listen, targets, Place::Built)
    }

    #[test]
    fn every_address_of_a_name_is_an_endpoint_and_equal_targets_are_one() {
        let mut knowledge = Knowledge::default();
        let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        knowledge.learn(Snapshot::Host { host: "redis".to_owned(), addresses });
        let target = Target::Host { host: "redis".to_owned(), port: 6379 };
        let resolved = knowledge.resolve(&route(vec![target.clone(), target]));
        let addrs: Vec<_> = resolved.primary.iter().map(|e| e.addr.to_string()).collect();
        assert_eq!(addrs, ["10.0.0.1:6379", "[fd00::1]:6379"]);
        assert_eq!(resolved.problems, [""; 0]);
    }

    #[test]
    fn what_is_not_known_yet_is_a_problem_and_not_an_endpoint() {
        let targets = vec![
            Target::Host { host: "redis".to_owned(), port: 1 },
            Target::Docker { name: "redis".to_owned(), port: None },
        ];
        let resolved = Knowledge::default().resolve(&route(targets.clone()));
        assert_eq!((resolved.primary.len(), resolved.problems.len()), (0, 2));
        assert_eq!(hosts_of([route(targets)].iter()), BTreeSet::from(["redis".to_owned()]));
    }
}
