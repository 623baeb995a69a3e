//! What will run: a route in full, and the table of them. Pure: no I/O, no clock.
//!
//! [`Route`] is the far side of `config`: nothing in it is optional that must exist. Its `Display` is the grammar of
//! `config::grammar`, so that printing and parsing a route is the identity.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::diagnostic::Place;

pub mod index;
mod options;
mod table;

pub use options::{
    Balance, CONNECT_TIMEOUT_DEFAULT, Check, HALF_CLOSE_TIMEOUT_DEFAULT, HOLD_DEFAULT, Health,
    LABEL_HOLD_MAX, OnRemove, OnUnhealthy, Options,
};
pub use table::{Diff, Layer, RouteTable, Shadowed, diff, merge};

/// One line of the route grammar: where we listen, what we stand in for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub listen: Listen,
    /// In the order written; every endpoint of every target belongs to one cluster.
    pub targets: Vec<Target>,
    pub options: Options,
    /// Where it was written. Two routes that differ in this alone are the same route.
    pub origin: Place,
}

/// The address, or the range of ports, that consumers connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listen {
    /// `ip` is `None` for all addresses, IPv6 and IPv4.
    Inet {
        protocol: Protocol,
        ip: Option<IpAddr>,
        ports: PortRange,
    },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Both ends included; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// What a route stands in for. The port is the one of the route's first listener port: port `first + n` of a range
/// is relayed to `port + n`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An IP literal. One endpoint, known without asking anybody.
    Addr(SocketAddr),
    /// A DNS name. Every A and AAAA record is an endpoint.
    Host { host: String, port: u16 },
    /// A DNS name with SRV records, which say host, port, priority and weight (RFC 2782).
    Srv { name: String },
    /// A service of Consul's catalog: every instance that passes its checks is an endpoint.
    Consul(ConsulService),
    /// A file with an endpoint a line.
    File(PathBuf),
    /// A unix socket.
    Unix(PathBuf),
    /// A container by name, ID or Compose service; every match is an endpoint. `port` is `None` for the listener's
    /// port if the container exposes it, else its only exposed port.
    Docker { name: String, port: Option<u16> },
    /// Every container with this label; without a value, whatever its value. `port` as above.
    Labelled { key: String, value: Option<String>, port: Option<u16> },
    /// Keys of etcd; the value of each is an endpoint.
    Etcd(EtcdKeys),
}

/// The keys below a prefix, and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtcdKeys {
    pub tls: bool,
    /// `host:port` each, at least one, in the order to try them.
    pub members: Vec<String>,
    /// Begins with a slash and does not end with one. Means itself and all that begins with it and a slash.
    pub prefix: String,
}

/// The instances of a service that a Consul agent knows of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsulService {
    /// `HOST:PORT`. `None` for the one that the environment names, by default our own machine's.
    pub agent: Option<String>,
    pub service: String,
    /// An instance must have all of them.
    pub tags: BTreeSet<String>,
    /// `None` for the agent's own.
    pub datacenter: Option<String>,
}

impl Target {
    /// Whether its endpoints come from a source of its own.
    pub fn is_followed(&self) -> bool {
        match self {
            Target::Host { .. }
            | Target::Srv { .. }
            | Target::Consul(_)
            | Target::File(_)
            | Target::Etcd(_) => true,
            Target::Addr(_) | Target::Unix(_) | Target::Docker { .. } | Target::Labelled { .. } => false,
        }
    }
}

impl Route {
    /// A route with default options, named after its listener.
    pub fn new(listen: Listen, targets: Vec<Target>, origin: Place) -> Route {
        let options = Options::named(listen.to_string());
        Route { listen, targets, options, origin }
    }

    /// Whether both could not be in one table: they want one listener, or one name.
    pub fn excludes(&self, other: &Route) -> bool {
        self.listen.overlaps(&other.listen) || self.options.name == other.options.name
    }

    /// Every target, the backups included.
    pub fn all_targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.options.backup)
    }

    /// Whether a target can be found by asking Docker alone.
    pub fn wants_docker(&self) -> bool {
        self.all_targets().any(|target| matches!(target, Target::Docker { .. } | Target::Labelled { .. }))
    }

    /// Whether a target is found by asking the Consul that the environment names.
    pub fn wants_default_consul(&self) -> bool {
        self.all_targets().any(|target| matches!(target, Target::Consul(ConsulService { agent: None, .. })))
    }

    /// Same listener, targets and options, wherever they were written.
    pub fn runs_like(&self, other: &Route) -> bool {
        self.listen == other.listen && self.targets == other.targets && self.options == other.options
    }
}

impl Listen {
    pub fn protocol(&self) -> Protocol {
        match self {
            Listen::Inet { protocol, .. } => *protocol,
            Listen::Unix(_) => Protocol::Tcp,
        }
    }

    /// The first port, which targets without a port take. `None` for a unix socket.
    pub fn first_port(&self) -> Option<u16> {
        match self {
            Listen::Inet { ports, .. } => Some(ports.first),
            Listen::Unix(_) => None,
        }
    }

    /// How many ports it has; a unix socket counts as one.
    pub fn count(&self) -> usize {
        match self {
            Listen::Inet { ports, .. } => ports.count(),
            Listen::Unix(_) => 1,
        }
    }

    /// Whether each of its ports leads to a port, where the first leads to `first`.
    pub fn has_counterparts_from(&self, first: u16) -> bool {
        usize::from(first) + self.count() - 1 <= usize::from(u16::MAX)
    }

    /// The same ports on every address of the other family; `None` where it has no address of one family, or no port of
    /// its own choice.
    pub(crate) fn on_other_family(&self) -> Option<Listen> {
        let Listen::Inet { protocol, ip: Some(ip), ports } = self else { return None };
        let other = match ip {
            IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let listen = Listen::Inet { protocol: *protocol, ip: Some(other), ports: *ports };
        Some(listen).filter(|_| ports.first != 0)
    }

    /// Whether both could not be bound at once: a port in common, on a common address. Port 0, which takes any free
    /// port, is in nobody's way.
    pub fn overlaps(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Unix(this), Listen::Unix(that)) => this == that,
            (
                Listen::Inet { protocol, ip, ports },
                Listen::Inet { protocol: other_protocol, ip: other_ip, ports: other_ports },
            ) => {
                let free = ports.first == 0 || other_ports.first == 0;
                let both = protocol == other_protocol && share_address(*ip, *other_ip);
                self == other || (both && !free && ports.overlaps(*other_ports))
            }
            (Listen::Unix(_), Listen::Inet { .. }) | (Listen::Inet { .. }, Listen::Unix(_)) => false,
        }
    }
}

/// `None` is every address; `0.0.0.0` and `::` are every address of their family (we bind `::` without IPv4).
fn share_address(this: Option<IpAddr>, that: Option<IpAddr>) -> bool {
    let (Some(this), Some(that)) = (this, that) else { return true };
    let all_of_one_family =
        this.is_ipv4() == that.is_ipv4() && (this.is_unspecified() || that.is_unspecified());
    this == that || all_of_one_family
}

impl PortRange {
    pub fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

// === the grammar, printed ===

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
            Listen::Inet { protocol, ip, ports } => {
                match ip {
                    Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
                    Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
                    None => {}
                }
                write!(f, "{ports}")?;
                if *protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
            }
        }
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
        }
    }
}

/// A whole ID by its first twelve digits, as `docker ps` shows it.
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

/// What may follow, after its mark.
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
