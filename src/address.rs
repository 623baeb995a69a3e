//! The address, the identity and the share of an endpoint. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::digits::write_socket_addr;

/// An endpoint as a source reports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    /// Its address and identity.
    pub key: EndpointKey,
    /// Its share of new sessions, relative to the other endpoints of its tier. With zero it takes none.
    pub weight: u32,
    /// It is tried only if no endpoint of a lower tier accepts a connection. Tiers of `backup` start at [`BACKUP_TIER`].
    pub tier: u32,
}

/// The first tier of `backup`. Tiers of other targets are lower: SRV priorities have 16 bits (RFC 2782).
pub const BACKUP_TIER: u32 = 1 << 16;

/// The largest weight of any source: that of DNS SRV records (RFC 2782), so that a cluster can mix them.
pub const WEIGHT_MAX: u32 = 65_535;

/// What identifies an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The address of the first port; that of other ports of a range is [`EndpointAddr::shifted`].
    pub addr: EndpointAddr,
    /// Tells apart endpoints that have the same address.
    pub identity: Identity,
}

/// The address to connect to. The port corresponds to the first port of the route's listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddr {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// The path of a unix stream socket.
    Unix(PathBuf),
    /// An export of a peer. Boxed, because few endpoints are.
    Peer(Box<PeerAddr>),
    /// An address that is reached over TLS. Boxed, because few endpoints are.
    Tls(Box<TlsAddr>),
}

/// An address that is reached over TLS, and what is verified there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsAddr {
    /// The address.
    pub addr: SocketAddr,
    /// The name that is sent (SNI), and that the certificate must have: a DNS name or an IP address.
    pub name: String,
    /// The file of the CAs that are trusted; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The name of the client certificate.
    pub cert: Option<String>,
}

/// How the addresses of a host are reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// By a connection.
    Plain,
    /// By a session in a tunnel: the peer there has an export of this name.
    Peer(String),
    /// By a connection with TLS.
    Tls,
}

/// An export of a peer: the name of a `peer:` route, and where the peer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    /// How to reach the peer.
    pub via: PeerVia,
    /// The name under which the peer offers the service.
    pub export: String,
}

/// How to reach a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerVia {
    /// We dial the peer.
    Dial {
        /// The address of its `--peer-listen`.
        addr: SocketAddr,
        /// What its certificate must contain.
        name: PeerName,
    },
    /// The peer has dialled us (`--peer-dial`).
    Reverse {
        /// The identity in its certificate.
        identity: String,
        /// The address that it dialled from. Tunnels from the same address are interchangeable.
        ip: IpAddr,
    },
}

/// What the certificate of a peer must contain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerName {
    /// The host of the target, a DNS name or an IP address. Not verified with a shared secret, whose names are self-asserted.
    Host(String),
    /// The value of the option `identity`.
    Identity(String),
}

/// The identity of an endpoint, in addition to its address: two containers that have the same address one after the other are
/// two endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// An address in a route.
    Literal,
    /// An address of a DNS name.
    Name(String),
    /// A container.
    Container {
        /// The full ID: 64 hexadecimal digits.
        id: String,
        /// The name, for messages.
        name: String,
    },
    /// The key of a registry: an etcd key, a Consul service ID.
    Key(String),
}

impl EndpointSpec {
    /// Returns an endpoint of weight 1 in the first tier.
    pub fn new(addr: EndpointAddr, identity: Identity) -> EndpointSpec {
        EndpointSpec { key: EndpointKey { addr, identity }, weight: 1, tier: 0 }
    }
}

impl PeerVia {
    /// Returns the name of the peer as it is written in the route.
    pub fn name(&self) -> &str {
        match self {
            PeerVia::Dial { name: PeerName::Host(name) | PeerName::Identity(name), .. } => name,
            PeerVia::Reverse { identity, .. } => identity,
        }
    }

    /// Returns the address of the peer: with a port if we dial it.
    pub fn remote(&self) -> String {
        match self {
            PeerVia::Dial { addr, .. } => addr.to_string(),
            PeerVia::Reverse { ip, .. } => ip.to_string(),
        }
    }
}

