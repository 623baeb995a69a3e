//! UDP flows: what one client writes to one of our addresses, and what the endpoint answers.
//!
//! ```text
//!   client ──► listening socket ──► serve ──┬─ known flow ────► its connected socket ──► endpoint
//!      ▲                                    └─ new: hold a few datagrams, ask Open for a socket
//!      └── from the address it wrote to ◄── one task per flow ◄── its connected socket
//! ```
//!
//! One task owns the table of flows and sends upwards; each flow has a task that sends downwards and knows when the
//! flow is over. Nothing is shared between them but the flow's socket, so there is no lock. UDP may lose datagrams,
//! and so may this where somebody is too slow; it never cuts, merges or reorders them within a flow.
//!
//! When there is no room for a new flow, in the table or for its socket, the oldest flow without an answer is evicted.
//! Answered flows end only by silence.

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
use crate::relay::Direction;
use crate::relay::udp::flow::{Key, Upstream, answer};
use crate::relay::udp::unanswered::Unanswered;
use crate::relay::udp::wire::{Datagrams, Wire};

mod flow;
mod unanswered;
mod wire;

/// A flow has no end of its own; this silence is taken for one. HAProxy's and nginx's defaults are of this size, and
/// conntrack forgets an answered flow after 120 s.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

/// Datagrams of one flow that wait while it opens. The older ones win, as in a full socket buffer: a handshake begins
/// with them, and whoever lost a later one sends it again.
const HELD_DATAGRAMS: usize = 16;
const HELD_BYTES: usize = 64 << 10;

/// The same for all flows of a listener together, so that invented client addresses cannot fill the memory.
const HELD_BYTES_TOTAL: usize = 4 << 20;

/// Between two lines of the log about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// After an error of the listening socket: it is the machine's trouble, and may last.
const BREATH: Duration = Duration::from_millis(100);

/// Gives each new flow its upstream.
///
/// Addresses are canonical: an IPv4 client of an IPv6 socket is shown as IPv4.
pub trait Open: Send + Sync + 'static {
    type Flow: Flow;
    /// Reserves the descriptor of a flow's socket.
    type Permit: Send + 'static;

    /// Whether this client may have a flow. If not, its ending is recorded.
    fn admits(&self, client: SocketAddr) -> bool;

    /// `None` when no descriptor is free. A flow returns its permit when it has ended.
    fn permit(&self) -> Option<Self::Permit>;

    /// A connected socket to an endpoint. May wait long; gives up when `evicted` resolves. `None`: the flow is refused, and its
    /// ending is recorded.
    fn open(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        permit: Self::Permit,
        evicted: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Option<(UdpSocket, Self::Flow)>> + Send;

    /// There was no room for one more flow. Called for each datagram: to count, not to log.
    fn refused(&self, client: SocketAddr, ending: Ending);
}

/// What is told of one flow.
pub trait Flow: Send + Sync + 'static {
    fn moved(&self, direction: Direction, bytes: usize);

    /// The endpoint's host, or one on the way, has answered that the endpoint cannot be reached (ICMP).
    fn unreachable(&self, error: &io::Error);

    /// Silence that ends the flow, as it is now. `None`: 60 s.
    fn idle_timeout(&self) -> Option<Duration>;

    /// Resolves when that may have changed.
    fn changed(&self) -> Notified<'_>;

    /// Resolves when the flow must end, with why: its endpoint is gone, or the drain is over.
    fn stopped(&self) -> impl Future<Output = Ending> + Send;

    /// The last call.
    fn ended(self, ending: Ending);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpLimits {
    /// Flows of this listener at the same time, those being opened included.
    pub flows_max: usize,
    /// Of these, those of one client ([`crate::client_net::ClientNet`]) that no endpoint has answered.
    pub unanswered_max: usize,
}

/// Serves one bound socket until `stop` is cancelled and the last flow is over. After `stop` there are no new flows;
/// those that exist go on until they are idle or [`Flow::stopped`]. An error is one of setting the socket up.
pub async fn serve<O: Open>(
    socket: UdpSocket,
    opener: Arc<O>,
    limits: UdpLimits,
    stop: CancellationToken,
) -> io::Result<()> {
    let wire = Arc::new(Wire::listening(socket)?);
    let (answered, mut first_answers) = mpsc::unbounded_channel();
    let mut table = Table::new(Arc::clone(&wire), opener, limits, answered);
    let mut room = pin!(wire.watch_room());
    loop {
        tokio::select! {
            // Answers before datagrams: a flow must not be evicted when its client has the answer already. Each flow has only one
            // first answer and two other events, so datagrams get their turn.
            biased;
            () = stop.cancelled(), if !table.closed => table.closed = true,
            // The sending half is the table's too, so that the channel never closes.
            Some(serial) = first_answers.recv() => table.unanswered.remove(serial),
            Some(news) = table.tasks.join_next() => table.hear(news),
            () = &mut room => {}
            guard = wire.readable() => {
                match guard.and_then(|guard| wire.receive(guard, |datagrams| table.take(datagrams))) {
                    Ok(false) => {}
                    Ok(true) => tokio::task::yield_now().await,
                    Err(error) => table.breathe(&error).await,
                }
            }
        }
        if table.closed && table.tasks.is_empty() {
            return Ok(());
        }
    }
}

