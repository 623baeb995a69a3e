//! Where consumers connect to: bound by the control plane, accepted from on a worker.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::room::{Room, Seat};
use crate::route::{Listen, Protocol};

/// As many as the kernel lets us (`net.core.somaxconn` caps it): a burst must find room while we are busy.
const BACKLOG: i32 = 4096;
/// Connections taken in a row before the sessions of this worker get their turn.
const ACCEPT_BURST: usize = 64;
/// How long accepting rests when we are out of descriptors or memory. Waiting connections stay in the backlog.
const BREATH: Duration = Duration::from_millis(100);

/// A bound address. Dropping it closes it, and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    pub fd: OwnedFd,
    pub protocol: Protocol,
    /// With the port that the kernel chose, where port 0 was asked for. `None` for a unix socket.
    pub addr: Option<SocketAddr>,
    /// The n-th port of its route's range.
    pub offset: u16,
    path: Option<UnixPath>,
}

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddr {
    Inet(SocketAddr),
    /// A unix socket's clients have no address.
    Unix,
}

/// A connection that was accepted and belongs to no worker yet.
#[derive(Debug)]
pub struct Accepted {
    pub fd: OwnedFd,
    pub client: ClientAddr,
    pub seat: Seat,
}

/// What a session opens: its downstream socket and its upstream one.
const SESSION_DESCRIPTORS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what}: {source}{way_out}")]
pub struct BindError {
    what: String,
    source: io::Error,
    way_out: &'static str,
}

impl BindError {
    /// Another socket has the address.
    pub fn is_in_use(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::ADDRINUSE)
    }
}

/// Binds every port of `listen`, all or none.
pub fn bind(listen: &Listen) -> Result<Vec<Listener>, BindError> {
    match listen {
        Listen::Unix(path) => Ok(vec![bind_unix(path).map_err(|error| explain(listen, error))?]),
        Listen::Inet { protocol, ip, ports } => (0..=ports.last - ports.first)
            .map(|offset| {
                let port = ports.first + offset;
                let (fd, addr) = bind_inet(*protocol, *ip, port).map_err(|error| explain(listen, error))?;
                Ok(Listener { fd, protocol: *protocol, addr: Some(addr), offset, path: None })
            })
            .collect(),
    }
}

fn explain(listen: &Listen, source: io::Error) -> BindError {
    let way_out = match Errno::from_io_error(&source) {
        Some(Errno::ADDRINUSE) => "; another program listens there: stop it, or choose another port",
        Some(Errno::ACCESS) => {
            "; ports below 1024 and this path need a privilege: choose a higher port, or allow it \
             (sysctl net.ipv4.ip_unprivileged_port_start)"
        }
        Some(Errno::ADDRNOTAVAIL) => "; this host has no such address",
        _ => "",
    };
    BindError { what: listen.to_string(), source, way_out }
}

/// `ip` of `None` is all addresses: one dual-stack socket, or IPv4 alone where the kernel has no IPv6.
fn bind_inet(protocol: Protocol, ip: Option<IpAddr>, port: u16) -> io::Result<(OwnedFd, SocketAddr)> {
    if let Some(ip) = ip {
        return bind_addr(protocol, SocketAddr::new(ip, port), false);
    }
    match bind_addr(protocol, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), true) {
        Err(error) if is_without_ipv6(&error) => {
            bind_addr(protocol, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false)
        }
        result => result,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind_addr(protocol: Protocol, addr: SocketAddr, dual_stack: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, proto) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
    };
    let fd =
        rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(proto))?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, !dual_stack)?;
    }
    if protocol == Protocol::Tcp {
        // Not for UDP, where it would let two programs share a port.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        connect::set_tcp_options(&fd)?;
    }
    rustix::net::bind(&fd, &addr)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
    Ok((fd, bound))
}

/// A socket file that nobody listens on is a dead process's, and in the way: it is replaced.
fn bind_unix(path: &Path) -> io::Result<Listener> {
    if UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, BACKLOG)?;
    let path = Some(UnixPath(path.to_owned()));
    Ok(Listener { fd, protocol: Protocol::Tcp, addr: None, offset: 0, path })
}

/// Removes the file of a unix socket when its listener goes.
#[derive(Debug)]
struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Accepts until `stop`, then what waits in the backlog still, then closes: a connection that the kernel completed
/// for us is served.
pub async fn accept_loop(
    listener: Listener,
    room: &Arc<Room>,
    stop: CancellationToken,
    mut admit: impl FnMut(Accepted),
) -> io::Result<()> {
    let Listener { fd, path, .. } = listener;
    #[expect(deprecated, reason = "see Socket::register")]
    let fd = AsyncFd::new(fd)?;
    let mut starving = false;
    loop {
        let mut guard = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            guard = fd.readable() => guard?,
        };
        match accept_burst(fd.get_ref(), room, &mut admit) {
            Burst::More => {
                starving = false;
                tokio::task::yield_now().await;
            }
            Burst::Empty => {
                starving = false;
                guard.clear_ready();
            }
            Burst::Starving(error) => {
                if !std::mem::replace(&mut starving, true) {
                    tracing::error!(%error, "cannot accept; connections wait in the backlog");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    while let Burst::More = accept_burst(fd.get_ref(), room, &mut admit) {}
    drop(path);
    Ok(())
}

enum Burst {
    /// The burst was used up; there may be more.
    More,
    Empty,
    /// We are out of descriptors or memory.
    Starving(Errno),
}

fn accept_burst(fd: &OwnedFd, room: &Arc<Room>, admit: &mut impl FnMut(Accepted)) -> Burst {
    for _ in 0..ACCEPT_BURST {
        let Some(seat) = room.seat(SESSION_DESCRIPTORS) else { return Burst::Starving(Errno::MFILE) };
        match rustix::net::acceptfrom_with(fd.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, client)) => admit(Accepted { fd, client: client_addr(client), seat }),
            Err(Errno::AGAIN) => return Burst::Empty,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                return Burst::Starving(error);
            }
            // The peer's own trouble (accept(2): treat like EAGAIN by retrying).
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
    Burst::More
}

fn client_addr(addr: Option<rustix::net::SocketAddrAny>) -> ClientAddr {
    match addr.and_then(|addr| SocketAddr::try_from(addr).ok()) {
        Some(addr) => ClientAddr::Inet(canonical(addr)),
        None => ClientAddr::Unix,
    }
}

/// An IPv4 client of a dual-stack socket as the IPv4 address that it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl ClientAddr {
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            ClientAddr::Inet(addr) => Some(addr.ip()),
            ClientAddr::Unix => None,
        }
    }
}

impl std::fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientAddr::Inet(addr) => write!(f, "{addr}"),
            ClientAddr::Unix => f.write_str("unix"),
        }
    }
}
