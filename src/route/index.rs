//! An index of routes by listener and by name, which finds conflicts without comparing every pair of routes. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::{Listen, PortRange, Protocol, Route, SharedPort, server_names, share_address};

/// Disjoint ranges of ports of one address: from the first port to the last port and the route.
type Ranges = BTreeMap<u16, (u16, usize)>;

/// An index of routes by the listeners and names with which they conflict.
#[derive(Debug, Default)]
pub struct RouteIndex<'r> {
    /// In the order of insertion.
    routes: Vec<&'r Route>,
    by_name: HashMap<&'r str, usize>,
    by_listen: HashMap<&'r Listen, usize>,
    by_port: BTreeMap<(Protocol, Option<IpAddr>), Ranges>,
    by_server_name: HashMap<(SharedPort, &'r str), usize>,
    /// The routes whose ports overlap those of another route of their address. Empty for a valid table.
    overlapping: Vec<usize>,
}

impl<'r> RouteIndex<'r> {
    /// Returns an index of these routes.
    pub fn of(routes: impl IntoIterator<Item = &'r Route>) -> RouteIndex<'r> {
        let mut index = RouteIndex::default();
        routes.into_iter().for_each(|route| index.add(route));
        index
    }

    /// Adds a route.
    pub fn add(&mut self, route: &'r Route) {
        let index = self.routes.len();
        self.routes.push(route);
        self.by_name.entry(&route.options.name).or_insert(index);
        self.by_listen.entry(&route.listen).or_insert(index);
        if let Listen::Names { port, names } = &route.listen {
            for name in names {
                self.by_server_name.entry((*port, name)).or_insert(index);
            }
        }
        let Some((protocol, ip, ports)) = route.listen.ports() else { return };
        // Port 0 conflicts only with an equal listener.
        if ports.first == 0 {
            return;
        }
        let ranges = self.by_port.entry((protocol, ip)).or_default();
        match first_overlap(ranges, ports).and_then(|first| self.routes.get(first)) {
            None => drop(ranges.insert(ports.first, (ports.last, index))),
            Some(first) if shares_port(&first.listen, &route.listen) => {}
            Some(_) => self.overlapping.push(index),
        }
    }

    /// Returns the first route whose listener overlaps this one.
    pub fn by_listen(&self, listen: &Listen) -> Option<&'r Route> {
        let overlapping = self
            .overlapping
            .iter()
            .copied()
            .find(|index| self.routes.get(*index).is_some_and(|route| route.listen.overlaps(listen)));
        let equal = self.by_listen.get(listen).copied();
        let found = equal.into_iter().chain(self.by_ports(listen)).chain(self.by_server_names(listen));
        let first = found.chain(overlapping).min()?;
        self.routes.get(first).copied()
    }

    /// Returns the route that serves this server name, by itself or by a wildcard.
    pub fn serving(&self, port: SharedPort, name: &str) -> Option<&'r Route> {
        let wildcards = server_names::suffixes(name).map(|suffix| format!("*.{suffix}"));
        let mut patterns = std::iter::once(name.to_owned()).chain(wildcards).chain(["*".to_owned()]);
        let index = patterns.find_map(|pattern| self.by_server_name.get(&(port, pattern.as_str())).copied());
        self.routes.get(index?).copied()
    }

    /// Returns the first route of this name.
    pub fn by_name(&self, name: &str) -> Option<&'r Route> {
        self.routes.get(*self.by_name.get(name)?).copied()
    }

    /// Returns a route that cannot be in the same table as this one.
    pub fn conflict(&self, route: &Route) -> Option<&'r Route> {
        self.by_listen(&route.listen).or_else(|| self.by_name(&route.options.name))
    }

    fn by_server_names(&self, listen: &Listen) -> Option<usize> {
        let Listen::Names { port, names } = listen else { return None };
        names.iter().filter_map(|name| self.by_server_name.get(&(*port, name.as_str())).copied()).min()
    }

    fn by_ports(&self, listen: &Listen) -> Option<usize> {
        let (protocol, ip, ports) = listen.ports()?;
        if ports.first == 0 {
            return None;
        }
        let conflicting = |ranges: &Ranges| {
            first_overlap(ranges, ports).filter(|first| {
                !self.routes.get(*first).is_some_and(|route| shares_port(&route.listen, listen))
            })
        };
        let first_of = |address: Option<IpAddr>| self.by_port.get(&(protocol, address)).and_then(conflicting);
        let Some(one) = ip.filter(|ip| !ip.is_unspecified()) else {
            // All addresses, or all addresses of a family: compare each indexed address.
            let sharing = self.by_port.iter().filter(|((its_protocol, its_ip), _)| {
                *its_protocol == protocol && share_address(*its_ip, ip)
            });
            return sharing.filter_map(|(_, ranges)| conflicting(ranges)).min();
        };
        [None, Some(one), Some(unspecified(one))].into_iter().filter_map(first_of).min()
    }
}

/// Returns whether both are names of the same port.
fn shares_port(this: &Listen, that: &Listen) -> bool {
    this.shared_port().is_some_and(|port| that.shared_port() == Some(port))
}

/// Returns the first route whose ports overlap.
fn first_overlap(ranges: &Ranges, ports: PortRange) -> Option<usize> {
    let up_to = ranges.range(..=ports.last).rev();
    up_to.take_while(|(_, (last, _))| *last >= ports.first).map(|(_, (_, index))| *index).min()
}

/// Returns the unspecified address of the same family.
fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
