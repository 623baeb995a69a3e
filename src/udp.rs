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
//! If the table is full, or no descriptor is free, a new flow evicts the oldest flow without a response. Flows with a response
//! end only when they are idle.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ending::Ending;
use crate::traffic::Direction;
use flow::{Key, Upstream, relay_responses};
use socket::{DatagramSocket, Datagrams};
use unanswered::Unanswered;

mod flow;
mod socket;
mod unanswered;

/// The time without datagrams after which a flow ends by default, since UDP has no end of its own. Similar to the defaults of
/// HAProxy and nginx; conntrack drops a flow with responses after 120 s.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// Datagrams buffered while a flow opens. Later ones are dropped, as by a full socket buffer: a handshake begins with the first
/// ones, and lost datagrams are retransmitted.
const BUFFERED_DATAGRAMS: usize = 16;
const BUFFERED_BYTES: usize = 64 << 10;

/// The limit for all flows of a listener together, so that forged client addresses cannot exhaust the memory.
const BUFFERED_BYTES_TOTAL: usize = 4 << 20;

/// The minimum time between two log lines about the same problem.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The pause after an error of the listening socket, which is a problem of the host and may persist.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(100);

/// Opens an upstream socket for each new flow.
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

    /// Returns a socket that is connected to an endpoint. May wait long, until `evicted` resolves. Returns `None` if the flow is
    /// refused; its ending has then been recorded.
    fn open(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        permit: Self::Permit,
        evicted: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Option<(UdpSocket, Self::Flow)>> + Send;

    /// Counts a datagram that was refused because of a limit on flows. Must not log.
    fn refused(&self, client: SocketAddr, ending: Ending);
}

/// An open flow.
pub trait Flow: Send + Sync + 'static {
    /// Called after bytes were delivered.
    fn moved(&self, direction: Direction, bytes: usize);

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

/// Serves a bound socket until `stop` is cancelled and the last flow has ended. After `stop` there are no new flows; existing
/// ones continue until they are idle or [`Flow::stopped`].
///
/// # Errors
///
/// Fails if the socket cannot be set up.
pub async fn serve<O: Open>(
    socket: UdpSocket,
    opener: Arc<O>,
    limits: UdpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let socket = Arc::new(DatagramSocket::listening(socket)?);
    let (answered, mut first_responses) = mpsc::unbounded_channel();
    let mut table = Table::new(Arc::clone(&socket), opener, limits, answered);
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
            return Ok(());
        }
    }
}

struct Entry<F> {
    /// Distinguishes a flow from a later one with the same key.
    serial: u64,
    phase: Phase<F>,
}

enum Phase<F> {
    /// Dropping `evict` cancels the opening.
    Opening {
        buffer: Buffer,
        evict: Option<oneshot::Sender<()>>,
    },
    Open(Arc<Upstream<F>>),
}

/// The datagrams that wait for a flow to open.
#[derive(Default)]
struct Buffer {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

/// The result of a flow's task.
enum TaskResult<F> {
    Opened(Key, u64, Option<(UdpSocket, F)>),
    Ended(Key, u64, Arc<Upstream<F>>, Ending),
}

/// All flows of one listener.
struct Table<O: Open> {
    socket: Arc<DatagramSocket>,
    opener: Arc<O>,
    limits: UdpLimits,
    flows: HashMap<Key, Entry<O::Flow>>,
    tasks: JoinSet<TaskResult<O::Flow>>,
    unanswered: Unanswered,
    /// Receives the serial number of a flow at its first response.
    answered: mpsc::UnboundedSender<u64>,
    /// Flows without a permit. For each, one flow was evicted and has not ended yet.
    waiting: VecDeque<(Key, u64)>,
    buffered_bytes: usize,
    serial: u64,
    /// No new flows.
    closed: bool,
    refusals: LogThrottle,
    receive_errors: LogThrottle,
}

impl<O: Open> Table<O> {
    fn new(
        socket: Arc<DatagramSocket>,
        opener: Arc<O>,
        limits: UdpLimits,
        answered: mpsc::UnboundedSender<u64>,
    ) -> Table<O> {
        Table {
            socket,
            opener,
            limits,
            flows: HashMap::new(),
            tasks: JoinSet::new(),
            unanswered: Unanswered::default(),
            answered,
            waiting: VecDeque::new(),
            buffered_bytes: 0,
            serial: 0,
            closed: false,
            refusals: LogThrottle::default(),
            receive_errors: LogThrottle::default(),
        }
    }

