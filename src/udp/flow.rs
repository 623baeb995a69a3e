//! One open flow: sending up on its connected socket, answering down from the address the client wrote to, and knowing
//! when it is over.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::wire::{Datagrams, Wire};
use super::{Flow, IDLE_DEFAULT};
use crate::ending::Ending;
use crate::relay::Direction;

/// Who a flow belongs to, as the socket says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) client: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

impl Key {
    /// Where answers leave from. Nothing leaves from a group's address.
    fn source(&self) -> Option<IpAddr> {
        self.local.filter(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_multicast(),
        })
    }
}

/// An open flow, as the table and the flow's task see it.
pub(super) struct Upstream<F> {
    wire: Wire,
    endpoint: SocketAddr,
    pub(super) flow: F,
    /// The endpoint's host says that nobody listens: heard by whoever sent or received next.
    refused: Notify,
    /// It must make room for others.
    evicted: Notify,
    opened_at: Instant,
    /// The last datagram either way, in milliseconds after `opened_at`.
    last_ms: AtomicU64,
}

impl<F: Flow> Upstream<F> {
    /// `None` when the socket is of no use; then the flow is told.
    pub(super) fn new(socket: UdpSocket, flow: F) -> Option<Upstream<F>> {
        let registered = socket.peer_addr().and_then(|endpoint| Ok((endpoint, Wire::connected(socket)?)));
        let Ok((endpoint, wire)) = registered else {
            flow.ended(Ending::Local);
            return None;
        };
        let (refused, evicted, opened_at) = (Notify::new(), Notify::new(), Instant::now());
        Some(Upstream { wire, endpoint, flow, refused, evicted, opened_at, last_ms: AtomicU64::new(0) })
    }

    /// False when the endpoint refuses: the flow is over. Datagrams for which there is no room are lost, because
    /// waiting for one endpoint would hold up all others.
    pub(super) fn send(&self, datagrams: &Datagrams<'_>) -> bool {
        match self.wire.send(self.endpoint, None, datagrams) {
            Ok(()) => self.note(Direction::Up, datagrams.bytes.len()),
            Err(error) if is_refusal(&error) => {
                self.flow.unreachable(&error);
                self.refused.notify_one();
                return false;
            }
            Err(error) => tracing::debug!(%error, endpoint = %self.endpoint, "a UDP datagram was not sent"),
        }
        true
    }

    /// Ends it as [`Ending::TooMany`].
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    fn note(&self, direction: Direction, bytes: usize) {
        let elapsed_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
        self.flow.moved(direction, bytes);
    }

    fn idle_at(&self) -> Instant {
        let idle = self.flow.idle_timeout().unwrap_or(IDLE_DEFAULT);
        let last = self.opened_at + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        // A limit beyond time: look again in a day.
        last.checked_add(idle).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

/// Sends what the endpoint answers to the client, until the flow is over. `answered` is notified of the first answer.
pub(super) async fn answer<F: Flow>(
    downstream: &Wire,
    upstream: &Upstream<F>,
    key: Key,
    answered: impl FnOnce(),
) -> Ending {
    let mut stopped = pin!(upstream.flow.stopped());
    // Registered before the limit is read, so that a change in between is not missed.
    let mut changed = pin!(upstream.flow.changed());
    changed.as_mut().enable();
    let mut alarm = pin!(sleep_until(upstream.idle_at()));
    let mut answered = Some(answered);
    loop {
        // Answers wait in the endpoint's socket while the listening one has no room.
        let readable = async {
            downstream.writable().await;
            upstream.wire.readable().await
        };
        tokio::select! {
            ending = &mut stopped => return ending,
            () = upstream.refused.notified() => return Ending::UpstreamReset,
            () = upstream.evicted.notified() => return Ending::TooMany,
            () = &mut changed => {
                changed.set(upstream.flow.changed());
                changed.as_mut().enable();
                alarm.as_mut().reset(upstream.idle_at());
            }
            () = &mut alarm => {
                let deadline = upstream.idle_at();
                if deadline <= Instant::now() {
                    return Ending::Idle;
                }
                alarm.as_mut().reset(deadline);
            }
            guard = readable => {
                let received = guard.and_then(|guard| {
                    upstream.wire.receive(guard, |datagrams| {
                        if let Some(answered) = answered.take() {
                            answered();
                        }
                        send_down(downstream, upstream, key, datagrams);
                    })
                });
                match received {
                    Ok(false) => {}
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => {
                        upstream.flow.unreachable(&error);
                        return Ending::UpstreamReset;
                    }
                }
            }
        }
    }
}

fn send_down<F: Flow>(downstream: &Wire, upstream: &Upstream<F>, key: Key, datagrams: &Datagrams<'_>) {
    match downstream.send(key.client, key.source(), datagrams) {
        Ok(()) => upstream.note(Direction::Down, datagrams.bytes.len()),
        Err(error) => tracing::debug!(%error, client = %key.client, "a UDP answer was not sent"),
    }
}

/// An ICMP answer to an earlier datagram, told at the next call on the socket.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