/// The peers that have dialled us: the identity in the certificate, and the address that each dialled from.
pub type ReversePeers = BTreeSet<(String, IpAddr)>;

impl EndpointAddr {
    /// Returns the address of a host, which is a name or an IP address.
    pub fn of_host(addr: SocketAddr, host: &str, scheme: &Scheme) -> EndpointAddr {
        let export = match scheme {
            Scheme::Plain => return EndpointAddr::Inet(addr),
            Scheme::Tls => return EndpointAddr::tls(addr, host),
            Scheme::Peer(export) => export,
        };
        let via = PeerVia::Dial { addr, name: PeerName::Host(host.to_owned()) };
        EndpointAddr::Peer(Box::new(PeerAddr { via, export: export.clone() }))
    }

    /// Returns the address of an export of the peer at an IP address.
    pub fn peer_at(addr: SocketAddr, export: &str) -> EndpointAddr {
        EndpointAddr::of_host(addr, &addr.ip().to_string(), &Scheme::Peer(export.to_owned()))
    }

    /// Returns the address of an export of a peer that has dialled us.
    pub fn reverse_peer(identity: &str, ip: IpAddr, export: &str) -> EndpointAddr {
        let via = PeerVia::Reverse { identity: identity.to_owned(), ip };
        EndpointAddr::Peer(Box::new(PeerAddr { via, export: export.to_owned() }))
    }

    /// Returns an address that is reached over TLS. `host` is the name in the target: a DNS name or an IP address.
    pub fn tls(addr: SocketAddr, host: &str) -> EndpointAddr {
        EndpointAddr::Tls(Box::new(TlsAddr { addr, name: host.to_owned(), ca: None, cert: None }))
    }

    /// Sets how an address that is reached over TLS is verified. Without `sni`, the name stays that in the target.
    pub fn verify_with(&mut self, sni: Option<&str>, ca: Option<&Path>, cert: Option<&str>) {
        if let EndpointAddr::Tls(tls) = self {
            tls.name = sni.map_or_else(|| std::mem::take(&mut tls.name), str::to_owned);
            tls.ca = ca.map(Path::to_owned);
            tls.cert = cert.map(str::to_owned);
        }
    }

    /// Replaces what the certificate of a peer that is dialled must contain.
    pub fn require_identity(&mut self, identity: &str) {
        if let EndpointAddr::Peer(peer) = self
            && let PeerVia::Dial { name, .. } = &mut peer.via
        {
            *name = PeerName::Identity(identity.to_owned());
        }
    }

    /// Returns the address for the n-th port of a range. Fails if the port would exceed 65535.
    pub fn shifted(&self, offset: u16) -> io::Result<EndpointAddr> {
        match self {
            EndpointAddr::Inet(addr) => Ok(EndpointAddr::Inet(shifted(*addr, offset)?)),
            EndpointAddr::Tls(tls) => {
                let addr = shifted(tls.addr, offset)?;
                Ok(EndpointAddr::Tls(Box::new(TlsAddr { addr, ..(**tls).clone() })))
            }
            EndpointAddr::Unix(_) | EndpointAddr::Peer(_) => Ok(self.clone()),
        }
    }
}

fn shifted(addr: SocketAddr, offset: u16) -> io::Result<SocketAddr> {
    let port = addr.port().checked_add(offset).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(SocketAddr::new(addr.ip(), port))
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddr::Inet(addr) => write_socket_addr(f, *addr),
            EndpointAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            EndpointAddr::Peer(peer) => write!(f, "{peer}"),
            EndpointAddr::Tls(tls) => {
                f.write_str("tls://")?;
                write_socket_addr(f, tls.addr)
            }
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerAddr { via, export } = self;
        match via {
            PeerVia::Dial { addr, .. } => write!(f, "peer://{addr}/{export}"),
            PeerVia::Reverse { identity, ip } => write!(f, "peer://@{identity}@{ip}/{export}"),
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
