//! The configuration: arguments, environment and file, read into one [`Config`] in which nothing is left to resolve.

pub mod args;
pub mod conflicts;
mod consul;
pub mod dns;
mod docker;
pub mod etcd;
pub mod file;
pub mod grammar;
pub mod hosts;
pub mod legacy_args;
pub mod links;
mod load;
pub mod peer;
mod read;
pub mod secret;
pub mod server;
pub mod settings;
pub mod suggest;
pub mod vars;
pub mod web;

pub use consul::ConsulConfig;
pub(crate) use consul::consul as consul_config;
pub(crate) use docker::{SOCKET_DEFAULT, host as docker_host};
pub(crate) use etcd::access as etcd_access;
#[cfg(test)]
pub(crate) use load::COMMANDS;
pub(crate) use load::{CONFIG, ROUTES, log_config, peer_settings};
pub use load::{load, log_format, parse_admin};
pub(crate) use read::{is_own_descriptor, read_text, unreadable};

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::route::{Layer, Route};
use etcd::EtcdAccess;
use server::Server;
use settings::Settings;

/// The complete configuration of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The routes of the arguments. Takes precedence over `environment`, which takes precedence over `file`.
    pub arguments: Layer,
    /// The routes of `AMBASSADOR_ROUTES`.
    pub environment: Layer,
    /// The routes of the file.
    pub file: Layer,
    /// The routes of link variables; empty where they are not read.
    pub links: Layer,
    /// The file to watch.
    pub path: Option<PathBuf>,
    /// `None` where neither a route nor a flag requires Docker.
    pub docker: Option<DockerConfig>,
    /// How Docker would be reached if a reloaded file requires it. `None` where its settings are invalid.
    pub docker_host: Option<DockerHost>,
    /// The credentials for etcd.
    pub etcd: EtcdAccess,
    /// The default agent of Consul and the token.
    pub consul: ConsulConfig,
    /// Arguments take precedence over the environment, which takes precedence over the file.
    pub settings: Settings,
    /// Whether the certificates are those of the file, and change with it.
    pub certificates_of_file: bool,
    /// `XDG_RUNTIME_DIR`: the directory of the default admin socket where `/run` is not writable.
    pub runtime_dir: Option<PathBuf>,
    /// Problems that do not prevent the start, such as link variables that cannot be used.
    pub warnings: Vec<Diagnostic>,
}

/// How Docker is reached, and which routes are taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// The address of the engine.
    pub host: DockerHost,
    /// Containers each of whose exposed ports becomes a route (`-name`).
    pub names: Vec<String>,
    /// Take routes from labelled containers and from this container's own links.
    pub implicit: bool,
    /// Allow containers that are not replicas of each other to share a listener by label.
    pub share_labels: bool,
}

/// The address of a Docker engine, as in `DOCKER_HOST`.
pub type DockerHost = Server;

/// The address of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// The name of an abstract unix socket, without its leading zero byte.
    Abstract(String),
    /// An IP address and a port. The unix socket at the default path is bound as well.
    Tcp(SocketAddr),
}

/// Displays the address in the syntax of `--admin`.
impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            AdminAddr::Abstract(name) => write!(f, "@{name}"),
            AdminAddr::Tcp(addr) => write!(f, "{addr}"),
        }
    }
}

/// The settings of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// The lowest level that is logged (`--log-level`).
    pub level: LogLevel,
    /// The format of each line (`--log-format`).
    pub format: LogFormat,
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Failures that need attention.
    Error,
    /// Also problems that the program handles.
    Warn,
    /// Also changes of routes, endpoints and sources, and the access log.
    #[default]
    Info,
    /// Also details for diagnosis; lines of text name their module.
    Debug,
    /// Everything.
    Trace,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text per event, for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogLevel {
    pub(crate) const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// Returns the name of the level in `--log-level`.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl LogFormat {
    pub(crate) const ALL: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

    /// Returns the name of the format in `--log-format`.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl Config {
    /// Returns the defaults with these routes, for tests and the demo.
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
            consul: ConsulConfig::default(),
            settings: Settings::default(),
            certificates_of_file: false,
            runtime_dir: None,
            warnings: Vec::new(),
        }
    }

    /// Returns why the settings of peers do not permit written routes. `load` has found none; a CA that is read later may be
    /// foreign, and then exports without `peers` are not permitted.
    pub fn peer_refusals(&self) -> Vec<Diagnostic> {
        let layers = [&self.arguments, &self.environment, &self.file];
        self.settings.peer.refusals(layers.into_iter().flat_map(|layer| &layer.routes))
    }

    /// Returns the written routes.
    pub fn written(&self) -> impl Iterator<Item = &Route> {
        [&self.arguments, &self.environment, &self.file].into_iter().flat_map(|layer| &layer.routes)
    }

    /// Returns whether there are no routes and no source of routes.
    pub fn is_empty(&self) -> bool {
        let layers = [&self.arguments, &self.environment, &self.file, &self.links];
        layers.iter().all(|layer| layer.routes.is_empty()) && self.path.is_none() && self.docker.is_none()
    }
}
