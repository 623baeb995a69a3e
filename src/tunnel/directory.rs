//! What is known of the peers that this process dials: who answered last, and why there is no tunnel. Pure.
//!
//! ```text
//!             a dial fails, or the last tunnel is lost
//!   reachable ───────────────────────────────────────► down
//!             ◄───────────────────────────────────────
//!                          a tunnel is up
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::address::PeerVia;

/// Peers that are remembered without a tunnel. As many as endpoints of routes can be.
const PEERS_MAX: usize = 10_000;

/// A peer that this process dials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialledPeer {
    /// The identity in its certificate, once a tunnel was up.
    pub identity: Option<Arc<str>>,
    /// Its tunnels that are up.
    pub tunnels: usize,
    /// Why it is down. `None` while it has a tunnel, or needs none.
    pub failure: Option<PeerFailure>,
}

/// Why there is no tunnel to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFailure {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<&'static str>,
    /// When it happened last.
    pub at: Instant,
}

impl PeerFailure {
    /// Returns the failure on one line, for logs.
    pub(super) fn one_line(&self) -> String {
        match self.help {
            Some(help) => format!("{} ({help})", self.message),
            None => self.message.clone(),
        }
    }
}

/// A change to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerChange {
    Up,
    Down,
}

/// The peers that this process dials, by how they are reached.
#[derive(Debug, Default)]
pub(super) struct Directory(BTreeMap<PeerVia, DialledPeer>);

impl Directory {
    /// Records a tunnel.
    pub(super) fn up(&mut self, via: &PeerVia, identity: &Arc<str>) -> Option<PeerChange> {
        let peer = self.entry(via);
        peer.tunnels += 1;
        peer.identity = Some(identity.clone());
        peer.failure.take().map(|_| PeerChange::Up)
    }

    /// Records a dial that failed. It counts if there is no other tunnel.
    pub(super) fn failed(&mut self, via: &PeerVia, failure: PeerFailure) -> Option<PeerChange> {
        let peer = self.entry(via);
        if peer.tunnels > 0 {
            return None;
        }
        peer.failure.replace(failure).is_none().then_some(PeerChange::Down)
    }

    /// Records the end of a tunnel that was up, with the failure if it was not on purpose.
    pub(super) fn ended(&mut self, via: &PeerVia, failure: Option<PeerFailure>) -> Option<PeerChange> {
        let peer = self.entry(via);
        peer.tunnels = peer.tunnels.saturating_sub(1);
        self.failed(via, failure?)
    }

    /// Returns the identity of a peer, or its name in the route as long as its identity is not known.
    pub(super) fn name(&self, via: &PeerVia) -> String {
        let identity = self.0.get(via).and_then(|peer| peer.identity.as_deref());
        identity.unwrap_or_else(|| via.name()).to_owned()
    }

    /// Returns all peers.
    pub(super) fn peers(&self) -> Vec<(PeerVia, DialledPeer)> {
        self.0.iter().map(|(via, peer)| (via.clone(), peer.clone())).collect()
    }

    fn entry(&mut self, via: &PeerVia) -> &mut DialledPeer {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(via) {
            self.0.retain(|_, peer| peer.tunnels > 0);
        }
        self.0.entry(via.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PeerName;

    fn via(port: u16) -> PeerVia {
        PeerVia::Dial { addr: ([10, 0, 0, 1], port).into(), name: PeerName::Host("a".to_owned()) }
    }

    fn failure() -> PeerFailure {
        PeerFailure { message: "connection refused".to_owned(), help: None, at: Instant::now() }
    }

    #[test]
    fn peer_is_reported_down_and_up_once_whatever_the_number_of_attempts() {
        let (mut directory, via, identity) = (Directory::default(), via(1), Arc::from("a"));
        assert_eq!(directory.failed(&via, failure()), Some(PeerChange::Down));
        assert_eq!(directory.failed(&via, failure()), None);
        assert_eq!(directory.up(&via, &identity), Some(PeerChange::Up));
        assert_eq!(directory.up(&via, &identity), None);
        assert_eq!(directory.failed(&via, failure()), None, "it has a tunnel");
        assert_eq!(directory.ended(&via, Some(failure())), None, "it has another tunnel");
        assert_eq!(directory.ended(&via, Some(failure())), Some(PeerChange::Down));
        assert_eq!(directory.peers()[0].1.identity, Some(identity));
    }

    #[test]
    fn peer_whose_tunnels_end_on_purpose_is_not_down() {
        let mut directory = Directory::default();
        directory.up(&via(1), &Arc::from("a"));
        assert_eq!(directory.ended(&via(1), None), None);
        assert_eq!(directory.peers()[0].1.failure, None);
    }

    #[test]
    fn peers_without_tunnels_are_forgotten_at_the_limit() {
        let mut directory = Directory::default();
        directory.up(&via(0), &Arc::from("a"));
        for port in 1..=10_000 {
            directory.failed(&via(port), failure());
        }
        let left: Vec<PeerVia> = directory.peers().into_iter().map(|(via, _)| via).collect();
        assert_eq!(left, [via(0), via(10_000)]);
    }
}
