//! Relays the bytes of one session: two streams in, an [`Ending`] out.
//!
//! Each of the two directions is a `Half`. While it waits, a half owns no buffer and no pipe, unless its receiver is slow:
//!
//! ```text
//!                  ┌──────────────◄── all delivered ──◄──────────────┐
//!                  ▼                                                 │
//!   ┌─► empty: read what the sender has ──┬─ a short read ─► write ──┤
//!   │      │                              │   (copy)                 ├─ the receiver is slow ─► buffered ─┐
//!   │      │                              └─ a full one ─► splice ───┘   (copied, or in the pipe)         │
//!   │      └─ FIN ─► pass it on ─► done ◄───────────────────────────────────────────────────── delivered ─┘
//!   └── waiting: no buffer, no pipe
//! ```
//!
//! `copy` reads through one scratch buffer per thread, and only it detects the FIN of a sender; `splice` only moves bytes faster
//! while there are many. FIN is therefore read only by a half that has nothing buffered, and is passed on at once. The session is
//! finished when both halves are done. It ends early when either side is reset or when both are idle for too long.
//!
//! A service may answer and close before it has read the whole request (HTTP 413). Its kernel then resets the connection,
//! and a write to it fails although its response can still be read. Such a session is *refused*: the down half delivers what the
//! service had sent, then FIN; the up half reads and discards what the client still sends, for a limited time (*lingering*),
//! because a close with unread bytes would reset the client, which could then lose the response.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::ending::Ending;
use crate::stream::Stream;
use crate::traffic::Direction;
use fault::Fault;
use half::{Half, Mode, Path, Tally};
use idle::IdleTimer;

mod copy;
mod fault;
mod half;
mod idle;
mod splice;

pub use idle::Limits;
pub use splice::{OPEN_PIPES, PipeAllowance, set_pipe_allowance};

/// Bytes that a session may move before other sessions of its thread are polled: the maximum of one splice. Measured with four
/// bulk sessions on one thread, 8 MB gain no more than the noise (3 %).
const TURN_BYTES: usize = 1 << 20;

/// Rounds after which other sessions are polled, for a session with small reads.
const TURN_ROUNDS: usize = 16;

/// How long a refused client may be idle, and how long it may send, after it got the response and FIN. The defaults of nginx's
/// `lingering_timeout` and `lingering_time`.
const LINGER_IDLE: Duration = Duration::from_secs(5);
const LINGER_TIME: Duration = Duration::from_secs(30);

/// Receives the number of bytes as they are delivered.
pub trait Account {
    /// Called after bytes were delivered.
    fn moved(&self, direction: Direction, bytes: usize);
}

impl<F: Fn(Direction, usize)> Account for F {
    fn moved(&self, direction: Direction, bytes: usize) {
        self(direction, bytes);
    }
}

/// Relays until both sides have finished or one has failed.
///
/// After any ending but [`Ending::Finished`], closing the sockets resets the peers that are still connected, except a client that
/// has received the complete response and FIN.
pub fn relay<'a, A: Account>(
    downstream: &'a Stream,
    upstream: &'a Stream,
    limits: Limits,
    account: A,
) -> Relay<'a, A> {
    Relay { downstream, upstream, halves: Default::default(), account, limits, idle_timer: None }
}

/// The future of [`relay`]. Written by hand, because an `async fn` would store its arguments twice in every idle session.
#[must_use = "futures do nothing unless polled"]
pub struct Relay<'a, A> {
    downstream: &'a Stream,
    upstream: &'a Stream,
    /// Up and down.
    halves: [Half<'a>; 2],
    account: A,
    limits: Limits,
    /// Present only while a limit applies, so that a session without one reads no clock. Boxed, because few have one.
    idle_timer: Option<Pin<Box<IdleTimer>>>,
}

impl<A: Account + Unpin> Future for Relay<'_, A> {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let relay = &mut *self;
        let ending = match relay.poll_bytes(cx) {
            Poll::Ready(ending) => ending,
            Poll::Pending => ready!(relay.poll_idle(cx)),
        };
        if ending != Ending::Finished && !relay.is_lingering() {
            relay.reset();
        }
        Poll::Ready(ending)
    }
}

