//! The options of a route, with their defaults. Pure.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::Target;

/// The options of a route. The defaults are those of [`Options::named`]; the default name is that of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The name in logs, metrics and `status`; unique in a table.
    pub name: String,
    /// How endpoints are chosen for new sessions.
    pub balance: Balance,
    /// How long an endpoint that was added or has recovered takes to receive its full share. Zero disables slow start.
    pub slow_start: Duration,
    /// Used while the targets have no endpoint.
    pub backup: Vec<Target>,
    /// How long a session is held.
    pub hold: Duration,
    /// The limit of one connect attempt; positive.
    pub connect_timeout: Duration,
    /// The maximum time without traffic. `None` is unlimited for TCP, and the default of 60 s for UDP.
    pub idle_timeout: Option<Duration>,
    /// The maximum time without traffic once one side has closed; positive.
    pub half_close_timeout: Duration,
    /// The maximum duration of a session.
    pub max_duration: Option<Duration>,
    /// The maximum number of concurrent sessions. Excess sessions are held.
    pub max_sessions: Option<u32>,
    /// The maximum number of concurrent sessions of one endpoint. Others are tried first, then sessions are held.
    pub max_sessions_per_endpoint: Option<u32>,
    /// The maximum number of new sessions per second from one client address.
    pub rate: Option<u32>,
    /// The health checks; off by default.
    pub health: Health,
    /// What happens to the open sessions of an endpoint that fails its checks.
    pub on_unhealthy: OnUnhealthy,
    /// Empty allows all clients.
    pub allow: Vec<IpNet>,
    /// Takes precedence over `allow`.
    pub deny: Vec<IpNet>,
    /// What happens to the open sessions of an endpoint that is removed.
    pub on_remove: OnRemove,
    /// The identity that the certificates of the peers of `peer://` targets must carry.
    pub identity: Option<String>,
    /// The identities that may use a `peer:` route. Empty allows every identity that our own CA issued.
    pub peers: Vec<String>,
}

/// The health checks of a route's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is checked.
    pub check: Check,
    /// From the end of one check to the next; shortened by a random part of up to a quarter, to spread checks.
    pub interval: Duration,
    /// The limit of one check, for connect and response together.
    pub timeout: Duration,
    /// The number of consecutive successful checks after which an unhealthy endpoint is healthy.
    pub rise: u32,
    /// The number of consecutive failed checks after which a healthy endpoint is unhealthy.
    pub fall: u32,
}

/// The kind of health check.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Check {
    /// No checks.
    #[default]
    Off,
    /// Connects.
    Tcp,
    /// Sends `PING`.
    Redis,
    /// Sends a startup packet.
    Postgres,
    /// Sends `GET` for this path.
    Http(String),
}

/// The treatment of sessions of an endpoint that becomes unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnUnhealthy {
    /// They continue.
    #[default]
    Drain,
    /// They are reset, with the ending `unhealthy`.
    Cut,
}

/// The load-balancing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// Endpoints take turns by weight.
    RoundRobin,
    /// The endpoint with the fewest sessions for its weight; equal ones take turns.
    #[default]
    LeastConnections,
    /// Power of two choices: of two random endpoints, the one with fewer sessions for its weight.
    P2c,
    /// A random endpoint, by weight.
    Random,
    /// The same endpoint for each client IP address while the endpoints do not change.
    SourceHash,
}

/// The treatment of sessions of an endpoint that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnRemove {
    /// They continue.
    #[default]
    Drain,
    /// They are reset, with the ending `cut`.
    Cut,
}

/// The default of [`Options::hold`].
pub const HOLD_DEFAULT: Duration = Duration::from_secs(10);
/// The maximum `hold` of a label, and the maximum time for which the listener of a removed container stays open.
pub const LABEL_HOLD_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
const HALF_CLOSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

