//! The way of small transfers: one scratch buffer for all sessions of a thread, and bytes copied aside only when the
//! receiver has no room for them.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};

use super::half::Fault;
use crate::socket::Socket;

/// What one read takes at most; a read that takes all of it turns its direction to splice. 64 KB: measured on loopback,
/// messages smaller than that cost less CPU when they are copied.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// Absent before the first use, and while it is used.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What became of one read.
pub(super) struct Copied {
    pub(super) delivered: usize,
    pub(super) aside: Option<Aside>,
    /// The read took all it could: there may be much more.
    pub(super) filled: bool,
    /// The sender is done.
    pub(super) fin: bool,
}

/// Reads once, and writes what fits at once.
pub(super) fn poll_copy(cx: &mut Context<'_>, from: &Socket, to: &Socket) -> Poll<Result<Copied, Fault>> {
    with_scratch(|scratch| poll_through(cx, from, to, scratch))
}

/// Reads once, and discards what it read: how many bytes; none is a FIN.
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
    Poll::Ready(Ok(Copied { delivered, aside: Aside::new(rest), filled, fin: received == 0 }))
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

/// Bytes for which the receiver had no room: at most one scratch buffer of them, as nothing is read while they wait.
pub(super) struct Aside {
    bytes: Box<[u8]>,
    delivered: usize,
}

impl Aside {
    fn new(bytes: &[u8]) -> Option<Aside> {
        (!bytes.is_empty()).then(|| Aside { bytes: bytes.into(), delivered: 0 })
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.delivered..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Writes once, when there is room.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let written = ready!(to.poll_write_with(cx, |_| to.try_write(self.rest())))?;
        self.delivered += written;
        Poll::Ready(Ok(written))
    }
}
