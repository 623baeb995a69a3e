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
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::ending::Ending;
use crate::relay::copy::Aside;
use crate::relay::splice::Pipe;
use crate::socket::Socket;

pub(crate) use copy::prepare_thread;

mod copy;
mod splice;
pub mod udp;

/// Bytes one session may move before the others of its thread get their turn: the most that one splice carries.
/// Measured: turns of 8 MB make four bulk sessions on one thread no cheaper beyond the noise (3 %).
const TURN_BYTES: usize = 1 << 20;

/// The same limit for a session whose bytes come in small pieces.
const TURN_ROUNDS: usize = 16;

/// How long silence may last, to the millisecond; 49 days and more is for ever. Each session keeps its own: few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    idle_ms: Option<NonZeroU32>,
    half_close_ms: Option<NonZeroU32>,
}

impl Limits {
    /// `idle`: no byte either way; `None` is for ever. `half_close`: no byte, once one side is done.
    pub const fn new(idle: Option<Duration>, half_close: Duration) -> Limits {
        let idle_ms = match idle {
            Some(idle) => milliseconds(idle),
            None => None,
        };
        Limits { idle_ms, half_close_ms: milliseconds(half_close) }
    }

    /// The silence that is allowed, and what it is called when it lasts longer.
    fn allowed(self, is_half_closed: bool) -> Option<(Duration, Ending)> {
        let limit = |ms: NonZeroU32, ending| (Duration::from_millis(u64::from(ms.get())), ending);
        let idle = self.idle_ms.map(|ms| limit(ms, Ending::Idle));
        let half_close = self.half_close_ms.map(|ms| limit(ms, Ending::HalfCloseTimeout));
        if !is_half_closed {
            return idle;
        }
        // The shorter one; of equals the one that says more.
        half_close.into_iter().chain(idle).min_by_key(|(limit, _)| *limit)
    }
}

/// At least one; `None` for more than fit.
const fn milliseconds(limit: Duration) -> Option<NonZeroU32> {
    let ms = limit.as_millis();
    match ms {
        0 => Some(NonZeroU32::MIN),
        #[expect(clippy::cast_possible_truncation, reason = "it fits")]
        1..=0xffff_ffff => NonZeroU32::new(ms as u32),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the consumer to the service.
    Up,
    /// From the service to the consumer.
    Down,
}

/// Told of bytes as they leave, not at the end.
pub trait Account {
    fn moved(&self, direction: Direction, bytes: usize);
}

impl<F: Fn(Direction, usize)> Account for F {
    fn moved(&self, direction: Direction, bytes: usize) {
        self(direction, bytes);
    }
}

/// Relays until both sides are done or one is gone.
///
/// After any ending but [`Ending::Finished`] the close of the sockets resets whoever is still there.
pub fn relay<'a, A: Account>(
    downstream: &'a Socket,
    upstream: &'a Socket,
    limits: Limits,
    account: A,
) -> Relay<'a, A> {
    Relay { downstream, upstream, halves: Default::default(), account, limits, silence: None }
}

/// The future of [`relay`]. Written by hand: an `async fn` would keep its arguments twice, and this is paid for by
/// every idle session.
#[must_use = "futures do nothing unless polled"]
pub struct Relay<'a, A> {
    downstream: &'a Socket,
    upstream: &'a Socket,
    /// Up, down.
    halves: [Half<'a>; 2],
    account: A,
    limits: Limits,
    /// Only while a limit applies, so that a session without one reads no clock. Boxed, since few have one.
    silence: Option<Pin<Box<Silence>>>,
}

impl<A: Account + Unpin> Future for Relay<'_, A> {
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

