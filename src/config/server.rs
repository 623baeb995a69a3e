//! The configured address of a server. Pure.

use std::fmt;
use std::path::PathBuf;

/// How to connect to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// With TLS. `ca` is the only trusted authority; without `verify`, every server is trusted.
    Tls {
        /// `host:port`.
        address: String,
        /// A file of CA certificates in PEM.
        ca: PathBuf,
        /// `None` sends no client certificate.
        client: Option<ClientFiles>,
        /// Whether the certificate is verified, against `ca` and the host of `address`.
        verify: bool,
    },
}

/// The client certificate and its key. If neither file exists, no certificate is sent, as in Docker's own client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// A chain of certificates in PEM.
    pub cert: PathBuf,
    /// A private key in PEM.
    pub key: PathBuf,
}

/// Displays the address in the syntax of `DOCKER_HOST`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Unix(path) => write!(f, "unix://{}", path.display()),
            Server::Tcp(address) | Server::Tls { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}
