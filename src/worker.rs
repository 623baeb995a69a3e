//! The threads of the data plane: one single-threaded runtime per core, each with its own listeners and sessions.
//!
//! A listener belongs to one worker. Its connections stay there, unless another worker has clearly fewer sessions: then the
//! connection is handed over before anything is read from it.

use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::cluster::Cluster;
use crate::listener::{self, Accepted, Listener};
use crate::relay;
use crate::route::Protocol;
use crate::session::flow::Flows;
use crate::session::live::{Live, Page, Query};
use crate::session::{self, Shared};
use crate::stall::StallMonitor;
use crate::udp::{self, UdpLimits};

/// Connections in the queue of a worker. While it is full, that worker is overloaded and gets no further connections.
const HANDOVERS_MAX: usize = 1024;
/// Requests for a list of sessions. Further requests wait.
const QUERIES_MAX: usize = 16;
/// Interval between two ticks; see [`Worker::tick`]. Shorter than the timers that sessions usually set.
const TICK: Duration = Duration::from_millis(200);

/// UDP flows of one listener. Bounds a flood from forged addresses.
const FLOWS_MAX: usize = 10_000;
/// Flows of one client that no endpoint has answered: a tenth, so that one host cannot use up the flows of the others.
const UNANSWERED_FLOWS_MAX: usize = 1_000;

/// The workers, as seen by the control plane.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Thread>,
    /// Has a token for each thread that runs.
    alive: TaskTracker,
    next: usize,
    loads: Loads,
}

/// The number of sessions of each worker, live.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<[Arc<Peer>]>);

impl Loads {
    /// Returns the number of sessions of each worker, in the order of the workers.
    pub fn sessions(&self) -> Vec<usize> {
        self.0.iter().map(|peer| peer.sessions.load(Relaxed)).collect()
    }

    /// Calls `see` with each page of sessions and the index of their worker, until it returns false. The workers keep serving
    /// between two pages.
    pub async fn each_session(&self, mut see: impl FnMut(usize, Vec<Arc<Live>>) -> bool) {
        for (index, peer) in self.0.iter().enumerate() {
            let mut from = Some(0);
            while let Some(at) = from {
                let (query, page) = Query::new(at);
                // A worker that has ended has no sessions.
                let Ok(()) = peer.queries.send(query).await else { break };
                let Ok(Page { sessions, next }) = page.await else { break };
                if !see(index, sessions) {
                    return;
                }
                from = next;
            }
        }
    }
}

#[derive(Debug)]
struct Thread {
    /// Unbounded, since the control plane must not wait for a worker. The number of listeners bounds it.
    listeners: mpsc::UnboundedSender<Listening>,
    join: JoinHandle<()>,
}

/// A listener that is sent to its worker.
#[derive(Debug)]
struct Listening {
    listener: Listener,
    cluster: Arc<Cluster>,
    stop: CancellationToken,
    /// Dropped once the listener is closed.
    open: TaskTrackerToken,
}

/// A connection, and what its session needs.
#[derive(Debug)]
struct Handover {
    accepted: Accepted,
    cluster: Arc<Cluster>,
    offset: u16,
    /// On the worker that it is sent to. Counted when it is sent, so that the next connection of a burst takes it into account.
    slot: SessionSlot,
}

/// One worker, as seen by its sessions: itself, and its peers.
#[derive(Clone, Debug)]
struct Worker {
    own: Arc<Peer>,
    peers: Arc<[Arc<Peer>]>,
    shared: Arc<Shared>,
    tracker: TaskTracker,
    /// Notified when a session starts.
    started: Arc<Notify>,
}

#[derive(Debug)]
struct Peer {
    sessions: AtomicUsize,
    handovers: mpsc::Sender<Handover>,
    queries: mpsc::Sender<Query>,
}

/// What a worker receives from its peers and the control plane.
#[derive(Debug)]
struct Inbox {
    handovers: mpsc::Receiver<Handover>,
    queries: mpsc::Receiver<Query>,
}

