//! One open flow: sends up to the endpoint, sends responses down to the client, and determines when the flow ends.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::channel::{Channel, is_final};
use super::downstream::Downstream;
use super::socket::Datagrams;
use super::{Flow, IDLE_DEFAULT};
use crate::ending::Ending;
use crate::traffic::Direction;
use crate::tunnel::Dropped;

/// An open flow, shared by the table and the flow's task.
pub(super) struct Upstream<F> {
    channel: Channel,
    pub(super) flow: F,
    /// The endpoint's host has refused a datagram, which the next send or receive reports, or the channel has ended.
    refused: Notify,
    /// The flow must end in favour of another one.
    evicted: Notify,
    opened_at: Instant,
    /// The time of the last datagram in either direction, in milliseconds after `opened_at`.
    last_ms: AtomicU64,
}

impl<F: Flow> Upstream<F> {
    pub(super) fn new(channel: Channel, flow: F) -> Upstream<F> {
        let (refused, evicted, opened_at) = (Notify::new(), Notify::new(), Instant::now());
        Upstream { channel, flow, refused, evicted, opened_at, last_ms: AtomicU64::new(0) }
    }

    /// Sends datagrams to the endpoint. Returns `false` if the endpoint refuses, which ends the flow. Datagrams that the channel
    /// does not accept are dropped, because waiting for one endpoint would delay all others.
    pub(super) fn send(&self, datagrams: &Datagrams<'_>) -> bool {
        match self.channel.send(datagrams) {
            Ok(dropped) => self.count(Direction::Up, datagrams, dropped),
            Err(error) if is_final(&error) => {
                self.flow.unreachable(&error);
                self.refused.notify_one();
                return false;
            }
            Err(error) => tracing::debug!(%error, "UDP datagram not sent"),
        }
        true
    }

    fn send_down(&self, downstream: &impl Downstream, datagrams: &Datagrams<'_>) {
        match downstream.send(datagrams) {
            Ok(dropped) => self.count(Direction::Down, datagrams, dropped),
            Err(error) => tracing::debug!(%error, "UDP response not sent"),
        }
    }

    /// Ends the flow as [`Ending::TooMany`].
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    fn count(&self, direction: Direction, datagrams: &Datagrams<'_>, dropped: Dropped) {
        let elapsed_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
        self.flow.moved(direction, datagrams.bytes.len() - dropped.bytes);
        if dropped.datagrams > 0 {
            self.flow.dropped(dropped.datagrams);
        }
    }

    fn idle_at(&self) -> Instant {
        let idle = self.flow.idle_timeout().unwrap_or(IDLE_DEFAULT);
        let last = self.opened_at + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        // A limit beyond the range of `Instant`: check again in a day.
        last.checked_add(idle).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }

    /// Returns the ending after an error of the channel.
    fn failed(&self, error: &io::Error) -> Ending {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Ending::Finished;
        }
        self.flow.unreachable(error);
        self.channel.failure()
    }
}

/// Relays a flow until it ends. Calls `on_first` at the first response.
pub(super) async fn relay<F: Flow>(
    downstream: &impl Downstream,
    upstream: &Upstream<F>,
    on_first: impl FnOnce(),
) -> Ending {
    let mut stopped = pin!(upstream.flow.stopped());
    // Enabled before the limit is read, so that a change after that is not missed.
    let mut changed = pin!(upstream.flow.changed());
    changed.as_mut().enable();
    let mut idle_timer = pin!(sleep_until(upstream.idle_at()));
    let mut on_first = Some(on_first);
    loop {
        let responses = upstream.channel.receive(downstream.writable(), |datagrams| {
            if let Some(on_first) = on_first.take() {
                on_first();
            }
            upstream.send_down(downstream, datagrams);
        });
        let requests = downstream.receive(|datagrams| {
            upstream.send(datagrams);
        });
        let is_more = tokio::select! {
            ending = &mut stopped => return ending,
            () = upstream.refused.notified() => return upstream.channel.failure(),
            () = upstream.evicted.notified() => return Ending::TooMany,
            () = &mut changed => {
                changed.set(upstream.flow.changed());
                changed.as_mut().enable();
                idle_timer.as_mut().reset(upstream.idle_at());
                false
            }
            () = &mut idle_timer => {
                let deadline = upstream.idle_at();
                if deadline <= Instant::now() {
                    return Ending::Idle;
                }
                idle_timer.as_mut().reset(deadline);
                false
            }
            received = responses => match received {
                Ok(is_more) => is_more,
                Err(error) => return upstream.failed(&error),
            },
            received = requests => match received {
                Ok(is_more) => is_more,
                Err(error) => return downstream.ending(&error),
            },
        };
        if is_more {
            tokio::task::yield_now().await;
        }
    }
}
