//! The bytes under the HTTP: a unix socket, TCP, or TLS.

use std::io;

use tokio::net::UnixStream;

use super::tls;
use crate::config::DockerHost;
use crate::discovery::http::{Wire, split, tcp};

pub(super) async fn connect(host: &DockerHost) -> Result<Box<dyn Wire>, String> {
    match host {
        DockerHost::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| unix_help(&error))?;
            Ok(Box::new(stream))
        }
        DockerHost::Tcp(address) => Ok(Box::new(tcp(address).await?)),
        DockerHost::Tls { address, ca, cert, key, verify } => {
            let files = tls::Files { ca, cert, key };
            let config = tls::config(&files, *verify)?;
            let (name, _) = split(address)?;
            let stream = tls::handshake(config, name, tcp(address).await?).await?;
            Ok(Box::new(stream))
        }
    }
}

/// As `DOCKER_HOST` writes it.
pub(super) fn shown(host: &DockerHost) -> String {
    match host {
        DockerHost::Unix(path) => format!("unix://{}", path.display()),
        DockerHost::Tcp(address) | DockerHost::Tls { address, .. } => format!("tcp://{address}"),
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
