//! Binds the sockets of a route.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::{Listener, unix};
use crate::connect;
use crate::route::{Listen, PortRange, Protocol, SharedPort};

/// Why an address cannot be bound, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what}: {source}{hint}")]
pub struct BindError {
    what: String,
    source: io::Error,
    hint: &'static str,
}

impl BindError {
    fn new(listen: &Listen, source: io::Error) -> BindError {
        let hint = match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => "; another program listens there: stop it, or choose another port",
            Some(Errno::ACCESS) => {
                "; ports below 1024 and this path need a privilege: choose a higher port, or allow it \
                 (sysctl net.ipv4.ip_unprivileged_port_start)"
            }
            Some(Errno::ADDRNOTAVAIL) => "; this host has no such address",
            _ => "",
        };
        BindError { what: listen.to_string(), source, hint }
    }

    /// Returns whether another socket has the address.
    pub fn is_in_use(&self) -> bool {
        Errno::from_io_error(&self.source) == Some(Errno::ADDRINUSE)
    }
}

/// Binds every port of `listen`, all or none.
///
/// # Errors
///
/// Fails if an address cannot be bound.
pub fn bind(listen: &Listen) -> Result<Vec<Listener>, BindError> {
    match listen {
        // An export has no socket of its own.
        Listen::Peer { .. } => Ok(Vec::new()),
        Listen::Unix(path) => Ok(vec![bind_unix(path).map_err(|error| BindError::new(listen, error))?]),
        Listen::Inet { protocol, ip, ports } => bind_ports(*protocol, *ip, *ports, listen),
        Listen::Names { port: SharedPort { ip, port }, .. } => {
            bind_ports(Protocol::Tcp, *ip, PortRange::single(*port), listen)
        }
    }
}

fn bind_ports(
    protocol: Protocol,
    ip: Option<IpAddr>,
    ports: PortRange,
    listen: &Listen,
) -> Result<Vec<Listener>, BindError> {
    let bind = |offset| {
        let port = ports.first + offset;
        let (fd, addr) = bind_inet(protocol, ip, port).map_err(|error| BindError::new(listen, error))?;
        Ok(Listener { fd, protocol, addr: Some(addr), offset, _path: None })
    };
    (0..=ports.last - ports.first).map(bind).collect()
}

/// Binds all addresses if `ip` is `None`: one dual-stack socket, or IPv4 alone if the kernel has no IPv6.
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
        rustix::net::listen(&fd, unix::BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
    Ok((fd, bound))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let (fd, path) = unix::bind(path, None)?;
    Ok(Listener { _path: Some(path), fd, protocol: Protocol::Tcp, addr: None, offset: 0 })
}
