//! Endpoints that lead back to their own route, and would relay each session to itself until no descriptors are left. Pure:
//! whether an address belongs to this host is an argument.
//!
//! Each port that a route listens on is a node. An endpoint with the address of such a port is an edge to it, from the port of
//! its route that relays there. Endpoints with an edge on a cycle are excluded. A chain of routes has no cycle.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::address::{EndpointAddr, EndpointKey, EndpointSpec};
use crate::ordered::CollectOrdered;
use crate::route::{Listen, Protocol, Route};

/// All bound ports. The ports of one route are consecutive nodes.
#[derive(Debug, Default)]
pub(super) struct Ports<'r> {
    /// The routes, each with its first node.
    routes: Vec<(usize, &'r Route)>,
    count: usize,
    first_of: HashMap<&'r Listen, usize>,
    by_ip: HashMap<(Protocol, IpAddr), Ranges>,
    by_path: HashMap<&'r Path, usize>,
}

/// The ports of one address, by the first port of a range: its last port and its first node.
type Ranges = BTreeMap<u16, (u16, usize)>;

/// A route with the endpoints and problems that its sources report.
#[derive(Debug)]
pub(super) struct Candidate<'r> {
    pub(super) route: &'r Route,
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) problems: Vec<String>,
    /// Endpoints that were excluded.
    pub(super) cyclic: Vec<EndpointKey>,
}

/// An edge between two nodes, and the indices of the route and its endpoint that cause it.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
    by: (usize, usize),
}

/// The nodes that edges lead to from each node, or the reverse.
type Neighbours = HashMap<usize, Vec<usize>>;

/// Removes the endpoints that lead back to their route. Each becomes a problem of the route.
pub(super) fn exclude(
    ports: &Ports<'_>,
    routes: &mut [Candidate<'_>],
    mut is_local: impl FnMut(IpAddr) -> bool,
) {
    let mut edges = Vec::new();
    for (n, Candidate { route, endpoints, .. }) in routes.iter().enumerate() {
        for (m, EndpointSpec { key, .. }) in endpoints.iter().enumerate() {
            let of_endpoint = ports.edges(route, &key.addr, &mut is_local);
            edges.extend(of_endpoint.into_iter().map(|(from, to)| Edge { from, to, by: (n, m) }));
        }
    }
    // The last endpoint first, so that the indices of those before it stay right.
    for ((n, m), to) in cyclic(&edges).into_iter().rev() {
        let (Some(candidate), Some(listener)) = (routes.get_mut(n), ports.route(to)) else { continue };
        let EndpointSpec { key, .. } = candidate.endpoints.remove(m);
        candidate.problems.push(problem(&key.addr, candidate.route, listener));
        candidate.cyclic.push(key);
    }
}

fn problem(endpoint: &EndpointAddr, route: &Route, listener: &Route) -> String {
    if route.listen == listener.listen {
        return format!("endpoint {endpoint} is this route's own listener");
    }
    let name = &listener.options.name;
    format!("endpoint {endpoint} is the listener of route `{name}`, which leads back to this route")
}

impl<'r> Ports<'r> {
    /// Adds the ports of a route. `addrs` are the addresses of its listeners, in the order of its range.
    pub(super) fn add(&mut self, route: &'r Route, addrs: &[SocketAddr]) {
        let first = self.count;
        self.first_of.insert(&route.listen, first);
        self.routes.push((first, route));
        self.count += addrs.len().max(1);
        if let Listen::Unix(path) = &route.listen {
            self.by_path.insert(path, first);
        }
        let (Some(low), Some(high)) = (addrs.first(), addrs.last()) else { return };
        // A listener on all addresses is one socket of both families.
        let is_dual_stack = matches!(route.listen.ports(), Some((_, None, _)));
        let ipv4 = is_dual_stack.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        for ip in [Some(low.ip().to_canonical()), ipv4].into_iter().flatten() {
            let ranges = self.by_ip.entry((route.listen.protocol(), ip)).or_default();
            ranges.insert(low.port(), (high.port(), first));
        }
    }

    fn route(&self, node: usize) -> Option<&'r Route> {
        let after = self.routes.partition_point(|(first, _)| *first <= node);
        self.routes.get(after.checked_sub(1)?).map(|(_, route)| *route)
    }

    /// Returns the edges of one endpoint: from each port of its route that relays to a bound port.
    fn edges(
        &self,
        route: &Route,
        endpoint: &EndpointAddr,
        is_local: &mut impl FnMut(IpAddr) -> bool,
    ) -> Vec<(usize, usize)> {
        let Some(first) = self.first_of.get(&route.listen).copied() else { return Vec::new() };
        let addr = match endpoint {
            EndpointAddr::Unix(path) => {
                return self.by_path.get(path.as_path()).map(|to| (first, *to)).into_iter().collect();
            }
            EndpointAddr::Inet(addr) => addr,
            EndpointAddr::Tls(tls) => &tls.addr,
            // Where a peer relays to is not known here.
            EndpointAddr::Peer(_) => return Vec::new(),
        };
        let (ip, protocol) = (connected_to(addr.ip()), route.listen.protocol());
        let last = addr.port().saturating_add(width(&route.listen) - 1);
        let own = self.by_ip.get(&(protocol, ip));
        let all = self.by_ip.get(&(protocol, unspecified(ip)));
        let is_own =
            own.is_some() || (all.is_some_and(|all| overlap(all, addr.port(), last)) && is_local(ip));
        if !is_own {
            return Vec::new();
        }
        let reached = |port: u16| own.and_then(|own| node(own, port)).or_else(|| node(all?, port));
        let edge = |offset: u16| {
            let to = reached(addr.port().checked_add(offset)?)?;
            // A TLS client still asks for the same name, so that of all routes of a shared port it reaches its own again.
            let port = route.listen.shared_port();
            let is_shared = port.is_some() && self.route(to)?.listen.shared_port() == port;
            Some((first + usize::from(offset), if is_shared { first } else { to }))
        };
        (0..width(&route.listen)).filter_map(edge).collect()
    }
}

