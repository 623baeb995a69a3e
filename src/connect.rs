//! Connects to endpoints, and sets the options of TCP connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};

use crate::address::EndpointAddr;
use crate::socket::Socket;

/// The idle time before the first keepalive probe, and the interval of further ones. The defaults of Linux take two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long sent bytes may stay unacknowledged (RFC 5482), and how long a peer may leave keepalive probes unanswered. It overrides
/// the number of probes (tcp(7)), so that is not set.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Connects a stream; the socket below TLS.
///
/// # Errors
///
/// Fails with the errors of connect(2), and with `TimedOut` after `timeout`.
pub(crate) async fn dial(addr: &EndpointAddr, timeout: Duration) -> io::Result<Socket> {
    let (socket, connecting) = match addr {
        EndpointAddr::Inet(addr) => start_inet(*addr)?,
        EndpointAddr::Tls(tls) => start_inet(tls.addr)?,
        EndpointAddr::Unix(path) => (start_unix(path)?, false),
        EndpointAddr::Peer(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    if connecting {
        tokio::time::timeout(timeout, socket.connected()).await??;
    }
    Ok(socket)
}

fn start_inet(addr: SocketAddr) -> io::Result<(Socket, bool)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags(), Some(ipproto::TCP))?;
    set_tcp_options(&fd)?;
    match rustix::net::connect(&fd, &addr) {
        Ok(()) => Ok((Socket::register(fd)?, false)),
        Err(Errno::INPROGRESS) => Ok((Socket::register(fd)?, true)),
        Err(error) => Err(error.into()),
    }
}

/// A unix connect completes or fails at once. A full backlog is `EAGAIN`, which is retried like a refusal.
fn start_unix(path: &Path) -> io::Result<Socket> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags(), None)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Socket::register_unix(fd)
}

/// Formats a network error for people: lower case, and without the number that the standard library appends. Common errors read
/// the same with every libc.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => "connection refused",
        Some(Errno::TIMEDOUT) => "connection timed out",
        Some(Errno::NETUNREACH) => "network is unreachable",
        Some(Errno::HOSTUNREACH) => "host is unreachable",
        Some(Errno::CONNRESET) => "connection reset",
        Some(Errno::NOENT) => "no such file or directory",
        Some(Errno::ACCESS | Errno::PERM) => "permission denied",
        Some(Errno::AGAIN) => "backlog is full",
        Some(Errno::PROTO) => "does not accept TLS",
        None if error.kind() == io::ErrorKind::TimedOut => "connection timed out",
        _ => return in_words(error),
    };
    text.to_owned()
}

fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    // An acronym keeps its case.
    if letters.clone().next().is_some_and(char::is_uppercase) {
        return text.to_owned();
    }
    first.to_lowercase().chain(letters).collect()
}

fn flags() -> SocketFlags {
    SocketFlags::NONBLOCK | SocketFlags::CLOEXEC
}

/// Creates a UDP socket that is connected to this endpoint.
///
/// # Errors
///
/// Fails for a unix socket, which has no datagrams.
pub(crate) fn dial_datagram(addr: &EndpointAddr) -> io::Result<UdpSocket> {
    let EndpointAddr::Inet(addr) = addr else { return Err(io::ErrorKind::Unsupported.into()) };
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags(), Some(ipproto::UDP))?;
    rustix::net::connect(&fd, addr)?;
    Ok(fd.into())
}

/// Sets the options of every TCP connection, upstream and downstream. Linux copies those of a listener to accepted connections.
///
/// # Errors
///
/// Fails if the kernel does not support an option.
pub(crate) fn set_tcp_options(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_oobinline(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(fd, u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Determines which addresses belong to this host. Cached, because a lookup takes four system calls.
#[derive(Debug, Default)]
pub(crate) struct LocalAddrs {
    known: HashMap<IpAddr, bool>,
    since: Option<Instant>,
}

/// Interfaces, leases and fail-overs change the addresses of a host.
const LOCAL_ADDRS_TTL: Duration = Duration::from_secs(10);

impl LocalAddrs {
    /// Returns whether a connection to this address stays on this host.
    pub(crate) fn has(&mut self, ip: IpAddr) -> bool {
        if self.since.is_none_or(|since| since.elapsed() > LOCAL_ADDRS_TTL) {
            self.known.clear();
            self.since = Some(Instant::now());
        }
        *self.known.entry(ip).or_insert_with(|| ip.is_loopback() || source_to(ip).is_ok_and(|own| own == ip))
    }
}

/// Returns the source address of connections to `ip`, which is `ip` itself if it belongs to this host. Sends nothing.
fn source_to(ip: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Any port will do: discard (RFC 863).
    socket.connect((ip, 9))?;
    Ok(socket.local_addr()?.ip())
}
