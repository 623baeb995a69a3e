//! The way of bulk transfers: the kernel moves pages through a pipe, and no byte is copied.
//!
//! A direction owns a pipe exactly while the pipe holds bytes of it; empty pipes wait in a pool of the thread. That
//! keeps three traps shut: `EAGAIN` while filling cannot mean "the pipe is full", no pipe that holds bytes is ever
//! pooled, and a session that waits for its sender has no pipe.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
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

/// Open pipes of a thread: 256 MB of bytes for slow receivers. Further ones are served by copying, which holds 64 KB for
/// each.
pub const OPEN_PIPES: usize = 256;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// What keeps the pipes of all threads within the process's limit of open files. A pipe has two.
pub trait PipeAllowance: Send + Sync {
    /// False when no more pipes may be opened.
    fn take(&self) -> bool;

    fn give_back(&self);
}

thread_local! {
    static ALLOWANCE: RefCell<Option<Arc<dyn PipeAllowance>>> = const { RefCell::new(None) };
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A pipe of a session: it holds bytes, or is about to. Dropped while it holds bytes, it is closed.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _open: Open,
}

/// One of [`OPEN_PIPES`], within the allowance of the thread.
struct Open(Option<Arc<dyn PipeAllowance>>);

/// Sets what the pipes of this thread are taken from. Without, they are bounded by their number alone.
pub fn set_pipe_allowance(allowance: Arc<dyn PipeAllowance>) {
    ALLOWANCE.set(Some(allowance));
}

impl Open {
    fn one_more() -> Option<Open> {
        if OPEN.get() >= OPEN_PIPES {
            return None;
        }
        let allowance = ALLOWANCE.with_borrow(Option::clone);
        if allowance.as_ref().is_some_and(|allowance| !allowance.take()) {
            return None;
        }
        OPEN.set(OPEN.get() + 1);
        Some(Open(allowance))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(allowance) = &self.0 {
            allowance.give_back();
        }
        // The thread's own values may be gone already when a runtime is dropped at the thread's end.
        let _ = OPEN.try_with(|open| open.set(open.get().saturating_sub(1)));
    }
}

/// Takes what `from` has into a pipe, or says `None`: no pipe, nothing there, FIN, urgent data, or a socket that cannot be spliced. Then
/// reading it will tell. A broken connection it must tell itself, because the kernel reports an error once, and then a
/// FIN.
pub(super) fn poll_take(cx: &mut Context<'_>, from: &Socket) -> Poll<io::Result<Option<Pipe>>> {
    from.poll_read_with(cx, |fd| Ok(Pipe::filled(fd)?))
}

impl Pipe {
    /// `EAGAIN` is not taken for "nothing there": the kernel says it of urgent data too, and would not wake us again.
    fn filled(from: BorrowedFd<'_>) -> Result<Option<Pipe>, Errno> {
        let Some(mut pipe) = Pipe::from_pool() else { return Ok(None) };
        match retried(|| splice(from, None, &pipe.write, None, PIPE_BYTES, FLAGS)) {
            Ok(held @ 1..) => {
                pipe.held = held;
                Ok(Some(pipe))
            }
            taken => {
                pipe.into_pool();
                match taken {
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

    /// `None` when no pipe can be had, or none that is worth it.
    fn open() -> Option<Pipe> {
        let open = Open::one_more()?;
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let bytes = fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_not_permitted| rustix::pipe::fcntl_getpipe_size(&write))
            .unwrap_or(0);
        (bytes >= PIPE_BYTES_MIN).then_some(Pipe { read, write, held: 0, _open: open })
    }

    /// Only when it is empty.
    pub(super) fn into_pool(self) {
        POOL.with(|pool| match pool.try_borrow_mut() {
            Ok(mut pool) if pool.len() < POOL_PIPES => pool.push(self),
            _ => drop(self),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Worth another splice.
    pub(super) fn is_worth_it(&self) -> bool {
        self.held >= WORTH_BYTES
    }

    /// Moves once, when there is room.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let Pipe { read, held, .. } = self;
        let moved =
            ready!(to.poll_write_with(cx, |fd| {
                Ok(retried(|| splice(&*read, None, fd, None, *held, FLAGS))?)
            }))?;
        self.held = self.held.saturating_sub(moved);
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
