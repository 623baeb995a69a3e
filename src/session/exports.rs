//! The routes that are offered to peers, as a snapshot for the workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::cluster::Cluster;
use crate::credentials::CredentialKind;
use crate::route::Protocol;
use crate::tunnel::Refusal;

/// The exports by protocol and name.
pub type ExportMap = HashMap<(Protocol, String), Arc<Cluster>>;

/// The exports of the process.
#[derive(Debug, Default)]
pub struct Exports {
    routes: ArcSwap<ExportMap>,
    /// Every source has reported, so that a name that is not in `routes` does not exist.
    is_complete: AtomicBool,
}

impl Exports {
    /// Replaces all exports.
    pub fn publish(&self, routes: ExportMap) {
        if !routes.is_empty() || !self.routes.load().is_empty() {
            self.routes.store(Arc::new(routes));
        }
    }

    /// Records that every source has reported.
    pub fn complete(&self) {
        self.is_complete.store(true, Relaxed);
    }

    /// Returns the cluster of an export that a peer of this identity may use. `authority` is its name, or, for clients that
    /// speak HBONE, its name and a port.
    ///
    /// # Errors
    ///
    /// Fails with the answer to the peer.
    pub fn find(
        &self,
        protocol: Protocol,
        authority: &str,
        identity: &str,
        kind: CredentialKind,
    ) -> Result<Arc<Cluster>, Refusal> {
        let routes = self.routes.load();
        let named = |name: &str| routes.get(&(protocol, name.to_owned()));
        let without_port = || named(authority.rsplit_once(':')?.0);
        let Some(cluster) = named(authority).or_else(without_port) else {
            let is_complete = self.is_complete.load(Relaxed);
            return Err(if is_complete { Refusal::NO_SUCH_EXPORT } else { Refusal::UNAVAILABLE });
        };
        let peers = &cluster.members().options.peers;
        let is_allowed = match kind {
            CredentialKind::ForeignCa => peers.iter().any(|peer| peer == identity),
            CredentialKind::Secret | CredentialKind::OwnCa => {
                peers.is_empty() || peers.iter().any(|peer| peer == identity)
            }
        };
        if is_allowed { Ok(cluster.clone()) } else { Err(Refusal::NOT_ALLOWED) }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::route::Options;

    fn exports(peers: &[&str]) -> Exports {
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        let options = Options { peers, ..Options::named("test") };
        let cluster = Arc::new(Cluster::new(options, CancellationToken::new()));
        let exports = Exports::default();
        exports.publish([((Protocol::Tcp, "redis".to_owned()), cluster)].into());
        exports
    }

    #[test]
    fn export_is_found_by_name_with_and_without_a_port() {
        let exports = exports(&[]);
        let find = |name| exports.find(Protocol::Tcp, name, "a", CredentialKind::OwnCa).map(drop);
        assert_eq!((find("redis"), find("redis:6379")), (Ok(()), Ok(())));
        assert_eq!(find("pg"), Err(Refusal::UNAVAILABLE), "a source may still name it");
        exports.complete();
        assert_eq!(
            (find("pg"), find("6379:redis")),
            (Err(Refusal::NO_SUCH_EXPORT), Err(Refusal::NO_SUCH_EXPORT))
        );
        let datagrams = exports.find(Protocol::Udp, "redis", "a", CredentialKind::OwnCa);
        assert_eq!(datagrams.map(drop), Err(Refusal::NO_SUCH_EXPORT));
    }

    #[test]
    fn identities_are_restricted_by_peers_and_must_be_with_a_foreign_ca() {
        use CredentialKind::{ForeignCa, OwnCa, Secret};
        for (peers, kind, is_allowed) in [
            (&[][..], OwnCa, true),
            (&[], Secret, true),
            (&[], ForeignCa, false),
            (&["a"], OwnCa, true),
            (&["b"], OwnCa, false),
            (&["b", "a"], ForeignCa, true),
        ] {
            let found = exports(peers).find(Protocol::Tcp, "redis", "a", kind).map(drop);
            assert_eq!(
                found,
                if is_allowed { Ok(()) } else { Err(Refusal::NOT_ALLOWED) },
                "{peers:?} {kind:?}"
            );
        }
    }
}
