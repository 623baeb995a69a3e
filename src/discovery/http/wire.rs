//! The transport of HTTP: a unix socket, TCP, or TLS.

use std::io;

use tokio::net::UnixStream;

use super::dial::tcp;
use super::{Wire, split, tls};
use crate::config::server::Server;

/// Connects to a server. `turn` is as in [`tcp`].
pub(super) async fn connect(server: &Server, turn: usize) -> Result<Box<dyn Wire>, String> {
    match server {
        Server::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| unix_help(&error))?;
            Ok(Box::new(stream))
        }
        Server::Tcp(address) => Ok(Box::new(tcp(address, turn).await?)),
        Server::Tls { address, ca, client, verify } => {
            let config = tls::config(ca, client.as_ref(), *verify)?;
            let (name, _) = split(address)?;
            let stream = tls::handshake(config, name, tcp(address, turn).await?).await?;
            Ok(Box::new(stream))
        }
    }
}

fn unix_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{error}: is the socket mounted (-v /var/run/docker.sock:...)?"),
        io::ErrorKind::PermissionDenied => {
            format!("{error}: run as root or in the socket's group (--group-add)")
        }
        io::ErrorKind::ConnectionRefused => format!("{error}: is the engine running?"),
        _ => error.to_string(),
    }
}
