//! Moves the bytes of one session: two sockets in, an [`Ending`] out. Knows nothing else.
//!
//! Each of the two directions is a `Half`, and a half that sleeps holds nothing unless its receiver is slow:
//!
//! ```text
//!                  ┌──────────────◄── all delivered ──◄──────────────┐
//!                  ▼                                                 │
//!   ┌─► empty: take what the sender has ──┬─ a short read ─► write ──┤
//!   │      │                              │   (copy)                 ├─ the receiver is slow ─► held ─┐
//!   │      │                              └─ a full one ─► splice ───┘   (aside, or in the pipe)      │
//!   │      └─ FIN ─► pass it on ─► done ◄───────────────────────────────────────────────── delivered ─┘
//!   └── asleep: no buffer, no pipe
//! ```
//!
//! `copy` reads through one scratch buffer per thread, and it alone says that a sender is done. `splice` only moves
//! bytes faster while there are many. So FIN is read only by a half that holds nothing, and is passed on at once. The session is finished when both halves are done, and ends early when either side is reset or
//! when both are silent for too long.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::ending::Ending;
use crate::relay::copy::Aside;
use crate::relay::splice::Pipe;
use crate::socket::Socket;

mod copy;
mod splice;
pub mod udp;

/// Bytes one session may move before the others of its thread get their turn: the most that one splice carries.
/// Measured: turns of 8 MB make four bulk sessions on one thread no cheaper beyond the noise (3 %).
const TURN_BYTES: usize = 1 << 20;

/// The same limit for a session whose bytes come in small pieces.
const TURN_ROUNDS: usize = 16;

/// How long silence may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// No byte either way. `None`: for ever.
    pub idle: Option<Duration>,
    /// No byte, once one side is done.
    pub half_close: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the consumer to the service.
    Up,
    /// From the service to the consumer.
    Down,
}

/// Relays until both sides are done or one is gone. `moved` is told of bytes as they leave, not at the end.
///
/// After any ending but [`Ending::Finished`] the close of the sockets resets whoever is still there.
pub fn relay<'a, M: Fn(Direction, usize)>(
    downstream: &'a Socket,
    upstream: &'a Socket,
    limits: Limits,
    moved: &'a M,
) -> Relay<'a, M> {
    Relay {
        halves: [
            Half::new(Direction::Up, downstream, upstream),
            Half::new(Direction::Down, upstream, downstream),
        ],
        moved,
        limits,
        last_news: Instant::now(),
        alarm: None,
    }
}

/// The future of [`relay`]. Written by hand: an `async fn` would keep its arguments twice, and this is paid for by
/// every idle session.
#[must_use = "futures do nothing unless polled"]
pub struct Relay<'a, M> {
    halves: [Half<'a>; 2],
    moved: &'a M,
    limits: Limits,
    /// The last byte or half-close. Kept only while a limit applies, so that a session without one reads no clock.
    last_news: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<M: Fn(Direction, usize)> Future for Relay<'_, M> {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let relay = &mut *self;
        let ending = match relay.poll_bytes(cx) {
            Poll::Ready(ending) => ending,
            Poll::Pending => ready!(relay.poll_silence(cx)),
        };
        if ending != Ending::Finished {
            relay.reset();
        }
        Poll::Ready(ending)
    }
}

impl<M: Fn(Direction, usize)> Relay<'_, M> {
    /// Lets the halves take turns until both wait, or until it is the turn of other sessions.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let half_closed = self.half_closed();
        let mut tally = Tally { moved: self.moved, bytes: 0 };
        let poll = take_turns(&mut self.halves, cx, &mut tally);
        let news = tally.bytes > 0 || self.half_closed() != half_closed;
        if news && self.limit().is_some() {
            self.last_news = Instant::now();
        }
        poll
    }

    fn half_closed(&self) -> bool {
        self.halves.iter().any(|half| half.done)
    }

    /// The silence that is allowed now, and what it is called when it lasts longer.
    fn limit(&self) -> Option<(Duration, Ending)> {
        let idle = self.limits.idle.map(|limit| (limit, Ending::Idle));
        if !self.half_closed() {
            return idle;
        }
        let half_close = (self.limits.half_close, Ending::HalfCloseTimeout);
        Some(idle.filter(|idle| idle.0 < half_close.0).unwrap_or(half_close))
    }

    /// Ready when there was no byte for too long. The alarm is not moved for each byte: it rings, finds that there
    /// was a byte since, and is set for the rest.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let Some((limit, ending)) = self.limit() else { return Poll::Pending };
        let Some(deadline) = self.last_news.checked_add(limit) else { return Poll::Pending };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline <= alarm.deadline() {
                return Poll::Ready(ending);
            }
            alarm.as_mut().reset(deadline);
        }
    }

    /// Nobody may be left waiting for bytes that will not come.
    fn reset(&self) {
        for half in &self.halves {
            half.from.reset_on_close();
        }
    }
}

