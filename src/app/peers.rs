//! The control plane's part of tunnels: credentials are read and followed, and the peers of `--peer-dial` are looked up.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{EndpointAddr, PeerName};
use crate::config::dns::Limits;
use crate::config::peer::{PeerDial, PeerSettings};
use crate::credentials::{CredentialKind, Credentials, CredentialsError};
use crate::discovery::dns::{Dns, Resolver};
use crate::discovery::{Snapshot, SourceUpdate, follow};
use crate::events::Events;
use crate::route::Target;
use crate::tunnel::Peers;
use crate::worker::ReverseDial;

/// Snapshots of a name that wait. The source waits while there are as many.
const UPDATES_MAX: usize = 4;

/// Reads the credentials, and records which CA they are of.
pub(super) fn load(settings: &mut PeerSettings, events: Arc<Events>) -> Result<Peers, CredentialsError> {
    let Some(files) = settings.credential_files() else { return Ok(Peers::new(None, events)) };
    let credentials = Credentials::load(files)?;
    settings.has_foreign_ca = credentials.kind() == CredentialKind::ForeignCa;
    credentials.report_to(events.clone());
    Ok(Peers::new(Some(Arc::new(credentials)), events))
}

/// Follows the credentials. After a change, the peers of all tunnels are verified again.
pub(super) fn follow_credentials(peers: &Arc<Peers>) -> Vec<AbortOnDropHandle<()>> {
    let Some(credentials) = peers.credentials().cloned() else { return Vec::new() };
    let (mut changes, peers) = (credentials.changes(), peers.clone());
    let watching = async move {
        credentials.watch().await;
    };
    let verifying = async move {
        while changes.changed().await.is_ok() {
            peers.verify_again();
        }
    };
    vec![owned(watching), owned(verifying)]
}

/// Looks up the host of a peer to dial, again and again.
pub(super) fn follow_peer(
    PeerDial { host, port }: &PeerDial,
    limits: Limits,
    stop: CancellationToken,
) -> (ReverseDial, Vec<AbortOnDropHandle<()>>) {
    let name = PeerName::Host(host.clone());
    let (publish, addrs) = watch::channel(Vec::new());
    let dial = ReverseDial { name, addrs, stop };
    if let Ok(ip) = host.parse() {
        publish.send_replace(vec![SocketAddr::new(ip, *port)]);
        return (dial, Vec::new());
    }
    let target = Target::Host { host: host.clone(), port: *port };
    let (updates, mut inbox) = mpsc::channel(UPDATES_MAX);
    let resolver = Resolver::from_system().within(limits);
    let lookups = Dns::of(&target, resolver, Arc::new(Notify::new())).map(|dns| follow(dns, updates));
    let publishing = owned(async move {
        while let Some(update) = inbox.recv().await {
            if let SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) = update {
                let addrs = endpoints.iter().filter_map(|endpoint| match endpoint.key.addr {
                    EndpointAddr::Inet(addr) => Some(addr),
                    EndpointAddr::Unix(_) | EndpointAddr::Peer(_) => None,
                });
                publish.send_replace(addrs.collect());
            }
        }
    });
    (dial, lookups.into_iter().chain([publishing]).collect())
}

fn owned(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    AbortOnDropHandle::new(tokio::spawn(task))
}