struct Entry<F> {
    /// Tells a flow from a later one with the same key.
    serial: u64,
    phase: Phase<F>,
}

enum Phase<F> {
    /// Dropping `evict` cancels the opening.
    Opening {
        held: Held,
        evict: Option<oneshot::Sender<()>>,
    },
    Open(Arc<Upstream<F>>),
}

/// What waits for a flow to open.
#[derive(Default)]
struct Held {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

/// What a task of a flow has to say at its end.
enum SourceUpdate<F> {
    Opened(Key, u64, Option<(UdpSocket, F)>),
    Ended(Key, u64, Arc<Upstream<F>>, Ending),
}

/// All flows of one listener.
struct Table<O: Open> {
    wire: Arc<Wire>,
    opener: Arc<O>,
    limits: UdpLimits,
    flows: HashMap<Key, Entry<O::Flow>>,
    tasks: JoinSet<SourceUpdate<O::Flow>>,
    unanswered: Unanswered,
    /// Takes the serial number of a flow at its first answer.
    answered: mpsc::UnboundedSender<u64>,
    /// Flows without a permit. For each, one flow was evicted and has not ended yet.
    waiting: VecDeque<(Key, u64)>,
    held_bytes: usize,
    serial: u64,
    /// No new flows.
    closed: bool,
    full: Trouble,
    failing: Trouble,
}

impl<O: Open> Table<O> {
    fn new(
        wire: Arc<Wire>,
        opener: Arc<O>,
        limits: UdpLimits,
        answered: mpsc::UnboundedSender<u64>,
    ) -> Table<O> {
        Table {
            wire,
            opener,
            limits,
            flows: HashMap::new(),
            tasks: JoinSet::new(),
            unanswered: Unanswered::default(),
            answered,
            waiting: VecDeque::new(),
            held_bytes: 0,
            serial: 0,
            closed: false,
            full: Trouble::default(),
            failing: Trouble::default(),
        }
    }

