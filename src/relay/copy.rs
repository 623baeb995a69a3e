//! Relays small transfers through one scratch buffer per thread. Bytes are copied out of it only if the receiver does not accept
//! them at once. A read that fills the buffer switches its direction to splice.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::fault::Fault;
use crate::scratch::with_scratch;
use crate::stream::Stream;
use crate::tunnel::TunnelStream;

/// The result of one read.
pub(super) struct Copied {
    pub(super) delivered: usize,
    /// The bytes that the receiver did not accept.
    pub(super) rest: Option<Unsent>,
    /// The read filled the buffer, so there may be much more.
    pub(super) filled: bool,
    /// The sender has finished.
    pub(super) fin: bool,
}

/// Reads once, and writes what the receiver accepts at once.
pub(super) fn poll_copy(cx: &mut Context<'_>, from: &Stream, to: &Stream) -> Poll<Result<Copied, Fault>> {
    match from {
        Stream::Socket(_) | Stream::Tls(_) => with_scratch(|scratch| poll_through(cx, from, to, scratch)),
        Stream::Tunnel(from) => poll_chunk(cx, from, to),
    }
}

/// Writes what a tunnel has received, without a copy.
fn poll_chunk(cx: &mut Context<'_>, from: &TunnelStream, to: &Stream) -> Poll<Result<Copied, Fault>> {
    let mut chunk = ready!(from.poll_chunk(cx)).map_err(Fault::From)?;
    let fin = chunk.is_empty();
    let delivered = write_at_once(to, &chunk).map_err(Fault::To)?;
    chunk.advance(delivered);
    Poll::Ready(Ok(Copied { delivered, rest: Unsent::new(chunk), filled: false, fin }))
}

/// Reads once and discards the bytes. Returns how many; zero is a FIN.
pub(super) fn poll_discard(cx: &mut Context<'_>, from: &Stream) -> Poll<Result<usize, Fault>> {
    with_scratch(|scratch| from.poll_read(cx, scratch)).map_err(Fault::From)
}

fn poll_through(
    cx: &mut Context<'_>,
    from: &Stream,
    to: &Stream,
    scratch: &mut [u8],
) -> Poll<Result<Copied, Fault>> {
    let received = ready!(from.poll_read(cx, scratch)).map_err(Fault::From)?;
    let filled = received == scratch.len();
    let bytes = scratch.get(..received).unwrap_or_default();
    let delivered = write_at_once(to, bytes).map_err(Fault::To)?;
    let rest = bytes.get(delivered..).unwrap_or_default();
    Poll::Ready(Ok(Copied { delivered, rest: Unsent::copied(rest), filled, fin: received == 0 }))
}

fn write_at_once(to: &Stream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Bytes that the receiver did not accept: at most one scratch buffer or one frame of a tunnel, because no more is read while
/// they wait.
pub(super) struct Unsent {
    bytes: Bytes,
}

impl Unsent {
    fn new(bytes: Bytes) -> Option<Unsent> {
        (!bytes.is_empty()).then_some(Unsent { bytes })
    }

    fn copied(bytes: &[u8]) -> Option<Unsent> {
        (!bytes.is_empty()).then(|| Unsent { bytes: Bytes::copy_from_slice(bytes) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes once, as soon as the receiver accepts bytes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        let written = ready!(to.poll_write(cx, &self.bytes))?;
        self.bytes.advance(written);
        Poll::Ready(Ok(written))
    }
}
