//! Tunnels between peers: one TLS connection each, with one HTTP/2 stream (CONNECT, RFC 9113, 8.5) for each session.
//!
//! ```text
//!   session ──► Pool::open ──► a tunnel of this worker ──CONNECT redis──► serve ──► Request ──► session on the peer
//!                                   │ dialled if there is none              ▲
//!                                   └────────── TLS 1.3, ALPN h2 ───────────┘
//! ```
//!
//! A tunnel is one more way to accept and to dial: what both sides relay is a [`TunnelStream`], which has the operations of a
//! socket. Each worker dials its own tunnels, so that the frames of a session are read and written on the session's thread.
//! A *reverse* tunnel is dialled by the side that has the exports: there the TLS client is the HTTP/2 server.

pub mod capsule;
mod connect_udp;
mod datagrams;
mod dialled;
mod directory;
mod handshake;
mod headers;
mod liveness;
mod payload;
mod peers;
mod pool;
mod probe;
mod refusal;
mod registry;
mod serve;
mod stream;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_util::sync::CancellationToken;

use crate::address::PeerVia;
use crate::credentials::{self, CredentialKind, HandshakeFailure, PeerIdentity, Reason};
use crate::ending::Ending;
pub use connect_udp::read_any as read_any_request;
pub use datagrams::{DatagramStream, Dropped};
pub use directory::{DialledPeer, PeerFailure};
pub use headers::SessionInfo;
pub use peers::Peers;
pub use pool::{Pool, open};
pub use probe::{Probe, Step};
pub use refusal::{Refusal, Status};
use registry::Registry;
pub use serve::SessionRequest;
pub use stream::TunnelStream;
use transport::Activity;

/// The window of a stream, and that of all streams of a tunnel together. They differ, so that a stream that is not read cannot
/// stop the others.
const STREAM_WINDOW: u32 = 4 << 20;
const TUNNEL_WINDOW: u32 = 64 << 20;

/// The largest window of all streams of a tunnel. It grows by what streams have received that is not read, so that these do not
/// take the window of the others; this bounds the memory that the sessions of one tunnel take.
const TUNNEL_WINDOW_MAX: u32 = 512 << 20;

/// Sessions of one tunnel.
const STREAMS_MAX: u32 = 1024;

/// A header block of a peer.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// The protocols of TLS (RFC 7301): a tunnel whose TLS client opens the sessions, and one whose TLS server does.
pub const ALPN: &[u8] = b"h2";
/// See [`ALPN`].
pub const ALPN_REVERSE: &[u8] = b"ambassador-reverse";

/// A tunnel, as its sessions and `status` see it.
#[derive(Debug)]
pub struct Tunnel {
    /// The identity of the peer.
    pub peer: Arc<PeerIdentity>,
    /// The address of the peer.
    pub remote: SocketAddr,
    /// Which side dialled.
    pub direction: Direction,
    /// Our side of HTTP/2.
    side: Side,
    /// The verified certificates of the peer, for another verification after a change of the credentials.
    chain: Vec<CertificateDer<'static>>,
    /// The clock by which the certificate of the peer was verified.
    clock: Arc<dyn TimeProvider>,
    activity: Arc<Activity>,
    refusal: credentials::Refusal,
    streams: AtomicUsize,
    /// Bytes received by its sessions whose credit was not returned yet.
    unreleased: AtomicUsize,
    rtt_us: AtomicU32,
    loss: OnceLock<Ending>,
    /// Why the peer ended TLS. The side that dials learns only after the handshake that its certificate is refused.
    tls_failure: OnceLock<HandshakeFailure>,
    /// Why it ends, if that is on purpose.
    end: OnceLock<TunnelEnd>,
    /// How we reach the peer, if we dialled.
    via: Option<PeerVia>,
    kind: CredentialKind,
    /// The peer has answered, and the tunnel has not ended. Changed by the registry.
    is_up: AtomicBool,
    registry: Arc<Registry>,
    /// Cancelled when the tunnel must end at once.
    cut: CancellationToken,
    /// Cancelled when the tunnel takes no new sessions, and must end after its last one.
    drain: CancellationToken,
    ping: Notify,
}

/// Which side made the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We dialled the peer.
    Dialled,
    /// The peer dialled us.
    Accepted,
}

impl Direction {
    /// Returns the direction in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Dialled => "dialled",
            Direction::Accepted => "accepted",
        }
    }
}

