//! Why a session ended: a closed set, for the access log, the metrics and outlier detection.

use std::fmt;

/// Each session, TCP or UDP, has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// Both sides said they were done.
    Finished,
    /// The consumer reset the connection, or vanished (keepalive, `TCP_USER_TIMEOUT`).
    DownstreamReset,
    /// The service reset the connection, or vanished.
    UpstreamReset,
    /// No byte either way for `idle-timeout`. The usual end of a UDP flow.
    Idle,
    /// One side was done and the other silent for `half-close-timeout`.
    HalfCloseTimeout,
    /// `hold` passed and there was never an endpoint to try.
    NoEndpoint,
    /// `hold` is zero, and no endpoint accepted.
    ConnectFailed,
    /// `hold` passed, and no endpoint accepted in that time.
    HoldExpired,
    /// The consumer left while its session was held.
    LeftWhileHeld,
    /// `--max-held` sessions were waiting already.
    HoldFull,
    /// The client's address is in `deny`, or not in `allow`.
    Denied,
    /// The client began more sessions than its `rate`.
    RateLimited,
    /// `max-sessions` or `max-sessions-per-endpoint` was reached, and nobody made room within `hold`. Or too many UDP flows: it was
    /// refused, or evicted before its endpoint had answered.
    TooMany,
    /// The session lasted for `max-duration`.
    MaxDuration,
    /// The endpoint failed its health checks, and `on-unhealthy=cut`.
    Unhealthy,
    /// The endpoint left the cluster, and `on-remove=cut`; or a UDP flow's endpoint left.
    Cut,
    /// The process was told to stop, and the drain timeout passed.
    Drained,
    /// Our own failure: out of file descriptors or memory.
    Local,
}

impl Ending {
    pub const ALL: [Ending; 18] = [
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
    ];

    /// As the access log and the metrics write it.
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
        }
    }
}

/// Which sessions have a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    Off,
    /// Those that did not end as [`Ending::Finished`].
    Errors,
    #[default]
    All,
}

impl AccessLog {
    pub fn has(self, ending: Ending) -> bool {
        match self {
            AccessLog::Off => false,
            AccessLog::Errors => ending != Ending::Finished,
            AccessLog::All => true,
        }
    }

    /// As the setting is written.
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
