//! How a server is reached, as it was configured.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port`. `ca` is the only authority believed; without `verify`, any server is.
    Tls {
        address: String,
        ca: PathBuf,
        client: Option<ClientFiles>,
        verify: bool,
    },
}

/// Our own certificate and its key. Neither file there: none is shown, as Docker's own client does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// As `DOCKER_HOST` writes it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Unix(path) => write!(f, "unix://{}", path.display()),
            Server::Tcp(address) | Server::Tls { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}
