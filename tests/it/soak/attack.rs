//! What hostile clients do to two routes meanwhile, one of TCP and one of UDP: the others must not notice.

use std::collections::VecDeque;
use std::io::{Result, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as AsyncStream};
use tokio::task::JoinSet;

use super::rng::Rng;
use crate::support::pause;

/// What the ambassador may open while it is attacked: the default of most systems.
pub(super) const DESCRIPTORS: u64 = 1024;
/// Without an attack the slowest answer takes about a second, for which an order pauses its route.
pub(super) const LONGEST_MAX: Duration = Duration::from_secs(5);
/// More than it has descriptors for.
const IDLE_MAX: usize = 700;
const SLOW_MAX: usize = 400;
const SOURCES_MAX: usize = 2_000;
/// Between two steps of one attacker.
const PACE: Duration = Duration::from_millis(2);
/// Between two connections of those who hold all that they can: what is let go is not for the others to live on.
const RENEWAL: Duration = Duration::from_millis(500);
/// Where the route's backlog is full, the kernel would try for two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// After the attack, for what is under way.
const GRACE: Duration = Duration::from_secs(5);

/// The routes' names, listeners and options. A flow ends before the soak looks for what is left over.
const TCP: &str = "attacked";
const UDP: &str = "attacked-udp";

/// The services behind the attacked routes.
pub(super) struct Attack {
    tcp: SocketAddr,
    udp: SocketAddr,
}

/// What was done, so that an attack that does nothing is found.
#[derive(Clone, Copy, Debug, Default)]
struct AttackCounts {
    idle: usize,
    slow: usize,
    garbage: usize,
    datagrams: usize,
}

impl Attack {
    /// Its services end some time after `until`.
    pub(super) fn prepare(until: Instant) -> Attack {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let attack = Attack { tcp: tcp.local_addr().unwrap(), udp: udp.local_addr().unwrap() };
        thread::spawn(move || serve(tcp, until + GRACE));
        thread::spawn(move || discard(&udp, until + GRACE));
        attack
    }

    /// For the configuration file.
    pub(super) fn routes(&self) -> String {
        let Attack { tcp, udp } = self;
        format!(
            "[[route]]\nname = \"{TCP}\"\nlisten = \"127.0.0.8:0\"\ntarget = \"{tcp}\"\n\
             [[route]]\nname = \"{UDP}\"\nlisten = \"127.0.0.9:0/udp\"\ntarget = \"{udp}\"\nidle-timeout = \"2s\"\n"
        )
    }

    /// All kinds at once, until then. `addr` is where a route listens.
    pub(super) fn run(until: Instant, seed: u64, addr: impl Fn(&str) -> SocketAddr) {
        let (tcp, udp) = (addr(TCP), addr(UDP));
        let done = thread::scope(|scope| {
            let idle = scope.spawn(|| hold_connections(tcp, until, IDLE_MAX, b""));
            let slow = scope.spawn(|| hold_connections(tcp, until, SLOW_MAX, b"?"));
            let garbage = scope.spawn(|| send_garbage(tcp, until, &mut Rng::new(seed, 1_000)));
            let datagrams = scope.spawn(|| send_datagrams(udp, until));
            AttackCounts {
                idle: idle.join().unwrap(),
                slow: slow.join().unwrap(),
                garbage: garbage.join().unwrap(),
                datagrams: datagrams.join().unwrap(),
            }
        });
        eprintln!("soak: the attack: {done:?}");
        assert!(done.idle > IDLE_MAX && done.slow > SLOW_MAX && done.garbage > 100, "{done:?}");
        assert!(done.datagrams > SOURCES_MAX, "{done:?}");
    }
}

/// Whoever sends a byte gets bytes without end; others get nothing.
fn serve(listener: std::net::TcpListener, until: Instant) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let mut sessions = JoinSet::new();
        let accept = async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    sessions.spawn(send_endlessly(stream));
                }
                while sessions.try_join_next().is_some() {}
            }
        };
        tokio::time::timeout_at(until.into(), accept).await.ok();
    });
}

async fn send_endlessly(mut stream: AsyncStream) -> Result<()> {
    stream.read_u8().await?;
    loop {
        stream.write_all(&[0; 1 << 14]).await?;
    }
}

/// No flow is ever answered.
fn discard(socket: &UdpSocket, until: Instant) {
    socket.set_read_timeout(Some(GRACE)).unwrap();
    while Instant::now() < until {
        socket.recv(&mut [0; 64]).ok();
    }
}

/// Connections that read nothing, as many as this and then always new ones.
fn hold_connections(addr: SocketAddr, until: Instant, max: usize, first: &[u8]) -> usize {
    let (mut held, mut made) = (VecDeque::new(), 0);
    while Instant::now() < until {
        if let Ok(mut stream) = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            stream.write_all(first).ok();
            held.push_back(stream);
            made += 1;
        }
        if held.len() > max {
            held.pop_front();
            pause(RENEWAL);
        }
        pause(PACE);
    }
    made
}

/// Bytes that no protocol has, and a reset or an end.
fn send_garbage(addr: SocketAddr, until: Instant, rng: &mut Rng) -> usize {
    let mut made = 0;
    while Instant::now() < until {
        if let Ok(mut stream) = TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            let length = rng.below(4_096);
            stream.write_all(&rng.bytes(length)).ok();
            let reset = (rng.below(2) == 0).then_some(Duration::ZERO);
            SockRef::from(&stream).set_linger(reset).ok();
            made += 1;
        }
        pause(PACE);
    }
    made
}

/// Each from a source of its own.
fn send_datagrams(addr: SocketAddr, until: Instant) -> usize {
    let (mut sources, mut sent) = (VecDeque::new(), 0);
    while Instant::now() < until {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        sent += usize::from(socket.send_to(b"?", addr).is_ok());
        sources.push_back(socket);
        if sources.len() > SOURCES_MAX {
            sources.pop_front();
        }
        pause(PACE / 2);
    }
    sent
}
