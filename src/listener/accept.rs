//! Accepts connections, and backs off when descriptors run out or the kernel refuses.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::{Accepted, AcceptedStream, ClientAddr, Listener};
use crate::fd_budget::{AcceptPause, FdPermit, RouteFds};
use crate::log_throttle::LogThrottle;

/// Connections accepted in a row before the sessions of this worker are polled.
const ACCEPT_BURST: usize = 64;
/// The pause after the kernel refused to accept. Connections wait in the backlog.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`, then those that are still in the backlog. A connection that the kernel has completed is
/// served, unless `give_up`, which is called after `stop`, resolves first.
///
/// # Errors
///
/// Fails if the listener cannot be registered with the runtime, or polled.
pub async fn accept_loop<G: Future<Output = ()>>(
    listener: &Listener,
    fds: &Arc<RouteFds>,
    name: impl Fn() -> String,
    stop: CancellationToken,
    give_up: impl FnOnce() -> G,
    mut admit: impl FnMut(Accepted),
) -> io::Result<()> {
    #[expect(deprecated, reason = "see Socket::register")]
    let fd = AsyncFd::new(listener.fd.as_fd())?;
    let mut acceptor = Acceptor { fd: &fd, fds, name, pause: None, errors: LogThrottle::default() };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            waited = acceptor.accept(&mut admit) => waited?,
        }
    }
    // Boxed like everything that is rare, because there may be thousands of listeners.
    Box::pin(async {
        tokio::select! {
            biased;
            () = give_up() => {}
            () = acceptor.drain(&mut admit) => {}
        }
    })
    .await;
    Ok(())
}

struct Acceptor<'a, N> {
    fd: &'a AsyncFd<BorrowedFd<'a>>,
    /// Its descriptor shares.
    fds: &'a Arc<RouteFds>,
    /// Returns the name of the route, for the log.
    name: N,
    /// Present while there are no descriptors for further sessions of the route.
    pause: Option<AcceptPause<'a>>,
    errors: LogThrottle,
}

/// How a burst of accepts ended.
enum Burst {
    /// It reached its limit; there may be more connections.
    Limit,
    /// The backlog is empty.
    Empty,
    /// The route has no descriptors for another session.
    OutOfDescriptors,
    /// The kernel refuses to accept, and the connection stays in the backlog: the process is out of memory or descriptors, or a
    /// Linux security module forbids it.
    Refused(Errno),
}

impl<N: Fn() -> String> Acceptor<'_, N> {
    /// Waits for connections and accepts a burst. Cancel safe.
    async fn accept(&mut self, admit: &mut impl FnMut(Accepted)) -> io::Result<()> {
        let mut guard = self.fd.readable().await?;
        if !self.step(admit).await {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Accepts what is in the backlog, however long that takes.
    async fn drain(&mut self, admit: &mut impl FnMut(Accepted)) {
        // From now on the kernel completes no more connections than there are already, or one.
        let _ = rustix::net::listen(self.fd, 0);
        while self.step(admit).await {}
    }

    /// Accepts a burst, then pauses if necessary. Returns `false` if the backlog was empty.
    async fn step(&mut self, admit: &mut impl FnMut(Accepted)) -> bool {
        let burst = accept_burst(*self.fd.get_ref(), self.fds, admit);
        if !matches!(burst, Burst::OutOfDescriptors) {
            self.pause = None;
        }
        match burst {
            Burst::Empty => return false,
            Burst::Limit => tokio::task::yield_now().await,
            Burst::OutOfDescriptors => {
                self.log(&"the route is out of file descriptors");
                let fds = self.fds;
                let pause = self.pause.get_or_insert_with(|| fds.pause_accepting());
                Box::pin(pause.over()).await;
            }
            Burst::Refused(error) => {
                self.log(&error);
                Box::pin(tokio::time::sleep(ACCEPT_BACKOFF)).await;
            }
        }
        true
    }

    fn log(&mut self, error: &dyn Display) {
        if self.errors.hit().is_some() {
            let route = (self.name)();
            tracing::error!(%route, %error, "cannot accept; connections wait in the backlog");
        }
    }
}

fn accept_burst(fd: BorrowedFd<'_>, fds: &Arc<RouteFds>, admit: &mut impl FnMut(Accepted)) -> Burst {
    for _ in 0..ACCEPT_BURST {
        let Some(permit) = fds.accept() else { return Burst::OutOfDescriptors };
        match rustix::net::acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, client)) => admit(accepted(fd, client_addr(client), permit)),
            Err(Errno::AGAIN) => return Burst::Empty,
            Err(error) if is_of_the_connection(error) => {
                tracing::debug!(%error, "connection failed before it was accepted");
            }
            Err(error) => return Burst::Refused(error),
        }
    }
    Burst::Limit
}

/// Returns whether an error is one of the connection at the head of the backlog, which accept(2) has removed ("Error
/// handling"). After any other error it is still there, and accepting again at once would fail again.
fn is_of_the_connection(error: Errno) -> bool {
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

fn accepted(fd: OwnedFd, client: ClientAddr, permit: FdPermit) -> Accepted {
    Accepted { stream: AcceptedStream::Socket(fd), client, permit, details: None }
}

fn client_addr(addr: Option<rustix::net::SocketAddrAny>) -> ClientAddr {
    match addr.and_then(|addr| SocketAddr::try_from(addr).ok()) {
        // An IPv4 client of a dual-stack socket has its IPv4 address.
        Some(addr) => ClientAddr::Inet(SocketAddr::new(addr.ip().to_canonical(), addr.port())),
        None => ClientAddr::Unix,
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketType};

    use super::*;
    use crate::route::Protocol;

    /// Virtual time advances only while the runtime is idle: a busy loop would never end.
    #[tokio::test(start_paused = true)]
    async fn error_that_leaves_the_connection_in_the_backlog_is_not_retried_at_once() {
        // It does not listen, so every accept(2) fails with EINVAL, as it does with EPERM under a security module.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let listener = Listener { fd, protocol: Protocol::Tcp, addr: None, offset: 0, _path: None };
        let stop = CancellationToken::new();
        let fds = RouteFds::unlimited();
        let accepting =
            accept_loop(&listener, &fds, || "test".to_owned(), stop, std::future::pending::<()>, |_| {});
        assert!(tokio::time::timeout(Duration::from_secs(10), accepting).await.is_err());
    }
}
