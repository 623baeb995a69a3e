//! Small questions to a server that answers in JSON, over a unix socket, TCP or TLS: what Docker, etcd and Consul speak.
//!
//! A connection for each question. They are few, on the control plane alone, and a pool would have to find out which
//! of its connections still live.

mod client;
mod lines;
mod tls;
mod wire;

use std::fmt;
use std::path::PathBuf;

pub(crate) use client::{Client, HttpError, Request, percent_encoded};
pub(crate) use lines::Lines;

/// How a server is reached.
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
