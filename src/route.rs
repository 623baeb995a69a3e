//! Routes and the route table. Pure: no I/O, no clock.
//!
//! A [`Route`] is complete: no required part is optional. Its `Display` is the grammar of `config::grammar`, so a printed
//! route parses to the same route.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::diagnostic::Place;

pub mod index;
mod options;
pub mod server_names;
mod table;

pub use options::{
    Balance, Check, HOLD_DEFAULT, Health, LABEL_HOLD_MAX, OnRemove, OnUnhealthy, Options, ProxySender,
    ProxyTlv, ProxyVersion,
};
pub use server_names::ServerNames;
pub use table::{Diff, Layer, RouteTable, Shadowed, diff, merge};

/// A listener, its targets and its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the route accepts connections; unique in a table.
    pub listen: Listen,
    /// In the order written. The endpoints of all targets belong to one cluster.
    pub targets: Vec<Target>,
    /// The complete options: those written, and defaults.
    pub options: Options,
    /// Where the route was written. Not part of the route's identity ([`Route::runs_like`]).
    pub origin: Place,
}

/// The address on which a route accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// An IP listener.
    Inet {
        /// TCP unless written `PORT/udp`.
        protocol: Protocol,
        /// `None` for all addresses, IPv6 and IPv4.
        ip: Option<IpAddr>,
        /// One port or a range; port 0 selects a free port.
        ports: PortRange,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// The tunnels of peers: the route is offered to peers under a name.
    Peer {
        /// TCP unless written `peer:NAME/udp`.
        protocol: Protocol,
        /// The name of the export.
        name: String,
    },
    /// The TLS connections to a TCP port that ask for one of these names (SNI). Routes of other names share the port.
    Names {
        /// The port.
        port: SharedPort,
        /// Each in lower case: `a.example.com`, `*.example.com` for all names that end so, `*` for every other name and for none.
        names: BTreeSet<String>,
    },
}

/// A TCP port whose routes are chosen by the name that a TLS client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedPort {
    /// `None` is every address.
    pub ip: Option<IpAddr>,
    /// Zero is any free port.
    pub port: u16,
}

/// The transport protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// An inclusive range of ports; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, part of the range.
    pub last: u16,
}

/// What a route connects to. The port is that of the first port of the listener: port `first + n` of a range is relayed to
/// `port + n`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An IP address, which is one endpoint.
    Addr(SocketAddr),
    /// A DNS name. Every A and AAAA record is an endpoint.
    Host {
        /// The name to look up.
        host: String,
        /// The port of every endpoint.
        port: u16,
    },
    /// A DNS name with SRV records, which contain host, port, priority and weight (RFC 2782).
    Srv {
        /// The name of the records, such as `_redis._tcp.example.com`.
        name: String,
    },
    /// A service in Consul's catalog. Every instance that passes its checks is an endpoint.
    Consul(ConsulService),
    /// A file with one endpoint per line.
    File(PathBuf),
    /// A unix socket.
    Unix(PathBuf),
    /// Containers by name, ID or Compose service; every match is an endpoint. Without a `port`, the listener's port is used if
    /// the container exposes it, and its only exposed port otherwise.
    Docker {
        /// A name, an ID or a Compose service.
        name: String,
        /// The port of the container.
        port: Option<u16>,
    },
    /// Containers by label.
    Labelled {
        /// The key of the label.
        key: String,
        /// `None` matches any value.
        value: Option<String>,
        /// As in `Docker`.
        port: Option<u16>,
    },
    /// The keys of etcd below a prefix. The value of each is an endpoint.
    Etcd(EtcdKeys),
    /// An export of a peer.
    Peer(PeerTarget),
    /// An address that is reached over TLS.
    Tls(TlsHost),
}

/// The default port of `--peer-listen`: that of HBONE.
pub const PEER_PORT: u16 = 15008;

