//! The options of a route, with their defaults. Pure.

use std::fmt;
use std::path::PathBuf;
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
    /// The clients that send a PROXY protocol header, which is required from them.
    pub accept_proxy: Vec<ProxySender>,
    /// The version of the PROXY protocol header that is sent to endpoints.
    pub send_proxy: Option<ProxyVersion>,
    /// What a header of version 2 contains in addition to the addresses.
    pub proxy_tlv: Vec<ProxyTlv>,
    /// Whether health checks send a header too. Only used with `send_proxy`.
    pub health_proxy: bool,
    /// The name of the certificates with which TLS is terminated.
    pub tls: Option<String>,
    /// The identities of clients that may connect. Empty allows every certificate that `tls_ca` has issued.
    pub tls_peers: Vec<String>,
    /// The CAs of the certificates that clients must have.
    pub tls_ca: Option<PathBuf>,
    /// The CAs of `tls://` endpoints. `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The name that `tls://` endpoints are asked for, and must prove, in place of their host.
    pub sni: Option<String>,
    /// The name of our client certificate for `tls://` endpoints.
    pub cert: Option<String>,
}

/// Clients that send a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxySender {
    /// Those with an address in this network.
    Net(IpNet),
    /// Those of a unix socket.
    Unix,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// The text header.
    V1,
    /// The binary header.
    V2,
}

/// A field of a PROXY protocol header of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyTlv {
    /// How the client has used TLS, and the name in its certificate.
    Ssl,
    /// An identifier of the session.
    UniqueId,
    /// The name that the client has asked for by SNI.
    Authority,
    /// The identity of the client, as ztunnel writes it.
    Identity,
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
            accept_proxy: Vec::new(),
            send_proxy: None,
            proxy_tlv: Vec::new(),
            health_proxy: true,
            tls: None,
            tls_peers: Vec::new(),
            tls_ca: None,
            ca: None,
            sni: None,
            cert: None,
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
            accept_proxy,
            send_proxy,
            proxy_tlv,
            health_proxy,
            tls,
            tls_peers,
            tls_ca,
            ca,
            sni,
            cert,
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
            ("identity", text(identity.as_ref())),
            ("peers", list(peers)),
            ("accept-proxy", list(accept_proxy)),
            ("send-proxy", send_proxy.map_or_else(off, |version| version.name().to_owned())),
            ("proxy-tlv", proxy_tlv.iter().map(|tlv| tlv.name()).collect::<Vec<_>>().join(",")),
            ("health-proxy", if *health_proxy { "on" } else { "off" }.to_owned()),
            ("tls", text(tls.as_ref())),
            ("tls-peers", list(tls_peers)),
            ("tls-ca", path(tls_ca.as_ref())),
            ("ca", path(ca.as_ref())),
            ("sni", text(sni.as_ref())),
            ("cert", text(cert.as_ref())),
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

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn path(value: Option<&PathBuf>) -> String {
    value.map(|path| path.display().to_string()).unwrap_or_default()
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

impl ProxyVersion {
    /// Every version.
    pub const ALL: [ProxyVersion; 2] = [ProxyVersion::V1, ProxyVersion::V2];

    /// Returns the value of the option `send-proxy`.
    pub fn name(self) -> &'static str {
        match self {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        }
    }
}

impl ProxyTlv {
    /// Every field, in the order of the documentation.
    pub const ALL: [ProxyTlv; 4] =
        [ProxyTlv::Ssl, ProxyTlv::UniqueId, ProxyTlv::Authority, ProxyTlv::Identity];

    /// Returns the value of the option `proxy-tlv`.
    pub fn name(self) -> &'static str {
        match self {
            ProxyTlv::Ssl => "ssl",
            ProxyTlv::UniqueId => "unique-id",
            ProxyTlv::Authority => "authority",
            ProxyTlv::Identity => "identity",
        }
    }
}

impl fmt::Display for ProxySender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxySender::Net(net) => net.fmt(f),
            ProxySender::Unix => f.write_str("unix"),
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
