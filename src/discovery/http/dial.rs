//! A TCP connection to the first address of a name that accepts it (RFC 8305, "Happy Eyeballs").

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::split;
use crate::discovery::dns::Resolver;

/// The time between the starts of two attempts, unless one fails before (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// The time limit of all attempts at all addresses, including the lookup. A blocking query waits for more than a minute, its
/// connection does not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one name: as many as can be tried within [`CONNECT_TIMEOUT`].
const ADDRESSES_MAX: usize = 32;

/// Failures that an error lists.
const SHOWN_MAX: usize = 4;

/// A stream of events may be idle for days. These probes detect a peer that disappeared, within a minute, and keep the connection
/// in the tables of firewalls, which often drop idle ones after minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Connects to `HOST:PORT`. `turn` selects the first address, so that a caller can reach the others if the first one accepts
/// connections and does not respond.
pub(super) async fn tcp(address: &str, turn: usize) -> Result<TcpStream, String> {
    let (host, port) = split(address)?;
    let connecting = async {
        let addrs = in_order(addresses(host).await?, turn).into_iter().map(|ip| SocketAddr::new(ip, port));
        first(addrs.collect()).await
    };
    let late = |_| Err(format!("no connection within {}", humantime::format_duration(CONNECT_TIMEOUT)));
    let stream = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(late)?;
    keep_alive(&stream).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Does not use the C library, which is incomplete in a static binary.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    match host.parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => Resolver::from_system().addresses(host).await,
    }
}

/// Interleaves IPv6 and IPv4 addresses, IPv6 first.
fn in_order(ips: Vec<IpAddr>, turn: usize) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = ips.into_iter().partition(IpAddr::is_ipv6);
    let mut ordered = Vec::new();
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    while v6.len() + v4.len() > 0 {
        ordered.extend(v6.next().into_iter().chain(v4.next()));
    }
    ordered.truncate(ADDRESSES_MAX);
    let first = turn % ordered.len().max(1);
    ordered.rotate_left(first);
    ordered
}

/// Returns the first connection. Starts the attempts one after the other, and the next one at once if one fails.
async fn first(addrs: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut failures = Vec::new();
    let mut attempts = FuturesUnordered::new();
    let mut left = addrs.into_iter();
    loop {
        attempts.extend(left.next().map(attempt));
        tokio::select! {
            Some(done) = attempts.next() => match done {
                Ok(stream) => return Ok(stream),
                Err(why) => failures.push(why),
            },
            () = sleep(STAGGER), if left.len() > 0 => {}
            else => {
                failures.truncate(SHOWN_MAX);
                return Err(failures.join("; "));
            }
        }
    }
}

async fn attempt(addr: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(addr).await.map_err(|error| format!("{addr}: {error}"))
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))
}

#[cfg(test)]
mod tests;