/// An export of a peer, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerTarget {
    /// Where the peer is.
    pub host: PeerHost,
    /// The name under which the peer offers the service.
    pub export: String,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerHost {
    /// An IP address, which is one endpoint.
    Addr(SocketAddr),
    /// A DNS name. Every address is an endpoint.
    Name {
        /// The name to look up.
        host: String,
        /// The port of every endpoint.
        port: u16,
    },
    /// The peers that have dialled us under this identity.
    Identity(String),
}

/// Where a target `tls://` is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsHost {
    /// An IP address, which is one endpoint.
    Addr(SocketAddr),
    /// A DNS name. Every address is an endpoint.
    Name {
        /// The name to look up, and by default to verify.
        host: String,
        /// The port of every endpoint.
        port: u16,
    },
}

impl TlsHost {
    /// Returns the name that the certificate must have by default.
    pub fn name(&self) -> String {
        match self {
            TlsHost::Addr(addr) => addr.ip().to_string(),
            TlsHost::Name { host, .. } => host.clone(),
        }
    }
}

/// A prefix of keys in an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtcdKeys {
    /// Whether the members are reached over TLS (`etcds://`).
    pub tls: bool,
    /// At least one, each `host:port`, in the order in which they are tried.
    pub members: Vec<String>,
    /// Starts with a slash and does not end with one. Selects the key itself and the keys below it.
    pub prefix: String,
}

/// A service in the catalog of a Consul agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsulService {
    /// `HOST:PORT`. `None` for the agent of the environment, by default that of this host.
    pub agent: Option<String>,
    /// The name of the service.
    pub service: String,
    /// The tags that an instance must have.
    pub tags: BTreeSet<String>,
    /// `None` for the datacenter of the agent.
    pub datacenter: Option<String>,
}

impl Target {
    /// Returns whether the target has a source of its own for its endpoints.
    pub fn is_followed(&self) -> bool {
        match self {
            Target::Host { .. }
            | Target::Srv { .. }
            | Target::Consul(_)
            | Target::File(_)
            | Target::Etcd(_)
            | Target::Tls(TlsHost::Name { .. })
            | Target::Peer(PeerTarget { host: PeerHost::Name { .. } | PeerHost::Identity(_), .. }) => true,
            Target::Peer(PeerTarget { host: PeerHost::Addr(_), .. })
            | Target::Tls(TlsHost::Addr(_))
            | Target::Addr(_)
            | Target::Unix(_)
            | Target::Docker { .. }
            | Target::Labelled { .. } => false,
        }
    }

    /// Returns whether the target can yield endpoints that are reached over TLS: written itself, or by a source.
    pub fn may_dial_tls(&self) -> bool {
        matches!(self, Target::Tls(_) | Target::Etcd(_) | Target::Consul(_) | Target::File(_))
    }

    /// Returns whether the target can yield peers that are dialled: written itself, or by a source.
    pub fn may_dial_peers(&self) -> bool {
        match self {
            Target::Peer(PeerTarget { host, .. }) => !matches!(host, PeerHost::Identity(_)),
            Target::Etcd(_) | Target::Consul(_) | Target::File(_) => true,
            Target::Addr(_)
            | Target::Tls(_)
            | Target::Host { .. }
            | Target::Srv { .. }
            | Target::Unix(_)
            | Target::Docker { .. }
            | Target::Labelled { .. } => false,
        }
    }
}

impl Route {
    /// Returns a route with default options, named after its listener.
    pub fn new(listen: Listen, targets: Vec<Target>, origin: Place) -> Route {
        let options = Options::named(listen.to_string());
        Route { listen, targets, options, origin }
    }

    /// Returns whether the routes cannot be in the same table: their listeners overlap or their names are equal.
    pub fn excludes(&self, other: &Route) -> bool {
        self.listen.overlaps(&other.listen) || self.options.name == other.options.name
    }

    /// Returns the targets, including the backups.
    pub fn all_targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.options.backup)
    }

    /// Returns whether a target is resolved by Docker.
    pub fn wants_docker(&self) -> bool {
        self.all_targets().any(|target| matches!(target, Target::Docker { .. } | Target::Labelled { .. }))
    }

    /// Returns whether a target is resolved by the Consul agent of the environment.
    pub fn wants_default_consul(&self) -> bool {
        self.all_targets().any(|target| matches!(target, Target::Consul(ConsulService { agent: None, .. })))
    }

    /// Returns whether the routes are equal but for their origin.
    pub fn runs_like(&self, other: &Route) -> bool {
        self.listen == other.listen && self.targets == other.targets && self.options == other.options
    }
}

