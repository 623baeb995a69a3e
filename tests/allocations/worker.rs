//! A worker's listener and sessions with a client and a server, all on one thread: the sessions make progress whenever
//! a test waits.

use std::future::{pending, poll_fn};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ambassador::address::{EndpointAddr, EndpointSpec, Identity, PeerAddr, PeerName, PeerVia};
use ambassador::cluster::Cluster;
use ambassador::cluster::acquire::HoldLimit;
use ambassador::config::grammar::parse_route;
use ambassador::credentials::{CredentialFiles, Credentials};
use ambassador::diagnostic::Place;
use ambassador::ending::AccessLog;
use ambassador::fd_budget::FdBudget;
use ambassador::listener::{Listener, accept_loop, bind};
use ambassador::route::Protocol;
use ambassador::session::exports::Exports;
use ambassador::session::flow::Flows;
use ambassador::session::{self, Shared};
use ambassador::tunnel::{Peers, Pool};
use ambassador::udp::{self, ListeningSocket, UdpLimits};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MESSAGE: [u8; 64] = [7; 64];

/// A limit that no test reaches.
const LARGE: usize = 10_000;

/// A worker whose sessions connect to `Server`.
pub(crate) struct Worker<Server> {
    runtime: Runtime,
    sessions: TaskTracker,
    addr: SocketAddr,
    server: Server,
}

/// Between two attempts to connect to a process that starts.
const PAUSE: Duration = Duration::from_millis(10);

/// Both ends derive their keys from it.
const SECRET: &str = "b7c1d04e9a3f4f6d8a21c5e07f93ab64d2e85f10";

/// The dependencies of a listener.
struct WorkerContext {
    listener: Listener,
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl WorkerContext {
    fn of(listen: &str, endpoint: SocketAddr) -> WorkerContext {
        let spec = EndpointSpec::new(EndpointAddr::Inet(endpoint), Identity::Literal);
        WorkerContext::to(listen, spec, Peers::new(None, Arc::default()))
    }

    fn to(listen: &str, endpoint: EndpointSpec, peers: Peers) -> WorkerContext {
        let route = parse_route(&format!("{listen}=127.0.0.1:1"), &Place::Built).unwrap();
        let stop = CancellationToken::new();
        let fds = Arc::new(FdBudget::within(LARGE, 1, 1));
        let shared = Shared {
            hold_limit: HoldLimit::new(LARGE),
            force: stop.clone(),
            stop: stop.clone(),
            tunnel_fds: fds.route(Protocol::Tcp),
            fds,
            access_log: AccessLog::All,
            peers: Arc::new(peers),
            exports: Exports::default(),
            tls: Arc::default(),
            history: Arc::default(),
        };
        let fds = shared.fds.route(route.listen.protocol());
        let cluster = Cluster::new(route.options.clone(), stop.clone()).within(fds);
        cluster.update(&route.options, &[endpoint]);
        let listener = bind(&route.listen).unwrap().remove(0);
        WorkerContext { listener, cluster: Arc::new(cluster), shared: Arc::new(shared), stop }
    }
}

impl Worker<TcpListener> {
    pub(crate) fn relaying_tcp() -> Worker<TcpListener> {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let context = WorkerContext::of("127.0.0.1:0", server.local_addr().unwrap());
        Worker::relaying(context, server)
    }

    /// Relays through a tunnel to an exporter, which is a process of its own.
    pub(crate) fn relaying_to(exporter: &Exporter) -> Worker<TcpListener> {
        let server = exporter.service.try_clone().unwrap();
        let context = WorkerContext::to("127.0.0.1:0", exporter.endpoint(), exporter.peers());
        Pool::enter(context.shared.peers.clone());
        Worker::relaying(context, server)
    }

    fn relaying(context: WorkerContext, server: TcpListener) -> Worker<TcpListener> {
        let WorkerContext { listener, cluster, shared, stop } = context;
        let worker = Worker::new(&listener, server);
        let sessions = worker.sessions.clone();
        worker.runtime.spawn(async move {
            let admit = |accepted| {
                let session = session::serve(accepted, cluster.clone(), 0, shared.clone(), ());
                sessions.spawn(session);
            };
            accept_loop(&listener, &cluster.fds, String::new, stop, pending::<()>, admit).await
        });
        worker
    }

    pub(crate) fn connect(&self) -> Connection<'_> {
        let client = TcpStream::connect(self.addr).unwrap();
        let (server, _) = self.serve_until(|| self.server.accept());
        client.set_nonblocking(true).unwrap();
        server.set_nonblocking(true).unwrap();
        Connection { worker: self, client, server }
    }