    /// Sends on, holds, or opens.
    fn take(&mut self, datagrams: &Datagrams<'_>) {
        let key = Key { client: datagrams.peer, local: datagrams.local };
        match self.flows.get_mut(&key).map(|entry| &mut entry.phase) {
            Some(Phase::Opening { held, .. }) => self.held_bytes += held.add(datagrams, self.held_bytes),
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
        if !self.has_place(key) {
            return self.refuse(key, datagrams.each().count(), Ending::TooMany);
        }
        let mut held = Held::default();
        self.held_bytes += held.add(datagrams, self.held_bytes);
        self.serial += 1;
        let serial = self.serial;
        self.flows.insert(key, Entry { serial, phase: Phase::Opening { held, evict: None } });
        self.begin(key, serial);
    }

    /// Makes a place in the table, if there is none.
    fn has_place(&mut self, key: Key) -> bool {
        if let Some(oldest) = self.unanswered.oldest_like(key, self.limits.unanswered_max) {
            self.evict(oldest);
        }
        self.flows.len() < self.limits.flows_max || self.evict_oldest()
    }

    /// Starts to open the flow. Without a permit, evicts the oldest unanswered flow and waits for its permit.
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
            SourceUpdate::Opened(key, serial, opener.open(canonical(key), local, permit, evicted).await)
        });
    }

    fn refuse(&mut self, key: Key, times: usize, ending: Ending) {
        let client = canonical(key);
        (0..times).for_each(|_| self.opener.refused(client, ending));
        if let Some(times) = self.full.worth_a_line() {
            tracing::warn!(%client, %ending, flows = self.flows.len(), times, "UDP flow refused");
        }
    }

    /// False when every flow was answered.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.unanswered.oldest();
        oldest.inspect(|key| self.evict(*key)).is_some()
    }

    /// The flow's task ends soon, and returns the permit.
    fn evict(&mut self, key: Key) {
        if let Some(Phase::Open(upstream)) = self.remove(key) {
            upstream.evict();
        }
    }

    /// Removes a flow from the table. Its held datagrams are lost, and its opening is cancelled.
    fn remove(&mut self, key: Key) -> Option<Phase<O::Flow>> {
        let Entry { serial, phase } = self.flows.remove(&key)?;
        self.unanswered.remove(serial);
        if let Phase::Opening { held, .. } = &phase {
            self.held_bytes = self.held_bytes.saturating_sub(held.bytes);
        }
        Some(phase)
    }

    fn has(&self, key: Key, serial: u64) -> bool {
        self.flows.get(&key).is_some_and(|entry| entry.serial == serial)
    }

    fn hear(&mut self, news: Result<SourceUpdate<O::Flow>, tokio::task::JoinError>) {
        match news {
            Ok(SourceUpdate::Opened(key, serial, opened)) if self.has(key, serial) => {
                self.opened(key, serial, opened);
            }
            Ok(SourceUpdate::Opened(_, _, evicted)) => {
                if let Some((_, flow)) = evicted {
                    flow.ended(Ending::TooMany);
                }
                self.begin_next();
            }
            Ok(SourceUpdate::Ended(key, serial, upstream, ending)) => {
                let was_evicted = !self.has(key, serial);
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
                tracing::error!(%error, "a UDP flow failed");
                self.begin_next();
            }
        }
    }

    /// Begins the flow that has waited longest for the permit of an evicted flow.
    fn begin_next(&mut self) {
        while let Some((key, serial)) = self.waiting.pop_front() {
            if self.has(key, serial) {
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
        if let Phase::Opening { held, .. } = before {
            self.held_bytes = self.held_bytes.saturating_sub(held.bytes);
            for bytes in &held.datagrams {
                upstream.send(&Datagrams::one(key.client, bytes));
            }
        }
        let (wire, answered) = (Arc::clone(&self.wire), self.answered.clone());
        self.tasks.spawn(async move {
            let first_answer = || {
                // It fails when the table has ended.
                let _ = answered.send(serial);
            };
            let ending = answer(&wire, &upstream, key, first_answer).await;
            SourceUpdate::Ended(key, serial, upstream, ending)
        });
    }

    async fn breathe(&mut self, error: &io::Error) {
        if let Some(times) = self.failing.worth_a_line() {
            tracing::warn!(%error, times, "a UDP listener cannot receive");
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// The client's address as it is shown.
fn canonical(key: Key) -> SocketAddr {
    SocketAddr::new(key.client.ip().to_canonical(), key.client.port())
}

impl Held {
    /// Keeps what there is room for, and says how many bytes.
    fn add(&mut self, datagrams: &Datagrams<'_>, total: usize) -> usize {
        let before = self.bytes;
        for bytes in datagrams.each() {
            let room = HELD_BYTES
                .saturating_sub(self.bytes)
                .min(HELD_BYTES_TOTAL.saturating_sub(total + self.bytes - before));
            if self.datagrams.len() < HELD_DATAGRAMS && bytes.len() <= room {
                self.datagrams.push(bytes.into());
                self.bytes += bytes.len();
            }
        }
        self.bytes - before
    }
}

/// Something that may go wrong a million times in a second.
#[derive(Default)]
struct Trouble {
    logged_at: Option<Instant>,
    times: u64,
}

impl Trouble {
    /// How often it happened since the last line about it, when it is time for one.
    fn worth_a_line(&mut self) -> Option<u64> {
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

    fn held_of(total: usize, sizes: &[usize]) -> Vec<usize> {
        let client = SocketAddr::from(([192, 0, 2, 1], 1234));
        let mut held = Held::default();
        let mut added = 0;
        for size in sizes {
            added += held.add(&Datagrams::one(client, &vec![0; *size]), total + added);
        }
        assert_eq!(added, held.bytes);
        held.datagrams.iter().map(|datagram| datagram.len()).collect()
    }

    #[test]
    fn a_flow_that_opens_holds_its_oldest_datagrams_within_its_own_bounds() {
        assert_eq!(held_of(0, &[1, 0, 2]), [1, 0, 2]);
        assert_eq!(held_of(0, &[9; 40]), [9; HELD_DATAGRAMS]);
        assert_eq!(held_of(0, &[40_000, 20_000, 20_000, 5_000]), [40_000, 20_000, 5_000]);
    }

    #[test]
    fn all_flows_together_hold_no_more_than_the_listener_may() {
        assert_eq!(held_of(HELD_BYTES_TOTAL - 10, &[8, 8, 2]), [8, 2]);
        assert_eq!(held_of(HELD_BYTES_TOTAL, &[1, 1]), [0usize; 0]);
    }
}
