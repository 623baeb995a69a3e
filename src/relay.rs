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

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::ending::Ending;
use crate::relay::half::{Half, Path, Tally};
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
            silence.as_mut().broken();
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
