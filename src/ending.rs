//! Why a session ended: a closed set, for the access log, the metrics and outlier detection. Pure.

use std::fmt;

/// The reason for which a session, TCP or UDP, ended. Each session has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Both sides closed the connection, or the peer has ended a UDP flow.
    Finished,
    /// The client reset the connection, or vanished (keepalive, `TCP_USER_TIMEOUT`).
    DownstreamReset,
    /// The endpoint reset the connection, or vanished.
    UpstreamReset,
    /// No byte in either direction for `idle-timeout`. The usual end of a UDP flow.
    Idle,
    /// One side had finished and the other was idle for `half-close-timeout`.
    HalfCloseTimeout,
    /// `hold` passed, and there was no endpoint to try.
    NoEndpoint,
    /// `hold` is zero, and no endpoint accepted.
    ConnectFailed,
    /// `hold` passed, and no endpoint accepted in that time.
    HoldExpired,
    /// The client left while its session was held.
    LeftWhileHeld,
    /// `--max-held` sessions were held already.
    HoldFull,
    /// The client's address is in `deny`, or not in `allow`.
    Denied,
    /// The client exceeded its `rate` of new sessions.
    RateLimited,
    /// `max-sessions` or `max-sessions-per-endpoint` was reached, and no session ended within `hold`. Or there were too many UDP
    /// flows, and this one was refused, or evicted before its endpoint had answered.
    TooMany,
    /// The session lasted for `max-duration`.
    MaxDuration,
    /// The endpoint failed its health checks, and `on-unhealthy=cut`.
    Unhealthy,
    /// The endpoint was removed from the cluster, and `on-remove=cut`; or the endpoint of a UDP flow was removed.
    Cut,
    /// The process was stopped, and the drain timeout passed.
    Drained,
    /// A failure of this process: out of file descriptors or memory.
    Local,
    /// The peer does not have the export, or this host may not use it.
    PeerRefused,
    /// The tunnel broke: the peer vanished, or was stopped.
    TunnelLost,
    /// The certificate of the peer was revoked, or is not trusted any more.
    PeerRevoked,
    /// No tunnel could be made, because one side does not trust the other; or a client or an endpoint failed in TLS.
    TlsFailed,
    /// The client sent no valid PROXY protocol header, which `accept-proxy` requires.
    ProxyHeader,
    /// No route of the listener serves the name that the client has asked for by SNI.
    UnknownName,
}

impl Ending {
    /// Every ending, in the order of its number.
    pub const ALL: [Ending; 24] = [
        Ending::Finished,
        Ending::DownstreamReset,
        Ending::UpstreamReset,
        Ending::Idle,
        Ending::HalfCloseTimeout,
        Ending::NoEndpoint,
        Ending::ConnectFailed,
        Ending::HoldExpired,
        Ending::LeftWhileHeld,
        Ending::HoldFull,
        Ending::Denied,
        Ending::RateLimited,
        Ending::TooMany,
        Ending::MaxDuration,
        Ending::Unhealthy,
        Ending::Cut,
        Ending::Drained,
        Ending::Local,
        Ending::PeerRefused,
        Ending::TunnelLost,
        Ending::PeerRevoked,
        Ending::TlsFailed,
        Ending::ProxyHeader,
        Ending::UnknownName,
    ];

    /// Returns the name in the access log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Finished => "finished",
            Ending::DownstreamReset => "downstream-reset",
            Ending::UpstreamReset => "upstream-reset",
            Ending::Idle => "idle",
            Ending::HalfCloseTimeout => "half-close-timeout",
            Ending::NoEndpoint => "no-endpoint",
            Ending::ConnectFailed => "connect-failed",
            Ending::HoldExpired => "hold-expired",
            Ending::LeftWhileHeld => "left-while-held",
            Ending::HoldFull => "hold-full",
            Ending::Denied => "denied",
            Ending::RateLimited => "rate-limited",
            Ending::TooMany => "too-many",
            Ending::MaxDuration => "max-duration",
            Ending::Unhealthy => "unhealthy",
            Ending::Cut => "cut",
            Ending::Drained => "drained",
            Ending::Local => "local",
            Ending::PeerRefused => "peer-refused",
            Ending::TunnelLost => "tunnel-lost",
            Ending::PeerRevoked => "peer-revoked",
            Ending::TlsFailed => "tls-failed",
            Ending::ProxyHeader => "proxy-header",
            Ending::UnknownName => "unknown-name",
        }
    }

    /// Returns whether the session failed for a reason on this side: the service, the way to it, or a limit. Not what clients can
    /// cause alone, nor what the configuration requests.
    pub fn is_failure(self) -> bool {
        match self {
            Ending::UpstreamReset
            | Ending::NoEndpoint
            | Ending::ConnectFailed
            | Ending::HoldExpired
            | Ending::LeftWhileHeld
            | Ending::HoldFull
            | Ending::TooMany
            | Ending::Unhealthy
            | Ending::Local
            | Ending::PeerRefused
            | Ending::TunnelLost
            | Ending::PeerRevoked
            | Ending::TlsFailed => true,
            Ending::Finished
            | Ending::DownstreamReset
            | Ending::Idle
            | Ending::HalfCloseTimeout
            | Ending::Denied
            | Ending::RateLimited
            | Ending::MaxDuration
            | Ending::Cut
            | Ending::Drained
            | Ending::ProxyHeader
            | Ending::UnknownName => false,
        }
    }
}

/// Which sessions are in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those that did not end as [`Ending::Finished`].
    Errors,
    /// All.
    #[default]
    All,
}

impl AccessLog {
    /// Returns whether a session with this ending is logged.
    pub fn includes(self, ending: Ending) -> bool {
        match self {
            AccessLog::Off => false,
            AccessLog::Errors => ending != Ending::Finished,
            AccessLog::All => true,
        }
    }

    /// Returns the value of the setting.
    pub fn name(self) -> &'static str {
        match self {
            AccessLog::Off => "off",
            AccessLog::Errors => "errors",
            AccessLog::All => "all",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
