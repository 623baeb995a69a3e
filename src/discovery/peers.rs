//! The peers that have dialled us under one identity, as a source: each address that they dialled from is an endpoint.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::{EndpointAddr, EndpointSpec, Identity, ReversePeers};
use crate::route::{PeerHost, PeerTarget, Target};

/// The peers that are connected, replaced at each change.
pub(crate) type PeersReceiver = watch::Receiver<Arc<ReversePeers>>;

/// The source for one identity.
pub(crate) struct Peers {
    identity: String,
    export: String,
    connected: PeersReceiver,
}

impl Peers {
    pub(crate) fn new(identity: String, export: String, connected: PeersReceiver) -> Peers {
        Peers { identity, export, connected }
    }

    async fn follow(&mut self, publisher: &mut Publisher) -> Result<Infallible, Stopped> {
        loop {
            let connected = self.connected.borrow_and_update().clone();
            let addrs = endpoints(&connected, &self.identity, &self.export);
            let endpoints: Vec<_> = addrs.map(|addr| EndpointSpec::new(addr, Identity::Literal)).collect();
            let problem = endpoints.is_empty().then(|| "no peer is connected under this identity".to_owned());
            publisher.answered().record();
            publisher.publish_changed(Snapshot::Target { target: self.target(), endpoints, problem }).await?;
            if self.connected.changed().await.is_err() {
                // The process is ending.
                pending::<()>().await;
            }
        }
    }

    fn target(&self) -> Target {
        let Peers { identity, export, connected: _ } = self;
        Target::Peer(PeerTarget { host: PeerHost::Identity(identity.clone()), export: export.clone() })
    }
}

impl Source for Peers {
    fn name(&self) -> String {
        self.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(stopped) => stopped.into(),
        }
    }
}

/// Returns the endpoints of an export of the peers that are connected under an identity.
pub(super) fn endpoints(
    connected: &ReversePeers,
    identity: &str,
    export: &str,
) -> impl Iterator<Item = EndpointAddr> {
    let same = connected.iter().filter(move |(name, _)| name == identity);
    same.map(move |(_, ip)| EndpointAddr::reverse_peer(identity, *ip, export))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::discovery::{SourceUpdate, follow};

    async fn next(updates: &mut mpsc::Receiver<SourceUpdate>) -> (Vec<String>, Option<String>) {
        let update = timeout(Duration::from_secs(10), updates.recv()).await.expect("an update in time");
        let Some(SourceUpdate::Snapshot(Snapshot::Target { endpoints, problem, .. })) = update else {
            panic!("{update:?}")
        };
        (endpoints.iter().map(|endpoint| endpoint.key.to_string()).collect(), problem)
    }

    #[tokio::test]
    async fn each_address_of_the_identity_is_an_endpoint_while_it_is_connected() {
        let peer = |name: &str, last: u8| (name.to_owned(), [10, 0, 0, last].into());
        let (connected, receiver) = watch::channel(Arc::default());
        let (sender, mut updates) = mpsc::channel(4);
        let source = Peers::new("laptop".to_owned(), "redis".to_owned(), receiver);
        assert_eq!(source.name(), "peer://@laptop/redis");
        let _source = follow(source, sender);
        let none = Some("no peer is connected under this identity".to_owned());
        assert_eq!(next(&mut updates).await, (Vec::new(), none.clone()));
        connected.send_replace(Arc::new([peer("laptop", 2), peer("laptop", 1), peer("other", 3)].into()));
        let both = ["peer://@laptop@10.0.0.1/redis", "peer://@laptop@10.0.0.2/redis"];
        assert_eq!(next(&mut updates).await, (both.map(str::to_owned).to_vec(), None));
        connected.send_replace(Arc::new([peer("other", 3)].into()));
        assert_eq!(next(&mut updates).await, (Vec::new(), none));
    }
}