    /// Sends datagrams on, buffers them, or opens a flow.
    fn receive(&mut self, datagrams: &Datagrams<'_>) {
        let key = Key { client: datagrams.peer, local: datagrams.local };
        match self.flows.get_mut(&key).map(|entry| &mut entry.phase) {
            Some(Phase::Opening { buffer, .. }) => {
                self.buffered_bytes += buffer.add(datagrams, self.buffered_bytes);
            }
            Some(Phase::Open(upstream)) if upstream.send(datagrams) => {}
            Some(Phase::Open(_refused)) => {
                self.remove(key);
                self.open(key, datagrams);
            }
            None => self.open(key, datagrams),
        }
    }

    fn open(&mut self, key: Key, datagrams: &Datagrams<'_>) {
        let client = canonical(key);
        if self.closed || !self.opener.admits(client) {
            return;
        }
        if !self.make_place(key) {
            return self.refuse(key, datagrams.each().count(), Ending::TooMany);
        }
        let mut buffer = Buffer::default();
        self.buffered_bytes += buffer.add(datagrams, self.buffered_bytes);
        self.serial += 1;
        let serial = self.serial;
        self.flows.insert(key, Entry { serial, phase: Phase::Opening { buffer, evict: None } });
        self.begin(key, serial);
    }

    /// Evicts a flow if the table, or the part of this client, is full. Returns whether there is a place now.
    fn make_place(&mut self, key: Key) -> bool {
        if let Some(oldest) = self.unanswered.oldest_like(key, self.limits.unanswered_max) {
            self.evict(oldest);
        }
        self.flows.len() < self.limits.flows_max || self.evict_oldest()
    }

    /// Starts to open the flow. If no permit is free, evicts the oldest flow without a response and waits for its permit.
    fn begin(&mut self, key: Key, serial: u64) {
        let Some(permit) = self.opener.permit() else {
            if self.evict_oldest() {
                self.waiting.push_back((key, serial));
            } else {
                self.remove(key);
                self.refuse(key, 1, Ending::Local);
            }
            return;
        };
        let Some(Entry { phase: Phase::Opening { evict, .. }, .. }) = self.flows.get_mut(&key) else {
            return;
        };
        let (sender, evicted) = oneshot::channel();
        *evict = Some(sender);
        self.unanswered.add(serial, key);
        let opener = Arc::clone(&self.opener);
        let local = key.local.map(|ip| ip.to_canonical());
        self.tasks.spawn(async move {
            let evicted = async { drop(evicted.await) };
            TaskResult::Opened(key, serial, opener.open(canonical(key), local, permit, evicted).await)
        });
    }

    fn refuse(&mut self, key: Key, times: usize, ending: Ending) {
        let client = canonical(key);
        (0..times).for_each(|_| self.opener.refused(client, ending));
        if let Some(times) = self.refusals.next_line() {
            tracing::warn!(%client, %ending, flows = self.flows.len(), times, "UDP flow refused");
        }
    }

    /// Returns `false` if every flow has a response.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.unanswered.oldest();
        oldest.inspect(|key| self.evict(*key)).is_some()
    }

    /// Removes a flow. Its task ends soon and returns the permit.
    fn evict(&mut self, key: Key) {
        if let Some(Phase::Open(upstream)) = self.remove(key) {
            upstream.evict();
        }
    }

    /// Removes a flow from the table. Its buffered datagrams are lost, and its opening is cancelled.
    fn remove(&mut self, key: Key) -> Option<Phase<O::Flow>> {
        let Entry { serial, phase } = self.flows.remove(&key)?;
        self.unanswered.remove(serial);
        if let Phase::Opening { buffer, .. } = &phase {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(buffer.bytes);
        }
        Some(phase)
    }

    fn contains(&self, key: Key, serial: u64) -> bool {
        self.flows.get(&key).is_some_and(|entry| entry.serial == serial)
    }

    fn on_task_finished(&mut self, finished: Result<TaskResult<O::Flow>, tokio::task::JoinError>) {
        match finished {
            Ok(TaskResult::Opened(key, serial, opened)) if self.contains(key, serial) => {
                self.opened(key, serial, opened);
            }
            Ok(TaskResult::Opened(_, _, evicted)) => {
                if let Some((_, flow)) = evicted {
                    flow.ended(Ending::TooMany);
                }
                self.begin_next();
            }
            Ok(TaskResult::Ended(key, serial, upstream, ending)) => {
                let was_evicted = !self.contains(key, serial);
                if !was_evicted {
                    self.remove(key);
                }
                // The table had the only other reference.
                if let Some(upstream) = Arc::into_inner(upstream) {
                    upstream.flow.ended(ending);
                }
                if was_evicted {
                    self.begin_next();
                }
            }
            Err(error) => {
                tracing::error!(%error, "UDP flow task failed");
                self.begin_next();
            }
        }
    }

