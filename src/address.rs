//! What an endpoint is: its address, its identity, and its place in a cluster. Pure.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::digits::write_socket_addr;

/// What a source says about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    pub key: EndpointKey,
    /// Its share of new sessions, relative to the others of its tier. Zero takes none.
    pub weight: u32,
    /// Tried only when no endpoint of a lower tier answers. Those of `backup` start at [`BACKUP_TIER`].
    pub tier: u32,
}

/// Tiers of a route's own targets are below it: SRV priorities have 16 bits (RFC 2782).
pub const BACKUP_TIER: u32 = 1 << 16;

/// The largest weight of any source: that of DNS SRV records (RFC 2782), so that a cluster can mix them.
pub const WEIGHT_MAX: u32 = 65_535;

/// What makes an endpoint this one and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    pub addr: EndpointAddr,
    pub identity: Identity,
}

/// Where to connect to. The port is the one of the route's first listener port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddr {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// Who an endpoint is, beside its address: two containers that have the same address one after the other are two
/// endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Written out in a route.
    Literal,
    /// A DNS name's address.
    Name(String),
    /// A container: its full ID, and its name for people.
    Container { id: String, name: String },
    /// What a registry calls it: an etcd key, a Consul service ID.
    Key(String),
}

impl EndpointSpec {
    /// Of weight 1, in the first tier.
    pub fn new(addr: EndpointAddr, identity: Identity) -> EndpointSpec {
        EndpointSpec { key: EndpointKey { addr, identity }, weight: 1, tier: 0 }
    }
}

impl EndpointAddr {
    /// The address for the n-th port of a range. Fails where that would be beyond the last port.
    pub fn shifted(&self, offset: u16) -> io::Result<EndpointAddr> {
        match self {
            EndpointAddr::Inet(addr) => {
                let port = addr.port().checked_add(offset).ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(EndpointAddr::Inet(SocketAddr::new(addr.ip(), port)))
            }
            EndpointAddr::Unix(path) => Ok(EndpointAddr::Unix(path.clone())),
        }
    }
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddr::Inet(addr) => write_socket_addr(f, *addr),
            EndpointAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Identity::Literal => write!(f, "{}", self.addr),
            Identity::Name(name) | Identity::Key(name) => write!(f, "{} ({name})", self.addr),
            Identity::Container { id, name } => {
                write!(f, "{} (container {name} {})", self.addr, id.get(..12).unwrap_or(id))
            }
        }
    }
}