impl Peer {
    fn new() -> (Arc<Peer>, Inbox) {
        let (send_handover, handovers) = mpsc::channel(HANDOVERS_MAX);
        let (send_query, queries) = mpsc::channel(QUERIES_MAX);
        let peer = Peer { sessions: AtomicUsize::new(0), handovers: send_handover, queries: send_query };
        (Arc::new(peer), Inbox { handovers, queries })
    }
}

impl Workers {
    /// Starts the threads. They end once `self` is dropped or joined and their last session has ended.
    pub fn start(count: NonZeroUsize, shared: &Arc<Shared>, stalls: &StallMonitor) -> io::Result<Workers> {
        let alive = TaskTracker::new();
        let (peers, inboxes): (Vec<_>, Vec<_>) = (0..count.get()).map(|_| Peer::new()).unzip();
        let peers: Arc<[Arc<Peer>]> = peers.into();
        let threads = inboxes.into_iter().zip(peers.iter()).enumerate().map(|(index, (inbox, own))| {
            let worker = Worker {
                own: own.clone(),
                peers: peers.clone(),
                shared: shared.clone(),
                tracker: TaskTracker::new(),
                started: Arc::default(),
            };
            worker.start(index, inbox, stalls, alive.token())
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Workers { threads, alive, next: 0, loads: Loads(peers) })
    }

    /// Sends a listener to the next worker in turn. It accepts until `stop`. Then the listener is closed, and `open` is dropped.
    pub fn listen(
        &mut self,
        listener: Listener,
        cluster: Arc<Cluster>,
        stop: CancellationToken,
        open: TaskTrackerToken,
    ) {
        let index = self.next % self.threads.len().max(1);
        self.next = self.next.wrapping_add(1);
        if let Some(thread) = self.threads.get(index) {
            // A worker ends only after `self` is dropped.
            let _ = thread.listeners.send(Listening { listener, cluster, stop, open });
        }
    }

    /// Returns the number of sessions of each worker, live.
    pub fn loads(&self) -> Loads {
        self.loads.clone()
    }

    /// Waits until the last session of each worker has ended.
    pub async fn join(self) {
        let Workers { threads, alive, .. } = self;
        // A worker ends when its channel is closed.
        let joins: Vec<_> = threads.into_iter().map(|Thread { listeners: _, join }| join).collect();
        alive.close();
        alive.wait().await;
        for join in joins {
            // Does not block: dropping the token was the last action of the thread.
            if join.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Worker {
    fn start(
        self,
        index: usize,
        inbox: Inbox,
        stalls: &StallMonitor,
        alive: TaskTrackerToken,
    ) -> io::Result<Thread> {
        let (listeners, listening) = mpsc::unbounded_channel();
        let name = format!("worker-{index}");
        let (runtime, guard) = stalls.runtime(&name)?;
        let join = std::thread::Builder::new().name(name).spawn(move || {
            // Dropped in reverse order, also on a panic.
            let (_alive, runtime, _guard) = (alive, runtime, guard);
            relay::set_pipe_allowance(self.shared.fds.clone());
            runtime.block_on(self.run(listening, inbox));
        })?;
        Ok(Thread { listeners, join })
    }

    /// Runs until the control plane has dropped the worker and every session has ended.
    async fn run(self, mut listeners: mpsc::UnboundedReceiver<Listening>, inbox: Inbox) {
        let Inbox { mut handovers, mut queries } = inbox;
        let mut ticking = pin!(self.tick());
        loop {
            tokio::select! {
                listening = listeners.recv() => match listening {
                    Some(listening) => self.listen(listening),
                    None => break,
                },
                Some(handover) = handovers.recv() => self.serve(handover),
                Some(query) = queries.recv() => query.respond(),
                () = &mut ticking => {}
            }
        }
        self.tracker.close();
        loop {
            tokio::select! {
                Some(handover) = handovers.recv() => self.serve(handover),
                Some(query) = queries.recv() => query.respond(),
                () = self.tracker.wait() => match handovers.try_recv() {
                    Ok(late) => self.serve(late),
                    Err(_) => return,
                },
            }
        }
    }

    /// Ticks while sessions start. Each session sets timers, and a timer that expires before all others makes tokio wake its
    /// driver: a system call, for timers that rarely expire. The next tick expires before them. An idle worker has no timer.
    async fn tick(&self) {
        loop {
            self.started.notified().await;
            tokio::time::sleep(TICK).await;
        }
    }

    fn listen(&self, listening: Listening) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            let served = match listening.listener.protocol {
                Protocol::Tcp => worker.accept(listening).await,
                // Boxed, since it is larger and most listeners are TCP.
                Protocol::Udp => Box::pin(worker.serve_flows(listening)).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "listener failed");
            }
        });
    }

