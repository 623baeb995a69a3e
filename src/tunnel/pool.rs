//! The tunnels that one thread has dialled, and the sessions that it opens in them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::dialled::{Dialled, OpenError, open_tunnel};
use super::handshake::Purpose;
use super::peers::Peers;
use super::{SessionInfo, Tunnel, TunnelError, TunnelStream, lock};
use crate::address::{PeerAddr, PeerVia};
use crate::backoff::{Backoff, jittered};
use crate::route::Protocol;

/// Tunnels of one thread to one peer, and the sessions of each before another one is dialled. Sessions beyond that still use
/// the tunnels that there are, up to the limit of each.
const TUNNELS_MAX: usize = 8;
const SESSIONS_PER_TUNNEL: usize = 128;

/// After a failed dial, sessions get its error for this time, so that a thousand held sessions do not dial a thousand times.
const FAILURE_TTL: Duration = Duration::from_millis(100);

/// The same after a failure of TLS.
const REFUSED_MIN: Duration = Duration::from_millis(100);
const REFUSED_MAX: Duration = Duration::from_secs(5);

/// How long the failures of a peer are remembered. Peers come and go with their addresses.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// How long the last bytes of a tunnel may take when the process stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Tunnels that are tried for one session. A tunnel may end while a session is opened in it.
const ATTEMPTS: usize = 3;

thread_local! {
    static POOL: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
}

/// The tunnels of one thread.
#[derive(Debug)]
pub struct Pool {
    peers: Arc<Peers>,
    entries: Mutex<HashMap<PeerVia, Entry>>,
    tasks: TaskTracker,
}

/// The tunnels to one peer.
#[derive(Debug)]
struct Entry {
    tunnels: Vec<Dialled>,
    /// The dial in progress, of which there is at most one.
    dialling: Option<watch::Receiver<DialState>>,
    /// The last failure, and until when sessions get it without another dial.
    failure: Option<(Instant, Failure)>,
    backoff: Backoff,
}

/// `None` while the dial is in progress.
type DialState = Option<Result<(), Failure>>;

/// An [`io::Error`] that can be copied.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Tunnel(TunnelError),
    System(i32),
    Kind(io::ErrorKind),
}

/// Opens a session through a peer, in a tunnel of the calling thread. No byte of the session is sent before the peer has
/// accepted it. A tunnel is made within `connect_timeout`; then the peer may take the time that the session is held.
///
/// # Errors
///
/// Fails with the error of the connection, or with a [`TunnelError`].
pub async fn open(
    addr: &PeerAddr,
    protocol: Protocol,
    info: SessionInfo,
    connect_timeout: Duration,
) -> io::Result<TunnelStream> {
    let pool = POOL.with_borrow(Clone::clone).ok_or_else(|| io::Error::other(TunnelError::NoCredentials))?;
    pool.open(addr, protocol, info, connect_timeout).await
}

impl Pool {
    /// Gives the calling thread a pool.
    pub fn enter(peers: Arc<Peers>) {
        let pool = Pool { peers, entries: Mutex::default(), tasks: TaskTracker::new() };
        POOL.set(Some(Arc::new(pool)));
    }