/// Why a tunnel ended on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TunnelEnd {
    /// It had no session for a while.
    Idle,
    /// The peer ended it.
    Closed,
    /// This process stops.
    Drained,
    /// Our credentials have changed, and another tunnel uses the new ones.
    Replaced,
    /// The certificate of the peer is no longer valid.
    Expired,
}

impl TunnelEnd {
    fn as_str(self) -> &'static str {
        match self {
            TunnelEnd::Idle => "idle",
            TunnelEnd::Closed => "closed by the peer",
            TunnelEnd::Drained => "drained: this process stops",
            TunnelEnd::Replaced => "drained: the credentials have changed",
            TunnelEnd::Expired => "drained: the certificate of the peer has expired",
        }
    }
}

/// Our side of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// We open the sessions.
    Client,
    /// The peer opens the sessions.
    Server,
}

/// A tunnel that is about to be used: what the handshake yields.
struct Handshaken {
    peer: PeerIdentity,
    remote: SocketAddr,
    direction: Direction,
    chain: Vec<CertificateDer<'static>>,
    clock: Arc<dyn TimeProvider>,
    activity: Arc<Activity>,
    refusal: credentials::Refusal,
    via: Option<PeerVia>,
    kind: CredentialKind,
    registry: Arc<Registry>,
}

impl Tunnel {
    fn new(handshaken: Handshaken, side: Side) -> Tunnel {
        let Handshaken { peer, remote, direction, chain, clock, activity, refusal, via, kind, registry } =
            handshaken;
        Tunnel {
            peer: Arc::new(peer),
            remote,
            direction,
            side,
            chain,
            clock,
            activity,
            refusal,
            streams: AtomicUsize::new(0),
            unreleased: AtomicUsize::new(0),
            rtt_us: AtomicU32::new(0),
            loss: OnceLock::new(),
            tls_failure: OnceLock::new(),
            end: OnceLock::new(),
            via,
            kind,
            is_up: AtomicBool::new(false),
            registry,
            cut: CancellationToken::new(),
            drain: CancellationToken::new(),
            ping: Notify::new(),
        }
    }

    /// Returns the number of its sessions.
    pub fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Returns whether the peer opens the sessions.
    pub fn is_server(&self) -> bool {
        self.side == Side::Server
    }

    /// Returns the last measured round trip.
    pub fn rtt(&self) -> Option<Duration> {
        Some(self.rtt_us.load(Relaxed)).filter(|us| *us > 0).map(|us| Duration::from_micros(us.into()))
    }

    /// Returns when the connection was made.
    pub fn began(&self) -> Instant {
        self.activity.began()
    }

    /// Returns the bytes received and sent, with TLS.
    pub fn bytes(&self) -> (u64, u64) {
        self.activity.bytes()
    }

    /// Returns whether it takes no new sessions.
    pub fn is_closing(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Returns the window of all streams, in steps of the window of one, if it differs from `window`, which is set to it.
    fn changed_window(&self, window: &mut u32) -> Option<u32> {
        let unread = u32::try_from(self.unreleased.load(Relaxed)).unwrap_or(u32::MAX);
        let steps = unread / STREAM_WINDOW;
        let current = TUNNEL_WINDOW.saturating_add(steps * STREAM_WINDOW).min(TUNNEL_WINDOW_MAX);
        (std::mem::replace(window, current) != current).then_some(current)
    }

    /// Returns whether sessions that are not read pin half of the window of all.
    fn is_clogged(&self) -> bool {
        self.unreleased.load(Relaxed) >= TUNNEL_WINDOW as usize / 2
    }

    /// Takes no new sessions, and ends after the last one.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Takes no new sessions if the certificate of the peer is no longer valid.
    fn drain_if_expired(&self) {
        if !self.is_closing() && self.peer.has_expired(&*self.clock) {
            self.ends(TunnelEnd::Expired);
            self.drain();
        }
    }

    /// Resolves when it takes no new sessions.
    pub async fn drained(&self) {
        self.drain.cancelled().await;
    }

    /// Ends all sessions, with this ending.
    pub fn cut(&self, ending: Ending) {
        let is_first = self.loss.set(ending).is_ok();
        self.drain();
        self.cut.cancel();
        if is_first {
            self.registry.down(self);
        }
    }

    /// Records why it ends, unless that is known already.
    fn ends(&self, end: TunnelEnd) {
        let _ = self.end.set(end);
    }

    fn end(&self) -> Option<TunnelEnd> {
        self.end.get().copied()
    }

    /// Sets whether it is up. Returns whether it was. Only for the registry, which changes it under its lock.
    fn set_up(&self, is_up: bool) -> bool {
        self.is_up.swap(is_up, Relaxed)
    }

    /// Records the error of its connection, if it tells more than that the tunnel was lost.
    fn failed(&self, error: &h2::Error) {
        if let Some(failure) = self.refusal.failure(self.kind) {
            let _ = self.tls_failure.set(failure);
        } else if self.streams() == 0
            && error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
        {
            // A program that stops often closes only the socket.
            self.ends(TunnelEnd::Closed);
        }
    }

    /// Returns the error of the sessions of a tunnel that TLS has ended.
    fn tls_failure(&self) -> Option<TunnelError> {
        let failure = self.tls_failure.get()?;
        Some(TunnelError::Tls { reason: failure.reason, kind: self.kind })
    }

    /// Returns the ending of its sessions once the tunnel was lost.
    fn loss(&self) -> Option<Ending> {
        self.loss.get().copied()
    }

    fn silence(&self) -> Duration {
        self.activity.silence()
    }

    fn set_rtt(&self, rtt: Duration) {
        let was_unknown = self.rtt().is_none();
        self.rtt_us.store(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1), Relaxed);
        if was_unknown {
            self.registry.up(self);
        }
    }