impl<A: Account> Relay<'_, A> {
    /// As [`Relay::take_turns`], and notes when there was news.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let half_closed = self.half_closed();
        let (poll, bytes) = self.take_turns(cx);
        let news = bytes > 0 || self.half_closed() != half_closed;
        if news && let Some(silence) = &mut self.silence {
            *silence.as_mut().project().since = Instant::now();
        }
        poll
    }

    /// Lets the halves take turns until both wait, or until it is the turn of other sessions. Returns how many bytes left.
    fn take_turns(&mut self, cx: &mut Context<'_>) -> (Poll<Ending>, usize) {
        let Relay { downstream, upstream, halves: [up, down], account, .. } = self;
        let turns = [
            Turn::new(up, Path { direction: Direction::Up, from: downstream, to: upstream }),
            Turn::new(down, Path { direction: Direction::Down, from: upstream, to: downstream }),
        ];
        let mut tally = Tally { account, bytes: 0 };
        let poll = take_turns(turns, cx, &mut tally);
        (poll, tally.bytes)
    }

    fn half_closed(&self) -> bool {
        self.halves.iter().any(|half| half.done)
    }

    /// The silence that is allowed now.
    fn limit(&self) -> Option<(Duration, Ending)> {
        self.limits.allowed(self.half_closed())
    }

    /// Ready when there was no byte for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let Some((limit, ending)) = self.limit() else { return Poll::Pending };
        let silence = self.silence.get_or_insert_with(|| Silence::of(limit));
        silence.as_mut().poll(limit, cx).map(|()| ending)
    }

    /// Nobody may be left waiting for bytes that will not come.
    pub(crate) fn reset(&self) {
        self.downstream.reset_on_close();
        self.upstream.reset_on_close();
    }
}

fn take_turns<A: Account>(
    mut turns: [Turn<'_, '_>; 2],
    cx: &mut Context<'_>,
    tally: &mut Tally<'_, A>,
) -> Poll<Ending> {
    for _ in 0..TURN_ROUNDS {
        for turn in turns.iter_mut().filter(|turn| turn.awake) {
            match turn.half.poll_round(turn.path, cx, tally) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ending)) => return Poll::Ready(ending),
                Poll::Pending => turn.awake = false,
            }
        }
        if turns.iter().all(|turn| turn.half.done) {
            return Poll::Ready(Ending::Finished);
        }
        // A half that is both has read its FIN just now. The last one is passed on by the close, for one call less.
        for turn in turns.iter().filter(|turn| turn.awake && turn.half.done) {
            turn.path.to.shutdown_write();
        }
        if turns.iter().all(|turn| !turn.awake) {
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
struct Tally<'a, A> {
    account: &'a A,
    bytes: usize,
}

impl<A: Account> Tally<'_, A> {
    fn add(&mut self, direction: Direction, bytes: usize) {
        if bytes > 0 {
            self.bytes += bytes;
            self.account.moved(direction, bytes);
        }
    }
}

pin_project! {
    #[project = SilenceProjection]
    /// How long there was no byte and no half-close, and an alarm for when that is too long.
    struct Silence {
        since: Instant,
        #[pin]
        alarm: Sleep,
    }
}

impl Silence {
    fn of(limit: Duration) -> Pin<Box<Silence>> {
        Box::pin(Silence { since: Instant::now(), alarm: sleep(limit) })
    }

