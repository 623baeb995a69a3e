//! What all tunnels of the process share: the credentials, the list of tunnels, and those that peers have dialled for us to
//! open sessions in.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::dialled::{Dialled, open_tunnel};
use super::handshake::{self, ClientStream, Purpose};
use super::registry::{ACCEPTED_MAX, Registry};
use super::serve::{self, SessionRequest};
use super::{DialledPeer, Direction, Handshaken, Tunnel, TunnelEnd, TunnelError, lock};
use crate::address::{PeerName, PeerVia, ReversePeers};
use crate::credentials::{Credentials, HandshakeFailure, Reason, Untrusted};
use crate::ending::Ending;
use crate::events::Events;
use crate::handshakes::Handshakes;
use crate::log_throttle::LogThrottle;
use crate::ordered::CollectOrdered;
use crate::route::Protocol;
use crate::socket::Socket;

/// The tunnels of the process.
#[derive(Debug)]
pub struct Peers {
    /// `None` without credentials: there are no tunnels.
    credentials: Option<Arc<Credentials>>,
    registry: Arc<Registry>,
    reverse: Mutex<BTreeMap<(String, IpAddr), Vec<Dialled>>>,
    reverse_peers: watch::Sender<Arc<ReversePeers>>,
    strangers: Mutex<LogThrottle>,
    excess: Mutex<LogThrottle>,
}

impl Peers {
    /// Creates an empty list. Changes of the tunnels are reported to `events`.
    pub fn new(credentials: Option<Arc<Credentials>>, events: Arc<Events>) -> Peers {
        Peers {
            credentials,
            registry: Arc::new(Registry::new(events)),
            reverse: Mutex::default(),
            reverse_peers: watch::Sender::new(Arc::default()),
            strangers: Mutex::default(),
            excess: Mutex::default(),
        }
    }

    /// Returns the credentials, if there are any.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// Returns the tunnels that are open.
    pub fn tunnels(&self) -> Vec<Arc<Tunnel>> {
        self.registry.tunnels()
    }

    /// Returns the peers that this process has dialled, and why some are down.
    pub fn dialled(&self) -> Vec<(PeerVia, DialledPeer)> {
        self.registry.dialled()
    }

    /// Returns the number of failed handshakes by reason.
    pub fn failures(&self) -> BTreeMap<Reason, u64> {
        self.registry.failures()
    }

    /// Connects to a peer, and makes sure that it is the right one.
    pub(super) async fn dial(
        &self,
        addr: SocketAddr,
        name: &PeerName,
        purpose: Purpose,
        limit: Duration,
    ) -> io::Result<(ClientStream, Handshaken)> {
        let none = || io::Error::other(TunnelError::NoCredentials);
        let credentials = self.credentials.as_ref().ok_or_else(none)?;
        handshake::dial(credentials, &self.registry, addr, name, purpose, limit).await
    }

    /// Returns the peers that have dialled us, and their changes.
    pub fn reverse_peers(&self) -> watch::Receiver<Arc<ReversePeers>> {
        self.reverse_peers.subscribe()
    }

