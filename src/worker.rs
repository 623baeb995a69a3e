//! The data plane's threads: one single-threaded runtime per core, each with its own listeners and sessions.
//!
//! A listener lives on one worker. What it accepts stays there, unless another worker has clearly fewer sessions: then
//! the connection is handed over before anything was read from it.

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

/// Connections on their way to another worker. When it is full, that worker is behind: the session stays.
const HANDOVERS_MAX: usize = 1024;
/// Questions for a list of sessions; who asks waits while it is full.
const QUERIES_MAX: usize = 16;
/// Between two ticks of a worker's clock; see [`Worker::tick`]. Less than any timer that sessions usually set.
const TICK: Duration = Duration::from_millis(200);

/// Flows of one listener: a flood of invented addresses ends here.
const FLOWS_MAX: usize = 10_000;
/// Of these, those of one client that no endpoint has answered: a tenth, so that no single host crowds out the others.
const UNANSWERED_FLOWS_MAX: usize = 1_000;

/// All workers, as the control plane sees them.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Thread>,
    /// Has a token for every thread that runs.
    alive: TaskTracker,
    next: usize,
    loads: Loads,
}

/// How many sessions each worker has, live.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<[Arc<Peer>]>);

impl Loads {
    /// In the order of the workers.
    pub fn sessions(&self) -> Vec<usize> {
        self.0.iter().map(|peer| peer.sessions.load(Relaxed)).collect()
    }

    /// Shows every session to `see`, with the number of its worker, until that says that it has seen enough. Between two
    /// pages the workers serve.
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
    /// Without a bound of its own: what is in it are bound listeners of the table, and the control plane must not wait for a
    /// worker.
    listeners: mpsc::UnboundedSender<Listening>,
    join: JoinHandle<()>,
}

/// A listener on its way to its worker.
#[derive(Debug)]
struct Listening {
    listener: Listener,
    cluster: Arc<Cluster>,
    stop: CancellationToken,
    /// Dropped once the listener is closed.
    open: TaskTrackerToken,
}

/// A connection with all that its session needs.
#[derive(Debug)]
struct Handover {
    accepted: Accepted,
    cluster: Arc<Cluster>,
    offset: u16,
    /// On the worker that it is sent to, from when it is sent: the next connection of a burst must see it there.
    place: Counted,
}

/// One worker, as its sessions see it: itself, and the others to hand over to.
#[derive(Clone, Debug)]
struct Worker {
    own: Arc<Peer>,
    peers: Arc<[Arc<Peer>]>,
    shared: Arc<Shared>,
    tracker: TaskTracker,
    /// A session began.
    began: Arc<Notify>,
}

#[derive(Debug)]
struct Peer {
    sessions: AtomicUsize,
    handovers: mpsc::Sender<Handover>,
    queries: mpsc::Sender<Query>,
}

