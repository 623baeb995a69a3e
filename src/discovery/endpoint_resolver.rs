//! Endpoints as sources list them, by address or by name, and their resolution: for files of endpoints, etcd and Consul.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::dns::{NAMES_MAX, Names, Resolver};
use super::peers::PeersReceiver;
use super::{ENDPOINTS_MAX, peers};
use crate::address::{EndpointAddr, EndpointSpec, Identity, ReversePeers, Scheme};
use crate::config::grammar::parse_endpoint;
use crate::diagnostic::Mistake;
use crate::ordered::CollectOrdered;
use crate::route::{PeerHost, PeerTarget, Target, TlsHost};

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
        scheme: Scheme,
    },
    /// Every address from which peers have dialled us under this identity is an endpoint.
    Reverse {
        identity: String,
        export: String,
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
pub(crate) struct EndpointResolver {
    names: Names,
    reverse_peers: PeersReceiver,
    listed: Vec<ListedEndpoint>,
}

impl Location {
    /// Parses `host:port`, `tls://host:port`, `peer://HOST/NAME` or `peer://@IDENTITY/NAME`.
    pub(super) fn parse(text: &str) -> Result<Location, Mistake> {
        match parse_endpoint(text)? {
            Target::Addr(addr) => Ok(Location::Addr(EndpointAddr::Inet(addr))),
            Target::Host { host, port } => Ok(Location::Name { host, port, scheme: Scheme::Plain }),
            Target::Tls(TlsHost::Addr(addr)) => {
                Ok(Location::Addr(EndpointAddr::tls(addr, &addr.ip().to_string())))
            }
            Target::Tls(TlsHost::Name { host, port }) => {
                Ok(Location::Name { host, port, scheme: Scheme::Tls })
            }
            Target::Peer(PeerTarget { host, export }) => Ok(Location::of_peer(host, export)),
            _ => Err(Mistake::new(format!("invalid endpoint `{text}`")).help("write `host:port`")),
        }
    }

    fn of_peer(host: PeerHost, export: String) -> Location {
        match host {
            PeerHost::Addr(addr) => Location::Addr(EndpointAddr::peer_at(addr, &export)),
            PeerHost::Name { host, port } => Location::Name { host, port, scheme: Scheme::Peer(export) },
            PeerHost::Identity(identity) => Location::Reverse { identity, export },
        }
    }

    /// Returns the location of a host that is an address or a name: with `export`, that of an export of the peer there.
    pub(super) fn new(host: &str, port: u16, export: Option<String>) -> Location {
        match (host.parse(), export) {
            (Ok(ip), None) => Location::Addr(EndpointAddr::Inet(SocketAddr::new(ip, port))),
            (Ok(ip), Some(export)) => {
                Location::Addr(EndpointAddr::peer_at(SocketAddr::new(ip, port), &export))
            }
            (Err(_), export) => {
                let scheme = export.map_or(Scheme::Plain, Scheme::Peer);
                Location::Name { host: host.to_owned(), port, scheme }
            }
        }
    }
}

impl EndpointResolver {
    pub(crate) fn new(resolver: Resolver, reverse_peers: PeersReceiver) -> EndpointResolver {
        EndpointResolver { names: Names::new(resolver), reverse_peers, listed: Vec::new() }
    }

    /// Returns a resolver to which no peer is connected.
    #[cfg(test)]
    pub(super) fn without_peers(resolver: Resolver) -> EndpointResolver {
        let (_, none) = tokio::sync::watch::channel(std::sync::Arc::default());
        EndpointResolver::new(resolver, none)
    }

    /// Replaces the endpoints. Their names, up to [`NAMES_MAX`], are looked up.
    pub(super) fn set(&mut self, listed: Vec<ListedEndpoint>) {
        self.names.want(&names(&listed).take(NAMES_MAX).collect_ordered());
        self.listed = listed;
    }

    /// Completes when the endpoints or [`EndpointResolver::problem`] may have changed. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let has_reverse =
            self.listed.iter().any(|endpoint| matches!(endpoint.location, Location::Reverse { .. }));
        tokio::select! {
            () = self.names.changed() => {}
            Ok(()) = self.reverse_peers.changed(), if has_reverse => {}
        }
    }

    /// Returns the endpoints, as far as their names have addresses and their peers are connected.
    pub(super) fn endpoints(&self) -> Vec<EndpointSpec> {
        resolve(&self.listed, |name| self.names.addresses(name), &self.reverse_peers.borrow())
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
            Location::Addr(_) | Location::Reverse { .. } => None,
        })
        .collect();
    names.into_iter()
}

