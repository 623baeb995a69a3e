//! One connection as a session: admitted, connected to an endpoint, relayed, recorded.
//!
//! ```text
//!   Accepted ──► admit ──► acquire (held if necessary) ──► relay ──► Ending ──► Record
//!   a stream,    policy    a stream to an endpoint
//!   a client
//! ```

mod dial;
pub mod edge;
pub mod exports;
pub mod flow;
pub mod live;
pub mod port_routes;
mod proxy_header;
mod record;
mod relaying;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::client_details::ClientDetails;
use crate::cluster::acquire::HoldLimit;
use crate::cluster::{Cluster, Members};
use crate::ending::{AccessLog, Ending};
use crate::fd_budget::{FdBudget, FdPermit, RouteFds};
use crate::history::History;
use crate::listener::{Accepted, AcceptedStream, ClientAddr};
use crate::proxy_protocol::Transport;
use crate::route::Protocol;
use crate::socket::Socket;
use crate::stream::{Opening, Stream};
use crate::tls::Tls;
use crate::tunnel::Peers;
use dial::StreamDial;
use exports::Exports;
use live::Live;
use proxy_header::Client;
use record::Record;
use relaying::Relaying;

/// What all sessions of a process share.
#[derive(Debug)]
pub struct Shared {
    /// Limits held sessions.
    pub hold_limit: HoldLimit,
    /// Cancelled when the drain timeout has passed and every session must end.
    pub force: CancellationToken,
    /// Cancelled when no new sessions are accepted.
    pub stop: CancellationToken,
    /// The file descriptors.
    pub fds: Arc<FdBudget>,
    /// Which sessions are logged.
    pub access_log: AccessLog,
    /// The tunnels.
    pub peers: Arc<Peers>,
    /// The share of descriptors of the tunnels that peers dial.
    pub tunnel_fds: Arc<RouteFds>,
    /// The routes that are offered to peers.
    pub exports: Exports,
    /// The certificates and CAs of routes.
    pub tls: Arc<Tls>,
    /// The history of the routes, whose sampler a session wakes.
    pub history: Arc<History>,
}

impl Shared {
    /// Divides descriptors and held sessions among the open clusters, which must be all of them.
    pub fn divide<'c>(&self, open: impl ExactSizeIterator<Item = &'c Cluster> + Clone) {
        let tunnels = self.peers.credentials().map(|_| &*self.tunnel_fds);
        let mut shares: Vec<_> = open.clone().map(|cluster| &*cluster.fds).chain(tunnels).collect();
        // Routes of one port have the same.
        shares.sort_unstable_by_key(|share| std::ptr::from_ref(*share));
        shares.dedup_by_key(|share| std::ptr::from_ref(*share));
        self.fds.divide(shares.into_iter());
        self.hold_limit.divide(open);
    }

    /// Takes back the guarantees of a closed cluster, whose remaining sessions borrow.
    pub fn withdraw(&self, closed: &Cluster) {
        closed.fds.set_guarantee(0);
        self.hold_limit.withdraw(closed);
    }
}

