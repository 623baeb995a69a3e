//! The real app in this process, on ports that the kernel chooses.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ambassador::app;
use ambassador::cluster::Cluster;
use ambassador::cluster::condition::Condition;
use ambassador::config::grammar::parse_route;
use ambassador::config::peer::PeerListen;
use ambassador::config::{AdminAddr, Config};
use ambassador::diagnostic::Place;
use ambassador::drain::Control;
use ambassador::ending::Ending;
use ambassador::reconcile::Overview;
use ambassador::tls::CertificateFiles;
use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Ca, Secret, VALID};

/// A timeout that is reached only if a test hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The port of `--peer-listen`.
const PEER_PORT: u16 = 15008;

/// An ambassador that runs until it is dropped, or stopped by its control.
pub(crate) struct App {
    pub(crate) control: Control,
    pub(crate) overview: Arc<ArcSwap<Overview>>,
    pub(crate) run: JoinHandle<()>,
}

impl App {
    /// Starts an app with these routes; each must listen on `127.0.0.1:0`.
    pub(crate) async fn start(routes: &[&str]) -> App {
        App::with(routes, |_| {}).await
    }

    pub(crate) async fn with(routes: &[&str], adjust: impl FnOnce(&mut Config)) -> App {
        let routes = routes.iter().map(|text| parse_route(text, &Place::Built).unwrap()).collect();
        let mut config = Config::with_routes(routes);
        config.settings.workers = NonZeroUsize::new(2).unwrap();
        config.settings.admin = Some(AdminAddr::Unix(private_path("admin")));
        adjust(&mut config);
        let bound = app::build(config).await.unwrap();
        let (control, overview) = (bound.control(), bound.overview());
        #[expect(clippy::disallowed_methods, reason = "its handle is kept")]
        let run = tokio::spawn(bound.run());
        App { control, overview, run }
    }

    /// Starts an app that can dial peers with this secret.
    pub(crate) async fn with_secret(secret: &Secret, routes: &[&str]) -> App {
        App::with(routes, |config| {
            config.settings.peer.secret_file = Some(secret.path());
            config.settings.peer.name = Some("dialler".to_owned());
        })
        .await
    }

    pub(crate) fn addr(&self, route: &str) -> SocketAddr {
        let overview = self.overview.load();
        let view = overview.routes.iter().find(|view| view.route.options.name == route);
        *view.expect("a route of this name").addrs.first().expect("a bound route")
    }

    pub(crate) fn cluster(&self, route: &str) -> Arc<Cluster> {
        let overview = self.overview.load();
        let view = overview.routes.iter().find(|view| view.route.options.name == route);
        view.expect("a route of this name").cluster.clone().expect("a bound route")
    }

    /// Returns the condition of the endpoint at this address.
    pub(crate) fn condition(&self, route: &str, addr: SocketAddr) -> Condition {
        let members = self.cluster(route).members_arc();
        let found =
            members.all().find(|(_, member)| member.endpoint.key.addr.to_string() == addr.to_string());
        found.expect("an endpoint at this address").1.endpoint.condition()
    }

    pub(crate) fn ended(&self, route: &str, ending: Ending) -> u64 {
        self.cluster(route).counters.endings().find(|(e, _)| *e == ending).map_or(0, |(_, count)| count)
    }

    /// Waits until this many sessions of a route have ended with `ending`.
    pub(crate) async fn await_ended(&self, route: &str, ending: Ending, count: u64) {
        eventually(&format!("{count} sessions {ending}"), || self.ended(route, ending) >= count).await;
        assert_eq!(self.ended(route, ending), count);
    }

    pub(crate) async fn await_held(&self, route: &str, count: usize) {
        let cluster = self.cluster(route);
        eventually("held sessions", || cluster.counters.held.load(Ordering::Relaxed) == count).await;
    }

    /// Waits until the first session of a route has ended. Returns its ending and its bytes up and down.
    pub(crate) async fn first_ended(&self, route: &str) -> (Ending, usize, usize) {
        let cluster = self.cluster(route);
        let ended = || cluster.counters.endings().find(|(_, count)| *count > 0);
        while ended().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let bytes = |count: u64| usize::try_from(count).unwrap();
        let traffic = &cluster.counters.traffic;
        (ended().unwrap().0, bytes(traffic.up()), bytes(traffic.down()))
    }
}

/// A consumer's and a service's ambassador with tunnels between them: the route `r` of the first is the export `x` of the
/// second.
pub(crate) struct AppPair {
    pub(crate) exporter: App,
    pub(crate) dialler: App,
    pub(crate) peer: SocketAddr,
    pub(crate) secret: Arc<Secret>,
}