fn take_turns<M: Fn(Direction, usize)>(
    halves: &mut [Half<'_>; 2],
    cx: &mut Context<'_>,
    tally: &mut Tally<'_, M>,
) -> Poll<Ending> {
    let mut awake = [true; 2];
    for _ in 0..TURN_ROUNDS {
        for (half, awake) in halves.iter_mut().zip(&mut awake) {
            if *awake {
                match half.poll_round(cx, tally) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(ending)) => return Poll::Ready(ending),
                    Poll::Pending => *awake = false,
                }
            }
        }
        if halves.iter().all(|half| half.done) {
            return Poll::Ready(Ending::Finished);
        }
        if awake == [false; 2] {
            return Poll::Pending;
        }
        if tally.bytes >= TURN_BYTES {
            break;
        }
    }
    yield_turn(cx);
    Poll::Pending
}

/// Comes back after the driver was asked for news. A plain `wake_by_ref` would not do: the runtime looks at the
/// driver only every 61 polls, and each poll of a bulk session moves a megabyte.
fn yield_turn(cx: &mut Context<'_>) {
    // The first poll leaves the waker with the runtime; nothing else of the future is needed.
    let _: Poll<()> = pin!(tokio::task::yield_now()).poll(cx);
}

/// Who is told of bytes as they leave, and how many have left in this turn.
struct Tally<'a, M> {
    moved: &'a M,
    bytes: usize,
}

impl<M: Fn(Direction, usize)> Tally<'_, M> {
    fn add(&mut self, direction: Direction, bytes: usize) {
        if bytes > 0 {
            self.bytes += bytes;
            (self.moved)(direction, bytes);
        }
    }
}

/// One direction of a session.
struct Half<'a> {
    from: &'a Socket,
    to: &'a Socket,
    held: Held,
    /// Waits for `from` to break, while nobody reads it.
    breaking: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    direction: Direction,
    /// The last read was large: splice the next.
    bulk: bool,
    /// `from` sent FIN and `to` was told.
    done: bool,
}

/// Bytes that were taken and not yet delivered.
enum Held {
    Nothing,
    Aside(Aside),
    Pipe(Pipe),
}

/// Which socket failed.
enum Fault {
    From(io::Error),
    To(io::Error),
}

