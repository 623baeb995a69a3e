//! The table of a listener's flows: opens, evicts and removes them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::buffer::Buffer;
use super::channel::Channel;
use super::downstream::{Key, ListenerClient};
use super::flow::{Upstream, relay};
use super::socket::{DatagramSocket, Datagrams};
use super::unanswered::Unanswered;
use super::{Flow, Open, UdpLimits};
use crate::client_net::ClientNet;
use crate::ending::Ending;
use crate::log_throttle::LogThrottle;

/// The pause after an error of the listening socket, which is a problem of the host and may persist.
const RECEIVE_BACKOFF: Duration = Duration::from_millis(100);

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

/// The result of a flow's task.
pub(super) enum TaskResult<F> {
    Opened(Key, u64, Option<(Channel, F)>),
    Ended(Key, u64, Arc<Upstream<F>>, Ending),
}

/// All flows of one listener.
pub(super) struct Table<O: Open> {
    socket: Arc<DatagramSocket>,
    opener: Arc<O>,
    limits: UdpLimits,
    flows: HashMap<Key, Entry<O::Flow>>,
    pub(super) tasks: JoinSet<TaskResult<O::Flow>>,
    pub(super) unanswered: Unanswered<Key>,
    /// Receives the serial number of a flow at its first response.
    answered: mpsc::UnboundedSender<u64>,
    /// Flows without a permit. For each, one flow was evicted and has not ended yet.
    waiting: VecDeque<(Key, u64)>,
    buffered_bytes: usize,
    serial: u64,
    /// Accepts no new flows.
    pub(super) closed: bool,
    refusals: LogThrottle,
    receive_errors: LogThrottle,
}

impl<O: Open> Table<O> {
    pub(super) fn new(
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
    pub(super) fn receive(&mut self, datagrams: &Datagrams<'_>) {
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
        let oldest = self.unanswered.oldest_of(source(key), self.limits.unanswered_max).copied();
        if let Some(oldest) = oldest {
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
        self.unanswered.add(serial, source(key), key);
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
        if let Some(times) = self.refusals.hit() {
            tracing::warn!(%client, %ending, flows = self.flows.len(), times, "UDP flow refused");
        }
    }

    /// Returns `false` if every flow has a response.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.unanswered.oldest().copied();
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
            self.buffered_bytes = self.buffered_bytes.saturating_sub(buffer.bytes());
        }
        Some(phase)
    }

    fn contains(&self, key: Key, serial: u64) -> bool {
        self.flows.get(&key).is_some_and(|entry| entry.serial == serial)
    }

    pub(super) fn on_task_finished(&mut self, finished: Result<TaskResult<O::Flow>, JoinError>) {
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

    fn opened(&mut self, key: Key, serial: u64, opened: Option<(Channel, O::Flow)>) {
        let (Some((channel, flow)), Some(entry)) = (opened, self.flows.get_mut(&key)) else {
            self.remove(key);
            return;
        };
        let upstream = Arc::new(Upstream::new(channel, flow));
        let before = std::mem::replace(&mut entry.phase, Phase::Open(Arc::clone(&upstream)));
        if let Phase::Opening { buffer, .. } = before {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(buffer.bytes());
            for bytes in buffer.datagrams() {
                upstream.send(&Datagrams::one(key.client, bytes));
            }
        }
        let (socket, answered) = (Arc::clone(&self.socket), self.answered.clone());
        self.tasks.spawn(async move {
            let on_first = || {
                // Fails after the table was dropped.
                let _ = answered.send(serial);
            };
            let client = ListenerClient { socket: &socket, key };
            let ending = relay(&client, &upstream, on_first).await;
            TaskResult::Ended(key, serial, upstream, ending)
        });
    }

    pub(super) async fn back_off(&mut self, error: &io::Error) {
        if let Some(times) = self.receive_errors.hit() {
            tracing::warn!(%error, times, "UDP listener cannot receive");
        }
        tokio::time::sleep(RECEIVE_BACKOFF).await;
    }
}

fn source(key: Key) -> ClientNet {
    ClientNet::of(key.client.ip())
}

/// Returns the canonical address of the client.
fn canonical(key: Key) -> SocketAddr {
    SocketAddr::new(key.client.ip().to_canonical(), key.client.port())
}