    /// Ready when it has lasted for `limit`. The alarm is not moved for each byte: it rings, finds that there was a byte
    /// since, and is set for the rest.
    fn poll(self: Pin<&mut Silence>, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let SilenceProjection { since, mut alarm } = self.project();
        let Some(deadline) = since.checked_add(limit) else { return Poll::Pending };
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline <= alarm.deadline() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

/// A half on its turn.
struct Turn<'r, 'a> {
    half: &'r mut Half<'a>,
    path: Path<'a>,
    /// It did not say yet that it must wait.
    awake: bool,
}

/// Which way a half moves its bytes.
#[derive(Clone, Copy)]
struct Path<'a> {
    direction: Direction,
    from: &'a Socket,
    to: &'a Socket,
}

impl<'r, 'a> Turn<'r, 'a> {
    fn new(half: &'r mut Half<'a>, path: Path<'a>) -> Turn<'r, 'a> {
        Turn { half, path, awake: true }
    }
}

impl Path<'_> {
    fn reset_by(self, fault: &Fault) -> Ending {
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

/// One direction of a session.
#[derive(Default)]
struct Half<'a> {
    /// Boxed, since most sessions hold nothing.
    held: Option<Box<Held>>,
    /// Waits for the sender to break, while nobody reads it.
    breaking: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// The last read was large: splice the next.
    bulk: bool,
    /// The sender's FIN was read, and nothing is held.
    done: bool,
}

/// Bytes that were taken and not yet delivered.
enum Held {
    Aside(Aside),
    Pipe(Pipe),
}

impl Held {
    /// What is left of it; `None` once all is delivered.
    fn rest(self) -> Option<Held> {
        match self {
            Held::Aside(aside) => (!aside.is_empty()).then_some(Held::Aside(aside)),
            Held::Pipe(pipe) => pipe.back_when_empty().map(Held::Pipe),
        }
    }
}

/// Which socket failed.
enum Fault {
    From(io::Error),
    To(io::Error),
}

impl<'a> Half<'a> {
    /// Delivers what is held, takes more, delivers it. Pending when `from` has nothing or `to` has no room.
    fn poll_round<A: Account>(
        &mut self,
        path: Path<'a>,
        cx: &mut Context<'_>,
        tally: &mut Tally<'_, A>,
    ) -> Poll<Result<(), Ending>> {
        let round = self.poll_move(path, cx, tally);
        if round.is_pending() && (self.done || self.held.is_some()) {
            ready!(self.poll_breaking(path.from, cx));
            return Poll::Ready(Err(path.reset_by(&Fault::From(io::ErrorKind::ConnectionReset.into()))));
        }
        round.map_err(|fault| path.reset_by(&fault))
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
                bytes => tally.add(path.direction, bytes),
            }
            self.held = self.held.take().and_then(|held| held.rest()).map(Box::new);
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
        tally.add(path.direction, copied.delivered);
        self.bulk = copied.filled;
        self.held = copied.aside.map(|aside| Box::new(Held::Aside(aside)));
        self.done = copied.fin;
        Poll::Ready(Ok(()))
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

    fn owns_nothing<A>(relay: &Relay<'_, A>) -> bool {
        relay.silence.is_none()
            && relay.halves.iter().all(|half| half.held.is_none() && half.breaking.is_none())
    }

    /// Lets the relay run until nothing more happens.
    async fn settle<A: Account + Unpin>(relay: &mut Relay<'_, A>) {
        for _ in 0..50 {
            let poll = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *relay).poll(cx))).await;
            assert!(poll.is_pending());
            tokio::task::yield_now().await;
        }
    }

    /// Ten thousand idle sessions are ten thousand of these, each beside its session's own state and tokio's.
    #[test]
    fn the_future_of_a_session_stays_small() {
        let size = size_of::<Relay<'_, fn(Direction, usize)>>();
        assert!(size <= 104, "{size} bytes");
    }

    #[tokio::test]
    async fn a_session_owns_a_pipe_only_while_its_receiver_is_slow() {
        let (mut client, downstream) = pair();
        let (mut server, upstream) = pair();
        let limits = Limits::new(None, Duration::from_secs(300));
        let mut relay = relay(&downstream, &upstream, limits, |_, _| {});
        settle(&mut relay).await;
        assert!(owns_nothing(&relay), "before the first byte");

        let mut written = 0;
        while let Ok(length) = client.write(&[1; 65_536]) {
            written += length;
            settle(&mut relay).await;
        }
        assert!(matches!(relay.halves[0].held.as_deref(), Some(Held::Pipe(_))), "the receiver reads nothing");
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
        let limits = Limits::new(None, Duration::from_secs(300));
        let mut relay = relay(&downstream, &upstream, limits, |_, _| {});
        let mut written = 0;
        while relay.halves[0].held.is_none() {
            written += client.write(&[1; 3_000]).unwrap();
            settle(&mut relay).await;
        }
        assert!(matches!(relay.halves[0].held.as_deref(), Some(Held::Aside(_))));
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
