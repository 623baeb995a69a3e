//! One direction of a session: takes, holds what its receiver has no room for, delivers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::PollFlags;

use super::copy::{self, Aside};
use super::splice::{self, Pipe};
use super::{Account, Direction};
use crate::ending::Ending;
use crate::socket::Socket;

/// Which way a half moves its bytes.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    pub(super) direction: Direction,
    pub(super) from: &'a Socket,
    pub(super) to: &'a Socket,
}

impl Path<'_> {
    pub(super) fn reset_by(self, fault: &Fault) -> Ending {
        let (error, from_side) = match fault {
            Fault::From(error) => (error, true),
            Fault::To(error) => (error, false),
        };
        if matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput) {
            return Ending::Local;
        }
        match (self.direction, from_side) {
            (Direction::Up, true) | (Direction::Down, false) => Ending::DownstreamReset,
            (Direction::Up, false) | (Direction::Down, true) => Ending::UpstreamReset,
        }
    }
}

/// What a half does with what its sender sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Relay,
    /// The receiver takes nothing more: reads until the sender's FIN, and discards.
    Discard,
    /// The sender has reset the connection: relays what it had sent before. The error behind that may have been
    /// reported by a write already, so an error and a FIN both mean the end.
    Drain,
}

/// One direction of a session.
#[derive(Default)]
pub(super) struct Half<'a> {
    /// Boxed, since most sessions hold nothing.
    pub(super) held: Option<Box<Held>>,
    /// Waits for the sender to break, while nobody reads it.
    pub(super) breaking: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// The last read was large: splice the next.
    bulk: bool,
    /// `bulk` was true before.
    was_bulk: bool,
    /// The sender's FIN was read, and nothing is held.
    pub(super) done: bool,
    /// At least one byte was delivered.
    pub(super) has_delivered: bool,
    pub(super) mode: Mode,
}

/// Bytes that were taken and not yet delivered.
pub(super) enum Held {
    Aside(Aside),
    Pipe(Pipe),
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Held::Aside(aside) => aside.is_empty(),
            Held::Pipe(pipe) => pipe.is_empty(),
        }
    }

    /// All is delivered.
    fn release(self) {
        if let Held::Pipe(pipe) = self {
            pipe.into_pool();
        }
    }
}

/// Which socket failed.
pub(super) enum Fault {
    From(io::Error),
    To(io::Error),
}

impl Fault {
    /// The peer closed or reset the connection, as opposed to: it vanished, or we are out of something.
    pub(super) fn is_by_peer(&self) -> bool {
        let (Fault::From(error) | Fault::To(error)) = self;
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    }
}

impl<'a> Half<'a> {
    /// Delivers what is held, takes more, delivers it. Pending when `from` has nothing or `to` has no room.
    pub(super) fn poll_round<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        match self.mode {
            Mode::Relay => {
                let round = self.poll_move(path, cx, tally);
                if round.is_pending() && (self.done || self.held.is_some()) {
                    ready!(self.poll_breaking(path.from, cx));
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

    /// From now on, what the sender sends is discarded, as is what is held.
    pub(super) fn discard(&mut self) {
        *self = Half {
            done: self.done,
            has_delivered: self.has_delivered,
            mode: Mode::Discard,
            ..Half::default()
        };
    }

    /// From now on, the sender's end is no error.
    pub(super) fn drain(&mut self) {
        self.breaking = None;
        self.mode = Mode::Drain;
    }

    fn poll_discard<A: Account>(
        &mut self,
        from: &Socket,
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

    /// Whether the next thing that this half waits for has happened already, and the driver has not reported it yet.
    pub(super) fn has_news(&self, path: Path<'_>) -> bool {
        match (&self.held, self.done) {
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
        ready!(self.poll_take(path, cx, tally))?;
        self.poll_deliver(path, cx, tally)
    }

    /// A reset is news even while `from` is not read, because its receiver is slow or because it has sent its FIN.
    fn poll_breaking(&mut self, from: &'a Socket, cx: &mut Context<'_>) -> Poll<()> {
        self.breaking.get_or_insert_with(|| Box::pin(from.broken())).as_mut().poll(cx)
    }

    fn poll_deliver<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        while let Some(held) = &mut self.held {
            let delivered = match &mut **held {
                Held::Aside(aside) => ready!(aside.poll_flush(cx, path.to)),
                Held::Pipe(pipe) => ready!(pipe.poll_flush(cx, path.to)),
            };
            match delivered.map_err(Fault::To)? {
                0 => return Poll::Ready(Err(Fault::To(io::ErrorKind::WriteZero.into()))),
                bytes => {
                    self.has_delivered = true;
                    tally.add(path.direction, bytes);
                }
            }
            if held.is_empty()
                && let Some(held) = self.held.take()
            {
                held.release();
            }
            self.breaking = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what `from` has, by splice after a large read.
    fn poll_take<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Fault>> {
        if self.bulk
            && let Some(pipe) = ready!(splice::poll_take(cx, path.from)).map_err(Fault::From)?
        {
            self.bulk = pipe.is_worth_it();
            self.held = Some(Box::new(Held::Pipe(pipe)));
            return Poll::Ready(Ok(()));
        }
        let copied = ready!(copy::poll_copy(cx, path.from, path.to))?;
        self.has_delivered |= copied.delivered > 0;
        tally.add(path.direction, copied.delivered);
        self.bulk = copied.filled;
        if self.bulk && !self.was_bulk {
            self.was_bulk = true;
            path.to.do_not_pace_on_this_host();
        }
        self.held = copied.aside.map(|aside| Box::new(Held::Aside(aside)));
        self.done = copied.fin;
        Poll::Ready(Ok(()))
    }
}

/// Who is told of bytes as they leave, and how many have left or were discarded in this turn.
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
