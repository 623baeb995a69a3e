//! What happens on a connection before its session begins: the PROXY protocol header, the name that a TLS client asks for, and TLS.
//!
//! Only for routes that have one of them, on the worker that will serve the session. Each step leaves the bytes that follow in the
//! socket.

mod proxy;
mod server_name;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::port_routes::PortRoutes;
use super::record::{Failure, rejected};
use super::{Shared, admit};
use crate::client_details::ClientDetails;
use crate::client_hello::ServerName;
use crate::cluster::{Cluster, Members};
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::handshakes::Handshakes;
use crate::listener::{Accepted, AcceptedStream, ClientAddr};
use crate::route::{Options, ProxyTlv};
use crate::socket::Socket;
use crate::tls::Tls;

/// All steps together.
const EDGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose session has not begun.
#[derive(Debug)]
pub(crate) struct Edge {
    socket: Socket,
    client: ClientAddr,
    permit: FdPermit,
    /// The client has begun TLS as clients of PostgreSQL do.
    is_postgres: bool,
    details: Option<Box<ClientDetails>>,
}

/// Returns whether the connections of a route have a step before their session.
pub fn is_needed(options: &Options) -> bool {
    !options.accept_proxy.is_empty() || options.tls.is_some()
}

/// Returns whether a header for the endpoint contains the name that a client asks for. Without TLS of its own, the route may serve
/// clients that do not send one.
fn is_name_passed_on(options: &Options) -> bool {
    options.tls.is_some() && options.proxy_tlv.contains(&ProxyTlv::Authority)
}

/// Takes the steps of a route. A connection that fails is recorded.
pub async fn open(
    accepted: Accepted,
    cluster: &Arc<Cluster>,
    unfinished: &Handshakes,
    shared: &Shared,
) -> Option<Accepted> {
    let (mut client, began) = (accepted.client, Instant::now());
    let steps = async {
        let members = cluster.members_arc();
        let mut edge = Edge::new(accepted)?;
        edge.accept_proxy(&members.options.accept_proxy, members.options.send_proxy).await?;
        client = edge.client;
        if is_name_passed_on(&members.options) {
            let name = edge.server_name().await?;
            edge.describe(name.as_ref().map(ServerName::as_str), &members.options);
        }
        edge.accept_tls(&members, &shared.tls, began).await
    };
    let opened = within_limits(steps, unfinished, shared).await;
    opened.map_err(|failure| rejected(cluster, client, began, failure, shared)).ok()
}

/// Takes the steps of a port that several routes share, and returns the cluster of the one that the client asks for.
pub async fn open_named(
    accepted: Accepted,
    routes: &PortRoutes,
    unfinished: &Handshakes,
    shared: &Shared,
) -> Option<(Accepted, Arc<Cluster>)> {
    let (mut client, began) = (accepted.client, Instant::now());
    let mut chosen = None;
    let steps = async {
        let table = routes.load();
        let mut edge = Edge::new(accepted)?;
        edge.accept_proxy(&table.accept_proxy, table.send_proxy).await?;
        client = edge.client;
        let name = edge.server_name().await?;
        let name_text = name.as_ref().map(ServerName::as_str);
        let Some(cluster) = table.names.find(name_text) else { return Err(edge.refuse_name(name).await) };
        let members = chosen.insert(cluster.clone()).members_arc();
        edge.describe(name_text, &members.options);
        edge.accept_tls(&members, &shared.tls, began).await
    };
    let opened = within_limits(steps, unfinished, shared).await;
    let recorded = chosen.as_ref().unwrap_or(routes.unnamed());
    let accepted = opened.map_err(|failure| rejected(recorded, client, began, failure, shared)).ok()?;
    Some((accepted, chosen?))
}

async fn within_limits<T>(
    steps: impl Future<Output = Result<T, Failure>>,
    unfinished: &Handshakes,
    shared: &Shared,
) -> Result<T, Failure> {
    let mut steps = pin!(steps);
    // What the client sends first has often arrived already; then there is nothing to limit.
    if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(steps.as_mut().poll(cx))).await {
        return result;
    }
    let handshake = unfinished.begin();
    tokio::select! {
        biased;
        () = shared.force.cancelled() => Err(Failure::new(Ending::Drained, "the process stops")),
        () = handshake.evicted() => {
            Err(Failure::new(Ending::TlsFailed, "too many connections without a complete handshake"))
        }
        opened = tokio::time::timeout(EDGE_TIMEOUT, steps) => {
            opened.unwrap_or_else(|_| Err(Failure::new(Ending::TlsFailed, "no TLS handshake within 10 s")))
        }
    }
}

impl Edge {
    fn new(Accepted { stream, client, permit, details }: Accepted) -> Result<Edge, Failure> {
        let socket = match (stream, client) {
            (AcceptedStream::Socket(fd), ClientAddr::Inet(_)) => Socket::register(fd),
            (AcceptedStream::Socket(fd), ClientAddr::Unix) => Socket::register_unix(fd),
            (AcceptedStream::Stream(_) | AcceptedStream::Tunnel(_), _) => {
                Err(io::Error::other("not a connection that was just accepted"))
            }
        };
        let socket = socket.map_err(|error| Failure::new(Ending::Local, error.to_string()))?;
        Ok(Edge { socket, client, permit, is_postgres: false, details })
    }

    /// Records what was learned from the ClientHello, as far as the endpoint of the route is told.
    fn describe(&mut self, server_name: Option<&str>, options: &Options) {
        let postgres = self.is_postgres && options.tls.is_none();
        if postgres || options.send_proxy.is_some() {
            let details = self.details.get_or_insert_default();
            details.postgres = postgres;
            details.server_name = server_name.map(str::to_owned);
        }
    }

    /// Terminates TLS, if the route does. Its clients are admitted before: a handshake costs more than a connection.
    async fn accept_tls(self, members: &Members, tls: &Tls, began: Instant) -> Result<Accepted, Failure> {
        let Edge { socket, client, permit, mut details, is_postgres: _ } = self;
        if members.options.tls.is_none() {
            return Ok(Accepted { stream: AcceptedStream::Stream(socket.into()), client, permit, details });
        }
        admit(members, client.ip(), began).map_err(|ending| Failure::new(ending, ""))?;
        let acceptor =
            tls.acceptor(&members.options).map_err(|error| Failure::new(Ending::Local, error.one_line()))?;
        let accepted = acceptor.accept(socket).await.map_err(|failure| {
            tls.count(failure);
            Failure::new(Ending::TlsFailed, failure.to_string())
        })?;
        details.get_or_insert_default().tls = Some(accepted.client());
        Ok(Accepted { stream: AcceptedStream::Stream(accepted.stream.into()), client, permit, details })
    }
}