/// Returns every endpoint once, in the order of the list. Ends one past [`ENDPOINTS_MAX`], which shows that there are more.
pub(super) fn resolve(
    listed: &[ListedEndpoint],
    addresses: impl Fn(&str) -> Vec<IpAddr>,
    reverse_peers: &ReversePeers,
) -> Vec<EndpointSpec> {
    let mut known = HashSet::new();
    let mut endpoints = Vec::new();
    for ListedEndpoint { location, identity, weight, tier } in listed {
        let addrs = match location {
            Location::Addr(addr) => vec![addr.clone()],
            Location::Name { host, port, scheme } => {
                let addr = |ip| EndpointAddr::of_host(SocketAddr::new(ip, *port), host, scheme);
                addresses(host).into_iter().map(addr).collect()
            }
            Location::Reverse { identity, export } => {
                peers::endpoints(reverse_peers, identity, export).collect()
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
        let name = |n: u16| listed(Location::Name { host: format!("h{n}"), port: 80, scheme: Scheme::Plain });
        let none = ReversePeers::new();
        let thousand = |_: &str| (0..1000).map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(n))).collect();
        let names: Vec<_> = (0..20).map(name).collect();
        assert_eq!(resolve(&names, thousand, &none).len(), 1000);
        let port =
            |n: u16| listed(Location::Name { host: "h".to_owned(), port: 80 + n, scheme: Scheme::Plain });
        let ports: Vec<_> = (0..20).map(port).collect();
        assert_eq!(resolve(&ports, thousand, &none).len(), ENDPOINTS_MAX + 1);
    }

    #[test]
    fn peers_are_resolved_by_name_or_are_those_that_are_connected() {
        let two = |_: &str| vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let connected = [("laptop".to_owned(), [10, 0, 0, 9].into())].into();
        let shown = |text: &str| -> Vec<String> {
            let listed = [listed(Location::parse(text).unwrap())];
            resolve(&listed, two, &connected).iter().map(|spec| spec.key.addr.to_string()).collect()
        };
        assert_eq!(
            shown("peer://host1/redis"),
            ["peer://10.0.0.1:15008/redis", "peer://10.0.0.2:15008/redis"]
        );
        assert_eq!(shown("peer://@laptop/redis"), ["peer://@laptop@10.0.0.9/redis"]);
        assert_eq!(shown("peer://@other/redis"), [""; 0]);
    }

    #[test]
    fn host_is_an_address_or_a_name() {
        let addr = |text: &str| Location::Addr(EndpointAddr::Inet(text.parse().unwrap()));
        let name = |scheme| Location::Name { host: "redis".to_owned(), port: 80, scheme };
        let export = || Some("a".to_owned());
        assert_eq!(Location::new("fd00::1", 80, None), addr("[fd00::1]:80"));
        assert_eq!(Location::new("redis", 80, None), name(Scheme::Plain));
        assert_eq!(Location::new("redis", 80, export()), name(Scheme::Peer("a".to_owned())));
        let peer = Location::Addr(EndpointAddr::peer_at("[fd00::1]:80".parse().unwrap(), "a"));
        assert_eq!(Location::new("fd00::1", 80, export()), peer);
        assert_eq!(Location::parse("peer://[fd00::1]:80/a"), Ok(peer));
        assert_eq!(Location::parse("[fd00::1]:80"), Ok(addr("[fd00::1]:80")));
    }
}
