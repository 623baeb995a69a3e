//! A subject of the benchmark: a kind of proxy, its program, and how it is started for one route.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::{Process, killed_with_parent};
use super::listening::{Protocol, listens};
use super::opposite::{self, Opposite};
use super::secrets::SECRET;
use super::template::template;
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
    Stunnel,
    Spiped,
    /// Two ambassadors without encryption: the limit of a pair.
    PlainPair,
    /// Two ambassadors with a TLS connection for each session, as the peers have: one terminates what the other originates.
    TlsPair,
}

/// The encryption between the two proxies of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encryption {
    Off,
    /// TLS with certificates of the benchmark's CA.
    Certificates,
    /// TLS with credentials that the proxy derives from a secret.
    Secret,
    /// A protocol other than TLS.
    Own,
}

impl Kind {
    /// Returns whether two of these can be an encrypted pair, or are the limit of one.
    pub(super) fn has_pairs(self) -> bool {
        match self {
            Kind::Ambassador(log) => log == AccessLog::Off,
            Kind::Haproxy(splice) => splice == Splice::Off,
            Kind::Envoy | Kind::Nginx | Kind::Stunnel | Kind::Spiped | Kind::PlainPair | Kind::TlsPair => {
                true
            }
            Kind::Direct | Kind::Socat | Kind::DockerProxy => false,
        }
    }

    /// Returns whether this is measured with TLS on one side.
    pub(super) fn has_tls_sides(self) -> bool {
        let other = matches!(self, Kind::Spiped | Kind::PlainPair | Kind::TlsPair);
        self.has_pairs() && !other
    }

    pub(super) fn encryption(self) -> Encryption {
        match self {
            Kind::Ambassador(_) => Encryption::Secret,
            Kind::Haproxy(_) | Kind::Envoy | Kind::Nginx | Kind::Stunnel | Kind::TlsPair => {
                Encryption::Certificates
            }
            Kind::Spiped => Encryption::Own,
            Kind::Direct | Kind::Socat | Kind::DockerProxy | Kind::PlainPair => Encryption::Off,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AccessLog {
    Off,
    On,
}

/// The suffix of the name of the subject that writes an access log.
pub(super) const LOG_SUFFIX: &str = "-log";
/// The suffix of the name of the pair without encryption.
pub(super) const PLAIN_SUFFIX: &str = "-plain";
/// The suffix of the name of the pair without a tunnel.
pub(super) const TLS_SUFFIX: &str = "-tls";

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

/// One route of one proxy.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) protocol: Protocol,
    pub(super) listen: IpAddr,
    pub(super) ports: Ports,
    pub(super) target: SocketAddr,
    pub(super) workers: usize,
    pub(super) end: End,
    /// The directory of certificates and keys.
    pub(super) secrets: PathBuf,
}

/// The position of a proxy between client and service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Alone,
    /// The end of a pair to which the client connects.
    Near,
    /// The end of a pair that connects to the service.
    Far,
    /// TLS without client certificates on this side, and none on the other.
    Tls(Side),
    /// HAProxy with TLS on this side, the other end of a proxy with `Tls` on the opposite one. It is not measured.
    Opposite(Side, Handshake),
}

/// The side of a proxy that has TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The proxy terminates the TLS of its clients.
    Accept,
    /// The proxy connects to its endpoint over TLS.
    Connect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handshake {
    /// The opposite end resumes no TLS session.
    Full,
    /// The opposite end resumes TLS sessions; the proxy does what is its default.
    Resumed,
}

/// The ports listened on. A range leads to the same ports of the target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    One(u16),
    Range(u16, u16),
}

/// A running proxy or pair.
pub(super) struct Running {
    /// One for each proxy; none in a measurement without one.
    processes: Vec<Process>,
    opposite: Option<Opposite>,
    /// The address for clients.
    pub(super) address: SocketAddr,
}

impl Running {
    /// Returns the pid of each proxy's first process.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Adds the proxy at the other end.
    pub(super) fn paired_with(mut self, far: Running) -> Running {
        self.processes.extend(far.processes);
        self.opposite = self.opposite.or(far.opposite);
        self
    }

    /// Returns how many of its TLS connections the opposite end resumed, in percent; `None` without such an end.
    pub(super) fn resumed_percent(&self) -> Result<Option<f64>> {
        self.opposite.as_ref().map(Opposite::resumed_percent).transpose()
    }
}

