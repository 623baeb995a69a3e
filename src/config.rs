//! What the program was asked to do, from arguments, environment and file, as one value without loose ends.

pub mod ancestor;
pub mod args;
pub mod check;
pub mod conflicts;
mod consul;
pub mod dns;
mod docker;
pub mod etcd;
pub mod grammar;
pub mod hosts;
pub mod links;
mod load;
pub mod nearest;
mod nothing;
pub mod raw;
pub mod secret;
pub mod server;
pub mod settings;
pub mod vars;

pub use consul::ConsulConfig;
pub(crate) use consul::consul as consul_config;
pub use docker::SOCKET_DEFAULT;
pub(crate) use docker::host as docker_host;
pub(crate) use etcd::access as etcd_access;
pub(crate) use load::{is_own_descriptor, log_config, read_text, unreadable};
pub use load::{load, log_format, parse_admin};

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::outlier::MAX_EJECTED_DEFAULT;
use crate::config::dns::Limits;
use crate::config::server::Server;
use crate::diagnostic::Diagnostic;
use crate::ending::AccessLog;
use crate::route::{Layer, Route};
use etcd::EtcdAccess;

/// What will run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Routes of the arguments, of `AMBASSADOR_ROUTES`, and of the file, in this order of precedence.
    pub arguments: Layer,
    pub environment: Layer,
    pub file: Layer,
    /// Routes of link variables; empty where they are not read.
    pub links: Layer,
    /// The file to watch.
    pub path: Option<PathBuf>,
    /// `None` where nothing asks for Docker.
    pub docker: Option<DockerConfig>,
    /// Where an engine would be, for a file that asks for it later. `None` where the settings for it make no sense.
    pub docker_host: Option<DockerHost>,
    pub etcd: EtcdAccess,
    pub workers: NonZeroUsize,
    pub drain_timeout: Duration,
    pub max_held: usize,
    /// Percent of a route's endpoints that outlier detection may leave out.
    pub max_ejected: u8,
    pub dns: Limits,
    pub consul: ConsulConfig,
    /// `None` for the default unix socket.
    pub admin: Option<AdminAddr>,
    /// Names by which the admin API may be reached on TCP, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// `XDG_RUNTIME_DIR`: where the default admin socket goes when `/run` is not ours to write.
    pub runtime_dir: Option<PathBuf>,
    pub log: LogConfig,
    pub access_log: AccessLog,
    /// What is wrong, but keeps nothing from running: link variables that cannot be used, and the like.
    pub warnings: Vec<Diagnostic>,
}

/// How to reach the engine, and which routes to take from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    pub host: DockerHost,
    /// `-name`: containers whose every exposed port becomes a route.
    pub names: Vec<String>,
    /// Labelled containers and this container's own links: the implicit routes, or `--docker`.
    pub implicit: bool,
    /// Containers that are no replicas of one another may share a listener by label.
    pub share_labels: bool,
}

/// As `DOCKER_HOST` names it.
pub type DockerHost = Server;

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    Unix(PathBuf),
    /// Of an abstract unix socket, without the zero byte that it begins with.
    Abstract(String),
    Tcp(SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogConfig {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Less than the 10 s that Docker waits between SIGTERM and SIGKILL, so that the process ends by itself.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(9);

/// A held session costs a file descriptor; more of them than this would take those of the sessions that work.
pub const MAX_HELD_DEFAULT: usize = 10_000;

impl Config {
    /// The defaults, with these routes: for tests and the demo.
    pub fn with_routes(routes: Vec<Route>) -> Config {
        Config {
            arguments: Layer { routes },
            environment: Layer::default(),
            file: Layer::default(),
            links: Layer::default(),
            path: None,
            docker: None,
            docker_host: None,
            etcd: EtcdAccess::default(),
            workers: load::cores(),
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            max_held: MAX_HELD_DEFAULT,
            max_ejected: MAX_EJECTED_DEFAULT,
            dns: Limits::default(),
            consul: ConsulConfig::default(),
            admin: None,
            admin_hosts: Vec::new(),
            runtime_dir: None,
            log: LogConfig::default(),
            access_log: AccessLog::default(),
            warnings: Vec::new(),
        }
    }

    /// Nothing to serve and nothing to watch.
    pub fn is_empty(&self) -> bool {
        let layers = [&self.arguments, &self.environment, &self.file, &self.links];
        layers.iter().all(|layer| layer.routes.is_empty()) && self.path.is_none() && self.docker.is_none()
    }
}