    /// Has a PING sent now.
    fn ping(&self) {
        self.ping.notify_one();
    }

    async fn ping_requested(&self) {
        self.ping.notified().await;
    }
}

/// A session that is counted on its tunnel, from its request on, until it is dropped.
#[derive(Debug)]
struct Counted(Arc<Tunnel>);

impl Counted {
    fn new(tunnel: Arc<Tunnel>) -> Counted {
        tunnel.streams.fetch_add(1, Relaxed);
        Counted(tunnel)
    }

    fn get(&self) -> &Arc<Tunnel> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// Why a session could not be opened through a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The peer has answered.
    #[error("{0}")]
    Refused(Status),
    /// TLS failed.
    #[error("{}", .reason.message())]
    Tls {
        /// Why.
        reason: Reason,
        /// What we authenticate peers by.
        kind: CredentialKind,
    },
    /// The tunnel broke.
    #[error("the tunnel was lost")]
    Lost,
    /// All tunnels to the peer are full.
    #[error("all tunnels to the peer are full")]
    Full,
    /// The peer has no tunnel to us.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer does not carry UDP.
    #[error("the peer does not carry UDP")]
    NoDatagrams,
    /// There are no credentials.
    #[error("no credentials for peers are configured")]
    NoCredentials,
}

impl TunnelError {
    /// Returns a number below 16,384 that identifies the error.
    pub(crate) fn code(self) -> u16 {
        match self {
            TunnelError::Refused(Status(status)) => status.min(0xfff),
            TunnelError::Tls { reason, kind } => 0x1000 | (kind as u16) << 8 | reason as u16,
            TunnelError::Lost => 0x2000,
            TunnelError::NotConnected => 0x2001,
            TunnelError::NoCredentials => 0x2002,
            TunnelError::Full => 0x2003,
            TunnelError::NoDatagrams => 0x2004,
        }
    }

    /// Returns the error of this number.
    pub(crate) fn from_code(code: u16) -> Option<TunnelError> {
        match code {
            0..0x1000 => Some(TunnelError::Refused(Status(code))),
            0x1000..0x2000 => {
                let kind = *CredentialKind::ALL.get(usize::from(code >> 8 & 0xf))?;
                let reason = *Reason::ALL.get(usize::from(code & 0xff))?;
                Some(TunnelError::Tls { reason, kind })
            }
            0x2000 => Some(TunnelError::Lost),
            0x2001 => Some(TunnelError::NotConnected),
            0x2002 => Some(TunnelError::NoCredentials),
            0x2003 => Some(TunnelError::Full),
            0x2004 => Some(TunnelError::NoDatagrams),
            _ => None,
        }
    }

    /// Returns what to do.
    pub fn help(self) -> Option<&'static str> {
        match self {
            TunnelError::Refused(status) => status.help(),
            TunnelError::Tls { reason, kind } => Some(reason.help(kind)),
            TunnelError::Lost | TunnelError::Full | TunnelError::NoDatagrams => None,
            TunnelError::NotConnected => Some("is the peer running, with --peer-dial to this host?"),
            TunnelError::NoCredentials => Some("set --peer-secret-file, or --peer-cert and --peer-ca"),
        }
    }

    /// Returns the error that [`open`] has wrapped.
    pub fn of(error: &std::io::Error) -> Option<TunnelError> {
        error.get_ref()?.downcast_ref().copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
