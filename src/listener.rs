//! Where consumers connect to: bound by the control plane, accepted from on a worker.

pub mod unix;

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::connect;
use crate::digits::write_socket_addr;
use crate::fd_budget::{AcceptPause, FdPermit};
use crate::route::{Listen, Protocol};
use unix::UnixPath;

/// As many as the kernel lets us (`net.core.somaxconn` caps it): a burst must find room while we are busy.
const BACKLOG: i32 = 4096;
/// Connections taken in a row before the sessions of this worker get their turn.
const ACCEPT_BURST: usize = 64;
/// How long accepting rests when the kernel refuses to. Waiting connections stay in the backlog.
const BREATH: Duration = Duration::from_millis(100);
/// Between two lines of the log about a listener that cannot accept.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A bound address. Dropping it closes it, and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    /// Before the descriptor, so that the path is removed while the socket still listens and no other process replaces it.
    path: Option<UnixPath>,
    pub fd: OwnedFd,
    pub protocol: Protocol,
    /// With the port that the kernel chose, where port 0 was asked for. `None` for a unix socket.
    pub addr: Option<SocketAddr>,
    /// The n-th port of its route's range.
    pub offset: u16,
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
    pub permit: FdPermit,
}

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

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let (fd, path) = unix::bind(path, None)?;
    Ok(Listener { path: Some(path), fd, protocol: Protocol::Tcp, addr: None, offset: 0 })
}

/// Accepts until `stop`, then what waits in the backlog still, then closes: a connection that the kernel completed
/// for us is served, unless `give_up`, which begins after `stop`, resolves first.
pub async fn accept_loop<G: Future<Output = ()>>(
    listener: Listener,
    cluster: &Cluster,
    stop: CancellationToken,
    give_up: impl FnOnce() -> G,
    mut admit: impl FnMut(Accepted),
) -> io::Result<()> {
    let Listener { fd, path, .. } = listener;
    #[expect(deprecated, reason = "see Socket::register")]
    let fd = AsyncFd::new(fd)?;
    let mut acceptor = Acceptor { fd: &fd, cluster, pause: None, logged_at: None };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            waited = acceptor.accept(&mut admit) => waited?,
        }
    }
    // Boxed like all that happens rarely: there may be thousands of listeners.
    Box::pin(async {
        tokio::select! {
            biased;
            () = give_up() => {}
            () = acceptor.drain(&mut admit) => {}
        }
    })
    .await;
    drop(path);
    Ok(())
}

struct Acceptor<'a> {
    fd: &'a AsyncFd<OwnedFd>,
    cluster: &'a Cluster,
    /// While there are no descriptors for further sessions of the route.
    pause: Option<AcceptPause<'a>>,
    /// When the last line about trouble was logged.
    logged_at: Option<Instant>,
}

enum Burst {
    /// The burst was used up; there may be more.
    More,
    Empty,
    /// The route has no descriptors for another session.
    Short,
    /// The kernel refuses to accept, and the connection stays where it is. We are out of memory or of descriptors, or not
    /// permitted to (a Linux security module).
    Refused(Errno),
}

impl Acceptor<'_> {
    /// Waits for connections and accepts some. Nothing is lost when it is dropped.
    async fn accept(&mut self, admit: &mut impl FnMut(Accepted)) -> io::Result<()> {
        let mut guard = self.fd.readable().await?;
        if !self.step(admit).await {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Accepts what waits in the backlog, for as long as that takes.
    async fn drain(&mut self, admit: &mut impl FnMut(Accepted)) {
        // From now on the kernel completes no more connections than there are already, or one.
        let _ = rustix::net::listen(self.fd, 0);
        while self.step(admit).await {}
    }

    /// Accepts a burst, and rests where that is called for. Returns false when the backlog was empty.
    async fn step(&mut self, admit: &mut impl FnMut(Accepted)) -> bool {
        let burst = accept_burst(self.fd.get_ref(), self.cluster, admit);
        if !matches!(burst, Burst::Short) {
            self.pause = None;
        }
        match burst {
            Burst::Empty => return false,
            Burst::More => tokio::task::yield_now().await,
            Burst::Short => {
                self.log(&"the route is out of file descriptors");
                let cluster = self.cluster;
                let pause = self.pause.get_or_insert_with(|| cluster.fds.pause_accepting());
                Box::pin(pause.over()).await;
            }
            Burst::Refused(error) => {
                self.log(&error);
                Box::pin(tokio::time::sleep(BREATH)).await;
            }
        }
        true
    }

    fn log(&mut self, error: &dyn Display) {
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            let route = &self.cluster.members().options.name;
            tracing::error!(%route, %error, "cannot accept; connections wait in the backlog");
        }
    }
}

fn accept_burst(fd: &OwnedFd, cluster: &Cluster, admit: &mut impl FnMut(Accepted)) -> Burst {
    for _ in 0..ACCEPT_BURST {
        let Some(permit) = cluster.fds.accept() else { return Burst::Short };
        match rustix::net::acceptfrom_with(fd.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, client)) => admit(Accepted { fd, client: client_addr(client), permit }),
            Err(Errno::AGAIN) => return Burst::Empty,
            Err(error) if is_of_the_peer(error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => return Burst::Refused(error),
        }
    }
    Burst::More
}

/// Errors of the connection at the head of the backlog, which is gone with them (accept(2), "Error handling"). After any
/// other it is still there, and accepting at once again would fail at once again.
fn is_of_the_peer(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::TIMEDOUT
    )
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

impl Display for ClientAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientAddr::Inet(addr) => write_socket_addr(f, *addr),
            ClientAddr::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Options;

    /// Virtual time advances only while the runtime is idle: a loop that spins would never end.
    #[tokio::test(start_paused = true)]
    async fn an_error_that_leaves_the_connection_in_the_backlog_is_not_retried_at_once() {
        // It does not listen, so that every accept(2) fails with EINVAL, as it does with EPERM under a security module.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let listener = Listener { fd, protocol: Protocol::Tcp, addr: None, offset: 0, path: None };
        let stop = CancellationToken::new();
        let cluster = Cluster::new(Options::named("test"), stop.clone());
        let accepting = accept_loop(listener, &cluster, stop, std::future::pending::<()>, |_| {});
        assert!(tokio::time::timeout(Duration::from_secs(10), accepting).await.is_err());
    }
}
