//! The endpoints of a route and what is known about each, as sessions see them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a source says about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    pub addr: EndpointAddr,
    pub identity: Identity,
}

/// Where to connect to.
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
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddr::Inet(addr) => write!(f, "{addr}"),
            EndpointAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