fn overlap(ranges: &Ranges, low: u16, high: u16) -> bool {
    ranges.range(..=high).next_back().is_some_and(|(_, (last, _))| *last >= low)
}

/// Returns the node of a port.
fn node(ranges: &Ranges, port: u16) -> Option<usize> {
    let (low, (high, first)) = ranges.range(..=port).next_back()?;
    (port <= *high).then(|| first + usize::from(port - low))
}

fn width(listen: &Listen) -> u16 {
    u16::try_from(listen.count()).unwrap_or(u16::MAX)
}

/// Returns the address that a connection to `ip` reaches: the kernel connects to loopback if the address is unspecified.
fn connected_to(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Returns the unspecified address of the same family.
fn unspecified(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Returns the endpoints with an edge on a cycle, and the node that one such edge leads to.
fn cyclic(edges: &[Edge]) -> BTreeMap<(usize, usize), usize> {
    if edges.is_empty() {
        return BTreeMap::new();
    }
    let (mut out, mut into) = (Neighbours::new(), Neighbours::new());
    for Edge { from, to, .. } in edges {
        out.entry(*from).or_default().push(*to);
        into.entry(*to).or_default().push(*from);
    }
    // Kosaraju's algorithm: a backward search in the reverse order of finishing yields the strongly connected components.
    let order = trees(&out, edges.iter().map(|edge| edge.from)).concat();
    let components = trees(&into, order.into_iter().rev());
    let component: HashMap<usize, usize> =
        components.iter().enumerate().flat_map(|(n, tree)| tree.iter().map(move |node| (*node, n))).collect();
    let on_cycle = edges.iter().filter(|edge| component.get(&edge.from) == component.get(&edge.to));
    on_cycle.map(|edge| (edge.by, edge.to)).collect_ordered()
}

/// Searches depth first from each of `roots` that was not reached before. Returns the nodes of each search in the order in
/// which they finish.
fn trees(next: &Neighbours, roots: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    let (mut seen, mut trees) = (HashSet::new(), Vec::new());
    for root in roots {
        let mut finished = Vec::new();
        let mut path = if seen.insert(root) { vec![(root, 0)] } else { Vec::new() };
        while let Some((node, tried)) = path.last_mut() {
            let to = next.get(node).and_then(|to| to.get(*tried)).copied();
            *tried += 1;
            match to {
                Some(to) if seen.insert(to) => path.push((to, 0)),
                Some(_) => {}
                None => finished.extend(path.pop().map(|(node, _)| node)),
            }
        }
        trees.push(finished);
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Identity;
    use crate::config::grammar::parse_route;
    use crate::diagnostic::Place;
    use crate::route::Target;

    /// Returns the problems of routes on a host with the addresses `10.0.0.1` and loopback, each with the name of its route.
    fn problems(lines: &[&str]) -> Vec<String> {
        let routes: Vec<Route> = lines.iter().map(|line| parse_route(line, &Place::Built).unwrap()).collect();
        let mut ports = Ports::default();
        for route in &routes {
            let bound: Vec<SocketAddr> = match &route.listen {
                Listen::Inet { ip, ports, .. } => {
                    let ip = ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
                    (ports.first..=ports.last).map(|port| SocketAddr::new(ip, port)).collect()
                }
                Listen::Names { port, .. } => {
                    vec![SocketAddr::new(port.ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port.port)]
                }
                Listen::Unix(_) | Listen::Peer { .. } => Vec::new(),
            };
            ports.add(route, &bound);
        }
        let endpoint = |target: &Target| match target {
            Target::Addr(addr) => EndpointSpec::new(EndpointAddr::Inet(*addr), Identity::Literal),
            Target::Unix(path) => EndpointSpec::new(EndpointAddr::Unix(path.clone()), Identity::Literal),
            _ => panic!("{target}"),
        };
        let candidate = |route| Candidate {
            route,
            endpoints: Route::all_targets(route).map(endpoint).collect(),
            problems: Vec::new(),
            cyclic: Vec::new(),
        };
        let mut candidates: Vec<Candidate<'_>> = routes.iter().map(candidate).collect();
        exclude(&ports, &mut candidates, |ip| ip.is_loopback() || ip == IpAddr::from([10, 0, 0, 1]));
        let named = |candidate: &Candidate<'_>| {
            let name = candidate.route.options.name.clone();
            assert_eq!(candidate.problems.len(), candidate.cyclic.len());
            candidate.problems.iter().map(move |problem| format!("{name}: {problem}")).collect::<Vec<_>>()
        };
        candidates.iter().flat_map(named).collect()
    }

    #[test]
    fn listener_is_recognised_by_each_address_that_reaches_it() {
        for line in [
            "127.0.0.1:7001=127.0.0.1:7001?name=r",
            "7001=127.9.9.9:7001?name=r",
            "7001=10.0.0.1:7001?name=r",
            "7001=[::1]:7001?name=r",
            "7001=0.0.0.0:7001?name=r",
            "0.0.0.0:7001=10.0.0.1:7001?name=r",
            "[::]:7001=[::1]:7001?name=r",
            "7001/udp=127.0.0.1:7001?name=r",
            "/run/r.sock=unix:/run/r.sock?name=r",
            "7001=10.0.0.2:7001?name=r&backup=10.0.0.1:7001",
            "7001-7003=127.0.0.1:7001?name=r",
        ] {
            let found = problems(&[line]);
            assert!(
                found.len() == 1 && found[0].ends_with("is this route's own listener"),
                "{line}: {found:?}"
            );
        }
        for line in [
            "127.0.0.1:7001=127.0.0.2:7001",
            "127.0.0.1:7001=127.0.0.1:7002",
            "7001=10.0.0.2:7001",
            "0.0.0.0:7001=[::1]:7001",
            "[::]:7001=127.0.0.1:7001",
            "/run/r.sock=unix:/run/s.sock",
        ] {
            assert_eq!(problems(&[line]), [""; 0], "{line}");
        }
        assert_eq!(
            problems(&["7001/udp=127.0.0.1:7002", "7002=127.0.0.1:7001"]),
            [""; 0],
            "another protocol"
        );
    }

    #[test]
    fn cycles_of_routes_are_found_and_chains_are_not() {
        let chain = ["1=127.0.0.1:2", "2=127.0.0.1:3,10.0.0.9:3", "3=10.0.0.9:3"];
        assert_eq!(problems(&chain), [""; 0]);
        let cycle = ["1=127.0.0.1:2?name=a", "2=127.0.0.1:1,10.0.0.9:3?name=b", "3=127.0.0.1:1?name=c"];
        assert_eq!(
            problems(&cycle),
            [
                "a: endpoint 127.0.0.1:2 is the listener of route `b`, which leads back to this route",
                "b: endpoint 127.0.0.1:1 is the listener of route `a`, which leads back to this route",
            ],
            "a route that leads to a cycle is not part of it"
        );
    }

    #[test]
    fn range_is_cyclic_where_a_port_leads_to_itself() {
        assert_eq!(
            problems(&["7000-7100=127.0.0.1:7050"]),
            [""; 0],
            "each port leads to the next, and the last one out"
        );
        let crossed = ["7000-7001=127.0.0.1:8000?name=a", "8001-8002=127.0.0.1:7001?name=b"];
        assert_eq!(problems(&crossed).len(), 2);
        assert_eq!(problems(&["65535=127.0.0.1:65535?name=r"]).len(), 1);
    }
}
