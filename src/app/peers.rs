//! The control plane's part of tunnels: credentials are read and followed, and the peers of `--peer-dial` are looked up.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{EndpointAddr, PeerName};
use crate::config::Config;
use crate::config::dns::Limits;
use crate::config::peer::PeerDial;
use crate::credentials::{CredentialKind, Credentials};
use crate::diagnostic::Diagnostic;
use crate::discovery::dns::{Dns, Resolver};
use crate::discovery::{Snapshot, SourceUpdate, follow};
use crate::events::Events;
use crate::route::Target;
use crate::tunnel::Peers;
use crate::worker::ReverseDial;

/// Snapshots of a name that wait. The source waits while there are as many.
const UPDATES_MAX: usize = 4;

/// Reads the credentials, and checks the written routes with what they are.
///
/// # Errors
///
/// Fails if the credentials cannot be used, or do not permit a route.
pub fn read_credentials(config: &mut Config) -> Result<Option<Credentials>, Vec<Diagnostic>> {
    let Some(files) = config.settings.peer.credential_files() else { return Ok(None) };
    let credentials = Credentials::load(files).map_err(|error| vec![error.into()])?;
    config.settings.peer.has_foreign_ca = credentials.kind() == CredentialKind::ForeignCa;
    let refusals = config.peer_refusals();
    if refusals.is_empty() { Ok(Some(credentials)) } else { Err(refusals) }
}

/// Returns the tunnels of the process, with its credentials.
pub(super) fn load(config: &mut Config, events: Arc<Events>) -> Result<Peers, Vec<Diagnostic>> {
    let credentials = read_credentials(config)?.inspect(|credentials| credentials.report_to(events.clone()));
    Ok(Peers::new(credentials.map(Arc::new), events))
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
                    EndpointAddr::Unix(_) | EndpointAddr::Peer(_) | EndpointAddr::Tls(_) => None,
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
