//! One open flow: sends up on its connected socket, sends responses down from the address the client wrote to, and determines
//! when the flow ends.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::socket::{DatagramSocket, Datagrams};
use super::{Flow, IDLE_DEFAULT};
use crate::ending::Ending;
use crate::traffic::Direction;

/// Identifies a flow by the addresses that the socket reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) client: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

impl Key {
    /// Returns the source address of responses. A multicast or broadcast address cannot be one.
    fn source(&self) -> Option<IpAddr> {
        self.local.filter(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_multicast(),
        })
    }
}

/// An open flow, shared by the table and the flow's task.
pub(super) struct Upstream<F> {
    socket: DatagramSocket,
    endpoint: SocketAddr,
    pub(super) flow: F,
    /// The endpoint's host has refused a datagram, which the next send or receive reports.
    refused: Notify,
    /// The flow must end in favour of another one.
    evicted: Notify,
    opened_at: Instant,
    /// The time of the last datagram in either direction, in milliseconds after `opened_at`.
    last_ms: AtomicU64,
}

impl<F: Flow> Upstream<F> {
    /// Returns `None` if the socket cannot be registered; the ending of the flow has then been recorded.
    pub(super) fn new(socket: UdpSocket, flow: F) -> Option<Upstream<F>> {
        let registered =
            socket.peer_addr().and_then(|endpoint| Ok((endpoint, DatagramSocket::connected(socket)?)));
        let Ok((endpoint, socket)) = registered else {
            flow.ended(Ending::Local);
            return None;
        };
        let (refused, evicted, opened_at) = (Notify::new(), Notify::new(), Instant::now());
        Some(Upstream { socket, endpoint, flow, refused, evicted, opened_at, last_ms: AtomicU64::new(0) })
    }

    /// Sends datagrams to the endpoint. Returns `false` if the endpoint refuses, which ends the flow. Datagrams that the socket
    /// does not accept are dropped, because waiting for one endpoint would delay all others.
    pub(super) fn send(&self, datagrams: &Datagrams<'_>) -> bool {
        match self.socket.send(self.endpoint, None, datagrams) {
            Ok(()) => self.count(Direction::Up, datagrams.bytes.len()),
            Err(error) if is_refusal(&error) => {
                self.flow.unreachable(&error);
                self.refused.notify_one();
                return false;
            }
            Err(error) => tracing::debug!(%error, endpoint = %self.endpoint, "UDP datagram not sent"),
        }
        true
    }

    /// Ends the flow as [`Ending::TooMany`].
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    fn count(&self, direction: Direction, bytes: usize) {
        let elapsed_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
        self.flow.moved(direction, bytes);
    }

    fn idle_at(&self) -> Instant {
        let idle = self.flow.idle_timeout().unwrap_or(IDLE_DEFAULT);
        let last = self.opened_at + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        // A limit beyond the range of `Instant`: check again in a day.
        last.checked_add(idle).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

/// Sends the responses of the endpoint to the client until the flow ends. Calls `on_first` at the first response.
pub(super) async fn relay_responses<F: Flow>(
    downstream: &DatagramSocket,
    upstream: &Upstream<F>,
    key: Key,
    on_first: impl FnOnce(),
) -> Ending {
    let mut stopped = pin!(upstream.flow.stopped());
    // Enabled before the limit is read, so that a change after that is not missed.
    let mut changed = pin!(upstream.flow.changed());
    changed.as_mut().enable();
    let mut idle_timer = pin!(sleep_until(upstream.idle_at()));
    let mut on_first = Some(on_first);
    loop {
        // Responses stay in the receive buffer of the flow's socket while the listening socket is blocked.
        let readable = async {
            downstream.writable().await;
            upstream.socket.readable().await
        };
        tokio::select! {
            ending = &mut stopped => return ending,
            () = upstream.refused.notified() => return Ending::UpstreamReset,
            () = upstream.evicted.notified() => return Ending::TooMany,
            () = &mut changed => {
                changed.set(upstream.flow.changed());
                changed.as_mut().enable();
                idle_timer.as_mut().reset(upstream.idle_at());
            }
            () = &mut idle_timer => {
                let deadline = upstream.idle_at();
                if deadline <= Instant::now() {
                    return Ending::Idle;
                }
                idle_timer.as_mut().reset(deadline);
            }
            guard = readable => {
                let received = guard.and_then(|guard| {
                    upstream.socket.receive(guard, |datagrams| {
                        if let Some(on_first) = on_first.take() {
                            on_first();
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

fn send_down<F: Flow>(
    downstream: &DatagramSocket,
    upstream: &Upstream<F>,
    key: Key,
    datagrams: &Datagrams<'_>,
) {
    match downstream.send(key.client, key.source(), datagrams) {
        Ok(()) => upstream.count(Direction::Down, datagrams.bytes.len()),
        Err(error) => tracing::debug!(%error, client = %key.client, "UDP response not sent"),
    }
}

/// Returns whether an error is an ICMP refusal of an earlier datagram, which the next call on the socket reports.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
