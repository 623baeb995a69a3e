//! The threads of the data plane: one single-threaded runtime per core, each with its own listeners and sessions.
//!
//! A listener belongs to one worker. Its connections stay there, unless another worker has clearly fewer sessions: then the
//! connection is handed over before anything is read from it.

mod flows;
mod supervised;
mod tunnels;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::cluster::Cluster;
use crate::fd_budget::{FdPermit, RouteFds};
use crate::handshakes::Handshakes;
use crate::listener::{self, Accepted, AcceptedStream, Listener};
use crate::relay;
use crate::route::{HOLD_DEFAULT, Protocol};
use crate::session::edge;
use crate::session::flow::Flows;
use crate::session::live::{Live, Page, Query};
use crate::session::port_routes::PortRoutes;
use crate::session::{self, Shared};
use crate::stall::StallMonitor;
use crate::tunnel;
use crate::udp::{self, ListeningSocket, UdpLimits};
use flows::PeerFlows;
pub use tunnels::ReverseDial;

/// Connections in the queue of a worker. While it is full, that worker is overloaded and gets no further connections.
const HANDOVERS_MAX: usize = 1024;
/// Handshakes of peers.
const PEER_HANDSHAKES_MAX: usize = 64;
/// Connections that have not sent their PROXY protocol header, or not completed TLS. Those that have taken longer than the second
/// value are abandoned for others beyond this number.
const EDGES_MAX: usize = 1024;
const EDGES_PATIENCE: Duration = Duration::from_secs(1);
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
pub struct Loads(Arc<[Arc<WorkerHandle>]>);

impl Loads {
    /// Returns the number of sessions of each worker, in the order of the workers.
    pub fn sessions(&self) -> Vec<usize> {
        self.0.iter().map(|worker| worker.sessions.load(Relaxed)).collect()
    }