    /// Serves a connection to `--peer-listen` until it ends: sessions that the peer opens are given to `admit`.
    pub async fn accept(
        &self,
        socket: Socket,
        remote: SocketAddr,
        handshakes: &Handshakes,
        admit: impl FnMut(SessionRequest),
    ) {
        let Some(credentials) = &self.credentials else { return };
        let accepted = {
            let handshake = handshakes.begin();
            tokio::select! {
                accepted = handshake::accept(credentials, &self.registry, socket, remote) => accepted,
                () = handshake.evicted() => Err(HandshakeFailure::of(&io::ErrorKind::TimedOut.into(), credentials.kind())),
            }
        };
        let (stream, handshaken, purpose) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.log_stranger(remote, &error),
        };
        let served = match purpose {
            Purpose::Open => serve::serve(stream, handshaken, admit, |tunnel| self.enter(tunnel)).await,
            Purpose::Serve => match open_tunnel(stream, handshaken, false).await {
                Ok((dialled, driver)) => {
                    if self.enter(&dialled.tunnel) {
                        self.drive_reverse(dialled, driver).await;
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = served {
            tracing::debug!(%remote, %error, "tunnel failed");
        }
    }

    fn log_stranger(&self, remote: SocketAddr, failure: &HandshakeFailure) {
        self.registry.count(failure.reason);
        if let Some(attempts) = lock(&self.strangers).hit() {
            tracing::warn!(%remote, attempts, "connection refused, it is not from a peer: {}", failure.one_line());
        }
    }

    /// Dials a peer and serves the sessions that it opens, until the tunnel ends. `opened` receives the tunnel.
    ///
    /// # Errors
    ///
    /// Fails if no tunnel can be made.
    pub async fn serve_reverse(
        &self,
        addr: SocketAddr,
        name: &PeerName,
        connect_timeout: Duration,
        admit: impl FnMut(SessionRequest),
        opened: oneshot::Sender<Arc<Tunnel>>,
    ) -> io::Result<()> {
        let (stream, handshaken) = self.dial(addr, name, Purpose::Serve, connect_timeout).await?;
        let enter = |tunnel: &Arc<Tunnel>| {
            // Fails if the tunnel is not needed any more, because the process stops.
            let _ = opened.send(tunnel.clone());
            self.enter(tunnel)
        };
        serve::serve(stream, handshaken, admit, enter).await.map_err(io::Error::other)
    }

    /// Lists a tunnel. Returns false, and logs it, if the peer has too many.
    pub(super) fn enter(&self, tunnel: &Arc<Tunnel>) -> bool {
        let is_listed = self.registry.enter(tunnel);
        if !is_listed && let Some(attempts) = lock(&self.excess).hit() {
            let (peer, remote) = (&tunnel.peer.identity, tunnel.remote);
            tracing::warn!(%peer, %remote, attempts, "tunnel refused: the peer has {ACCEPTED_MAX} from this address");
        }
        is_listed
    }

    /// Drives a reverse tunnel until it ends, and lists it until it is drained.
    async fn drive_reverse(&self, dialled: Dialled, driver: impl Future<Output = ()>) {
        let tunnel = dialled.tunnel.clone();
        let listed = self.list_reverse(dialled);
        let mut driver = pin!(driver);
        tokio::select! {
            () = &mut driver => return,
            () = tunnel.drained() => {}
        }
        drop(listed);
        driver.await;
    }

    fn list_reverse(&self, dialled: Dialled) -> Listed<'_> {
        let key = (dialled.tunnel.peer.identity.to_string(), dialled.tunnel.remote.ip());
        let mut reverse = lock(&self.reverse);
        reverse.entry(key.clone()).or_default().push(dialled);
        self.publish(&reverse);
        Listed { peers: self, key }
    }

    fn publish(&self, reverse: &BTreeMap<(String, IpAddr), Vec<Dialled>>) {
        let peers: ReversePeers = reverse.keys().cloned().collect_ordered();
        self.reverse_peers.send_if_modified(|published| {
            let is_changed = **published != peers;
            if is_changed {
                *published = Arc::new(peers);
            }
            is_changed
        });
    }

    /// Returns the tunnel of a peer that has dialled us, with the fewest sessions.
    pub(super) fn reverse(&self, identity: &str, ip: IpAddr, protocol: Protocol) -> Option<Dialled> {
        let reverse = lock(&self.reverse);
        let tunnels = reverse.get(&(identity.to_owned(), ip))?.iter();
        tunnels
            .filter(|dialled| dialled.has_room(protocol))
            .min_by_key(|dialled| dialled.tunnel.streams())
            .cloned()
    }

    /// Verifies the peers of all tunnels again after a change of the credentials. A tunnel of a revoked peer ends at once; every
    /// other one is replaced: it takes no new sessions, and ends after its last one. Only a peer can replace a tunnel that it has
    /// dialled for us to open sessions in, so that stays in use while the peer is trusted.
    pub fn verify_again(&self) {
        let Some(credentials) = &self.credentials else { return };
        for tunnel in self.tunnels() {
            match credentials.peer(&tunnel.chain) {
                Err(Untrusted::Revoked) => tunnel.cut(Ending::PeerRevoked),
                Ok(_) if tunnel.direction == Direction::Accepted && !tunnel.is_server() => {}
                Ok(_) | Err(_) => {
                    tunnel.ends(TunnelEnd::Replaced);
                    tunnel.drain();
                }
            }
        }
    }

    /// Ends all tunnels after their last session, because the process stops.
    pub fn drain(&self) {
        for tunnel in self.tunnels() {
            tunnel.ends(TunnelEnd::Drained);
            tunnel.drain();
        }
    }
}

/// A reverse tunnel in the list, until dropped.
struct Listed<'p> {
    peers: &'p Peers,
    key: (String, IpAddr),
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut reverse = lock(&self.peers.reverse);
        if let Some(tunnels) = reverse.get_mut(&self.key) {
            tunnels.retain(|dialled| !dialled.tunnel.is_closing());
            if tunnels.is_empty() {
                reverse.remove(&self.key);
            }
        }
        self.peers.publish(&reverse);
    }
}
