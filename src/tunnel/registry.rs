//! What is recorded of the tunnels of the process: which there are, why there are none, and events when that changes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::directory::{DialledPeer, Directory, PeerChange, PeerFailure};
use super::{Direction, Tunnel, lock};
use crate::address::PeerVia;
use crate::connect;
use crate::credentials::{HandshakeFailure, Reason};
use crate::ending::Ending;
use crate::events::{EventKind, Events};

/// Tunnels that one peer may have dialled from one address: eight for each worker of a host with 32. Further ones are refused, so that
/// no peer takes the descriptors of all.
pub(super) const ACCEPTED_MAX: usize = 256;

/// The tunnels of the process. Locked when a tunnel is made or ends, and to show them; sessions take no lock here.
#[derive(Debug)]
pub(super) struct Registry {
    tunnels: Mutex<Vec<Weak<Tunnel>>>,
    /// Failed handshakes by reason.
    failures: Mutex<BTreeMap<Reason, u64>>,
    directory: Mutex<Directory>,
    events: Arc<Events>,
}

impl Registry {
    pub(super) fn new(events: Arc<Events>) -> Registry {
        Registry {
            tunnels: Mutex::default(),
            failures: Mutex::default(),
            directory: Mutex::default(),
            events,
        }
    }

    /// Lists a tunnel. Returns false instead if the peer has dialled too many from this address. Those that take no new sessions
    /// do not count, because their successors exist at the same time.
    pub(super) fn enter(&self, tunnel: &Arc<Tunnel>) -> bool {
        let mut tunnels = lock(&self.tunnels);
        tunnels.retain(|tunnel| tunnel.strong_count() > 0);
        let is_from_same = |other: &Arc<Tunnel>| {
            other.direction == Direction::Accepted
                && !other.is_closing()
                && other.remote.ip() == tunnel.remote.ip()
                && other.peer.identity == tunnel.peer.identity
        };
        if tunnel.direction == Direction::Accepted
            && tunnels.iter().filter_map(Weak::upgrade).filter(is_from_same).count() >= ACCEPTED_MAX
        {
            return false;
        }
        tunnels.push(Arc::downgrade(tunnel));
        true
    }

    /// Returns the tunnels that are open.
    pub(super) fn tunnels(&self) -> Vec<Arc<Tunnel>> {
        lock(&self.tunnels)
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|tunnel| tunnel.loss().is_none())
            .collect()
    }

    /// Returns the peers that this process dials.
    pub(super) fn dialled(&self) -> Vec<(PeerVia, DialledPeer)> {
        lock(&self.directory).peers()
    }

    /// Returns the number of failed handshakes by reason.
    pub(super) fn failures(&self) -> BTreeMap<Reason, u64> {
        lock(&self.failures).clone()
    }

    /// Counts a failed handshake.
    pub(super) fn count(&self, reason: Reason) {
        *lock(&self.failures).entry(reason).or_default() += 1;
    }

    /// Records that no tunnel to a peer could be made.
    pub(super) fn failed(&self, via: &PeerVia, error: &io::Error) {
        let failure = match HandshakeFailure::in_error(error) {
            Some(failure) => {
                self.count(failure.reason);
                of_handshake(failure)
            }
            None => of_io(error),
        };
        let text = failure.one_line();
        let mut directory = lock(&self.directory);
        let change = directory.failed(via, failure);
        self.emit(&directory, via, change, &text);
    }

    /// Records that a peer has answered in a tunnel, and so has accepted our certificate.
    pub(super) fn up(&self, tunnel: &Tunnel) {
        let mut directory = lock(&self.directory);
        if tunnel.loss().is_some() || tunnel.set_up(true) {
            return;
        }
        let (peer, remote, direction) = shown(tunnel);
        self.events.emit(EventKind::TunnelOpened { peer, remote, direction });
        if let Some(via) = &tunnel.via {
            let change = directory.up(via, &tunnel.peer.identity);
            self.emit(&directory, via, change, "");
        }
    }

    /// Records the end of a tunnel, whose ending is set.
    pub(super) fn down(&self, tunnel: &Tunnel) {
        if let Some(failure) = tunnel.tls_failure.get() {
            self.count(failure.reason);
        }
        let mut directory = lock(&self.directory);
        let was_up = tunnel.set_up(false);
        if was_up {
            let (peer, remote, direction) = shown(tunnel);
            self.events.emit(EventKind::TunnelClosed { peer, remote, direction, why: why(tunnel) });
        }
        let (Some(via), failure) = (&tunnel.via, failure_of(tunnel)) else { return };
        let text = failure.as_ref().map(PeerFailure::one_line).unwrap_or_default();
        let change = match failure {
            failure if was_up => directory.ended(via, failure),
            Some(failure) => directory.failed(via, failure),
            None => None,
        };
        self.emit(&directory, via, change, &text);
    }

    /// Emits a change while the directory is locked, so that the events are in the order of the changes.
    fn emit(&self, directory: &Directory, via: &PeerVia, change: Option<PeerChange>, why: &str) {
        let (peer, remote) = (directory.name(via), via.remote());
        match change {
            Some(PeerChange::Up) => self.events.emit(EventKind::PeerUp { peer, remote }),
            Some(PeerChange::Down) => {
                self.events.emit(EventKind::PeerDown { peer, remote, why: why.to_owned() });
            }
            None => {}
        }
    }
}

fn shown(tunnel: &Tunnel) -> (String, String, &'static str) {
    (tunnel.peer.identity.to_string(), tunnel.remote.to_string(), tunnel.direction.as_str())
}

/// Returns why a tunnel has ended.
fn why(tunnel: &Tunnel) -> String {
    match (tunnel.tls_failure.get(), tunnel.loss(), tunnel.end()) {
        (Some(failure), ..) => format!("refused: {}", failure.one_line()),
        (None, Some(Ending::PeerRevoked), _) => "revoked".to_owned(),
        (None, _, Some(end)) => end.as_str().to_owned(),
        (None, _, None) => "lost".to_owned(),
    }
}

/// Returns the failure of a tunnel that did not end on purpose.
fn failure_of(tunnel: &Tunnel) -> Option<PeerFailure> {
    if let Some(failure) = tunnel.tls_failure.get() {
        return Some(of_handshake(failure));
    }
    let (message, help) = match (tunnel.loss(), tunnel.end()) {
        (Some(Ending::PeerRevoked), _) => {
            (Reason::Revoked.message(), Some(Reason::Revoked.help(tunnel.kind)))
        }
        (_, Some(_)) => return None,
        (_, None) => ("the tunnel was lost", None),
    };
    Some(PeerFailure { message: message.to_owned(), help, at: Instant::now() })
}

fn of_handshake(failure: &HandshakeFailure) -> PeerFailure {
    PeerFailure { message: failure.message.clone(), help: Some(failure.help), at: Instant::now() }
}

fn of_io(error: &io::Error) -> PeerFailure {
    PeerFailure { message: connect::cause(error), help: unreachable_help(error), at: Instant::now() }
}

/// Returns what to check if a peer cannot be reached.
pub(super) fn unreachable_help(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Some("is the ambassador there started, with a `peer:` route or --peer-listen, and on this port?")
        }
        io::ErrorKind::TimedOut => Some("is the host up, and does a firewall drop the packets to this port?"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some("there is no route to it; is the address right, and the network up?")
        }
        _ => None,
    }
}
