//! The TCP connection of a tunnel, below TLS: reads ahead, and records when the peer was last received from.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Socket;

/// Bytes read by one system call. rustls reads 4 KiB at a time, and a full record is 16 KiB.
const READ_BYTES: usize = 128 << 10;

/// Bytes after which the other tasks of the thread are polled: the sessions that receive them, and whose small requests would
/// otherwise wait until a bulk transfer has used up its window.
const TURN_BYTES: usize = 256 << 10;

/// Bytes that the kernel queues before it reports the socket as full: more would delay a small request behind bulk.
const UNSENT_BYTES: u32 = 128 << 10;

/// When a connection was last received from, and how many bytes it carried.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    last_read_ms: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            began: Instant::now(),
            last_read_ms: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    fn received(&self, bytes: usize) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_read_ms.store(now, Relaxed);
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// Returns how long nothing was received.
    pub(super) fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_read_ms.load(Relaxed)))
    }

    /// Returns when the connection was made.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Returns the bytes received and sent, as they are on the wire.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.received.load(Relaxed), self.sent.load(Relaxed))
    }
}

/// A TCP connection that carries TLS.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    activity: Arc<Activity>,
    /// Allocated by the first read.
    buffer: Box<[u8]>,
    /// The part of `buffer` that is not read yet.
    start: usize,
    end: usize,
    /// Read in this turn.
    turn_bytes: usize,
}

impl Transport {
    /// Takes over a connected socket.
    pub(super) fn new(socket: Socket) -> Transport {
        let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES);
        socket.do_not_pace_on_this_host();
        let activity = Arc::new(Activity::new());
        Transport { socket, activity, buffer: Box::default(), start: 0, end: 0, turn_bytes: 0 }
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start < self.end {
            return Poll::Ready(Ok(()));
        }
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            // The first poll schedules the task after the others; the rest of the future is not needed.
            let _: Poll<()> = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ_BYTES].into();
        }
        let read = self.socket.poll_read(cx, &mut self.buffer);
        if read.is_pending() {
            self.turn_bytes = 0;
        }
        let received = ready!(read)?;
        self.turn_bytes += received;
        self.activity.received(received);
        (self.start, self.end) = (0, received);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_fill(cx))?;
        let available = this.buffer.get(this.start..this.end).unwrap_or_default();
        let length = available.len().min(into.remaining());
        into.put_slice(available.get(..length).unwrap_or_default());
        this.start += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.socket.poll_write_with(cx, |fd| loop {
            let mut control = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(fd, buffers, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }));
        let sent = match written {
            // The peer has closed the connection. What it sent before is read next, which may not have been reported yet: an
            // alert tells why.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                buffers.iter().map(|buffer| buffer.len()).sum()
            }
            written => written?,
        };
        self.activity.sent.fetch_add(sent as u64, Relaxed);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_the_peer_sent_before_it_closed_is_read_after_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut transport = Transport::new(Socket::register(near.into()).unwrap());
        transport.write_all(b"request").await.unwrap();
        far.write_all(b"alert").unwrap();
        // The request is not read: this resets the connection.
        drop(far);
        // The kernel fails the first write with ECONNRESET, and later ones with EPIPE.
        for _ in 0..2 {
            transport.write_all(b"more").await.unwrap();
        }
        let mut read = [0; 5];
        transport.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"alert");
    }
}