impl Default for Health {
    fn default() -> Health {
        Health {
            check: Check::Off,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

impl Options {
    /// Returns the defaults for a route of this name.
    pub fn named(name: impl Into<String>) -> Options {
        Options {
            name: name.into(),
            balance: Balance::default(),
            slow_start: Duration::ZERO,
            backup: Vec::new(),
            hold: HOLD_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            idle_timeout: None,
            half_close_timeout: HALF_CLOSE_TIMEOUT_DEFAULT,
            max_duration: None,
            max_sessions: None,
            max_sessions_per_endpoint: None,
            rate: None,
            health: Health::default(),
            on_unhealthy: OnUnhealthy::default(),
            allow: Vec::new(),
            deny: Vec::new(),
            on_remove: OnRemove::default(),
            identity: None,
            peers: Vec::new(),
        }
    }

    /// Returns the options that differ from `defaults` as key and value, in the order of the documentation.
    pub fn differing(&self, defaults: &Options) -> Vec<(&'static str, String)> {
        let pairs = self.pairs().into_iter().zip(defaults.pairs());
        pairs.filter(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours).collect()
    }

    /// Returns every option as key and value.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let Options {
            name,
            balance,
            slow_start,
            backup,
            hold,
            connect_timeout,
            idle_timeout,
            half_close_timeout,
            max_duration,
            max_sessions,
            max_sessions_per_endpoint,
            rate,
            health: Health { check, interval, timeout, rise, fall },
            on_unhealthy,
            allow,
            deny,
            on_remove,
            identity,
            peers,
        } = self;
        vec![
            ("name", name.clone()),
            ("balance", balance.name().to_owned()),
            ("slow-start", duration(*slow_start)),
            ("backup", list(backup)),
            ("hold", duration(*hold)),
            ("connect-timeout", duration(*connect_timeout)),
            ("idle-timeout", idle_timeout.map_or_else(off, duration)),
            ("half-close-timeout", duration(*half_close_timeout)),
            ("max-duration", max_duration.map_or_else(off, duration)),
            ("max-sessions", number(*max_sessions)),
            ("max-sessions-per-endpoint", number(*max_sessions_per_endpoint)),
            ("rate", number(*rate)),
            ("health", check.to_string()),
            ("health-interval", duration(*interval)),
            ("health-timeout", duration(*timeout)),
            ("health-rise", rise.to_string()),
            ("health-fall", fall.to_string()),
            ("on-unhealthy", on_unhealthy.name().to_owned()),
            ("allow", list(allow)),
            ("deny", list(deny)),
            ("on-remove", on_remove.name().to_owned()),
            ("identity", identity.clone().unwrap_or_default()),
            ("peers", list(peers)),
        ]
    }
}

fn off() -> String {
    "off".to_owned()
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(off, |value| value.to_string())
}

fn duration(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Balance {
    /// Every algorithm, in the order of the documentation.
    pub const ALL: [Balance; 5] =
        [Balance::RoundRobin, Balance::LeastConnections, Balance::P2c, Balance::Random, Balance::SourceHash];

    /// Returns the value of the option `balance`.
    pub fn name(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round-robin",
            Balance::LeastConnections => "least-connections",
            Balance::P2c => "p2c",
            Balance::Random => "random",
            Balance::SourceHash => "source-hash",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Off => f.write_str("off"),
            Check::Tcp => f.write_str("tcp"),
            Check::Redis => f.write_str("redis"),
            Check::Postgres => f.write_str("postgres"),
            Check::Http(path) => write!(f, "http:{path}"),
        }
    }
}

impl OnUnhealthy {
    /// Every value, the default first.
    pub const ALL: [OnUnhealthy; 2] = [OnUnhealthy::Drain, OnUnhealthy::Cut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            OnUnhealthy::Drain => "drain",
            OnUnhealthy::Cut => "cut",
        }
    }
}

impl OnRemove {
    /// Every value, the default first.
    pub const ALL: [OnRemove; 2] = [OnRemove::Drain, OnRemove::Cut];

    pub(crate) fn name(self) -> &'static str {
        match self {
            OnRemove::Drain => "drain",
            OnRemove::Cut => "cut",
        }
    }
}