    /// Calls `see` with each page of sessions and the index of their worker, until it returns false. The workers keep serving
    /// between two pages.
    pub async fn each_session(&self, mut see: impl FnMut(usize, Vec<Arc<Live>>) -> bool) {
        for (index, worker) in self.0.iter().enumerate() {
            let mut from = Some(0);
            while let Some(at) = from {
                let (query, page) = Query::new(at);
                // A worker that has ended has no sessions.
                let Ok(()) = worker.queries.send(query).await else { break };
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
    tasks: mpsc::UnboundedSender<Task>,
    join: JoinHandle<()>,
}

/// A listener that is sent to its worker.
#[derive(Debug)]
struct Listening {
    listener: Listener,
    serves: Serves,
    stop: CancellationToken,
    /// Dropped once the listener is closed.
    open: TaskTrackerToken,
}

/// What the connections of a listener are.
#[derive(Clone, Debug)]
pub enum Serves {
    /// Sessions of a route.
    Route(Arc<Cluster>),
    /// Sessions of the routes that share the port.
    Names(Arc<PortRoutes>),
    /// Tunnels of peers, with their share of the descriptors.
    Peers(Arc<RouteFds>),
}

/// What the control plane sends to a worker.
#[derive(Debug)]
enum Task {
    Listen(Listening),
    DialReverse(ReverseDial),
}

/// A connection that is served on another worker. It is counted there when it is sent, so that the next connection of a burst
/// takes it into account.
#[derive(Debug)]
enum Handover {
    Session {
        accepted: Accepted,
        cluster: Arc<Cluster>,
        offset: u16,
        slot: SessionSlot,
    },
    /// The route is not known yet.
    Named {
        accepted: Accepted,
        routes: Arc<PortRoutes>,
        slot: SessionSlot,
    },
    Tunnel {
        fd: OwnedFd,
        remote: SocketAddr,
        permit: FdPermit,
        slot: TunnelSlot,
    },
}

/// One worker, as seen by its sessions: itself, and all workers.
#[derive(Clone, Debug)]
struct Worker {
    own: Arc<WorkerHandle>,
    workers: Arc<[Arc<WorkerHandle>]>,
    shared: Arc<Shared>,
    tracker: TaskTracker,
    /// Handshakes of connections to `--peer-listen`.
    peer_handshakes: Arc<Handshakes>,
    /// Connections whose session has not begun.
    edges: Arc<Handshakes>,
    /// The UDP flows in its tunnels.
    peer_flows: Arc<PeerFlows>,
    /// Notified when a session starts.
    started: Arc<Notify>,
}

/// One worker, as seen by the others.
#[derive(Debug)]
struct WorkerHandle {
    sessions: AtomicUsize,
    /// Tunnels that peers have dialled.
    tunnels: AtomicUsize,
    handovers: mpsc::Sender<Handover>,
    queries: mpsc::Sender<Query>,
}

/// What a worker receives from the others and the control plane.
#[derive(Debug)]
struct Inbox {
    handovers: mpsc::Receiver<Handover>,
    queries: mpsc::Receiver<Query>,
}

impl WorkerHandle {
    fn new() -> (Arc<WorkerHandle>, Inbox) {
        let (send_handover, handovers) = mpsc::channel(HANDOVERS_MAX);
        let (send_query, queries) = mpsc::channel(QUERIES_MAX);
        let worker = WorkerHandle {
            sessions: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            handovers: send_handover,
            queries: send_query,
        };
        (Arc::new(worker), Inbox { handovers, queries })
    }
}

impl Workers {
    /// Starts the threads. They end once `self` is dropped or joined and their last session has ended.
    pub fn start(count: NonZeroUsize, shared: &Arc<Shared>, stalls: &StallMonitor) -> io::Result<Workers> {
        let alive = TaskTracker::new();
        let (workers, inboxes): (Vec<_>, Vec<_>) = (0..count.get()).map(|_| WorkerHandle::new()).unzip();
        let workers: Arc<[Arc<WorkerHandle>]> = workers.into();
        let threads = inboxes.into_iter().zip(workers.iter()).enumerate().map(|(index, (inbox, own))| {
            let worker = Worker {
                own: own.clone(),
                workers: workers.clone(),
                shared: shared.clone(),
                tracker: TaskTracker::new(),
                peer_handshakes: Arc::new(Handshakes::new(PEER_HANDSHAKES_MAX, Duration::ZERO)),
                edges: Arc::new(Handshakes::new(EDGES_MAX, EDGES_PATIENCE)),
                peer_flows: Arc::default(),
                started: Arc::default(),
            };
            worker.start(index, inbox, stalls, alive.token())
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Workers { threads, alive, next: 0, loads: Loads(workers) })
    }

    /// Sends a listener to the next worker in turn. It accepts until `stop`. Then the listener is closed, and `open` is dropped.
    pub fn listen(
        &mut self,
        listener: Listener,
        serves: Serves,
        stop: CancellationToken,
        open: TaskTrackerToken,
    ) {
        let index = self.next % self.threads.len().max(1);
        self.next = self.next.wrapping_add(1);
        if let Some(thread) = self.threads.get(index) {
            // A worker ends only after `self` is dropped.
            let _ = thread.tasks.send(Task::Listen(Listening { listener, serves, stop, open }));
        }
    }

    /// Has each worker keep a tunnel to a peer.
    pub fn dial_reverse(&self, dial: &ReverseDial) {
        for thread in &self.threads {
            let _ = thread.tasks.send(Task::DialReverse(dial.clone()));
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
        let joins: Vec<_> = threads.into_iter().map(|Thread { tasks: _, join }| join).collect();
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
        let (tasks, inbox_of_tasks) = mpsc::unbounded_channel();
        let name = format!("worker-{index}");
        let (runtime, guard) = stalls.runtime(&name)?;
        let join = std::thread::Builder::new().name(name).spawn(move || {
            // Dropped in reverse order, also on a panic.
            let (_alive, runtime, _guard) = (alive, runtime, guard);
            relay::set_pipe_allowance(self.shared.fds.clone());
            tunnel::Pool::enter(self.shared.peers.clone());
            self.shared.tls.clone().enter();
            runtime.block_on(self.run(inbox_of_tasks, inbox));
        })?;
        Ok(Thread { tasks, join })
    }

    /// Runs until the control plane has dropped the worker and every session has ended.
    async fn run(self, mut tasks: mpsc::UnboundedReceiver<Task>, inbox: Inbox) {
        let Inbox { mut handovers, mut queries } = inbox;
        let mut ticking = pin!(self.tick());
        loop {
            tokio::select! {
                task = tasks.recv() => match task {
                    Some(Task::Listen(listening)) => self.listen(listening),
                    Some(Task::DialReverse(dial)) => self.keep_reverse_tunnel(dial),
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
                    Err(_) => break,
                },
            }
        }
        tunnel::Pool::close().await;
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
            // Dropped last, after the listener.
            let Listening { open: _open, listener, serves, stop } = listening;
            match (listener.protocol, &serves) {
                (Protocol::Tcp, serves) => {
                    supervised::run(&stop, || worker.accept(&listener, serves, &stop)).await;
                }
                // Boxed, since it is larger and most listeners are TCP.
                (Protocol::Udp, Serves::Route(cluster)) => {
                    Box::pin(worker.serve_flows(listener, cluster, &stop)).await;
                }
                (Protocol::Udp, Serves::Names(_) | Serves::Peers(_)) => {}
            }
        });
    }

    async fn accept(&self, listener: &Listener, serves: &Serves, stop: &CancellationToken) -> io::Result<()> {
        let (offset, stop) = (listener.offset, stop.clone());
        match serves {
            Serves::Route(cluster) => {
                let name = || cluster.members().options.name.clone();
                let admit = |accepted| {
                    let (cluster, slot) = (cluster.clone(), self.slot());
                    self.hand_over(Handover::Session { accepted, cluster, offset, slot });
                };
                let expired = || self.backlog_expired(cluster.members().options.hold);
                listener::accept_loop(listener, &cluster.fds, name, stop, expired, admit).await
            }
            Serves::Names(routes) => {
                let name = || routes.unnamed().members().options.name.clone();
                let admit = |accepted| {
                    let (routes, slot) = (routes.clone(), self.slot());
                    self.hand_over(Handover::Named { accepted, routes, slot });
                };
                let expired = || self.backlog_expired(HOLD_DEFAULT);
                listener::accept_loop(listener, routes.fds(), name, stop, expired, admit).await
            }
            Serves::Peers(fds) => {
                let admit = |accepted| self.admit_tunnel(accepted);
                let name = || "peers".to_owned();
                listener::accept_loop(listener, fds, name, stop, || std::future::ready(()), admit).await
            }
        }
    }

    /// Returns a slot for a session on the worker that is to serve it.
    fn slot(&self) -> SessionSlot {
        SessionSlot::on(self.less_loaded_worker().unwrap_or(&self.own).clone())
    }

    /// Resolves when the connections in the backlog of a closed listener, for which there are no descriptors, are abandoned:
    /// after the hold of the route, so that a removed route releases its port, or at the end of the drain.
    async fn backlog_expired(&self, hold: Duration) {
        let is_draining = self.shared.stop.is_cancelled();
        tokio::select! {
            () = self.shared.force.cancelled() => {}
            () = tokio::time::sleep(hold), if !is_draining => {}
        }
    }

    /// Serves UDP flows. They stay on the worker of their listener, since they share its socket.
    async fn serve_flows(&self, listener: Listener, cluster: &Arc<Cluster>, stop: &CancellationToken) {
        let limits = UdpLimits { flows_max: FLOWS_MAX, unanswered_max: UNANSWERED_FLOWS_MAX };
        let Listener { offset, addr, .. } = listener;
        let flows = Arc::new(Flows { cluster: cluster.clone(), offset, addr, shared: self.shared.clone() });
        match ListeningSocket::new(listener.fd.into()) {
            Ok(socket) => {
                let serve = || udp::serve(&socket, flows.clone(), limits, stop.clone()).map(Ok);
                supervised::run(stop, serve).await;
            }
            Err(error) => tracing::error!(%error, "listener failed"),
        }
    }

    /// Serves a connection on the worker of its slot, or on this one if the queue of that worker is full.
    fn hand_over(&self, handover: Handover) {
        let worker = handover.worker();
        if Arc::ptr_eq(worker, &self.own) {
            return self.serve(handover);
        }
        let handovers = worker.handovers.clone();
        if let Err(refused) = handovers.try_send(handover) {
            self.serve(refused.into_inner().on(&self.own));
        }
    }

    /// Returns the worker with the fewest sessions, if a handover is worth its cost.
    fn less_loaded_worker(&self) -> Option<&Arc<WorkerHandle>> {
        let own = self.own.sessions.load(Relaxed);
        let least = self.workers.iter().min_by_key(|worker| worker.sessions.load(Relaxed))?;
        is_clearly_fewer(least.sessions.load(Relaxed), own).then_some(least)
    }

    fn serve(&self, handover: Handover) {
        self.started.notify_one();
        match handover {
            Handover::Session { accepted, cluster, offset, slot } => {
                let is_new = matches!(accepted.stream, AcceptedStream::Socket(_));
                if is_new && edge::is_needed(&cluster.members().options) {
                    return self.open_edge(accepted, cluster, offset, slot);
                }
                self.tracker.spawn(session::serve(accepted, cluster, offset, self.shared.clone(), slot));
            }
            Handover::Named { accepted, routes, slot } => self.open_named(accepted, routes, slot),
            Handover::Tunnel { fd, remote, permit, slot } => self.serve_tunnel(fd, remote, (permit, slot)),
        }
    }

    /// Serves a connection once its first steps are taken. In a task of its own, so that the session's is no larger.
    fn open_edge(&self, accepted: Accepted, cluster: Arc<Cluster>, offset: u16, slot: SessionSlot) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            if let Some(accepted) = edge::open(accepted, &cluster, &worker.edges, &worker.shared).await {
                worker.serve(Handover::Session { accepted, cluster, offset, slot });
            }
        });
    }