    async fn accept(&self, Listening { listener, cluster, stop, open: _open }: Listening) -> io::Result<()> {
        let offset = listener.offset;
        let admit = |accepted| {
            let slot = SessionSlot::on(self.less_loaded_peer().unwrap_or(&self.own).clone());
            self.hand_over(Handover { accepted, cluster: cluster.clone(), offset, slot });
        };
        listener::accept_loop(listener, &cluster, stop, || self.backlog_expired(&cluster), admit).await
    }

    /// Resolves when the connections in the backlog of a closed listener, for which there are no descriptors, are abandoned:
    /// after the hold of the route, so that a removed route releases its port, or at the end of the drain.
    async fn backlog_expired(&self, cluster: &Cluster) {
        let (is_draining, hold) = (self.shared.stop.is_cancelled(), cluster.members().options.hold);
        tokio::select! {
            () = self.shared.force.cancelled() => {}
            () = tokio::time::sleep(hold), if !is_draining => {}
        }
    }

    /// Serves UDP flows. They stay on the worker of their listener, since they share its socket.
    async fn serve_flows(
        &self,
        Listening { listener, cluster, stop, open: _open }: Listening,
    ) -> io::Result<()> {
        let limits = UdpLimits { flows_max: FLOWS_MAX, unanswered_max: UNANSWERED_FLOWS_MAX };
        let flows = Flows { cluster, offset: listener.offset, shared: self.shared.clone() };
        udp::serve(listener.fd.into(), Arc::new(flows), limits, stop).await
    }

    /// Serves a connection on the worker of its slot, or on this one if the queue of that worker is full.
    fn hand_over(&self, handover: Handover) {
        if Arc::ptr_eq(&handover.slot.0, &self.own) {
            return self.serve(handover);
        }
        let peer = handover.slot.0.clone();
        if let Err(refused) = peer.handovers.try_send(handover) {
            self.serve(Handover { slot: SessionSlot::on(self.own.clone()), ..refused.into_inner() });
        }
    }

    /// Returns the worker with the fewest sessions, if a handover is worth its cost.
    fn less_loaded_peer(&self) -> Option<&Arc<Peer>> {
        let own = self.own.sessions.load(Relaxed);
        let least = self.peers.iter().min_by_key(|peer| peer.sessions.load(Relaxed))?;
        is_clearly_fewer(least.sessions.load(Relaxed), own).then_some(least)
    }

    fn serve(&self, Handover { accepted, cluster, offset, slot }: Handover) {
        self.started.notify_one();
        self.tracker.spawn(session::serve(accepted, cluster, offset, self.shared.clone(), slot));
    }
}

/// Returns whether the difference justifies a handover, which wakes the other thread. Of two sessions on two workers, each gets
/// its own.
fn is_clearly_fewer(theirs: usize, ours: usize) -> bool {
    theirs + theirs / 4 < ours
}

/// Counts one session on a worker until dropped.
#[derive(Debug)]
struct SessionSlot(Arc<Peer>);

impl SessionSlot {
    fn on(peer: Arc<Peer>) -> SessionSlot {
        peer.sessions.fetch_add(1, Relaxed);
        SessionSlot(peer)
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sessions_on_two_workers_never_share_one() {
        assert!(is_clearly_fewer(0, 1));
        assert!(is_clearly_fewer(1, 2));
        assert!(!is_clearly_fewer(0, 0));
        assert!(!is_clearly_fewer(1, 1));
        assert!(!is_clearly_fewer(4, 5));
        assert!(is_clearly_fewer(40, 51));
    }
}
