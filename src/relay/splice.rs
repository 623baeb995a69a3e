//! The way of bulk transfers: the kernel moves pages through a pipe, and no byte is copied.
//!
//! A direction owns a pipe exactly while the pipe holds bytes of it; empty pipes wait in a pool of the thread. That
//! keeps three traps shut: `EAGAIN` while filling cannot mean "the pipe is full", no pipe that holds bytes is ever
//! pooled, and a session that waits for its sender has no pipe.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::socket::Socket;

/// What a pipe is asked to hold, and what one splice is asked to carry: the most that `fs.pipe-max-size` grants by
/// default. Measured on loopback: 64 KB pipes take 16 times the calls and 1.5 times the CPU.
const PIPE_BYTES: usize = 1 << 20;

/// A smaller pipe would cost more than copying. A user past `fs.pipe-user-pages-soft` gets pipes of two pages.
const PIPE_BYTES_MIN: usize = 64 << 10;

/// A splice that moved less than this ends the bulk transfer. Measured on loopback, messages sent to and fro: up to
/// 60 KB splicing costs up to a fifth more CPU than copying. The gap to [`super::copy`]'s 64 KB keeps a transfer that
/// comes in uneven pieces from turning back and forth.
const WORTH_BYTES: usize = 16 << 10;

/// Empty pipes kept by a thread. Only bytes that wait for a slow receiver keep a pipe from coming back at once.
const POOL_PIPES: usize = 16;

/// Pipes of a thread in use at the same time: 256 MB of bytes for slow receivers. Further ones are served by copying,
/// which holds 64 KB for each.
const LENT_PIPES: usize = 256;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// The two descriptors of an empty pipe.
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    fn from_pool() -> Option<Ends> {
        let pooled = POOL.with(|pool| pool.try_borrow_mut().ok()?.pop());
        pooled.or_else(Ends::open)
    }

    /// `None` when no pipe can be had, or none that is worth it.
    fn open() -> Option<Ends> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let bytes = fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_not_permitted| rustix::pipe::fcntl_getpipe_size(&write))
            .unwrap_or(0);
        (bytes >= PIPE_BYTES_MIN).then_some(Ends { read, write })
    }

    fn into_pool(self) {
        POOL.with(|pool| match pool.try_borrow_mut() {
            Ok(mut pool) if pool.len() < POOL_PIPES => pool.push(self),
            _ => drop(self),
        });
    }
}

/// A pipe that holds bytes, or is about to. Dropped while it holds bytes, it is closed.
pub(super) struct Pipe {
    ends: Ends,
    held: usize,
    _lent: Lent,
}

/// One of [`LENT_PIPES`].
struct Lent;

impl Lent {
    fn new() -> Option<Lent> {
        LENT.with(|lent| {
            (lent.get() < LENT_PIPES).then(|| {
                lent.set(lent.get() + 1);
                Lent
            })
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The thread's own values may be gone already when a runtime is dropped at the thread's end.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
    }
}

/// Takes what `from` has into a pipe, or says `None`: no pipe, nothing there, FIN, urgent data, or a socket that
/// cannot be spliced. Then reading it will tell. A broken connection it must tell itself, because the kernel reports
/// an error once, and then a FIN.
pub(super) fn poll_take(cx: &mut Context<'_>, from: &Socket) -> Poll<io::Result<Option<Pipe>>> {
    from.poll_read_with(cx, |fd| Ok(Pipe::filled(fd)?))
}

impl Pipe {
    fn filled(from: BorrowedFd<'_>) -> Result<Option<Pipe>, Errno> {
        let Some(lent) = Lent::new() else { return Ok(None) };
        let Some(ends) = Ends::from_pool() else { return Ok(None) };
        let taken = retried(|| splice(from, None, &ends.write, None, PIPE_BYTES, FLAGS));
        if let Ok(held @ 1..) = taken {
            return Ok(Some(Pipe { ends, held, _lent: lent }));
        }
        ends.into_pool();
        match taken {
            Ok(_) | Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Worth another splice.
    pub(super) fn is_worth_it(&self) -> bool {
        self.held >= WORTH_BYTES
    }

    /// Moves once, when there is room.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let Pipe { ends, held, .. } = self;
        let moved = ready!(to.poll_write_with(cx, |fd| {
            Ok(retried(|| splice(&ends.read, None, fd, None, *held, FLAGS))?)
        }))?;
        self.held = self.held.saturating_sub(moved);
        Poll::Ready(Ok(moved))
    }

    /// Itself while it holds bytes; else the pool has it again.
    pub(super) fn back_when_empty(self) -> Option<Pipe> {
        if self.held > 0 {
            return Some(self);
        }
        self.ends.into_pool();
        None
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