    /// Serves a connection once its route is known.
    fn open_named(&self, accepted: Accepted, routes: Arc<PortRoutes>, slot: SessionSlot) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            let opened = edge::open_named(accepted, &routes, &worker.edges, &worker.shared).await;
            if let Some((accepted, cluster)) = opened {
                worker.serve(Handover::Session { accepted, cluster, offset: 0, slot });
            }
        });
    }
}

impl Handover {
    fn worker(&self) -> &Arc<WorkerHandle> {
        match self {
            Handover::Session { slot, .. } | Handover::Named { slot, .. } => &slot.0,
            Handover::Tunnel { slot, .. } => &slot.0,
        }
    }

    /// Counts the connection on another worker.
    fn on(mut self, worker: &Arc<WorkerHandle>) -> Handover {
        match &mut self {
            Handover::Session { slot, .. } | Handover::Named { slot, .. } => {
                *slot = SessionSlot::on(worker.clone());
            }
            Handover::Tunnel { slot, .. } => *slot = TunnelSlot::on(worker.clone()),
        }
        self
    }
}

/// Returns whether the difference justifies a handover, which wakes the other thread. Of two sessions on two workers, each gets
/// its own.
fn is_clearly_fewer(theirs: usize, ours: usize) -> bool {
    theirs + theirs / 4 < ours
}

/// Counts one session on a worker until dropped.
#[derive(Debug)]
struct SessionSlot(Arc<WorkerHandle>);

impl SessionSlot {
    fn on(worker: Arc<WorkerHandle>) -> SessionSlot {
        worker.sessions.fetch_add(1, Relaxed);
        SessionSlot(worker)
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

/// Counts one tunnel on a worker until dropped.
#[derive(Debug)]
struct TunnelSlot(Arc<WorkerHandle>);

impl TunnelSlot {
    fn on(worker: Arc<WorkerHandle>) -> TunnelSlot {
        worker.tunnels.fetch_add(1, Relaxed);
        TunnelSlot(worker)
    }
}

impl Drop for TunnelSlot {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Relaxed);
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
