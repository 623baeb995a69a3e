//! A subject of the benchmark: a kind of proxy, its program, and how it is started for one route.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::{Process, killed_with_parent};
use super::listening::{Protocol, listens};
use crate::process::wait_until;

/// Envoy starts in half a second, and in ten times that on a busy machine.
const START: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// No proxy: the upper limit.
    Direct,
    Ambassador(AccessLog),
    Haproxy(Splice),
    Envoy,
    Nginx,
    Socat,
    DockerProxy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AccessLog {
    Off,
    On,
}

/// The suffix of the name of the subject that writes an access log.
pub(super) const LOG_SUFFIX: &str = "-log";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Splice {
    Off,
    On,
}

#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Empty without a proxy.
    pub(super) program: PathBuf,
    pub(super) version: String,
}

/// One route.
pub(super) struct Route {
    pub(super) protocol: Protocol,
    pub(super) ports: Ports,
    pub(super) target: SocketAddr,
    pub(super) workers: usize,
}

/// The ports listened on. A range leads to the same ports of the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    One(u16),
    Range(u16, u16),
}

/// A running proxy.
pub(super) struct Running {
    process: Option<Process>,
    /// The address for clients.
    pub(super) address: SocketAddr,
}

impl Running {
    /// Returns the pid of the first process; `None` without a proxy.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }
}

impl Subject {
    /// Starts the proxy and waits until it listens.
    pub(super) fn start(&self, route: &Route, dir: &Path) -> Result<Running> {
        if self.kind == Kind::Direct {
            return Ok(Running { process: None, address: route.target });
        }
        let mut process = Process::start(&mut self.command(route, dir, killed_with_parent)?)?;
        let up = || listens(route.ports.last(), route.protocol);
        wait_until(START, || up() || process.has_ended())?;
        if !up() {
            let log = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
            bail!("{} did not listen: {}", self.name, log.lines().last().unwrap_or("no output"));
        }
        Ok(Running { process: Some(process), address: route.address() })
    }

    /// Returns the command; `benches/peers` explains the configurations. Its output goes to a file.
    pub(super) fn command(
        &self,
        route: &Route,
        dir: &Path,
        run: impl Fn(&Path) -> Command,
    ) -> Result<Command> {
        let listen = format!("{}:{}", route.address().ip(), route.ports.written());
        let (target, workers) = (route.target_written(), route.workers.to_string());
        let write = |name: &str, template: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, self.filled(template, route)).context("cannot write a configuration")?;
            Ok(path)
        };
        let udp = route.protocol == Protocol::Udp;
        // docker-proxy reports readiness on descriptor 3, so the shell opens it before it executes docker-proxy.
        let mut command = run(if self.kind == Kind::DockerProxy { Path::new("sh") } else { &self.program });
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).current_dir(dir);
        match self.kind {
            Kind::Direct => bail!("no proxy to start"),
            Kind::Ambassador(log) => {
                let level = if log == AccessLog::On { "info" } else { "warn" };
                let protocol = if udp { "/udp" } else { "" };
                let admin = format!("unix:{}", dir.join("admin.sock").display());
                command.args(["--workers", &workers, "--log-level", level, "--admin", &admin]);
                command.arg(format!("{listen}{protocol}={target}"));
            }
            Kind::Haproxy(splice) => {
                let config = match splice {
                    Splice::Off => write("haproxy.cfg", include_str!("../../../benches/peers/haproxy.cfg")),
                    Splice::On => {
                        write("haproxy.cfg", include_str!("../../../benches/peers/haproxy-splice.cfg"))
                    }
                };
                command.args(["-db", "-f"]).arg(config?);
            }
            Kind::Envoy => {
                let template = match route.protocol {
                    Protocol::Tcp => include_str!("../../../benches/peers/envoy.yaml"),
                    Protocol::Udp => include_str!("../../../benches/peers/envoy-udp.yaml"),
                };
                command.args([
                    "--concurrency",
                    &workers,
                    "--log-level",
                    "warning",
                    "--disable-hot-restart",
                    "-c",
                ]);
                command.arg(write("envoy.yaml", template)?);
            }
            Kind::Nginx => {
                let template = match route.protocol {
                    Protocol::Tcp => include_str!("../../../benches/peers/nginx.conf"),
                    Protocol::Udp => include_str!("../../../benches/peers/nginx-udp.conf"),
                };
                command.arg("-p").arg(dir).arg("-c").arg(write("nginx.conf", template)?);
            }
            Kind::Socat => {
                let [from, to] = if udp { ["UDP-LISTEN", "UDP"] } else { ["TCP-LISTEN", "TCP"] };
                let (ip, port) = (route.address().ip(), route.ports.last());
                let backlog = if udp { "" } else { ",backlog=1024,nodelay" };
                let nodelay = if udp { "" } else { ",nodelay" };
                command.arg(format!("{from}:{port},bind={ip},fork,reuseaddr{backlog}"));
                command.arg(format!("{to}:{target}{nodelay}"));
            }
            Kind::DockerProxy => {
                command.args(["-c", r#"exec "$0" "$@" 3>/dev/null"#]).arg(&self.program);
                command.args(["-proto", if udp { "udp" } else { "tcp" }]).env("GOMAXPROCS", &workers);
                command.args(["-host-ip", &route.address().ip().to_string()]);
                command.args(["-host-port", &route.ports.last().to_string()]);
                command.args(["-container-ip", &route.target.ip().to_string()]);
                command.args(["-container-port", &route.target.port().to_string()]);
            }
        }
        let log = File::create(dir.join(LOG))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn filled(&self, template: &str, route: &Route) -> String {
        let address = route.address();
        let mut text = template.to_owned();
        let balance = if route.workers > 1 { "connection_balance_config: { exact_balance: {} }" } else { "" };
        for (name, value) in [
            ("workers", route.workers.to_string()),
            ("listen", format!("{}:{}", address.ip(), route.ports.written())),
            ("listen_ip", address.ip().to_string()),
            ("listen_port", route.ports.last().to_string()),
            (
                "target",
                match (self.kind, route.ports) {
                    (Kind::Nginx, Ports::Range(..)) => format!("{}:$server_port", route.target.ip()),
                    _ => route.target_written(),
                },
            ),
            ("target_ip", route.target.ip().to_string()),
            ("target_port", route.target.port().to_string()),
            ("connection_balance", balance.to_owned()),
            ("modules", nginx_modules()),
        ] {
            text = text.replace(&format!("{{{{{name}}}}}"), &value);
        }
        text
    }
}

/// The output of the proxy, beside its configuration.
const LOG: &str = "proxy.log";

/// The path in Debian's package. A build with the module compiled in has no such file.
pub(super) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn nginx_modules() -> String {
    if Path::new(NGINX_STREAM).exists() { format!("load_module {NGINX_STREAM};") } else { String::new() }
}

impl Route {
    /// Returns the address for clients: proxies and their clients share a side in every place.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.ports.last())
    }

    fn target_written(&self) -> String {
        match self.ports {
            Ports::One(_) => self.target.to_string(),
            Ports::Range(..) => self.target.ip().to_string(),
        }
    }
}

impl Ports {
    pub(super) fn last(self) -> u16 {
        match self {
            Ports::One(port) | Ports::Range(_, port) => port,
        }
    }

    fn written(self) -> String {
        match self {
            Ports::One(port) => port.to_string(),
            Ports::Range(first, last) => format!("{first}-{last}"),
        }
    }
}