/// Serves an accepted connection on the calling worker. `offset` is the listener's position in its route's port range.
/// `counted` is dropped when the session has ended.
///
/// Not an `async fn`, which would store its arguments in addition to what they become, for the whole session.
pub fn serve(
    accepted: Accepted,
    cluster: Arc<Cluster>,
    offset: u16,
    shared: Arc<Shared>,
    counted: impl Send,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client, permit, details } = accepted;
    let mut record = Record::begin(cluster, client, Protocol::Tcp, &shared);
    let registered = match (stream, client) {
        (AcceptedStream::Socket(fd), ClientAddr::Inet(_)) => Socket::register(fd).map(Stream::from),
        (AcceptedStream::Socket(fd), ClientAddr::Unix) => Socket::register_unix(fd).map(Stream::from),
        (AcceptedStream::Stream(stream), _) => Ok(stream),
        (AcceptedStream::Tunnel(stream), _) => {
            record.through(&stream.tunnel().peer);
            Ok(Stream::Tunnel(stream))
        }
    };
    if let Some(peer) = details.as_ref().and_then(|details| details.tls.as_ref()?.peer.as_ref()) {
        record.through(peer);
    }
    async move {
        let ending = match &registered {
            Ok(downstream) => {
                let (details, fds) = (details.as_deref(), &permit);
                // Boxed, so that an idle session does not keep the kilobytes of this future.
                let prepared =
                    Box::pin(prepare(downstream, &mut record, (offset, details), fds, &shared)).await;
                match &prepared {
                    Ok(upstream) => {
                        let limits = record.limits();
                        let ending = Relaying::new(downstream, upstream, limits, &record, &shared).await;
                        record.client_left = ending == Ending::UpstreamReset && downstream.peer_has_left();
                        if ending != Ending::Finished {
                            downstream.sent().await;
                            upstream.sent().await;
                        }
                        ending_of(ending, downstream, upstream)
                    }
                    Err(ending) => {
                        downstream.refuse(*ending);
                        *ending
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot register a connection");
                Ending::Local
            }
        };
        drop(registered);
        record.end(ending);
        drop((counted, permit));
    }
}

/// Returns the ending of a session, which is that of its tunnel if the tunnel has failed as a whole.
fn ending_of(ending: Ending, downstream: &Stream, upstream: &Stream) -> Ending {
    match ending {
        Ending::DownstreamReset => downstream.loss().unwrap_or(ending),
        Ending::UpstreamReset => upstream.loss().unwrap_or(ending),
        _ => ending,
    }
}

async fn prepare(
    downstream: &Stream,
    record: &mut Record,
    client: (u16, Option<&ClientDetails>),
    permit: &FdPermit,
    shared: &Shared,
) -> Result<Stream, Ending> {
    // A client with TLS was admitted before the handshake.
    if client.1.is_none_or(|details| details.tls.is_none()) {
        admit(&record.live.cluster.members(), record.live.client.ip(), record.live.began)?;
    }
    let upstream = connect(downstream, record, client, permit, shared).await?;
    downstream.accept().map_err(|_reset| Ending::DownstreamReset)?;
    Ok(upstream)
}

/// Returns the ending of a session if the route does not serve this client.
fn admit(members: &Members, client: Option<IpAddr>, now: Instant) -> Result<(), Ending> {
    let options = &members.options;
    let in_any = |networks: &[IpNet]| client.is_some_and(|ip| networks.iter().any(|net| net.contains(&ip)));
    if in_any(&options.deny) || (!options.allow.is_empty() && !in_any(&options.allow)) {
        return Err(Ending::Denied);
    }
    if let (Some(buckets), Some(rate), Some(client)) = (&members.rate, options.rate, client)
        && !buckets.admits(client, rate, now)
    {
        return Err(Ending::RateLimited);
    }
    Ok(())
}

async fn connect(
    downstream: &Stream,
    record: &mut Record,
    (offset, details): (u16, Option<&ClientDetails>),
    permit: &FdPermit,
    shared: &Shared,
) -> Result<Stream, Ending> {
    let Record { live, stats, .. } = record;
    let timings = &live.cluster.counters.timings;
    let client_hold = downstream.client_hold();
    let proxy_header = proxy_header(downstream, live, details);
    let postgres = details.is_some_and(|details| details.postgres);
    let opening = Opening { proxy_header: &proxy_header, postgres };
    let dial = StreamDial { offset, permit, timings, client: live.client, opening, client_hold };
    let acquired =
        live.cluster.acquire(&shared.hold_limit, live.client.ip(), stats, downstream.left(), &dial);
    let (upstream, endpoint) = acquired.await?;
    record.connected(endpoint);
    if let Stream::Tunnel(stream) = &upstream {
        record.through(&stream.tunnel().peer);
    }
    Ok(upstream)
}

/// Returns the PROXY protocol header for the endpoint. Empty if the route sends none.
fn proxy_header(downstream: &Stream, live: &Live, details: Option<&ClientDetails>) -> Vec<u8> {
    let members = live.cluster.members();
    if members.options.send_proxy.is_none() {
        return Vec::new();
    }
    let destination = details.and_then(|details| details.destination).or_else(|| downstream.local_addr());
    let peer = live.peer.load();
    let client = Client { addr: live.client, destination, details, identity: peer.as_deref() };
    client.header(&members.options, Transport::Stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Options;

    /// The memory of a session is mostly its task: this future, besides twice 256 bytes of tokio's registrations and a hundred
    /// bytes of [`live::Live`]. With what tokio adds, 400 bytes fill a task of 512; one byte more takes 640.
    const FUTURE_BYTES_MAX: usize = 400;

    #[tokio::test]
    async fn future_of_a_session_stays_small() {
        let force = CancellationToken::new();
        let cluster = Arc::new(Cluster::new(Options::named("test"), force.clone()));
        let permit = cluster.fds.accept().unwrap();
        let fds = Arc::new(FdBudget::within(64, 1, 1));
        let shared = Arc::new(Shared {
            hold_limit: HoldLimit::new(0),
            stop: force.clone(),
            force,
            fds,
            access_log: AccessLog::All,
            tunnel_fds: RouteFds::unlimited(),
            peers: Arc::new(Peers::new(None, Arc::default())),
            exports: Exports::default(),
            tls: Arc::default(),
            history: Arc::default(),
        });
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let accepted = Accepted {
            stream: AcceptedStream::Socket(ours.into()),
            client: ClientAddr::Unix,
            permit,
            details: None,
        };
        let future = serve(accepted, cluster, 0, shared, Arc::new(()));
        assert!(size_of_val(&future) <= FUTURE_BYTES_MAX, "{} bytes", size_of_val(&future));
    }
}