impl Listen {
    /// Returns the transport protocol: TCP for a unix socket.
    pub fn protocol(&self) -> Protocol {
        match self {
            Listen::Inet { protocol, .. } | Listen::Peer { protocol, .. } => *protocol,
            Listen::Unix(_) | Listen::Names { .. } => Protocol::Tcp,
        }
    }

    /// Returns what is bound: `None` for a unix socket and for an export.
    pub fn ports(&self) -> Option<(Protocol, Option<IpAddr>, PortRange)> {
        match self {
            Listen::Inet { protocol, ip, ports } => Some((*protocol, *ip, *ports)),
            Listen::Names { port: SharedPort { ip, port }, .. } => {
                Some((Protocol::Tcp, *ip, PortRange::single(*port)))
            }
            Listen::Unix(_) | Listen::Peer { .. } => None,
        }
    }

    /// Returns the port that routes of other names share.
    pub fn shared_port(&self) -> Option<SharedPort> {
        match self {
            Listen::Names { port, .. } => Some(*port),
            Listen::Inet { .. } | Listen::Unix(_) | Listen::Peer { .. } => None,
        }
    }

    /// Returns the first port, which is the default port of targets; `None` for a unix socket.
    pub fn first_port(&self) -> Option<u16> {
        self.ports().map(|(_, _, ports)| ports.first)
    }

    /// Returns the number of ports; a unix socket and an export count as one.
    pub fn count(&self) -> usize {
        self.ports().map_or(1, |(_, _, ports)| ports.count())
    }

    /// Returns whether the ports, mapped to those from `first` on, do not exceed 65535.
    pub fn has_counterparts_from(&self, first: u16) -> bool {
        usize::from(first) + self.count() - 1 <= usize::from(u16::MAX)
    }

    /// Returns the same ports on all addresses of the other family; `None` without an address, or for port 0.
    pub(crate) fn on_other_family(&self) -> Option<Listen> {
        let (protocol, Some(ip), ports) = self.ports()? else { return None };
        let other = match ip {
            IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let listen = Listen::Inet { protocol, ip: Some(other), ports };
        Some(listen).filter(|_| ports.first != 0)
    }

    /// Returns whether the listeners cannot be bound at the same time: they share a port on a shared address. Port 0, which
    /// selects any free port, does not overlap.
    pub fn overlaps(&self, other: &Listen) -> bool {
        if let (Listen::Names { port, names }, Listen::Names { port: other_port, names: other_names }) =
            (self, other)
            && port == other_port
        {
            return !names.is_disjoint(other_names);
        }
        let (Some(ours), Some(theirs)) = (self.ports(), other.ports()) else { return self == other };
        let (protocol, ip, ports) = ours;
        let (other_protocol, other_ip, other_ports) = theirs;
        let free = ports.first == 0 || other_ports.first == 0;
        let both = protocol == other_protocol && share_address(ip, other_ip);
        self == other || (both && !free && ports.overlaps(other_ports))
    }
}

/// Returns whether two listeners share an address. `None` is every address; `0.0.0.0` and `::` are every address of their
/// family (`::` is bound with `IPV6_V6ONLY`).
fn share_address(this: Option<IpAddr>, that: Option<IpAddr>) -> bool {
    let (Some(this), Some(that)) = (this, that) else { return true };
    let all_of_one_family =
        this.is_ipv4() == that.is_ipv4() && (this.is_unspecified() || that.is_unspecified());
    this == that || all_of_one_family
}

impl PortRange {
    /// Returns the range of one port.
    pub fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// Returns the number of ports.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Returns whether the ranges share a port.
    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

// === Display in the syntax of the grammar ===

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.listen)?;
        for (n, target) in self.targets.iter().enumerate() {
            write!(f, "{}{target}", if n == 0 { "" } else { "," })?;
        }
        let written = self.options.differing(&Options::named(self.listen.to_string()));
        for (n, (key, value)) in written.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { "?" } else { "&" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix(path) => write!(f, "{}", path.display()),
            Listen::Peer { protocol: Protocol::Tcp, name } => write!(f, "peer:{name}"),
            Listen::Peer { protocol: Protocol::Udp, name } => write!(f, "peer:{name}/udp"),
            Listen::Inet { protocol, ip, ports } => {
                write_ip(f, *ip)?;
                write!(f, "{ports}")?;
                if *protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
            }
            Listen::Names { port: SharedPort { ip, port }, names } => {
                write_ip(f, *ip)?;
                write!(f, "{port}/")?;
                for (n, name) in names.iter().enumerate() {
                    // The final dot tells a name of one label from a protocol.
                    let dot = if name == "*" || name.contains('.') { "" } else { "." };
                    write!(f, "{}{name}{dot}", if n == 0 { "" } else { "+" })?;
                }
                Ok(())
            }
        }
    }
}

