//! A connected stream socket, TCP or unix: the only kind of stream that the data plane uses.
//!
//! It replaces tokio's two types, because the relay is the same for both, because a connection that was accepted on one worker
//! may be registered on another, and because a short read clears the readiness without another system call.
//!
//! A short read has not always emptied the socket. A TCP read stops before urgent data (tcp(7)), a read of a unix socket
//! also after bytes that were sent with descriptors (unix(7)). Urgent data is reported as `EPOLLPRI` from its arrival until
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

use crate::scratch::with_scratch;

/// A connected stream socket, registered with the runtime of a thread.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<Stream>,
}

#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    /// On a unix socket, reads stop at bytes that were sent with descriptors.
    is_unix: bool,
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    /// Registers a non-blocking TCP socket, which must have [`crate::connect::set_tcp_options`], with the runtime of this thread.
    /// To connect, call `connect` first: a socket that is not connecting is reported as hung up, and tokio never clears that.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be added to the runtime's epoll.
    pub fn register(fd: OwnedFd) -> io::Result<Socket> {
        Socket::with(Stream { fd, is_unix: false })
    }

    /// Registers a unix stream socket, which inherits no options from its listener.
    ///
    /// # Errors
    ///
    /// Fails as [`Socket::register`].
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

    /// Reads the available bytes. Zero is the peer's FIN.
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
                    self.clear_urgent_data();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Reads the beginning of what the peer sends, and leaves the rest in the socket. `parse` gets the available bytes whenever there
    /// are more, and returns how many of them are to be read, with a value, or `None` while it needs more. It never gets more than
    /// 64 KiB.
    ///
    /// # Errors
    ///
    /// Fails with `UnexpectedEof` if the peer has sent FIN and `parse` needs more.
    pub(crate) async fn read_prefix<T>(
        &self,
        mut parse: impl FnMut(&[u8]) -> Option<(usize, T)>,
    ) -> io::Result<T> {
        // What a peer sends at once has usually arrived, so that the driver need not be polled.
        if let Ok(Some((value, _))) = self.try_read_prefix(&mut parse) {
            return Ok(value);
        }
        loop {
            let mut guard = self.fd.readable().await?;
            // The bytes before the FIN have arrived, too.
            let is_complete = guard.ready().is_read_closed();
            match self.try_read_prefix(&mut parse) {
                Ok(Some((value, is_empty))) => {
                    if is_empty {
                        guard.clear_ready_matching(Ready::READABLE);
                    }
                    return Ok(value);
                }
                Ok(None) if is_complete => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(None) | Err(Errno::AGAIN) => guard.clear_ready_matching(Ready::READABLE),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the value, and whether no bytes were left in the socket.
    fn try_read_prefix<T>(
        &self,
        parse: impl FnOnce(&[u8]) -> Option<(usize, T)>,
    ) -> Result<Option<(T, bool)>, Errno> {
        with_scratch(|scratch| {
            let (_, available) = rustix::net::recv(self, &mut *scratch, RecvFlags::PEEK)?;
            let Some((length, value)) = parse(scratch.get(..available).unwrap_or_default()) else {
                return Ok(None);
            };
            let mut unread = scratch.get_mut(..length).unwrap_or_default();
            // More than once only if a read stops before its end; see the module.
            while !unread.is_empty() {
                let (_, read) = rustix::net::recv(self, &mut *unread, RecvFlags::empty())?;
                unread = unread.get_mut(read..).filter(|_| read > 0).unwrap_or_default();
            }
            Ok(Some((value, length == available)))
        })
    }

    /// Returns how many bytes were read, and whether the read may have stopped before the last available byte. Descriptors sent with
    /// the bytes are closed by the kernel, because there is no buffer for them.
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

    /// Returns whether the driver has reported urgent data since the socket was last empty. Also true after a FIN, where the socket
    /// stays readable anyway. Makes no system call.
    fn has_urgent_data(&self) -> bool {
        self.fd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    fn clear_urgent_data(&self) {
        let nothing = |_: &Stream| Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = self.fd.try_io(Interest::PRIORITY, nothing);
    }

    /// Writes without waiting. Returns the number of bytes written.
    ///
    /// # Errors
    ///
    /// Fails with `WouldBlock` if the socket accepts no byte; [`Socket::poll_write_with`] waits until it does.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::net::send(self, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Calls `attempt` while the socket may be readable, until it returns anything but `WouldBlock`.
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

    /// Calls `attempt` while the socket may be writable, until it returns anything but `WouldBlock`.
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

    /// Polls the socket for one of these events, independently of what the driver has reported. Bytes, a FIN and an error are
    /// [`PollFlags::IN`].
    pub fn has_now(&self, events: PollFlags) -> bool {
        let mut fds = [PollFd::new(self, events)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the end of a connect in progress. A failed one is hung up as well as writable (tcp_poll in Linux), and only then
    /// the error is read.
    ///
    /// # Errors
    ///
    /// Fails with the error of the connect.
    pub async fn connected(&self) -> io::Result<()> {
        let is_hung_up = self.fd.ready(Interest::WRITABLE).await?.ready().is_write_closed();
        if is_hung_up {
            sockopt::socket_error(self)??;
        }
        Ok(())
    }

    /// Waits until the peer has left without being served: a FIN before any byte, or a RST. A FIN after bytes may follow a request
    /// whose sender waits for the response, so it does not count.
    ///
    /// # Errors
    ///
    /// Fails when the runtime shuts down.
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
        // Unread bytes keep the socket readable, so only an error can be waited for.
        self.fd.ready(Interest::ERROR).await.map(drop)
    }

    /// Returns whether the peer has closed its side or vanished. Unread bytes count as present.
    pub fn peer_has_left(&self) -> bool {
        let received = rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(received, Ok((_, 0))) || received.is_err_and(|error| error != Errno::AGAIN)
    }

    /// Waits until the connection is reset, or abandoned by the kernel. Does not read, so that earlier bytes stay available.
    pub async fn broken(&self) {
        // Fails only when the runtime shuts down, which ends the connection, too.
        let _ = self.fd.ready(Interest::ERROR).await;
    }

    /// Sends FIN.
    pub fn shutdown_write(&self) {
        // Fails if the connection is closed already, which is fine.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// Makes the close send RST, where the protocol has one.
    pub fn reset_on_close(&self) {
        let _ = sockopt::set_socket_linger(self, Some(std::time::Duration::ZERO));
    }

    /// Returns whether this is a unix socket.
    pub fn is_unix(&self) -> bool {
        self.fd.get_ref().is_unix
    }

    /// Disables pacing if both ends are on this host. BBR spreads its packets over time on a loopback, too, where there is no queue
    /// to protect; measured, that halves the throughput. Any other congestion control is kept.
    pub fn do_not_pace_on_this_host(&self) {
        let is_paced = sockopt::tcp_congestion(self).is_ok_and(|name| name.starts_with("bbr"));
        if is_paced && self.is_on_this_host() {
            // Does not pace, and every user may choose it (`tcp_allowed_congestion_control`).
            let _ = sockopt::set_tcp_congestion(self, "reno");
        }
    }

    fn is_on_this_host(&self) -> bool {
        let address = |any: Option<SocketAddrAny>| Some(SocketAddr::try_from(any?).ok()?.ip().to_canonical());
        let peer = rustix::net::getpeername(self).ok().and_then(address);
        let own = self.local_addr().map(|own| own.ip().to_canonical());
        peer.is_some_and(|peer| peer.is_loopback() || own == Some(peer))
    }

    /// Returns the local address, or `None` for a unix socket.
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
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Returns whether the kernel supports BBR.
    fn has_bbr() -> bool {
        let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
        names.split_whitespace().any(|name| name == "bbr")
    }

    /// Returns the available bytes from the first to the line feed.
    fn line(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let length = bytes.iter().position(|byte| *byte == b'\n')? + 1;
        Some((length, bytes[..length].to_vec()))
    }

    #[tokio::test]
    async fn prefix_is_read_and_what_follows_it_stays() {
        let (mut outer, inner) = UnixStream::pair().unwrap();
        inner.set_nonblocking(true).unwrap();
        let socket = Socket::register_unix(inner.into()).unwrap();
        let sender = std::thread::spawn(move || {
            for part in ["a", "b", "c\nrest"] {
                outer.write_all(part.as_bytes()).unwrap();
                std::thread::yield_now();
            }
            outer
        });
        assert_eq!(socket.read_prefix(line).await.unwrap(), b"abc\n");
        let mut rest = [0; 9];
        let read = std::future::poll_fn(|cx| socket.poll_read(cx, &mut rest)).await.unwrap();
        assert_eq!(&rest[..read], b"rest");
        let mut outer = sender.join().unwrap();
        outer.write_all(b"no line").unwrap();
        drop(outer);
        let error = socket.read_prefix(line).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn bbr_is_replaced_on_this_host_and_others_are_kept() {
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