    /// Waits until the last session has ended.
    pub(crate) fn sessions_end(&self) {
        let ended = || if self.sessions.is_empty() { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) };
        self.serve_until(ended);
    }
}

impl Worker<UdpSocket> {
    pub(crate) fn relaying_udp() -> Worker<UdpSocket> {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let WorkerContext { listener, cluster, shared, stop } =
            WorkerContext::of("127.0.0.1:0/udp", server.local_addr().unwrap());
        let worker = Worker::new(&listener, server);
        let flows = Arc::new(Flows { cluster, offset: 0, addr: listener.addr, shared });
        let limits = UdpLimits { flows_max: LARGE, unanswered_max: LARGE };
        worker.runtime.spawn(async move {
            let socket = ListeningSocket::new(listener.fd.into()).unwrap();
            udp::serve(&socket, flows, limits, stop).await;
        });
        worker
    }

    pub(crate) fn flow(&self) -> Flow<'_> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(self.addr).unwrap();
        client.set_nonblocking(true).unwrap();
        Flow { worker: self, client }
    }
}

impl<Server> Worker<Server> {
    fn new(listener: &Listener, server: Server) -> Worker<Server> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Worker { runtime, sessions: TaskTracker::new(), addr: listener.addr.unwrap(), server }
    }

    /// Lets the sessions make progress until the operation no longer returns `WouldBlock`.
    fn serve_until<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> T {
        self.runtime.block_on(poll_fn(|cx| match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Not `yield_now`, which allocates in a runtime that was just entered.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            result => Poll::Ready(result.unwrap()),
        }))
    }
}

/// Both ends of a connection through the worker.
pub(crate) struct Connection<'w> {
    worker: &'w Worker<TcpListener>,
    client: TcpStream,
    server: TcpStream,
}

impl Connection<'_> {
    /// Sends one request and its reply.
    pub(crate) fn exchange(&self) {
        for (mut from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.write_all(&MESSAGE).unwrap();
            assert_eq!(self.read(to), MESSAGE.len());
        }
    }

    /// Closes the client's end, then the server's, and waits for the end of both.
    pub(crate) fn close(self) {
        self.client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.read(&self.server), 0);
    }

    fn read(&self, mut from: &TcpStream) -> usize {
        self.worker.serve_until(|| from.read(&mut MESSAGE.clone()))
    }
}

/// A UDP flow through the worker. On loopback, one at a time, no datagram is lost.
pub(crate) struct Flow<'w> {
    worker: &'w Worker<UdpSocket>,
    client: UdpSocket,
}

impl Flow<'_> {
    /// Sends one request and its reply.
    pub(crate) fn exchange(&self) {
        let (server, mut bytes) = (&self.worker.server, MESSAGE);
        self.client.send(&bytes).unwrap();
        let (_, from) = self.worker.serve_until(|| server.recv_from(&mut bytes));
        server.send_to(&bytes, from).unwrap();
        self.worker.serve_until(|| self.client.recv(&mut bytes));
    }
}

/// Another ambassador, which offers a service to its peers.
pub(crate) struct Exporter {
    process: Child,
    pub(crate) service: TcpListener,
    directory: TempDir,
    addr: SocketAddr,
}

impl Exporter {
    pub(crate) fn start() -> Exporter {
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        service.set_nonblocking(true).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), SECRET).unwrap();
        // Free when it was chosen; nothing else listens on this address.
        let addr = TcpListener::bind("127.77.15.8:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_ambassador"))
            .args(["--workers", "1", "--log-level", "error", "--peer-secret-file", "secret"])
            .args(["--admin", &format!("unix:{}/admin.sock", directory.path().display())])
            .args(["--peer-listen", &addr.to_string()])
            .arg(format!("peer:x={}", service.local_addr().unwrap()))
            .current_dir(directory.path())
            .spawn()
            .unwrap();
        let is_up = || TcpStream::connect(addr).is_ok();
        assert!(
            (0..1_000).any(|_| is_up() || {
                std::thread::park_timeout(PAUSE);
                false
            }),
            "{addr}"
        );
        Exporter { process, service, directory, addr }
    }

    fn endpoint(&self) -> EndpointSpec {
        let via = PeerVia::Dial { addr: self.addr, name: PeerName::Host("127.77.15.8".to_owned()) };
        let peer = PeerAddr { via, export: "x".to_owned() };
        EndpointSpec::new(EndpointAddr::Peer(Box::new(peer)), Identity::Literal)
    }

    fn peers(&self) -> Peers {
        let secret = Some(self.directory.path().join("secret"));
        let files =
            CredentialFiles { secret, cert: None, ca: None, crl: None, name: Some("test".to_owned()) };
        Peers::new(Some(Arc::new(Credentials::load(files).unwrap())), Arc::default())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