/// Writes the part before the port.
fn write_ip(f: &mut fmt::Formatter<'_>, ip: Option<IpAddr>) -> fmt::Result {
    match ip {
        Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:"),
        Some(IpAddr::V4(ip)) => write!(f, "{ip}:"),
        None => Ok(()),
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Addr(addr) => write!(f, "{addr}"),
            Target::Host { host, port } => write!(f, "{host}:{port}"),
            Target::Srv { name } => write!(f, "srv://{name}"),
            Target::Consul(service) => write!(f, "{service}"),
            Target::File(path) => write!(f, "file:{}", path.display()),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Docker { name, port } => {
                write!(f, "docker://{}{}", shortened(name), Suffix(':', port.as_ref()))
            }
            Target::Labelled { key, value, port } => {
                write!(f, "docker://label:{key}{}{}", Suffix('=', value.as_ref()), Suffix(':', port.as_ref()))
            }
            Target::Etcd(keys) => write!(f, "{keys}"),
            Target::Peer(peer) => write!(f, "{peer}"),
            Target::Tls(TlsHost::Addr(addr)) => write!(f, "tls://{addr}"),
            Target::Tls(TlsHost::Name { host, port }) => write!(f, "tls://{host}:{port}"),
        }
    }
}

impl fmt::Display for PeerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerTarget { host, export } = self;
        match host {
            PeerHost::Addr(addr) => {
                // Includes the zone of an IPv6 address.
                let addr = addr.to_string();
                let default = format!(":{PEER_PORT}");
                write!(f, "peer://{}/{export}", addr.strip_suffix(&default).unwrap_or(&addr))
            }
            PeerHost::Name { host, port: PEER_PORT } => write!(f, "peer://{host}/{export}"),
            PeerHost::Name { host, port } => write!(f, "peer://{host}:{port}/{export}"),
            PeerHost::Identity(identity) => write!(f, "peer://@{identity}/{export}"),
        }
    }
}

/// Shortens an ID to its first twelve digits, as in `docker ps`.
fn shortened(name: &str) -> &str {
    let is_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    name.get(..12).filter(|_| is_id).unwrap_or(name)
}

impl fmt::Display for ConsulService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("consul://")?;
        if let Some(agent) = &self.agent {
            write!(f, "{agent}/")?;
        }
        f.write_str(&self.service)?;
        self.tags.iter().try_for_each(|tag| write!(f, "+{tag}"))?;
        write!(f, "{}", Suffix('@', self.datacenter.as_ref()))
    }
}

/// Displays an optional part after its separator.
struct Suffix<T>(char, Option<T>);

impl<T: fmt::Display> fmt::Display for Suffix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suffix(mark, Some(text)) => write!(f, "{mark}{text}"),
            Suffix(_, None) => Ok(()),
        }
    }
}

impl fmt::Display for EtcdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EtcdKeys { tls, members, prefix } = self;
        write!(f, "etcd{}://{}{prefix}", if *tls { "s" } else { "" }, members.join(","))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests;