impl Subject {
    /// Starts the proxy and waits until it listens.
    pub(super) fn start(&self, route: &Route, dir: &Path) -> Result<Running> {
        if self.kind == Kind::Direct {
            return Ok(Running { processes: Vec::new(), opposite: None, address: route.target });
        }
        let mut process = Process::start(&mut self.command(route, dir, killed_with_parent)?)?;
        let up = || listens(route.ports.last(), route.protocol);
        wait_until(START, || up() || process.has_ended())?;
        if !up() {
            let log = fs::read_to_string(dir.join(LOG)).unwrap_or_default();
            // A help text may follow the error.
            let error = log.lines().find(|line| line.contains("error")).or(log.lines().last());
            bail!("{} did not listen: {}", self.name, error.unwrap_or("no output"));
        }
        let (processes, opposite) = match route.end {
            End::Opposite(..) => (Vec::new(), Some(Opposite::new(process, dir))),
            _ => (vec![process], None),
        };
        Ok(Running { processes, opposite, address: route.address() })
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
        let write = |name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            let template = template(self.kind, route).context("no configuration")?;
            fs::write(&path, self.filled(template, route)).context("cannot write a configuration")?;
            Ok(path)
        };
        let udp = route.protocol == Protocol::Udp;
        // docker-proxy reports readiness on descriptor 3, so the shell opens it before it executes docker-proxy.
        let mut command = run(if self.kind == Kind::DockerProxy { Path::new("sh") } else { &self.program });
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).current_dir(dir);
        match self.kind {
            Kind::Direct => bail!("no proxy to start"),
            Kind::Ambassador(_) | Kind::PlainPair | Kind::TlsPair => {
                let level = if self.kind == Kind::Ambassador(AccessLog::On) { "info" } else { "warn" };
                let admin = format!("unix:{}", dir.join("admin.sock").display());
                command.args(["--workers", &workers, "--log-level", level, "--admin", &admin]);
                command.args(self.ambassador_route(route, &listen, &target));
            }
            Kind::Haproxy(_) => {
                command.args(["-db", "-f"]).arg(write("haproxy.cfg")?);
            }
            Kind::Stunnel => {
                command.arg(write("stunnel.conf")?);
            }
            Kind::Spiped => {
                let mode = if route.end == End::Near { "-e" } else { "-d" };
                command.args([mode, "-F", "-n", "0", "-s", &bracketed(route.address())]);
                command.args(["-t", &bracketed(route.target), "-k"]).arg(route.secrets.join(SECRET));
            }
            Kind::Envoy => {
                command.args([
                    "--concurrency",
                    &workers,
                    "--log-level",
                    "warning",
                    "--disable-hot-restart",
                    "-c",
                ]);
                command.arg(write("envoy.yaml")?);
            }
            Kind::Nginx => {
                command.arg("-p").arg(dir).arg("-c").arg(write("nginx.conf")?);
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

    /// Returns the arguments of the route of an ambassador.
    fn ambassador_route(&self, route: &Route, listen: &str, target: &str) -> Vec<String> {
        let secret = format!("--peer-secret-file={}", route.secrets.join(SECRET).display());
        let file = |name: &str| route.secrets.join(name).display().to_string();
        match (self.kind, route.end, route.protocol) {
            (Kind::TlsPair, End::Near, _) => {
                let options = format!("ca={}&sni=far&cert=own", file("ca.pem"));
                let certificate = format!("--certificate=own={}", file("near.pem"));
                vec![certificate, format!("{listen}=tls://{target}?{options}")]
            }
            (Kind::TlsPair, End::Far, _) => {
                let certificate = format!("--certificate=own={}", file("far.pem"));
                vec![certificate, format!("{listen}={target}?tls=own&tls-ca={}", file("ca.pem"))]
            }
            (_, End::Tls(Side::Accept), _) => {
                let certificate = format!("--certificate=own={}", file("far.pem"));
                vec![certificate, format!("{listen}={target}?tls=own")]
            }
            (_, End::Tls(Side::Connect), _) => {
                vec![format!("{listen}=tls://{target}?ca={}&sni=far", file("ca.pem"))]
            }
            (Kind::Ambassador(_), End::Near, _) => vec![secret, format!("{listen}=peer://{target}/bench")],
            (Kind::Ambassador(_), End::Far, _) => {
                vec![secret, format!("--peer-listen={listen}"), format!("peer:bench={target}")]
            }
            (_, _, Protocol::Tcp) => vec![format!("{listen}={target}")],
            (_, _, Protocol::Udp) => vec![format!("{listen}/udp={target}")],
        }
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
            ("stats", opposite::STATS.to_owned()),
            ("handshake", opposite::options(route.end).to_owned()),
            ("modules", nginx_modules()),
            ("secrets", route.secrets.display().to_string()),
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

/// Returns an address as spiped expects it, IPv4 in brackets as well.
fn bracketed(address: SocketAddr) -> String {
    format!("[{}]:{}", address.ip(), address.port())
}

fn nginx_modules() -> String {
    if Path::new(NGINX_STREAM).exists() { format!("load_module {NGINX_STREAM};") } else { String::new() }
}

impl Route {
    /// Returns the address for clients.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.ports.last())
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
