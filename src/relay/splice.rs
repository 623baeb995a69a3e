//! Relays bulk transfers: the kernel moves pages through a pipe, and no byte is copied.
//!
//! A direction owns a pipe exactly while the pipe contains its bytes; empty pipes are pooled per thread. This avoids three
//! errors: `EAGAIN` while filling cannot mean that the pipe is full, no pipe that contains bytes is ever pooled, and a session
//! that waits for its sender has no pipe.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::socket::Socket;

/// The requested size of a pipe, and of one splice: the default of `fs.pipe-max-size`. Measured on loopback, 64 KB pipes take
/// 16 times the calls and 1.5 times the CPU.
const PIPE_BYTES: usize = 1 << 20;

/// A smaller pipe would cost more than copying. A user above `fs.pipe-user-pages-soft` gets pipes of two pages.
const PIPE_BYTES_MIN: usize = 64 << 10;

/// A splice that moved less than this ends the bulk transfer. Measured on loopback with messages in both directions, splicing up
/// to 60 KB costs up to a fifth more CPU than copying. The gap to the 64 KB of [`super::copy`] prevents a transfer of uneven
/// sizes from alternating between the two.
const BULK_BYTES_MIN: usize = 16 << 10;

/// Empty pipes kept by a thread. A pipe is returned at once unless its receiver is slow.
const POOL_PIPES: usize = 16;

/// Open pipes of a thread, which hold up to 256 MB for slow receivers. Further transfers are copied, which buffers 64 KB each.
pub const OPEN_PIPES: usize = 256;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Keeps the pipes of all threads within the process's limit of open files. A pipe has two descriptors.
pub trait PipeAllowance: Send + Sync {
    /// Takes a pipe from the allowance. Returns `false` if there is none left.
    fn take(&self) -> bool;

    /// Returns a pipe to the allowance.
    fn give_back(&self);
}

thread_local! {
    static ALLOWANCE: RefCell<Option<Arc<dyn PipeAllowance>>> = const { RefCell::new(None) };
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A pipe of a session, which contains bytes or is about to. Dropping it closes it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    bytes: usize,
    _open: OpenPipe,
}

/// One of [`OPEN_PIPES`], within the allowance of the thread.
struct OpenPipe(Option<Arc<dyn PipeAllowance>>);

/// Sets the allowance that the pipes of this thread are taken from. Without one, only [`OPEN_PIPES`] limits them.
pub fn set_pipe_allowance(allowance: Arc<dyn PipeAllowance>) {
    ALLOWANCE.set(Some(allowance));
}

impl OpenPipe {
    fn take() -> Option<OpenPipe> {
        if OPEN.get() >= OPEN_PIPES {
            return None;
        }
        let allowance = ALLOWANCE.with_borrow(Option::clone);
        if allowance.as_ref().is_some_and(|allowance| !allowance.take()) {
            return None;
        }
        OPEN.set(OPEN.get() + 1);
        Some(OpenPipe(allowance))
    }
}

impl Drop for OpenPipe {
    fn drop(&mut self) {
        if let Some(allowance) = &self.0 {
            allowance.give_back();
        }
        // The thread-locals may be gone already when a runtime is dropped at the end of its thread.
        let _ = OPEN.try_with(|open| open.set(open.get().saturating_sub(1)));
    }
}

/// Moves what `from` has into a pipe. Returns `None` if there is no pipe, no byte, a FIN, urgent data, or a socket that cannot
/// be spliced; reading the socket then determines which.
///
/// # Errors
///
/// The error of a broken connection. It must be reported here, because the kernel reports it once and then a FIN.
pub(super) fn poll_fill(cx: &mut Context<'_>, from: &Socket) -> Poll<io::Result<Option<Pipe>>> {
    from.poll_read_with(cx, |fd| Ok(Pipe::filled(fd)?))
}

impl Pipe {
    /// `EAGAIN` does not mean that there is no byte: the kernel returns it for urgent data, too, and would not wake the task again.
    fn filled(from: BorrowedFd<'_>) -> Result<Option<Pipe>, Errno> {
        let Some(mut pipe) = Pipe::from_pool() else { return Ok(None) };
        match retried(|| splice(from, None, &pipe.write, None, PIPE_BYTES, FLAGS)) {
            Ok(bytes @ 1..) => {
                pipe.bytes = bytes;
                Ok(Some(pipe))
            }
            filled => {
                pipe.into_pool();
                match filled {
                    Ok(_) | Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn from_pool() -> Option<Pipe> {
        let pooled = POOL.with(|pool| pool.try_borrow_mut().ok()?.pop());
        pooled.or_else(Pipe::open)
    }

    /// Returns `None` if no pipe can be opened, or only one that is too small.
    fn open() -> Option<Pipe> {
        let open = OpenPipe::take()?;
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let size = fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_not_permitted| rustix::pipe::fcntl_getpipe_size(&write))
            .unwrap_or(0);
        (size >= PIPE_BYTES_MIN).then_some(Pipe { read, write, bytes: 0, _open: open })
    }

    /// Pools the pipe, which must be empty.
    pub(super) fn into_pool(self) {
        POOL.with(|pool| match pool.try_borrow_mut() {
            Ok(mut pool) if pool.len() < POOL_PIPES => pool.push(self),
            _ => drop(self),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns whether it contains enough that the next read should be a splice as well.
    pub(super) fn is_bulk(&self) -> bool {
        self.bytes >= BULK_BYTES_MIN
    }

    /// Moves once, as soon as the receiver accepts bytes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let Pipe { read, bytes, .. } = self;
        let moved =
            ready!(to.poll_write_with(cx, |fd| {
                Ok(retried(|| splice(&*read, None, fd, None, *bytes, FLAGS))?)
            }))?;
        self.bytes = self.bytes.saturating_sub(moved);
        Poll::Ready(Ok(moved))
    }
}

fn retried(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
