//! The datagrams of a UDP flow in a tunnel. They may be dropped, so that neither a slow peer nor a slow client stops the other.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use rustix::io::Errno;

use super::capsule::{self, Capsules};
use super::stream::TunnelStream;
use super::{Refusal, Tunnel, TunnelError, lock};
use crate::ending::Ending;

/// Capsules that wait until the stream accepts a frame. Holds one datagram of any size.
const QUEUE_BYTES_MAX: usize = 64 << 10;

/// Datagrams received in one call. A frame may have twenty thousand, each of which costs a system call.
const BATCH: usize = 64;

/// A stream of datagrams in a tunnel.
#[derive(Debug)]
pub struct DatagramStream {
    stream: Box<TunnelStream>,
    queue: Mutex<BytesMut>,
    /// Wakes the task in [`DatagramStream::poll_receive`], which also sends the queue.
    queued: AtomicWaker,
    incoming: Mutex<Incoming>,
}

/// Datagrams that were not sent, because the queue was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Their number.
    pub datagrams: usize,
    /// The sum of their sizes.
    pub bytes: usize,
}

/// Received bytes that are not delivered yet.
#[derive(Debug, Default)]
struct Incoming {
    capsules: Capsules,
    chunk: Bytes,
    /// The bytes of `chunk` at first, whose credit is returned when all are delivered.
    chunk_bytes: usize,
}

impl From<TunnelStream> for DatagramStream {
    fn from(stream: TunnelStream) -> DatagramStream {
        DatagramStream {
            stream: Box::new(stream),
            queue: Mutex::default(),
            queued: AtomicWaker::new(),
            incoming: Mutex::default(),
        }
    }
}

impl DatagramStream {
    /// Returns the tunnel.
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        self.stream.tunnel()
    }

    /// Returns how long the peer waits for the answer to its request, if it has said so.
    pub(crate) fn hold(&self) -> Option<Duration> {
        self.stream.hold()
    }

    /// Answers the request of the peer: the flow is connected.
    ///
    /// # Errors
    ///
    /// Fails if the stream was reset.
    pub(crate) fn accept(&self) -> io::Result<()> {
        self.stream.accept_with(super::connect_udp::accepted())
    }

    /// Answers the request of the peer with why the flow is not connected.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.stream.refuse(refusal);
    }

    /// Ready when the peer has left before it was answered.
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_left(cx)
    }

    /// Makes the close reset the stream.
    pub(crate) fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// Returns the ending of a flow whose tunnel failed as a whole.
    pub(crate) fn loss(&self) -> Option<Ending> {
        self.stream.loss()
    }

    /// Sends datagrams without waiting, and drops those that the queue has no room for.
    ///
    /// # Errors
    ///
    /// Fails if the stream has ended.
    pub(crate) fn send<'d>(&self, datagrams: impl Iterator<Item = &'d [u8]>) -> io::Result<Dropped> {
        let mut queue = lock(&self.queue);
        let mut dropped = Dropped::default();
        for datagram in datagrams {
            let bytes = capsule::encoded_bytes(datagram.len());
            if queue.len() + bytes > QUEUE_BYTES_MAX {
                self.flush(&mut queue)?;
            }
            if queue.len() + bytes > QUEUE_BYTES_MAX {
                dropped.datagrams += 1;
                dropped.bytes += datagram.len();
            } else {
                capsule::encode(datagram, &mut queue);
            }
        }
        self.flush(&mut queue)?;
        if !queue.is_empty() {
            self.queued.wake();
        }
        Ok(dropped)
    }

    /// Sends as much of the queue as the stream accepts.
    fn flush(&self, queue: &mut BytesMut) -> io::Result<()> {
        while !queue.is_empty() {
            match self.stream.try_write(queue) {
                Ok(written) => queue.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_closed) => return Err(self.error()),
            }
        }
        Ok(())
    }

    fn poll_flush(&self, cx: &Context<'_>) {
        self.queued.register(cx.waker());
        let mut queue = lock(&self.queue);
        while !queue.is_empty() && self.stream.poll_writable(cx).is_ready() {
            if self.flush(&mut queue).is_err() {
                // Receiving fails as well.
                queue.clear();
            }
        }
    }

    /// Calls `handle` with received datagrams, at most 64. Returns whether there may be more now. Also sends datagrams that are
    /// queued, so one task must poll it all the time.
    ///
    /// # Errors
    ///
    /// Fails with `UnexpectedEof` when the peer has ended the flow, with `InvalidData` if it violates the protocol, and when the
    /// stream was reset or the tunnel was lost.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(&[u8]),
    ) -> Poll<io::Result<bool>> {
        self.poll_flush(cx);
        let mut incoming = lock(&self.incoming);
        if incoming.chunk.is_empty() {
            let chunk = ready!(self.stream.poll_chunk(cx)).map_err(|_aborted| self.error())?;
            if chunk.is_empty() {
                let is_complete = incoming.capsules.is_complete();
                let kind =
                    if is_complete { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
                return Poll::Ready(Err(kind.into()));
            }
            incoming.chunk_bytes = chunk.len();
            incoming.chunk = chunk;
        }
        Poll::Ready(self.deliver(&mut incoming, &mut handle))
    }

    fn deliver(&self, incoming: &mut Incoming, handle: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let Incoming { capsules, chunk, chunk_bytes } = incoming;
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        for _ in 0..BATCH {
            match capsules.next(chunk).map_err(malformed)? {
                Some(datagram) => handle(&datagram),
                None => break,
            }
        }
        if chunk.is_empty() {
            self.stream.release(std::mem::take(chunk_bytes));
        }
        Ok(!chunk.is_empty())
    }

    /// Returns the error of a stream that was reset.
    fn error(&self) -> io::Error {
        match self.loss() {
            Some(_) => io::Error::other(TunnelError::Lost),
            None => Errno::CONNRESET.into(),
        }
    }
}