impl AppPair {
    /// Starts both. `export` is a target with options; `options` are those of the route, written as `&option=value`.
    pub(crate) async fn new(export: &str, options: &str) -> AppPair {
        AppPair::sharing(Arc::new(Secret::new()), export, options).await
    }

    /// Starts both with a secret that others have, too.
    pub(crate) async fn sharing(secret: Arc<Secret>, export: &str, options: &str) -> AppPair {
        let peer = SocketAddr::from((private_ip(), PEER_PORT));
        let exporter = AppPair::exporter(&secret, peer, export).await;
        let route = format!("127.0.0.1:0=peer://{peer}/x?name=r{options}");
        let dialler = App::with_secret(&secret, &[&route]).await;
        AppPair { dialler, exporter, peer, secret }
    }

    async fn exporter(secret: &Secret, peer: SocketAddr, export: &str) -> App {
        let separator = if export.contains('?') { '&' } else { '?' };
        App::with(&[&format!("peer:x={export}{separator}name=x")], |config| {
            config.settings.peer.secret_file = Some(secret.path());
            config.settings.peer.name = Some("exporter".to_owned());
            config.settings.peer.listen = PeerListen::Addr { ip: Some(peer.ip()), port: peer.port() };
        })
        .await
    }

    /// Starts another exporter in the place of one that was stopped.
    pub(crate) async fn restart_exporter(&mut self, export: &str) {
        self.exporter = AppPair::exporter(&self.secret, self.peer, export).await;
    }

    /// Ends the exporter, and resets its sessions.
    pub(crate) async fn stop_exporter(&mut self) {
        self.exporter.control.stop.cancel();
        self.exporter.control.force.cancel();
        tokio::time::timeout(PATIENCE, &mut self.exporter.run).await.unwrap().unwrap();
    }

    /// Returns the address of the route.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.dialler.addr("r")
    }
}

/// Two ambassadors with TLS between them: the endpoint of the route `r` of the first is the route `x` of the second.
pub(crate) struct TlsPair {
    pub(crate) client: App,
    pub(crate) server: App,
    pub(crate) ca: Ca,
}

impl TlsPair {
    /// Starts both for a service. Options are written as `&option=value`.
    pub(crate) async fn new(service: &str, client_options: &str, server_options: &str) -> TlsPair {
        let ca = Ca::new();
        let certificates = || {
            let of = |name: &str, serial| CertificateFiles {
                name: name.to_owned(),
                cert: ca.issue(name, serial, VALID),
                key: None,
            };
            vec![of("service", 1), of("consumer", 2)]
        };
        let route = format!("127.0.0.1:0={service}?name=x&tls=service{server_options}");
        let server = App::with(&[&route], |config| config.settings.certificates = certificates()).await;
        let (addr, file) = (server.addr("x"), ca.ca());
        let route =
            format!("127.0.0.1:0=tls://{addr}?name=r&ca={}&sni=service{client_options}", file.display());
        let client = App::with(&[&route], |config| config.settings.certificates = certificates()).await;
        TlsPair { client, server, ca }
    }

    /// Returns the address of the route `r`.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.client.addr("r")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.control.stop.cancel();
        self.control.force.cancel();
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

/// Returns a path that no other test uses.
pub(crate) fn private_path(what: &str) -> std::path::PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ambassador-{}-{n}-{what}.sock", std::process::id()))
}

/// Returns a loopback address that no other test uses: a port released on it stays free.
fn private_ip() -> Ipv4Addr {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, u8::try_from(n).expect("few services in one process"))
}

/// A service that sends its name to each client, then echoes until the client closes.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn named(name: &'static str) -> Service {
        Service::at(SocketAddr::from((private_ip(), 0)), name).await
    }

    pub(crate) async fn at(addr: SocketAddr, name: &'static str) -> Service {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "its handle is kept")]
        let task = tokio::spawn(async move {
            // Dropped with the task, together with its connections.
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sessions.spawn(greet_and_echo(stream, name));
            }
        });
        Service { addr, task }
    }

    /// Closes the listener and all connections, and waits for that.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.addr
    }
}

async fn greet_and_echo(mut stream: TcpStream, name: &'static str) {
    let _ = stream.write_all(name.as_bytes()).await;
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Returns an address that refuses connections: a port that was just released.
pub(crate) async fn refusing_addr() -> SocketAddr {
    Service::named("refusing").await.stop().await
}

/// Connects and reads the greeting, the name of the service.
pub(crate) async fn greeting(addr: SocketAddr, name: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut greeting = vec![0; name.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut greeting)).await.unwrap().unwrap();
    (stream, String::from_utf8(greeting).unwrap())
}
