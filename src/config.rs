//! What the program was asked to do, from arguments, environment and file, as one value without loose ends.

pub mod args;
pub mod check;
pub mod grammar;
pub mod nearest;
pub mod raw;
pub mod vars;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::route::{Layer, Route};
use args::RunArgs;
use vars::Vars;

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
    pub workers: NonZeroUsize,
    pub drain_timeout: Duration,
    pub max_held: usize,
    /// `None` for the default unix socket.
    pub admin: Option<AdminAddr>,
    /// `XDG_RUNTIME_DIR`: where the default admin socket goes when `/run` is not ours to write.
    pub runtime_dir: Option<PathBuf>,
    pub log: LogConfig,
}

/// How to reach the engine, and which routes to take from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    pub host: DockerHost,
    /// `-name`: containers whose every exposed port becomes a route.
    pub names: Vec<String>,
    /// Labelled containers and this container's own links: the implicit routes, or `--docker`.
    pub implicit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port`; `verify` is Docker's `--tlsverify`.
    Tls {
        address: String,
        ca: PathBuf,
        cert: PathBuf,
        key: PathBuf,
        verify: bool,
    },
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    Unix(PathBuf),
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

/// Reads everything that can be read without asking the network. Every mistake at once.
///
/// An empty configuration is not a mistake here: see [`Config::is_empty`].
pub fn load(args: &RunArgs, vars: &Vars) -> Result<Config, Vec<Diagnostic>> {
    let mut routes = vec![];
    for (n, r) in args.routes.iter().enumerate() {
        routes.push(grammar::parse_route(r, &crate::diagnostic::Place::Argument(n + 1))?);
    }
    let mut c = Config::with_routes(routes);
    if let Some(a) = vars.value("AMBASSADOR_ADMIN") {
        c.admin = Some(AdminAddr::Unix(a.into()));
    }
    Ok(c)
}
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
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            drain_timeout: Duration::from_secs(10),
            max_held: 10_000,
            admin: None,
            runtime_dir: None,
            log: LogConfig::default(),
        }
    }

    /// Nothing to serve and nothing to watch.
    pub fn is_empty(&self) -> bool {
        let layers = [&self.arguments, &self.environment, &self.file, &self.links];
        layers.iter().all(|layer| layer.routes.is_empty()) && self.path.is_none() && self.docker.is_none()
    }
}

pub fn parse_admin(text: &str, _place: &crate::diagnostic::Place) -> Result<AdminAddr, Diagnostic> {
    Ok(AdminAddr::Unix(text.into()))
}
impl Config {
    pub fn nothing_to_do(&self, _v: &Vars) -> String {
        "nothing\n".into()
    }
}
