//! The tunnels of a worker: those that peers dial, and those that it dials so that peers can open sessions (`--peer-dial`).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Handover, SessionSlot, TunnelSlot, Worker};
use crate::address::PeerName;
use crate::backoff::{Backoff, jittered};
use crate::cluster::Cluster;
use crate::credentials::CredentialKind;
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::listener::{Accepted, AcceptedStream, ClientAddr};
use crate::route::Protocol;
use crate::session::flow::Flows;
use crate::socket::Socket;
use crate::tunnel::{Refusal, SessionRequest, Tunnel, TunnelStream};
use std::sync::atomic::Ordering::Relaxed;

/// The pauses between two dials of a reverse tunnel.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(5);

/// The time in which a reverse tunnel must be made.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer to which each worker keeps a tunnel, in which the peer opens sessions.
#[derive(Clone, Debug)]
pub struct ReverseDial {
    /// What the certificate of the peer must contain.
    pub name: PeerName,
    /// The addresses of the peer, which are tried in turn.
    pub addrs: watch::Receiver<Vec<SocketAddr>>,
    /// Ends the tunnels.
    pub stop: CancellationToken,
}

impl Worker {
    /// Gives a connection to `--peer-listen` to the worker with the fewest tunnels.
    pub(super) fn admit_tunnel(&self, Accepted { stream, client, permit, .. }: Accepted) {
        let (AcceptedStream::Socket(fd), ClientAddr::Inet(remote)) = (stream, client) else { return };
        let least = self.workers.iter().min_by_key(|worker| worker.tunnels.load(Relaxed));
        let slot = TunnelSlot::on(least.unwrap_or(&self.own).clone());
        // A tunnel has one descriptor.
        permit.release_upstream();
        self.hand_over(Handover::Tunnel { fd, remote, permit, slot });
    }

    /// Serves a tunnel that a peer has dialled. `counted` is dropped when it has ended.
    pub(super) fn serve_tunnel(&self, fd: OwnedFd, remote: SocketAddr, counted: (FdPermit, TunnelSlot)) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            match Socket::register(fd) {
                Ok(socket) => {
                    let admit = |request| worker.admit(request);
                    tokio::select! {
                        () = worker.shared.force.cancelled() => {}
                        () = worker.shared.peers.accept(socket, remote, &worker.peer_handshakes, admit) => {}
                    }
                }
                Err(error) => tracing::error!(%error, "cannot register a connection"),
            }
            drop(counted);
        });
    }

    /// Keeps a tunnel to a peer, in which the peer opens sessions, until `dial.stop`.
    pub(super) fn keep_reverse_tunnel(&self, dial: ReverseDial) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = dial.stop.cancelled() => {}
                () = worker.shared.force.cancelled() => {}
                () = worker.dial_repeatedly(&dial) => {}
            }
        });
    }

    /// Dials until the process stops. A tunnel that takes no new sessions, because our credentials have changed, is replaced at once.
    async fn dial_repeatedly(&self, ReverseDial { name, addrs, .. }: &ReverseDial) {
        let mut addrs = addrs.clone();
        let mut backoff = Backoff::new(REDIAL_MIN, REDIAL_MAX);
        for turn in 0.. {
            let Some(addr) = next_addr(&mut addrs, turn).await else { return };
            if self.shared.stop.is_cancelled() {
                return;
            }
            let began = Instant::now();
            let (opened, tunnel) = oneshot::channel();
            self.serve_reverse(addr, name.clone(), opened);
            if let Ok(tunnel) = tunnel.await {
                tunnel.drained().await;
            }
            if began.elapsed() > REDIAL_MAX {
                // It was open: dial at once.
                backoff.reset();
                continue;
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return,
                () = tokio::time::sleep(jittered(backoff.next_pause())) => {}
            }
        }
    }

    /// Dials and serves one tunnel. Its last sessions may be served beside the next tunnel.
    fn serve_reverse(&self, addr: SocketAddr, name: PeerName, opened: oneshot::Sender<Arc<Tunnel>>) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            let admit = |request| worker.admit(request);
            let served = worker.shared.peers.serve_reverse(addr, &name, DIAL_TIMEOUT, admit, opened);
            tokio::select! {
                () = worker.shared.force.cancelled() => {}
                served = served => if let Err(error) = served {
                    tracing::debug!(%addr, "no tunnel to the peer: {error}");
                },
            }
        });
    }

    /// Serves a session that a peer has opened, or refuses it.
    fn admit(&self, SessionRequest { protocol, export, client, stream }: SessionRequest) {
        let client = client.unwrap_or(stream.tunnel().remote);
        match self.find_export(protocol, &export, stream.tunnel()) {
            Ok(cluster) if protocol == Protocol::Udp => self.serve_flow(cluster, client, stream),
            Ok(cluster) => self.serve_stream(cluster, client, stream),
            Err(refusal) => stream.refuse(&refusal),
        }
    }

    fn find_export(&self, protocol: Protocol, name: &str, tunnel: &Tunnel) -> Result<Arc<Cluster>, Refusal> {
        if self.shared.stop.is_cancelled() {
            return Err(Refusal::UNAVAILABLE);
        }
        let kind = self.shared.peers.credentials().map_or(CredentialKind::ForeignCa, |known| known.kind());
        self.shared.exports.find(protocol, name, &tunnel.peer.identity, kind)
    }

    fn serve_stream(&self, cluster: Arc<Cluster>, client: SocketAddr, stream: TunnelStream) {
        let Some(permit) = cluster.fds.dial_only() else { return stream.refuse(&Refusal::LIMIT) };
        let (stream, client) = (AcceptedStream::Tunnel(Box::new(stream)), ClientAddr::Inet(client));
        let accepted = Accepted { stream, client, permit, details: None };
        let slot = SessionSlot::on(self.own.clone());
        self.serve(Handover::Session { accepted, cluster, offset: 0, slot });
    }

    /// Serves a UDP flow. If there is no descriptor, it waits for that of an evicted flow.
    fn serve_flow(&self, cluster: Arc<Cluster>, client: SocketAddr, stream: TunnelStream) {
        let evict = || self.peer_flows.evict_oldest(&cluster).then(|| cluster.fds.unreserved());
        let permit = cluster.fds.flow().or_else(evict);
        let Some((permit, flow)) = permit.zip(self.peer_flows.enter(&cluster, client.ip())) else {
            cluster.counters.rejected(Ending::TooMany);
            self.shared.history.activity.wake();
            return stream.refuse(&Refusal::LIMIT);
        };
        let flows = Flows { cluster, offset: 0, addr: None, shared: self.shared.clone() };
        self.tracker.spawn(async move {
            flows.serve(stream, client, permit, flow.evicted(), || flow.answered()).await;
        });
    }
}

/// Waits for an address. Returns `None` when there will be none.
async fn next_addr(addrs: &mut watch::Receiver<Vec<SocketAddr>>, turn: usize) -> Option<SocketAddr> {
    loop {
        {
            let known = addrs.borrow_and_update();
            if let Some(addr) = known.get(turn % known.len().max(1)) {
                return Some(*addr);
            }
        }
        addrs.changed().await.ok()?;
    }
}