/// What a worker hears of the others.
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
    /// Starts the threads. They end when `self` is dropped or joined and their last session has ended.
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
                began: Arc::default(),
            };
            worker.start(index, inbox, stalls, alive.token())
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Workers { threads, alive, next: 0, loads: Loads(peers) })
    }

    /// Gives a listener to the next worker in turn. Accepting ends at `stop`; then the listener is closed, and `open` dropped.
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
            // A worker only ends after us.
            let _ = thread.listeners.send(Listening { listener, cluster, stop, open });
        }
    }

    pub fn loads(&self) -> Loads {
        self.loads.clone()
    }

    /// Waits for the last session of every worker.
    pub async fn join(self) {
        let Workers { threads, alive, .. } = self;
        // A worker ends when its channel is closed.
        let joins: Vec<_> = threads.into_iter().map(|Thread { listeners: _, join }| join).collect();
        alive.close();
        alive.wait().await;
        for join in joins {
            // The token was the last that its thread had.
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
        let (runtime, watched) = stalls.runtime(&name)?;
        let join = std::thread::Builder::new().name(name).spawn(move || {
            // Dropped in the reverse order, at a panic too.
            let (_alive, runtime, _watched) = (alive, runtime, watched);
            relay::set_pipe_allowance(self.shared.fds.clone());
            runtime.block_on(self.run(listening, inbox));
        })?;
        Ok(Thread { listeners, join })
    }

    /// Until the control plane is gone and every session has ended.
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

    /// Ticks while sessions begin. Each of them sets timers, and a timer that is the next to ring makes tokio wake its
    /// driver: a system call, for timers that hardly ever ring. Behind a tick they are not the next. An idle worker has
    /// no timer at all.
    async fn tick(&self) {
        loop {
            self.began.notified().await;
            tokio::time::sleep(TICK).await;
        }
    }

    fn listen(&self, listening: Listening) {
        let worker = self.clone();
        self.tracker.spawn(async move {
            let served = match listening.listener.protocol {
                Protocol::Tcp => worker.accept(listening).await,
                // Boxed: it is larger, and most listeners are of the other kind.
                Protocol::Udp => Box::pin(worker.serve_flows(listening)).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "a listener failed");
            }
        });
    }

    async fn accept(&self, Listening { listener, cluster, stop, open: _open }: Listening) -> io::Result<()> {
        let offset = listener.offset;
        let admit = |accepted| {
            let place = Counted::on(self.idler_peer().unwrap_or(&self.own).clone());
            self.place(Handover { accepted, cluster: cluster.clone(), offset, place });
        };
        listener::accept_loop(listener, &cluster, stop, || self.give_up(&cluster), admit).await
    }

    /// When what waits in the backlog of a closed listener is no longer waited for, should there be no descriptors for it:
    /// while the process drains, at the end of that. A route that was taken out gives its port back in the end.
    async fn give_up(&self, cluster: &Cluster) {
        let (is_draining, hold) = (self.shared.stop.is_cancelled(), cluster.members().options.hold);
        tokio::select! {
            () = self.shared.force.cancelled() => {}
            () = tokio::time::sleep(hold), if !is_draining => {}
        }
    }

    /// Flows stay on the worker of their listener: they share its socket.
    async fn serve_flows(
        &self,
        Listening { listener, cluster, stop, open: _open }: Listening,
    ) -> io::Result<()> {
        let limits = UdpLimits { flows_max: FLOWS_MAX, unanswered_max: UNANSWERED_FLOWS_MAX };
        let flows = Flows { cluster, offset: listener.offset, shared: self.shared.clone() };
        udp::serve(listener.fd.into(), Arc::new(flows), limits, stop).await
    }

    /// On the worker where it is counted, or here where that one is behind.
    fn place(&self, handover: Handover) {
        if Arc::ptr_eq(&handover.place.0, &self.own) {
            return self.serve(handover);
        }
        let peer = handover.place.0.clone();
        if let Err(refused) = peer.handovers.try_send(handover) {
            self.serve(Handover { place: Counted::on(self.own.clone()), ..refused.into_inner() });
        }
    }

    /// The worker with clearly fewer sessions.
    fn idler_peer(&self) -> Option<&Arc<Peer>> {
        let own = self.own.sessions.load(Relaxed);
        let least = self.peers.iter().min_by_key(|peer| peer.sessions.load(Relaxed))?;
        is_clearly_fewer(least.sessions.load(Relaxed), own).then_some(least)
    }

    fn serve(&self, Handover { accepted, cluster, offset, place }: Handover) {
        self.began.notify_one();
        self.tracker.spawn(session::serve(accepted, cluster, offset, self.shared.clone(), place));
    }
}

/// A handover costs a wake-up of the other thread, so a small difference is let be; but of two sessions, each gets a
/// worker of its own.
fn is_clearly_fewer(theirs: usize, ours: usize) -> bool {
    theirs + theirs / 4 < ours
}

/// One session on a worker, for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<Peer>);

impl Counted {
    fn on(peer: Arc<Peer>) -> Counted {
        peer.sessions.fetch_add(1, Relaxed);
        Counted(peer)
    }
}

impl Drop for Counted {
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
