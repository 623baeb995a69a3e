//! UDP flows: the datagrams of one client to one local address, and the responses of the endpoint.
//!
//! ```text
//!   client ──► listening socket ──► serve ──┬─ known flow ────► its connected socket ──► endpoint
//!      ▲                                    └─ new: buffer a few datagrams, get a socket from Open
//!      └── from the local address ◄── one task per flow ◄── its connected socket
//! ```
//!
//! One task owns the table of flows and sends upwards. Each flow has a task that sends downwards and determines when the flow
//! ends. They share only the flow's socket, so there is no lock. UDP may lose datagrams, and so may this where a receiver is too
//! slow; it never truncates, merges or reorders them within a flow.
//!
//! A stream in a tunnel takes the place of the connected socket if the endpoint is an export of a peer. It takes the place of the
//! client's address if a peer has opened the flow: then the flow's task sends in both directions ([`relay_stream`]).
//!
//! If the table is full, or no descriptor is free, a new flow evicts the oldest flow without a response. Flows with a response
//! end only when they are idle.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ending::Ending;
use crate::traffic::Direction;
use crate::tunnel::DatagramStream;
pub use channel::Channel;
use flow::Upstream;
use socket::DatagramSocket;
use table::Table;
pub(crate) use unanswered::Unanswered;

mod buffer;
mod channel;
mod downstream;
mod flow;
mod run;
mod socket;
mod table;
mod unanswered;

/// The time without datagrams after which a flow ends by default, since UDP has no end of its own. Similar to the defaults of
/// HAProxy and nginx; conntrack drops a flow with responses after 120 s.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// Opens a channel to an endpoint for each new flow.
///
/// Addresses are canonical: an IPv4 client of an IPv6 socket has its IPv4 address.
pub trait Open: Send + Sync + 'static {
    /// The state of an open flow.
    type Flow: Flow;
    /// Reserves the descriptor of a flow's socket.
    type Permit: Send + 'static;

    /// Returns whether the client may open a flow. If not, its ending has been recorded.
    fn admits(&self, client: SocketAddr) -> bool;

    /// Reserves a descriptor. Returns `None` if none is free. A flow returns its permit when it has ended.
    fn permit(&self) -> Option<Self::Permit>;

    /// Returns a channel that is connected to an endpoint. May wait long, until `evicted` resolves. Returns `None` if the flow is
    /// refused; its ending has then been recorded.
    fn open(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        permit: Self::Permit,
        evicted: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Option<(Channel, Self::Flow)>> + Send;

    /// Counts a datagram that was refused because of a limit on flows. Must not log.
    fn refused(&self, client: SocketAddr, ending: Ending);
}

/// An open flow.
pub trait Flow: Send + Sync + 'static {
    /// Called after bytes were delivered.
    fn moved(&self, direction: Direction, bytes: usize);

    /// Called after datagrams were dropped, because a peer receives them too slowly.
    fn dropped(&self, datagrams: usize);

    /// Called when the endpoint's host, or one on the path, reports that the endpoint cannot be reached (ICMP).
    fn unreachable(&self, error: &io::Error);

    /// Returns the current idle limit. `None` is 60 s.
    fn idle_timeout(&self) -> Option<Duration>;

    /// Resolves when the idle limit may have changed.
    fn changed(&self) -> Notified<'_>;

    /// Resolves with the ending when the flow must end, because its endpoint was removed or the drain is over.
    fn stopped(&self) -> impl Future<Output = Ending> + Send;

    /// Records the ending. The last call.
    fn ended(self, ending: Ending);
}

/// The limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpLimits {
    /// The maximum number of flows, including those that are opening.
    pub flows_max: usize,
    /// The maximum number of flows of one client ([`crate::client_net::ClientNet`]) without a response.
    pub unanswered_max: usize,
}

/// Relays a flow that a peer has opened until it ends. Calls `on_first` at the first response. A flow that fails is reset, so that
/// the peer tries another endpoint for the client's next datagram.
pub async fn relay_stream<F: Flow>(
    downstream: DatagramStream,
    channel: Channel,
    flow: F,
    on_first: impl FnOnce(),
    evicted: impl Future<Output = ()>,
) {
    let upstream = Upstream::new(channel, flow);
    let ending = tokio::select! {
        ending = flow::relay(&downstream, &upstream, on_first) => ending,
        () = evicted => Ending::TooMany,
    };
    if matches!(
        ending,
        Ending::UpstreamReset | Ending::DownstreamReset | Ending::TunnelLost | Ending::PeerRevoked
    ) {
        downstream.reset_on_close();
    }
    drop(downstream);
    upstream.flow.ended(ending);
}

/// A bound socket that is set up, on the runtime of this thread.
#[derive(Debug)]
pub struct ListeningSocket(Arc<DatagramSocket>);

impl ListeningSocket {
    /// Sets up a bound socket.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be set up.
    pub fn new(socket: UdpSocket) -> io::Result<ListeningSocket> {
        Ok(ListeningSocket(Arc::new(DatagramSocket::listening(socket)?)))
    }
}

/// Serves a bound socket until `stop` is cancelled and the last flow has ended. After `stop` there are no new flows; existing
/// ones continue until they are idle or [`Flow::stopped`].
pub async fn serve<O: Open>(
    ListeningSocket(socket): &ListeningSocket,
    opener: Arc<O>,
    limits: UdpLimits,
    stop: CancellationToken,
) {
    let (answered, mut first_responses) = mpsc::unbounded_channel();
    let mut table = Table::new(Arc::clone(socket), opener, limits, answered);
    let mut unblocked = pin!(socket.watch_blocked());
    loop {
        tokio::select! {
            // Responses before datagrams: a flow must not be evicted after its client got a response. Each flow has one first response
            // and two other events, so datagrams are not starved.
            biased;
            () = stop.cancelled(), if !table.closed => table.closed = true,
            // The table owns a sender, so the channel never closes.
            Some(serial) = first_responses.recv() => table.unanswered.remove(serial),
            Some(finished) = table.tasks.join_next() => table.on_task_finished(finished),
            () = &mut unblocked => {}
            guard = socket.readable() => {
                match guard.and_then(|guard| socket.receive(guard, |datagrams| table.receive(datagrams))) {
                    Ok(false) => {}
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => table.back_off(&error).await,
                }
            }
        }
        if table.closed && table.tasks.is_empty() {
            return;
        }
    }
}
