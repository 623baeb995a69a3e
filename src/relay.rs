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
//! bytes faster while there are many. So FIN is read only by a half that holds nothing, and is passed on at once. The
//! session is finished when both halves are done, and ends early when either side is reset or when both are silent for
//! too long.
//!
//! A service may answer and close before it has read the whole request (HTTP 413). Its kernel then resets the connection,
//! and a write to it fails although its answer can still be read. Such a session is *refused*: the half down delivers what the
//! service had sent, then FIN; the half up reads and discards what the client still sends, for a limited time
//! (*lingering*), because a close with unread bytes would reset the client, which may lose the answer by that.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::ending::Ending;
use crate::relay::half::{Fault, Half, Mode, Path, Tally};
use crate::relay::silence::Silence;
use crate::socket::Socket;

mod copy;
mod half;
mod silence;
mod splice;
pub mod udp;

pub use silence::Limits;
pub use splice::{OPEN_PIPES, PipeAllowance, set_pipe_allowance};

/// Bytes one session may move before the others of its thread get their turn: the most that one splice carries.
/// Measured: turns of 8 MB make four bulk sessions on one thread no cheaper beyond the noise (3 %).
const TURN_BYTES: usize = 1 << 20;

/// The same limit for a session whose bytes come in small pieces.
const TURN_ROUNDS: usize = 16;

/// How long a refused client may be silent, and how long it may go on sending, once it has its answer and FIN. Those of
/// nginx's `lingering_timeout` and `lingering_time`.
const LINGER_SILENCE: Duration = Duration::from_secs(5);
const LINGER_TIME: Duration = Duration::from_secs(30);

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
/// After any ending but [`Ending::Finished`] the close of the sockets resets whoever is still there; but not a client
/// that has all of the service's answer and its FIN.
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
        if ending != Ending::Finished && !relay.is_lingering() {
            relay.reset();
        }
        Poll::Ready(ending)
    }
}

impl<'a, A: Account> Relay<'a, A> {
    /// As [`Relay::take_turns`], and notes when there was news.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let (half_closed, lingered) = (self.half_closed(), self.is_lingering());
        let (poll, bytes) = self.take_turns(cx);
        if self.is_lingering() && !lingered {
            self.silence = Some(Silence::within(LINGER_TIME, LINGER_SILENCE));
        }
        let news = bytes > 0 || self.half_closed() != half_closed;
        if news && let Some(silence) = &mut self.silence {
            silence.as_mut().broken();
        }
        poll
    }

    /// Lets the halves take turns until both wait, or until it is the turn of other sessions. Returns how many bytes left.
    fn take_turns(&mut self, cx: &mut Context<'_>) -> (Poll<Ending>, usize) {
        let [path_up, path_down] = self.paths();
        let Relay { halves: [up, down], account, .. } = self;
        let turns = [Turn::new(up, path_up), Turn::new(down, path_down)];
        let mut tally = Tally { account, bytes: 0 };
        let poll = take_turns(turns, cx, &mut tally);
        (poll, tally.bytes)
    }

    /// Up, down.
    fn paths(&self) -> [Path<'a>; 2] {
        let Relay { downstream, upstream, .. } = *self;
        [
            Path { direction: Direction::Up, from: downstream, to: upstream },
            Path { direction: Direction::Down, from: upstream, to: downstream },
        ]
    }

    fn half_closed(&self) -> bool {
        self.halves.iter().any(|half| half.done || half.mode == Mode::Discard)
    }

    /// The client has the whole answer of a service that takes nothing more.
    fn is_lingering(&self) -> bool {
        let [up, down] = &self.halves;
        up.mode == Mode::Discard && down.done && down.has_delivered
    }

    /// The silence that is allowed now.
    fn limit(&self) -> Option<(Duration, Ending)> {
        if self.is_lingering() {
            return Some((LINGER_SILENCE, Ending::UpstreamReset));
        }
        self.limits.allowed(self.half_closed())
    }

    /// Ready when there was no byte for too long. A process that was stopped, or suspended with its machine, may find its
    /// timers expired before it has seen what came in the meantime: so the sockets are asked first.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let Some((limit, ending)) = self.limit() else { return Poll::Pending };
        let silence = self.silence.get_or_insert_with(|| Silence::of(limit));
        ready!(silence.as_mut().poll(limit, cx));
        if self.has_news() && self.silence.as_mut().is_some_and(|silence| silence.as_mut().extend()) {
            yield_turn(cx);
            return Poll::Pending;
        }
        Poll::Ready(ending)
    }

    fn has_news(&self) -> bool {
        self.halves.iter().zip(self.paths()).any(|(half, path)| half.has_news(path))
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
        if let Some((path, fault)) = take_round(&mut turns, cx, tally)
            && !is_refused(&mut turns, path, &fault)
        {
            let [up, _] = &turns;
            let refused = up.half.mode == Mode::Discard;
            return Poll::Ready(if refused { Ending::UpstreamReset } else { path.reset_by(&fault) });
        }
        if let Some(ending) = ending(&turns) {
            return Poll::Ready(ending);
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

/// One round of each half that does not wait.
fn take_round<'a, A: Account>(
    turns: &mut [Turn<'_, 'a>; 2],
    cx: &mut Context<'_>,
    tally: &mut Tally<'_, A>,
) -> Option<(Path<'a>, Fault)> {
    for turn in turns.iter_mut().filter(|turn| turn.awake) {
        match turn.half.poll_round(turn.path, cx, tally) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(fault)) => return Some((turn.path, fault)),
            Poll::Pending => turn.awake = false,
        }
    }
    None
}

/// Whether this fault only means that the service takes nothing more: it cannot be written to, or was reset after its
/// FIN. Then the session goes on, without what the client sends.
fn is_refused(turns: &mut [Turn<'_, '_>; 2], path: Path<'_>, fault: &Fault) -> bool {
    let [up, down] = turns;
    let by_service = match (path.direction, fault) {
        (Direction::Up, Fault::To(_)) => true,
        (Direction::Down, Fault::From(_)) => down.half.done,
        _ => false,
    };
    let is_refused = by_service && fault.is_by_peer();
    if is_refused {
        up.half.discard();
        down.half.drain();
        (up.awake, down.awake) = (true, true);
    }
    is_refused
}

fn ending(turns: &[Turn<'_, '_>; 2]) -> Option<Ending> {
    let [up, down] = turns.each_ref().map(|turn| &*turn.half);
    match up.mode {
        // Without an answer to wait for, the client is to see at once that nobody takes what it sends.
        Mode::Discard if down.done && (up.done || !down.has_delivered) => Some(Ending::UpstreamReset),
        Mode::Relay if up.done && down.done => Some(Ending::Finished),
        _ => None,
    }
}

/// Comes back after the driver was asked for news. A plain `wake_by_ref` would not do: the runtime looks at the
/// driver only every 61 polls, and each poll of a bulk session moves a megabyte.
fn yield_turn(cx: &mut Context<'_>) {
    // The first poll leaves the waker with the runtime; nothing else of the future is needed.
    let _: Poll<()> = pin!(tokio::task::yield_now()).poll(cx);
}

/// A half on its turn.
struct Turn<'r, 'a> {
    half: &'r mut Half<'a>,
    path: Path<'a>,
    /// It did not say yet that it must wait.
    awake: bool,
}

impl<'r, 'a> Turn<'r, 'a> {
    fn new(half: &'r mut Half<'a>, path: Path<'a>) -> Turn<'r, 'a> {
        Turn { half, path, awake: true }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::half::Held;
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