    /// Begins the flow that has waited longest for the permit of an evicted flow.
    fn begin_next(&mut self) {
        while let Some((key, serial)) = self.waiting.pop_front() {
            if self.contains(key, serial) {
                return self.begin(key, serial);
            }
        }
    }

    fn opened(&mut self, key: Key, serial: u64, opened: Option<(UdpSocket, O::Flow)>) {
        let upstream = opened.and_then(|(socket, flow)| Upstream::new(socket, flow));
        let (Some(upstream), Some(entry)) = (upstream, self.flows.get_mut(&key)) else {
            self.remove(key);
            return;
        };
        let upstream = Arc::new(upstream);
        let before = std::mem::replace(&mut entry.phase, Phase::Open(Arc::clone(&upstream)));
        if let Phase::Opening { buffer, .. } = before {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(buffer.bytes);
            for bytes in &buffer.datagrams {
                upstream.send(&Datagrams::one(key.client, bytes));
            }
        }
        let (socket, answered) = (Arc::clone(&self.socket), self.answered.clone());
        self.tasks.spawn(async move {
            let on_first = || {
                // Fails after the table was dropped.
                let _ = answered.send(serial);
            };
            let ending = relay_responses(&socket, &upstream, key, on_first).await;
            TaskResult::Ended(key, serial, upstream, ending)
        });
    }

    async fn back_off(&mut self, error: &io::Error) {
        if let Some(times) = self.receive_errors.next_line() {
            tracing::warn!(%error, times, "UDP listener cannot receive");
        }
        tokio::time::sleep(RECEIVE_BACKOFF).await;
    }
}

/// Returns the canonical address of the client.
fn canonical(key: Key) -> SocketAddr {
    SocketAddr::new(key.client.ip().to_canonical(), key.client.port())
}

impl Buffer {
    /// Keeps the datagrams that fit. `total` is the current sum of all flows. Returns the number of bytes added.
    fn add(&mut self, datagrams: &Datagrams<'_>, total: usize) -> usize {
        let before = self.bytes;
        for bytes in datagrams.each() {
            let free = BUFFERED_BYTES
                .saturating_sub(self.bytes)
                .min(BUFFERED_BYTES_TOTAL.saturating_sub(total + self.bytes - before));
            if self.datagrams.len() < BUFFERED_DATAGRAMS && bytes.len() <= free {
                self.datagrams.push(bytes.into());
                self.bytes += bytes.len();
            }
        }
        self.bytes - before
    }
}

/// Limits the log lines about a problem that may occur a million times per second.
#[derive(Default)]
struct LogThrottle {
    logged_at: Option<Instant>,
    times: u64,
}

impl LogThrottle {
    /// Counts an occurrence. If a line is due, returns the number of occurrences since the last one.
    fn next_line(&mut self) -> Option<u64> {
        self.times += 1;
        if self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffered(total: usize, sizes: &[usize]) -> Vec<usize> {
        let client = SocketAddr::from(([192, 0, 2, 1], 1234));
        let mut buffer = Buffer::default();
        let mut added = 0;
        for size in sizes {
            added += buffer.add(&Datagrams::one(client, &vec![0; *size]), total + added);
        }
        assert_eq!(added, buffer.bytes);
        buffer.datagrams.iter().map(|datagram| datagram.len()).collect()
    }

    #[test]
    fn opening_flow_buffers_its_first_datagrams_within_its_limits() {
        assert_eq!(buffered(0, &[1, 0, 2]), [1, 0, 2]);
        assert_eq!(buffered(0, &[9; 40]), [9; BUFFERED_DATAGRAMS]);
        assert_eq!(buffered(0, &[40_000, 20_000, 20_000, 5_000]), [40_000, 20_000, 5_000]);
    }

    #[test]
    fn buffers_of_all_flows_stay_within_the_limit_of_the_listener() {
        assert_eq!(buffered(BUFFERED_BYTES_TOTAL - 10, &[8, 8, 2]), [8, 2]);
        assert_eq!(buffered(BUFFERED_BYTES_TOTAL, &[1, 1]), [0usize; 0]);
    }
}
