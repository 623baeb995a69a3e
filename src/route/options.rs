//! How a route serves: everything after the `?`, with its defaults. Pure.

use std::time::Duration;

use ipnet::IpNet;

use super::Target;

/// Defaults are those of [`Options::named`]; the name's is the listener's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub name: String,
    pub balance: Balance,
    /// How long an endpoint that joins, or is well again, takes to get its full share. Zero: none at all.
    pub slow_start: Duration,
    /// Used while no target has an endpoint.
    pub backup: Vec<Target>,
    /// How long a session waits for an endpoint.
    pub hold: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Option<Duration>,
    pub half_close_timeout: Duration,
    pub max_sessions: Option<u32>,
    /// Empty allows everybody.
    pub allow: Vec<IpNet>,
    pub on_remove: OnRemove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    RoundRobin,
    #[default]
    LeastConnections,
    P2c,
    Random,
    SourceHash,
}

/// What happens to the sessions of an endpoint that is no longer in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnRemove {
    #[default]
    Drain,
    Cut,
}

pub const HOLD_DEFAULT: Duration = Duration::from_secs(10);
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
pub const HALF_CLOSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

impl Options {
    /// The defaults, for a route of this name.
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
            max_sessions: None,
            allow: Vec::new(),
            on_remove: OnRemove::default(),
        }
    }

    /// The options as `key=value` pairs where they differ from `defaults`, in the order of the documentation.
    pub fn differing(&self, defaults: &Options) -> Vec<(&'static str, String)> {
        let pairs = self.written().into_iter().zip(defaults.written());
        pairs.filter(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours).collect()
    }

    /// Every option, whether or not it is the default.
    fn written(&self) -> Vec<(&'static str, String)> {
        let Options {
            name,
            balance,
            slow_start,
            backup,
            hold,
            connect_timeout,
            idle_timeout,
            half_close_timeout,
            max_sessions,
            allow,
            on_remove,
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
            ("max-sessions", max_sessions.map_or_else(off, |max| max.to_string())),
            ("allow", list(allow)),
            ("on-remove", on_remove.name().to_owned()),
        ]
    }
}

fn off() -> String {
    "off".to_owned()
}

fn duration(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl Balance {
    pub const ALL: [Balance; 5] =
        [Balance::RoundRobin, Balance::LeastConnections, Balance::P2c, Balance::Random, Balance::SourceHash];

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

impl OnRemove {
    pub const ALL: [OnRemove; 2] = [OnRemove::Drain, OnRemove::Cut];

    pub fn name(self) -> &'static str {
        match self {
            OnRemove::Drain => "drain",
            OnRemove::Cut => "cut",
        }
    }
}
