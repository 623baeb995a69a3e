//! What happens on a connection before its session begins: the PROXY protocol header, the name that a TLS client asks for, and TLS.
//!
//! Only for routes that have one of them, on the worker that will serve the session. Each step leaves the bytes that follow in the
//! socket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::record::rejected;
use crate::client_details::ClientDetails;
use crate::cluster::Cluster;
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::listener::{Accepted, AcceptedStream, ClientAddr};
use crate::route::Options;
use crate::socket::Socket;
use crate::tls::Tls;

/// All steps together.
const EDGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection does not become a session.
#[derive(Debug)]
pub struct Failure {
    /// The ending of the connection.
    pub ending: Ending,
    /// For people.
    pub why: String,
}

/// A connection whose session has not begun.
#[derive(Debug)]
pub(crate) struct Edge {
    socket: Socket,
    client: ClientAddr,
    permit: FdPermit,
    details: Box<ClientDetails>,
}

/// Returns whether the connections of a route have a step before their session.
pub fn is_needed(options: &Options) -> bool {
    !options.accept_proxy.is_empty() || options.tls.is_some()
}

/// Takes the steps of a route. A connection that fails is recorded.
pub async fn open(accepted: Accepted, cluster: &Arc<Cluster>, shared: &Shared) -> Option<Accepted> {
    let (client, began) = (accepted.client, Instant::now());
    let steps = async {
        let members = cluster.members_arc();
        let mut edge = Edge::new(accepted)?;
        edge.accept_proxy(&members.options).await?;
        edge.accept_tls(&members.options, &shared.tls).await
    };
    let opened = tokio::select! {
        biased;
        () = shared.force.cancelled() => Err(Failure::new(Ending::Drained, "the process stops")),
        opened = tokio::time::timeout(EDGE_TIMEOUT, steps) => {
            opened.unwrap_or_else(|_| Err(Failure::new(Ending::TlsFailed, "no TLS handshake within 10 s")))
        }
    };
    opened
        .map_err(|Failure { ending, why }| rejected(cluster, client, began, (ending, why), shared.access_log))
        .ok()
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
        Ok(Edge { socket, client, permit, details: details.unwrap_or_default() })
    }

    /// Reads the PROXY protocol header of a client that must send one.
    #[expect(clippy::unused_async, reason = "the step is to come")]
    async fn accept_proxy(&mut self, _options: &Options) -> Result<(), Failure> {
        let _ = &self.client;
        Ok(())
    }

    /// Terminates TLS, if the route does.
    async fn accept_tls(self, options: &Options, tls: &Tls) -> Result<Accepted, Failure> {
        let Edge { socket, client, permit, mut details } = self;
        if options.tls.is_none() {
            let stream = AcceptedStream::Stream(socket.into());
            return Ok(Accepted { stream, client, permit, details: Some(details) });
        }
        let acceptor = tls.acceptor(options);
        let acceptor = acceptor.map_err(|error| Failure::new(Ending::Local, error.one_line()))?;
        let accepted = acceptor.accept(socket).await.map_err(|failure| {
            tls.count(failure);
            Failure::new(Ending::TlsFailed, failure.to_string())
        })?;
        details.tls = Some(accepted.client());
        let stream = AcceptedStream::Stream(accepted.stream.into());
        Ok(Accepted { stream, client, permit, details: Some(details) })
    }
}

impl Failure {
    pub(super) fn new(ending: Ending, why: impl Into<String>) -> Failure {
        Failure { ending, why: why.into() }
    }
}