    async fn open(
        self: Arc<Pool>,
        PeerAddr { via, export }: &PeerAddr,
        protocol: Protocol,
        info: SessionInfo,
        connect_timeout: Duration,
    ) -> io::Result<TunnelStream> {
        let deadline = Instant::now() + connect_timeout;
        for _ in 0..ATTEMPTS {
            let dialled = timeout_at(deadline, self.tunnel(via, protocol, connect_timeout)).await??;
            match dialled.open(protocol, export, info, connect_timeout).await {
                Ok(stream) => return Ok(stream),
                Err(OpenError::Tunnel) => {}
                Err(OpenError::Peer(error)) => return Err(io::Error::other(error)),
                Err(OpenError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(io::Error::other(TunnelError::Lost))
    }

    /// Returns a tunnel with room for a session, and dials one if there is none.
    async fn tunnel(
        self: &Arc<Pool>,
        via: &PeerVia,
        protocol: Protocol,
        connect_timeout: Duration,
    ) -> io::Result<Dialled> {
        if let PeerVia::Reverse { identity, ip } = via {
            let dialled = self.peers.reverse(identity, *ip, protocol);
            return dialled.ok_or_else(|| io::Error::other(TunnelError::NotConnected));
        }
        loop {
            let mut dialling = {
                let mut entries = lock(&self.entries);
                if !entries.contains_key(via) {
                    entries.retain(|_, entry| !entry.is_forgotten());
                }
                let entry = entries.entry(via.clone()).or_default();
                if let Some(dialled) = entry.choose(protocol) {
                    if entry.is_loaded() && entry.dialling.is_none() {
                        entry.dialling = Some(self.dial(via.clone(), connect_timeout));
                    }
                    return Ok(dialled);
                }
                if let Some(failure) = entry.recent_failure() {
                    return Err(failure.into());
                }
                if entry.tunnels.len() >= TUNNELS_MAX {
                    return Err(io::Error::other(TunnelError::Full));
                }
                let dial = || self.dial(via.clone(), connect_timeout);
                entry.dialling.get_or_insert_with(dial).clone()
            };
            let outcome = dialling.wait_for(Option::is_some).await;
            if let Some(Err(failure)) = outcome.ok().and_then(|outcome| *outcome) {
                return Err(failure.into());
            }
        }
    }

    /// Dials, independently of the session that needs the tunnel first.
    fn dial(self: &Arc<Pool>, via: PeerVia, connect_timeout: Duration) -> watch::Receiver<DialState> {
        let (outcome, dialling) = watch::channel(None);
        let pool = self.clone();
        self.tasks.spawn(async move {
            let dialled = pool.dial_now(&via, connect_timeout).await;
            let (result, opened) = match dialled {
                Ok(opened) => (Ok(()), Some(opened)),
                Err(error) => (Err(Failure::of(&error)), None),
            };
            {
                let mut entries = lock(&pool.entries);
                let entry = entries.entry(via.clone()).or_default();
                entry.dialling = None;
                if let Err(failure) = result {
                    entry.failed(failure);
                }
            }
            let _ = outcome.send(Some(result));
            drop(outcome);
            if let Some((tunnel, driver)) = opened {
                pool.drive(&via, &tunnel, driver).await;
            }
        });
        dialling
    }

    /// Drives a tunnel until it ends. It ends by itself once it has no sessions and none can be opened.
    async fn drive(&self, via: &PeerVia, tunnel: &Arc<Tunnel>, driver: impl Future<Output = ()>) {
        let mut driver = pin!(driver);
        tokio::select! {
            () = &mut driver => {}
            () = tunnel.drained() => {}
        }
        if let Some(entry) = lock(&self.entries).get_mut(via) {
            entry.tunnels.retain(|dialled| !Arc::ptr_eq(&dialled.tunnel, tunnel));
        }
        if tunnel.loss().is_none() {
            driver.await;
        }
        // The peer has refused our certificate, which we learn only after the handshake.
        if let Some(entry) = lock(&self.entries).get_mut(via) {
            match tunnel.tls_failure() {
                Some(failure) => entry.failed(Failure::Tunnel(failure)),
                None => entry.backoff.reset(),
            }
        }
    }

    /// Ends the tunnels of the calling thread, which have no sessions any more, once everything is written.
    pub async fn close() {
        let Some(pool) = POOL.with_borrow(Clone::clone) else { return };
        lock(&pool.entries).clear();
        pool.tasks.close();
        // A peer that does not read must not keep the process.
        let _ = timeout(CLOSE_TIMEOUT, pool.tasks.wait()).await;
    }

    /// Makes a tunnel and lists it. Returns it and the future that drives it.
    async fn dial_now(
        &self,
        via: &PeerVia,
        connect_timeout: Duration,
    ) -> io::Result<(Arc<Tunnel>, impl Future<Output = ()> + Send + use<>)> {
        let PeerVia::Dial { addr, name } = via else { return Err(io::ErrorKind::Unsupported.into()) };
        let (stream, handshaken) = self.peers.dial(*addr, name, Purpose::Open, connect_timeout).await?;
        let (dialled, driver) = open_tunnel(stream, handshaken, true).await.map_err(io::Error::other)?;
        self.peers.enter(&dialled.tunnel);
        let tunnel = dialled.tunnel.clone();
        lock(&self.entries).entry(via.clone()).or_default().tunnels.push(dialled);
        Ok((tunnel, driver))
    }
}

impl Default for Entry {
    fn default() -> Entry {
        let backoff = Backoff::new(REFUSED_MIN, REFUSED_MAX);
        Entry { tunnels: Vec::new(), dialling: None, failure: None, backoff }
    }
}

impl Entry {
    /// Records a failed dial. A peer that does not trust us, or that we do not trust, must be repaired by people: it is dialled
    /// less and less often.
    fn failed(&mut self, failure: Failure) {
        let pause = match failure {
            Failure::Tunnel(TunnelError::Tls { .. }) => jittered(self.backoff.next_pause()),
            Failure::Tunnel(_) | Failure::System(_) | Failure::Kind(_) => FAILURE_TTL,
        };
        self.failure = Some((Instant::now() + pause, failure));
    }

    /// Returns whether nothing is lost without it: no tunnel, and no failure that makes the next pause longer.
    fn is_forgotten(&self) -> bool {
        let is_old = |(until, _): (Instant, Failure)| until.elapsed() > FORGOTTEN_AFTER;
        self.tunnels.is_empty() && self.dialling.is_none() && self.failure.is_none_or(is_old)
    }

    fn recent_failure(&self) -> Option<Failure> {
        let (until, failure) = self.failure?;
        (Instant::now() < until).then_some(failure)
    }

    /// Returns the tunnel with the fewest sessions, if it has room, and forgets those that have ended.
    fn choose(&mut self, protocol: Protocol) -> Option<Dialled> {
        self.tunnels.retain(|dialled| !dialled.tunnel.is_closing());
        let has_room = self.tunnels.iter().filter(|dialled| dialled.has_room(protocol));
        has_room.min_by_key(|dialled| dialled.tunnel.streams()).cloned()
    }

    /// Returns whether another tunnel is worth its handshake.
    fn is_loaded(&self) -> bool {
        let is_full = |dialled: &Dialled| dialled.tunnel.streams() >= SESSIONS_PER_TUNNEL;
        self.tunnels.len() < TUNNELS_MAX && self.tunnels.iter().all(is_full)
    }
}

impl Failure {
    fn of(error: &io::Error) -> Failure {
        match (error.raw_os_error(), TunnelError::of(error)) {
            (Some(code), _) => Failure::System(code),
            (None, Some(error)) => Failure::Tunnel(error),
            (None, None) => Failure::Kind(error.kind()),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        match failure {
            Failure::Tunnel(error) => io::Error::other(error),
            Failure::System(code) => io::Error::from_raw_os_error(code),
            Failure::Kind(kind) => kind.into(),
        }
    }
}
