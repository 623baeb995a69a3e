//! One direction of a session: reads, buffers what the receiver does not accept, writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::PollFlags;

use super::Account;
use super::copy::{self, Unsent};
use super::fault::Fault;
use super::splice::{self, Pipe};
use crate::stream::Stream;
use crate::traffic::Direction;

/// The streams between which a half moves bytes.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    pub(super) direction: Direction,
    pub(super) from: &'a Stream,
    pub(super) to: &'a Stream,
}

/// What a half does with the bytes of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Delivers them.
    #[default]
    Relay,
    /// The receiver accepts no more: reads and discards until the sender's FIN.
    Discard,
    /// The sender has reset the connection: delivers what it had sent before. A write may have reported the error already, so
    /// that an error and a FIN both mean the end.
    Drain,
}

/// One direction of a session.
#[derive(Default)]
pub(super) struct Half<'a> {
    /// Boxed, because most sessions buffer nothing.
    pub(super) buffered: Option<Box<Buffered>>,
    /// Waits for a reset by the sender while it is not read.
    pub(super) reset: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// The last read filled the buffer: splice next.
    bulk: bool,
    /// `bulk` was true at least once.
    was_bulk: bool,
    /// The receiver accepts nothing, so that the sender is not read.
    is_blocked: bool,
    /// The sender's FIN was read.
    has_fin: bool,
    /// The sender's FIN was read, nothing is buffered, and the receiver has what goes before its FIN.
    pub(super) done: bool,
    /// At least one byte was delivered.
    pub(super) has_delivered: bool,
    pub(super) mode: Mode,
}

/// Bytes that were read and not yet delivered.
pub(super) enum Buffered {
    Copied(Unsent),
    Pipe(Pipe),
}

impl Buffered {
    fn is_empty(&self) -> bool {
        match self {
            Buffered::Copied(unsent) => unsent.is_empty(),
            Buffered::Pipe(pipe) => pipe.is_empty(),
        }
    }

    /// Returns the pipe to the pool, after all bytes were delivered.
    fn release(self) {
        if let Buffered::Pipe(pipe) = self {
            pipe.into_pool();
        }
    }
}

impl<'a> Half<'a> {
    /// Delivers what is buffered, reads more and delivers it. Pending while `from` has no bytes or `to` accepts none.
    pub(super) fn poll_round<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        match self.mode {
            Mode::Relay => {
                let round = self.poll_move(path, cx, tally);
                if round.is_pending() && (self.done || self.buffered.is_some() || self.is_blocked) {
                    ready!(self.poll_reset(path.from, cx));
                    return Poll::Ready(Err(Fault::From(io::ErrorKind::ConnectionReset.into())));
                }
                round
            }
            Mode::Discard => self.poll_discard(path.from, cx, tally),
            Mode::Drain => match ready!(self.poll_move(path, cx, tally)) {
                Err(Fault::From(_)) => {
                    self.done = true;
                    Poll::Ready(Ok(()))
                }
                moved => Poll::Ready(moved),
            },
        }
    }

    /// Discards what is buffered and all that the sender still sends.
    pub(super) fn discard(&mut self) {
        *self = Half {
            done: self.done,
            has_delivered: self.has_delivered,
            mode: Mode::Discard,
            ..Half::default()
        };
    }

    /// Treats an error of the sender as its end.
    pub(super) fn drain(&mut self) {
        self.reset = None;
        self.mode = Mode::Drain;
    }

    fn poll_discard<A: Account>(
        &mut self,
        from: &Stream,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        if self.done {
            return Poll::Pending;
        }
        let discarded = ready!(copy::poll_discard(cx, from))?;
        tally.bytes += discarded;
        self.done = discarded == 0;
        Poll::Ready(Ok(()))
    }

    /// Returns whether an event that this half waits for has happened, although the driver has not reported it yet.
    pub(super) fn is_ready_now(&self, path: Path<'_>) -> bool {
        match (&self.buffered, self.done) {
            (Some(_), _) => path.to.has_now(PollFlags::OUT),
            (None, false) => path.from.has_now(PollFlags::IN),
            (None, true) => false,
        }
    }

    fn poll_move<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        if self.done {
            return Poll::Pending;
        }
        ready!(self.poll_deliver(path, cx, tally))?;
        if !self.has_fin {
            ready!(self.poll_fill(path, cx, tally))?;
        }
        if self.has_fin {
            self.is_blocked = path.to.poll_close(cx).is_pending();
            self.done = !self.is_blocked;
            return if self.done { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        self.poll_deliver(path, cx, tally)
    }

    /// Detects a reset while `from` is not read, because its receiver is slow or because it has sent its FIN.
    fn poll_reset(&mut self, from: &'a Stream, cx: &mut Context<'_>) -> Poll<()> {
        self.reset.get_or_insert_with(|| Box::pin(from.broken())).as_mut().poll(cx)
    }

    fn poll_deliver<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        while let Some(buffered) = &mut self.buffered {
            let delivered = match &mut **buffered {
                Buffered::Copied(unsent) => ready!(unsent.poll_flush(cx, path.to)),
                Buffered::Pipe(pipe) => match path.to {
                    Stream::Socket(to) => ready!(pipe.poll_flush(cx, to)),
                    Stream::Tunnel(_) | Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
                },
            };
            match delivered.map_err(Fault::To)? {
                0 => return Poll::Ready(Err(Fault::To(io::ErrorKind::WriteZero.into()))),
                bytes => {
                    self.has_delivered = true;
                    path.from.release(bytes);
                    tally.add(path.direction, bytes);
                }
            }
            if buffered.is_empty()
                && let Some(buffered) = self.buffered.take()
            {
                buffered.release();
            }
            self.reset = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what `from` has, by splice after a large read.
    fn poll_fill<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        self.is_blocked = path.to.poll_writable(cx).is_pending();
        if self.is_blocked {
            return Poll::Pending;
        }
        if self.bulk
            && let (Stream::Socket(from), Stream::Socket(_)) = (path.from, path.to)
            && let Some(pipe) = ready!(splice::poll_fill(cx, from)).map_err(Fault::From)?
        {
            self.bulk = pipe.is_bulk();
            self.buffered = Some(Box::new(Buffered::Pipe(pipe)));
            return Poll::Ready(Ok(()));
        }
        let copied = ready!(copy::poll_copy(cx, path.from, path.to))?;
        self.has_delivered |= copied.delivered > 0;
        path.from.release(copied.delivered);
        tally.add(path.direction, copied.delivered);
        self.bulk = copied.filled;
        if self.bulk && !self.was_bulk {
            self.was_bulk = true;
            path.to.socket().inspect(|to| to.do_not_pace_on_this_host());
        }
        self.buffered = copied.rest.map(|unsent| Box::new(Buffered::Copied(unsent)));
        self.has_fin = copied.fin;
        Poll::Ready(Ok(()))
    }
}

/// Reports bytes to the account as they are delivered, and counts those delivered or discarded in this turn.
pub(super) struct Tally<'a, A> {
    pub(super) account: &'a A,
    pub(super) bytes: usize,
}

impl<A: Account> Tally<'_, A> {
    fn add(&mut self, direction: Direction, bytes: usize) {
        if bytes > 0 {
            self.bytes += bytes;
            self.account.moved(direction, bytes);
        }
    }
}
