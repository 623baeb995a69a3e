//! One connected stream socket, TCP or unix: the only shape of connection that the data plane knows.
//!
//! An own type and not tokio's two, because the relay is the same for both, because a connection that was accepted on
//! one worker may be registered on another, and because each read here knows whether it emptied the socket: a read
//! that was short clears the readiness without asking the kernel once more.
//!
//! A short read has not always emptied the socket. A TCP read stops before urgent data (tcp(7)), a read of a unix socket
//! also behind bytes that were sent with descriptors (unix(7)). Urgent data shows as `EPOLLPRI` from its arrival until
//! it is read, dropped descriptors as `MSG_CTRUNC`; after such a read the socket is read again until `EAGAIN`.
//! Urgent data is read in line (`SO_OOBINLINE`), because the kernel discards it otherwise.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, SocketAddrAny, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<Stream>,
}

#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    /// Reads stop at bytes that were sent with descriptors.
    is_unix: bool,
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    /// Registers a non-blocking TCP socket, which has [`crate::connect::set_tcp_options`], with the runtime of this thread.
    /// To connect, call `connect` first: a socket that is not even connecting is reported as hung up, and tokio never
    /// forgets that.
    pub fn register(fd: OwnedFd) -> io::Result<Socket> {
        Socket::with(Stream { fd, is_unix: false })
    }

    /// The same for a unix stream socket, which inherits no option from its listener.
    pub fn register_unix(fd: OwnedFd) -> io::Result<Socket> {
        sockopt::set_socket_oobinline(&fd, true)?;
        Socket::with(Stream { fd, is_unix: true })
    }

    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor; an OwnedFd cannot, and the replacement is unsafe to call"
    )]
    fn with(stream: Stream) -> io::Result<Socket> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        Ok(Socket { fd: AsyncFd::with_interest(stream, interest)? })
    }

    /// Reads what is there. `Ok(0)` is the peer's FIN.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match self.receive(buffer) {
                Ok((received, may_have_stopped)) => {
                    if 0 < received && received < buffer.len() && !may_have_stopped {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => {
                    guard.clear_ready();
                    self.forget_urgent_data();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Returns how many bytes were read, and whether the read may have stopped before all that is there. Descriptors that
    /// come with the bytes are closed by the kernel, since there is no buffer for them.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        if !self.is_unix() {
            let (_, received) = rustix::net::recv(self, buffer, RecvFlags::empty())?;
            return Ok((received, self.has_urgent_data()));
        }
        let mut no_descriptors = RecvAncillaryBuffer::default();
        let buffers = &mut [IoSliceMut::new(buffer)];
        let received = rustix::net::recvmsg(self, buffers, &mut no_descriptors, RecvFlags::empty())?;
        Ok((received.bytes, received.flags.contains(ReturnFlags::CTRUNC) || self.has_urgent_data()))
    }

    /// Whether the driver has reported urgent data since the socket was last found empty. True after a FIN as well: there the
    /// socket stays readable anyway. Costs no system call.
    fn has_urgent_data(&self) -> bool {
        self.fd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    fn forget_urgent_data(&self) {
        let nothing = |_: &Stream| Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = self.fd.try_io(Interest::PRIORITY, nothing);
    }

    /// Writes what fits without waiting. `WouldBlock` when nothing does; then [`Socket::poll_write_with`] waits.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(self, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Ready when `attempt` was: calls it while the socket may be readable, until it is something else than `WouldBlock`.
    pub fn poll_read_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| attempt(fd.get_ref().fd.as_fd())) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    /// As [`Socket::poll_read_with`], while the socket may be writable.
    pub fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| attempt(fd.get_ref().fd.as_fd())) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    /// Whether one of these events has happened, whatever the driver has reported so far. Bytes, a FIN and an error are
    /// [`PollFlags::IN`].
    pub fn has_now(&self, events: PollFlags) -> bool {
        let mut fds = [PollFd::new(self, events)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the end of a connect in progress. One that failed is hung up as well as writable (tcp_poll in Linux), and
    /// only that is asked for its error.
    pub async fn connected(&self) -> io::Result<()> {
        let is_hung_up = self.fd.ready(Interest::WRITABLE).await?.ready().is_write_closed();
        if is_hung_up {
            sockopt::socket_error(self)??;
        }
        Ok(())
    }

    /// Waits until the peer has left without being served: a FIN before any byte, or a RST. A FIN after bytes may be
    /// a request whose sender waits for the answer, so it is not taken for leaving.
    pub async fn left(&self) -> io::Result<()> {
        let mut byte = [0; 1];
        loop {
            let mut guard = self.fd.readable().await?;
            match rustix::net::recv(self, &mut byte, RecvFlags::PEEK) {
                Ok((_, 0)) => return Ok(()),
                Ok(_) => break,
                Err(Errno::AGAIN) => guard.clear_ready_matching(Ready::READABLE),
                Err(Errno::INTR) => {}
                Err(_reset) => return Ok(()),
            }
        }
        // The bytes that wait keep the socket readable; an error is the only news left to wait for.
        self.fd.ready(Interest::ERROR).await.map(drop)
    }

    /// Whether the peer has closed its side, or has gone. Bytes that were not read yet are a peer that is there.
    pub fn peer_has_left(&self) -> bool {
        let received = rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(received, Ok((_, 0))) || received.is_err_and(|error| error != Errno::AGAIN)
    }

    /// Waits until the connection is broken: reset, or given up by the kernel. Sees it without reading, so bytes that
    /// came before stay unread.
    pub async fn broken(&self) {
        // An error here is a runtime that shuts down; there the connection ends too.
        let _ = self.fd.ready(Interest::ERROR).await;
    }

    /// Tells the peer that nothing more comes.
    pub fn shutdown_write(&self) {
        // Not connected any more: then the peer knows already.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// Makes the close to come a RST, where the protocol has one.
    pub fn reset_on_close(&self) {
        let _ = sockopt::set_socket_linger(self, Some(std::time::Duration::ZERO));
    }

    pub fn is_unix(&self) -> bool {
        self.fd.get_ref().is_unix
    }

    /// Sends without pacing where both ends are on this host. BBR spreads what it sends over time, on a loopback too, where
    /// there is no queue to spare: measured, that halves what a transfer moves. Any other congestion control stays.
    pub fn do_not_pace_on_this_host(&self) {
        let is_paced = sockopt::tcp_congestion(self).is_ok_and(|name| name.starts_with("bbr"));
        if is_paced && self.is_on_this_host() {
            // Of those that do not pace, the one that every user may choose (`tcp_allowed_congestion_control`).
            let _ = sockopt::set_tcp_congestion(self, "reno");
        }
    }

    fn is_on_this_host(&self) -> bool {
        let address = |any: Option<SocketAddrAny>| Some(SocketAddr::try_from(any?).ok()?.ip().to_canonical());
        let peer = rustix::net::getpeername(self).ok().and_then(address);
        let own = self.local_addr().map(|own| own.ip().to_canonical());
        peer.is_some_and(|peer| peer.is_loopback() || own == Some(peer))
    }

    /// The address we reached the peer from, or were reached at; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(self).ok()?.try_into().ok()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What the kernel can do, of what it names there.
    fn has_bbr() -> bool {
        let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
        names.split_whitespace().any(|name| name == "bbr")
    }

    #[tokio::test]
    async fn bbr_does_not_pace_on_this_host_and_others_stay_as_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for (before, after) in [("bbr", "reno"), ("cubic", "cubic")] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let socket = Socket::register(stream.into()).unwrap();
            if sockopt::set_tcp_congestion(&socket, before).is_err() {
                assert!(!has_bbr() || !rustix::process::geteuid().is_root(), "{before} can be set");
                continue;
            }
            assert!(socket.is_on_this_host());
            socket.do_not_pace_on_this_host();
            assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), after);
        }
    }
}
