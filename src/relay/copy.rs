//! Relays small transfers through one scratch buffer per thread. Bytes are copied out of it only if the receiver does not accept
//! them at once.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};

use super::fault::Fault;
use crate::socket::Socket;

/// The size of the buffer. A read that fills it switches its direction to splice. Measured on loopback, messages smaller than
/// 64 KB cost less CPU when they are copied.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// `None` before the first use and while in use.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

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
pub(super) fn poll_copy(cx: &mut Context<'_>, from: &Socket, to: &Socket) -> Poll<Result<Copied, Fault>> {
    with_scratch(|scratch| poll_through(cx, from, to, scratch))
}

/// Reads once and discards the bytes. Returns how many; zero is a FIN.
pub(super) fn poll_discard(cx: &mut Context<'_>, from: &Socket) -> Poll<Result<usize, Fault>> {
    with_scratch(|scratch| from.poll_read(cx, scratch)).map_err(Fault::From)
}

fn with_scratch<T>(then: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into());
    let value = then(&mut scratch);
    SCRATCH.set(Some(scratch));
    value
}

fn poll_through(
    cx: &mut Context<'_>,
    from: &Socket,
    to: &Socket,
    scratch: &mut [u8],
) -> Poll<Result<Copied, Fault>> {
    let received = ready!(from.poll_read(cx, scratch)).map_err(Fault::From)?;
    let filled = received == scratch.len();
    let bytes = scratch.get(..received).unwrap_or_default();
    let delivered = write_at_once(to, bytes).map_err(Fault::To)?;
    let rest = bytes.get(delivered..).unwrap_or_default();
    Poll::Ready(Ok(Copied { delivered, rest: Unsent::new(rest), filled, fin: received == 0 }))
}

fn write_at_once(to: &Socket, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Bytes that the receiver did not accept: at most one scratch buffer, because no more is read while they wait.
pub(super) struct Unsent {
    bytes: Box<[u8]>,
    delivered: usize,
}

impl Unsent {
    fn new(bytes: &[u8]) -> Option<Unsent> {
        (!bytes.is_empty()).then(|| Unsent { bytes: bytes.into(), delivered: 0 })
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.delivered..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Writes once, as soon as the receiver accepts bytes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let written = ready!(to.poll_write_with(cx, |_| to.try_write(self.rest())))?;
        self.delivered += written;
        Poll::Ready(Ok(written))
    }
}
