//! Which listeners and names are taken: asked once for each route of ten thousand, so that asking must not be a look at all.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::{Listen, PortRange, Protocol, Route, share_address};

/// The ports of one address that are taken, no two ranges overlapping: by the first port, the last one and the route.
type Ranges = BTreeMap<u16, (u16, usize)>;

/// Routes that were added, found by what they would be in the way of.
#[derive(Debug, Default)]
pub struct RouteIndex<'r> {
    /// In the order in which they were added.
    routes: Vec<&'r Route>,
    by_name: HashMap<&'r str, usize>,
    by_listen: HashMap<&'r Listen, usize>,
    by_port: BTreeMap<(Protocol, Option<IpAddr>), Ranges>,
    /// Those that overlap another of their address. Only a list with mistakes in it has any.
    crossing: Vec<usize>,
}

impl<'r> RouteIndex<'r> {
    pub fn of(routes: impl IntoIterator<Item = &'r Route>) -> RouteIndex<'r> {
        let mut taken = RouteIndex::default();
        routes.into_iter().for_each(|route| taken.add(route));
        taken
    }

    pub fn add(&mut self, route: &'r Route) {
        let index = self.routes.len();
        self.routes.push(route);
        self.by_name.entry(&route.options.name).or_insert(index);
        self.by_listen.entry(&route.listen).or_insert(index);
        let Listen::Inet { protocol, ip, ports } = &route.listen else { return };
        // Port 0 is in the way of its equal alone.
        if ports.first == 0 {
            return;
        }
        let ranges = self.by_port.entry((*protocol, *ip)).or_default();
        if overlapping(ranges, *ports).is_some() {
            self.crossing.push(index);
        } else {
            ranges.insert(ports.first, (ports.last, index));
        }
    }

    /// The first of those that want this listener, or a part of it.
    pub fn by_listen(&self, listen: &Listen) -> Option<&'r Route> {
        let crossing = self
            .crossing
            .iter()
            .copied()
            .find(|index| self.routes.get(*index).is_some_and(|route| route.listen.overlaps(listen)));
        let equal = self.by_listen.get(listen).copied();
        let first = equal.into_iter().chain(self.by_ports(listen)).chain(crossing).min()?;
        self.routes.get(first).copied()
    }

    pub fn by_name(&self, name: &str) -> Option<&'r Route> {
        self.routes.get(*self.by_name.get(name)?).copied()
    }

    /// One that cannot be in a table with this route.
    pub fn excludes(&self, route: &Route) -> Option<&'r Route> {
        self.by_listen(&route.listen).or_else(|| self.by_name(&route.options.name))
    }

    fn by_ports(&self, listen: &Listen) -> Option<usize> {
        let Listen::Inet { protocol, ip, ports } = listen else { return None };
        if ports.first == 0 {
            return None;
        }
        let first_of = |address: Option<IpAddr>| {
            self.by_port.get(&(*protocol, address)).and_then(|ranges| overlapping(ranges, *ports))
        };
        let Some(one) = ip.filter(|ip| !ip.is_unspecified()) else {
            // Every address, or every one of a family: each that there is.
            let sharing = self.by_port.iter().filter(|((its_protocol, its_ip), _)| {
                its_protocol == protocol && share_address(*its_ip, *ip)
            });
            return sharing.filter_map(|(_, ranges)| overlapping(ranges, *ports)).min();
        };
        [None, Some(one), Some(all_like(one))].into_iter().filter_map(first_of).min()
    }
}

/// The first route of those whose ports overlap.
fn overlapping(ranges: &Ranges, ports: PortRange) -> Option<usize> {
    let up_to = ranges.range(..=ports.last).rev();
    up_to.take_while(|(_, (last, _))| *last >= ports.first).map(|(_, (_, index))| *index).min()
}

/// All addresses of its family.
fn all_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