impl<'a> Half<'a> {
    fn new(direction: Direction, from: &'a Socket, to: &'a Socket) -> Half<'a> {
        Half { from, to, held: Held::Nothing, breaking: None, direction, bulk: false, done: false }
    }

    /// Delivers what is held, takes more, delivers it. Pending when `from` has nothing or `to` has no room.
    fn poll_round<M: Fn(Direction, usize)>(
        &mut self,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, M>,
    ) -> Poll<Result<(), Ending>> {
        let round = self.poll_move(cx, tally);
        if round.is_pending() && (self.done || !matches!(self.held, Held::Nothing)) {
            ready!(self.poll_breaking(cx));
            return Poll::Ready(Err(self.reset_by(&Fault::From(io::ErrorKind::ConnectionReset.into()))));
        }
        round.map_err(|fault| self.reset_by(&fault))
    }

    fn poll_move<M: Fn(Direction, usize)>(
        &mut self,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, M>,
    ) -> Poll<Result<(), Fault>> {
        if self.done {
            return Poll::Pending;
        }
        ready!(self.poll_deliver(cx, tally))?;
        ready!(self.poll_take(cx, tally))?;
        self.poll_deliver(cx, tally)
    }

    /// A reset is news even while `from` is not read, because `to` is slow or because `from` has sent its FIN.
    fn poll_breaking(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let from = self.from;
        self.breaking.get_or_insert_with(|| Box::pin(from.broken())).as_mut().poll(cx)
    }

    fn poll_deliver<M: Fn(Direction, usize)>(
        &mut self,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, M>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let delivered = match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Aside(aside) => ready!(aside.poll_flush(cx, self.to)),
                Held::Pipe(pipe) => ready!(pipe.poll_flush(cx, self.to)),
            };
            match delivered.map_err(Fault::To)? {
                0 => return Poll::Ready(Err(Fault::To(io::ErrorKind::WriteZero.into()))),
                bytes => tally.add(self.direction, bytes),
            }
            self.held = match std::mem::replace(&mut self.held, Held::Nothing) {
                Held::Aside(aside) if !aside.is_empty() => Held::Aside(aside),
                Held::Pipe(pipe) => pipe.back_when_empty().map_or(Held::Nothing, Held::Pipe),
                Held::Aside(_) | Held::Nothing => Held::Nothing,
            };
            self.breaking = None;
        }
    }

    /// Takes what `from` has, by splice after a large read.
    fn poll_take<M: Fn(Direction, usize)>(
        &mut self,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, M>,
    ) -> Poll<Result<(), Fault>> {
        if self.bulk
            && let Some(pipe) = ready!(splice::poll_take(cx, self.from)).map_err(Fault::From)?
        {
            self.bulk = pipe.is_worth_it();
            self.held = Held::Pipe(pipe);
            return Poll::Ready(Ok(()));
        }
        let copied = ready!(copy::poll_copy(cx, self.from, self.to))?;
        tally.add(self.direction, copied.delivered);
        self.bulk = copied.filled;
        if let Some(aside) = copied.aside {
            self.held = Held::Aside(aside);
        }
        if copied.fin {
            self.to.shutdown_write();
            self.done = true;
        }
        Poll::Ready(Ok(()))
    }

    fn reset_by(&self, fault: &Fault) -> Ending {
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, Socket) {
        let (outer, inner) = UnixStream::pair().unwrap();
        outer.set_nonblocking(true).unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, Socket::register(inner.into()).unwrap())
    }

    fn owns_nothing<M>(relay: &Relay<'_, M>) -> bool {
        relay.alarm.is_none()
            && relay.halves.iter().all(|half| matches!(half.held, Held::Nothing) && half.breaking.is_none())
    }

    /// Lets the relay run until nothing more happens.
    async fn settle<M: Fn(Direction, usize)>(relay: &mut Relay<'_, M>) {
        for _ in 0..50 {
            let poll = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *relay).poll(cx))).await;
            assert!(poll.is_pending());
            tokio::task::yield_now().await;
        }
    }

    /// Ten thousand idle sessions are ten thousand of these, each beside its session's own state and tokio's. Of the
    /// bytes, a third are the limits and the two sockets of each half.
    #[test]
    fn the_future_of_a_session_stays_small() {
        fn size_of_return<'a, M: 'a>(
            _: impl Fn(&'a Socket, &'a Socket, Limits, &'a M) -> Relay<'a, M>,
        ) -> usize {
            size_of::<Relay<'a, M>>()
        }
        let size = size_of_return(relay::<fn(Direction, usize)>);
        assert!(size <= 224, "{size} bytes");
    }

    #[tokio::test]
    async fn a_session_owns_a_pipe_only_while_its_receiver_is_slow() {
        let (mut client, downstream) = pair();
        let (mut server, upstream) = pair();
        let limits = Limits { idle: None, half_close: Duration::from_secs(300) };
        let mut relay = relay(&downstream, &upstream, limits, &|_, _| {});
        settle(&mut relay).await;
        assert!(owns_nothing(&relay), "before the first byte");

        let mut written = 0;
        while let Ok(length) = client.write(&[1; 65_536]) {
            written += length;
            settle(&mut relay).await;
        }
        assert!(matches!(relay.halves[0].held, Held::Pipe(_)), "the receiver reads nothing");
        assert!(relay.halves[0].breaking.is_some(), "and the sender is watched");

        let mut read = 0;
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = server.read(&mut buffer) {
            read += length;
            settle(&mut relay).await;
        }
        assert_eq!(read, written);
        assert!(owns_nothing(&relay), "once all is delivered");
    }

    #[tokio::test]
    async fn a_small_transfer_to_a_slow_receiver_is_held_aside() {
        let (mut client, downstream) = pair();
        let (mut server, upstream) = pair();
        let limits = Limits { idle: None, half_close: Duration::from_secs(300) };
        let mut relay = relay(&downstream, &upstream, limits, &|_, _| {});
        let mut written = 0;
        while let Held::Nothing = relay.halves[0].held {
            written += client.write(&[1; 3_000]).unwrap();
            settle(&mut relay).await;
        }
        assert!(matches!(relay.halves[0].held, Held::Aside(_)));
        let mut read = 0;
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = server.read(&mut buffer) {
            read += length;
            settle(&mut relay).await;
        }
        assert_eq!(read, written);
        assert!(owns_nothing(&relay));
    }
}
