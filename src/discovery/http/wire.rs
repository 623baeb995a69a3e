//! The bytes under the HTTP: a unix socket, TCP, or TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Server, tls};
use crate::discovery::dns::Resolver;

/// Whatever carries the bytes.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An event stream or a watch may be silent for days: a peer that is gone without a word is found by these probes, within a
/// minute, and a firewall that forgets idle connections (often after minutes) is reminded.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

pub(super) async fn connect(server: &Server) -> Result<Box<dyn Wire>, String> {
    match server {
        Server::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| unix_help(&error))?;
            Ok(Box::new(stream))
        }
        Server::Tcp(address) => Ok(Box::new(tcp(address).await?)),
        Server::Tls { address, ca, client, verify } => {
            let config = tls::config(ca, client.as_ref(), *verify)?;
            let (name, _) = split(address)?;
            let stream = tls::handshake(config, name, tcp(address).await?).await?;
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

async fn tcp(address: &str) -> Result<TcpStream, String> {
    let (host, port) = split(address)?;
    let mut failure = format!("{host} has no address");
    for ip in addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                keep_alive(&stream).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

/// Not by the C library: a static binary does not have all of it.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    match host.parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => Resolver::from_system().addresses(host).await,
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))
}

/// `host:port`, `[::1]:port`.
fn split(address: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(split("docker.example:2376"), Ok(("docker.example", 2376)));
        assert_eq!(split("[::1]:2375"), Ok(("::1", 2375)));
        for wrong in ["docker.example", ":2375", "host:", "host:99999", ""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