impl<'a, A: Account> Relay<'a, A> {
    /// Calls [`Relay::take_turns`], and restarts the idle timer after bytes or a half-close.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let (half_closed, lingered) = (self.half_closed(), self.is_lingering());
        let (poll, bytes) = self.take_turns(cx);
        if self.is_lingering() && !lingered {
            self.idle_timer = Some(IdleTimer::within(LINGER_TIME, LINGER_IDLE));
        }
        let is_active = bytes > 0 || self.half_closed() != half_closed;
        if is_active && let Some(idle_timer) = &mut self.idle_timer {
            idle_timer.as_mut().touch();
        }
        poll
    }

    /// Polls the halves in turn until both wait, or until other sessions are due. Returns the number of bytes moved.
    fn take_turns(&mut self, cx: &mut Context<'_>) -> (Poll<Ending>, usize) {
        let [path_up, path_down] = self.paths();
        let Relay { halves: [up, down], account, .. } = self;
        let turns = [Turn::new(up, path_up), Turn::new(down, path_down)];
        let mut tally = Tally { account, bytes: 0 };
        let poll = take_turns(turns, cx, &mut tally);
        (poll, tally.bytes)
    }

    /// Returns the paths up and down.
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

    /// Returns whether the client has received the complete response of a service that accepts no more.
    fn is_lingering(&self) -> bool {
        let [up, down] = &self.halves;
        up.mode == Mode::Discard && down.done && down.has_delivered
    }

    /// Returns the current idle limit and its ending.
    fn idle_limit(&self) -> Option<(Duration, Ending)> {
        if self.is_lingering() {
            return Some((LINGER_IDLE, Ending::UpstreamReset));
        }
        self.limits.current(self.half_closed())
    }

    /// Ready when the session was idle for too long. The timers of a process that was stopped or suspended may expire before it
    /// has read what arrived in the meantime, so the sockets are polled first.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let Some((limit, ending)) = self.idle_limit() else { return Poll::Pending };
        let idle_timer = self.idle_timer.get_or_insert_with(|| IdleTimer::new(limit));
        ready!(idle_timer.as_mut().poll(limit, cx));
        if self.is_ready_now() && self.idle_timer.as_mut().is_some_and(|timer| timer.as_mut().extend()) {
            yield_turn(cx);
            return Poll::Pending;
        }
        Poll::Ready(ending)
    }

    fn is_ready_now(&self) -> bool {
        self.halves.iter().zip(self.paths()).any(|(half, path)| half.is_ready_now(path))
    }

    /// Resets both peers, so that neither waits for bytes that will not come.
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
            return Poll::Ready(if refused { Ending::UpstreamReset } else { fault.ending(path.direction) });
        }
        if let Some(ending) = ending(&turns) {
            return Poll::Ready(ending);
        }
        // A half that is awake and done has just read its FIN. The last FIN is sent by the close, which saves a call.
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

/// Runs one round of each half that does not wait.
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

/// Returns whether a fault only means that the service accepts no more: it cannot be written to, or was reset after its FIN. The
/// session then continues without what the client sends.
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
        // Without a response to wait for, the client must learn at once that its bytes are not accepted.
        Mode::Discard if down.done && (up.done || !down.has_delivered) => Some(Ending::UpstreamReset),
        Mode::Relay if up.done && down.done => Some(Ending::Finished),
        _ => None,
    }
}

/// Schedules the next poll after the driver has been polled. `wake_by_ref` alone would not suffice: the runtime polls the driver
/// only every 61 tasks, and each poll of a bulk session moves a megabyte.
fn yield_turn(cx: &mut Context<'_>) {
    // The first poll registers the waker with the runtime; the rest of the future is not needed.
    let _: Poll<()> = pin!(tokio::task::yield_now()).poll(cx);
}

/// A half in the current turn.
struct Turn<'r, 'a> {
    half: &'r mut Half<'a>,
    path: Path<'a>,
    /// It has not returned `Pending` yet.
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

    use super::half::Buffered;
    use super::*;
    use crate::socket::Socket;

    fn pair() -> (UnixStream, Stream) {
        let (outer, inner) = UnixStream::pair().unwrap();
        outer.set_nonblocking(true).unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, Socket::register(inner.into()).unwrap().into())
    }

    fn owns_nothing<A>(relay: &Relay<'_, A>) -> bool {
        relay.idle_timer.is_none()
            && relay.halves.iter().all(|half| half.buffered.is_none() && half.reset.is_none())
    }

    /// Polls the relay until nothing more happens.
    async fn settle<A: Account + Unpin>(relay: &mut Relay<'_, A>) {
        for _ in 0..50 {
            let poll = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *relay).poll(cx))).await;
            assert!(poll.is_pending());
            tokio::task::yield_now().await;
        }
    }

    /// Every idle session has one, beside the session's own state and tokio's.
    #[test]
    fn future_of_a_session_stays_small() {
        let size = size_of::<Relay<'_, fn(Direction, usize)>>();
        assert!(size <= 104, "{size} bytes");
    }

    #[tokio::test]
    async fn session_owns_a_pipe_only_while_its_receiver_is_slow() {
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
        assert!(
            matches!(relay.halves[0].buffered.as_deref(), Some(Buffered::Pipe(_))),
            "the receiver reads nothing"
        );
        assert!(relay.halves[0].reset.is_some(), "a reset of the sender is detected");

        let mut read = 0;
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = server.read(&mut buffer) {
            read += length;
            settle(&mut relay).await;
        }
        assert_eq!(read, written);
        assert!(owns_nothing(&relay), "after everything was delivered");
    }

    #[tokio::test]
    async fn small_transfer_to_a_slow_receiver_is_copied() {
        let (mut client, downstream) = pair();
        let (mut server, upstream) = pair();
        let limits = Limits::new(None, Duration::from_secs(300));
        let mut relay = relay(&downstream, &upstream, limits, |_, _| {});
        let mut written = 0;
        while relay.halves[0].buffered.is_none() {
            written += client.write(&[1; 3_000]).unwrap();
            settle(&mut relay).await;
        }
        assert!(matches!(relay.halves[0].buffered.as_deref(), Some(Buffered::Copied(_))));
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
