//! Endpoints as sources list them, by address or by name, and their resolution: for files of endpoints, etcd and Consul.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::ENDPOINTS_MAX;
use super::dns::{NAMES_MAX, Names, Resolver};
use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::config::grammar::parse_address;
use crate::diagnostic::Mistake;
use crate::route::Target;

/// Names without an address that are reported by name.
const NAMES_REPORTED_MAX: usize = 3;

/// Where an endpoint is, as its source writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Location {
    Addr(EndpointAddr),
    /// Every address of the name is an endpoint.
    Name {
        host: String,
        port: u16,
    },
}

/// An endpoint as its source lists it. A name may have any number of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedEndpoint {
    pub(super) location: Location,
    pub(super) identity: Identity,
    pub(super) weight: u32,
    pub(super) tier: u32,
}

/// The listed endpoints of one source, and the addresses of their names.
pub(super) struct EndpointResolver {
    names: Names,
    listed: Vec<ListedEndpoint>,
}

impl Location {
    /// Parses `host:port`.
    pub(super) fn parse(text: &str) -> Result<Location, Mistake> {
        match parse_address(text)? {
            Target::Addr(addr) => Ok(Location::Addr(EndpointAddr::Inet(addr))),
            Target::Host { host, port } => Ok(Location::Name { host, port }),
            _ => Err(Mistake::new(format!("invalid endpoint `{text}`")).help("write `host:port`")),
        }
    }

    /// Returns the location of a host that is an address or a name.
    pub(super) fn new(host: &str, port: u16) -> Location {
        match host.parse() {
            Ok(ip) => Location::Addr(EndpointAddr::Inet(SocketAddr::new(ip, port))),
            Err(_) => Location::Name { host: host.to_owned(), port },
        }
    }
}

impl EndpointResolver {
    pub(super) fn new(resolver: Resolver) -> EndpointResolver {
        EndpointResolver { names: Names::new(resolver), listed: Vec::new() }
    }

    /// Replaces the endpoints. Their names, up to [`NAMES_MAX`], are looked up.
    pub(super) fn set(&mut self, listed: Vec<ListedEndpoint>) {
        self.names.want(&names(&listed).take(NAMES_MAX).collect());
        self.listed = listed;
    }

    /// Completes when the endpoints or [`EndpointResolver::problem`] may have changed. Cancel safe.
    pub(super) async fn changed(&mut self) {
        self.names.changed().await;
    }

    /// Returns the endpoints, as far as their names have addresses.
    pub(super) fn endpoints(&self) -> Vec<EndpointSpec> {
        resolve(&self.listed, |name| self.names.addresses(name))
    }

    /// Returns the names without an address, with their reasons.
    pub(super) fn problem(&self) -> Option<String> {
        let names: Vec<String> =
            self.names.without_address().map(|(name, why)| format!("{name}: {why}")).collect();
        let (first, more) = names.split_at(names.len().min(NAMES_REPORTED_MAX));
        let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
        (!first.is_empty()).then(|| first.join("; ") + &more)
    }
}

/// Returns the names of these endpoints, each once and sorted.
pub(super) fn names(listed: &[ListedEndpoint]) -> impl Iterator<Item = String> + use<> {
    let names: BTreeSet<String> = listed
        .iter()
        .filter_map(|endpoint| match &endpoint.location {
            Location::Name { host, .. } => Some(host.clone()),
            Location::Addr(_) => None,
        })
        .collect();
    names.into_iter()
}

/// Returns every endpoint once, in the order of the list. Ends one past [`ENDPOINTS_MAX`], which shows that there are more.
pub(super) fn resolve(
    listed: &[ListedEndpoint],
    addresses: impl Fn(&str) -> Vec<IpAddr>,
) -> Vec<EndpointSpec> {
    let mut known = HashSet::new();
    let mut endpoints = Vec::new();
    for ListedEndpoint { location, identity, weight, tier } in listed {
        let addrs = match location {
            Location::Addr(addr) => vec![addr.clone()],
            Location::Name { host, port } => {
                let addr = |ip| EndpointAddr::Inet(SocketAddr::new(ip, *port));
                addresses(host).into_iter().map(addr).collect()
            }
        };
        let specs = addrs.into_iter().map(|addr| EndpointSpec::new(addr, identity.clone()));
        let new = specs.filter(|spec| known.insert(spec.key.clone()));
        let left = (ENDPOINTS_MAX + 1).saturating_sub(endpoints.len());
        endpoints.extend(new.take(left).map(|spec| EndpointSpec { weight: *weight, tier: *tier, ..spec }));
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(location: Location) -> ListedEndpoint {
        ListedEndpoint { location, identity: Identity::Key("k".to_owned()), weight: 1, tier: 0 }
    }

    #[test]
    fn addresses_of_all_names_are_limited_and_each_endpoint_is_used_once() {
        let name = |n: u16| listed(Location::Name { host: format!("h{n}"), port: 80 });
        let thousand = |_: &str| (0..1000).map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(n))).collect();
        let names: Vec<_> = (0..20).map(name).collect();
        assert_eq!(resolve(&names, thousand).len(), 1000);
        let port = |n: u16| listed(Location::Name { host: "h".to_owned(), port: 80 + n });
        let ports: Vec<_> = (0..20).map(port).collect();
        assert_eq!(resolve(&ports, thousand).len(), ENDPOINTS_MAX + 1);
    }

    #[test]
    fn host_is_an_address_or_a_name() {
        let addr = |text: &str| Location::Addr(EndpointAddr::Inet(text.parse().unwrap()));
        assert_eq!(Location::new("fd00::1", 80), addr("[fd00::1]:80"));
        assert_eq!(Location::new("redis", 80), Location::Name { host: "redis".to_owned(), port: 80 });
        assert_eq!(Location::parse("[fd00::1]:80"), Ok(addr("[fd00::1]:80")));
    }
}
