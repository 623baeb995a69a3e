//! Attacks by hostile clients on two routes, one of TCP and one of UDP: other routes must not be affected.

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

/// The limit of open files during the attack: the default of most systems.
pub(super) const DESCRIPTORS: u64 = 1024;
/// Without an attack the slowest reply takes about a second, for which a command pauses its route.
pub(super) const LONGEST_MAX: Duration = Duration::from_secs(5);
/// More than there are descriptors for.
const IDLE_MAX: usize = 700;
const SLOW_MAX: usize = 400;
const SOURCES_MAX: usize = 2_000;
/// The pause between two steps of an attacker.
const PACE: Duration = Duration::from_millis(2);
/// The pause between two connections of attackers that hold the maximum, so that released descriptors are not left to
/// others.
const RENEWAL: Duration = Duration::from_millis(500);
/// With a full backlog the kernel would retry for two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// The time for pending work after the attack.
const GRACE: Duration = Duration::from_secs(5);

/// The names of the attacked routes. A flow ends before the soak checks for leaks.
const TCP: &str = "attacked";
const UDP: &str = "attacked-udp";

/// The services behind the attacked routes.
pub(super) struct Attack {
    tcp: SocketAddr,
    udp: SocketAddr,
}

/// Counts of the attack, to detect one without effect.
#[derive(Clone, Copy, Debug, Default)]
struct AttackCounts {
    idle: usize,
    slow: usize,
    garbage: usize,
    datagrams: usize,
}

impl Attack {
    /// Starts the services, which end some time after `until`.
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

    /// Returns the routes for the configuration file.
    pub(super) fn routes(&self) -> String {
        let Attack { tcp, udp } = self;
        format!(
            "[[route]]\nname = \"{TCP}\"\nlisten = \"127.0.0.8:0\"\ntarget = \"{tcp}\"\n\
             [[route]]\nname = \"{UDP}\"\nlisten = \"127.0.0.9:0/udp\"\ntarget = \"{udp}\"\nidle-timeout = \"2s\"\n"
        )
    }

    /// Runs all attacks concurrently until then. `addr` returns the address of a route.
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

/// Sends an endless stream to each client that sends a byte; nothing to others.
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

/// Discards datagrams without a reply.
fn discard(socket: &UdpSocket, until: Instant) {
    socket.set_read_timeout(Some(GRACE)).unwrap();
    while Instant::now() < until {
        socket.recv(&mut [0; 64]).ok();
    }
}

/// Holds up to `max` connections that do not read, and replaces the oldest.
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

/// Sends random bytes, followed by a reset or a FIN.
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

/// Sends each datagram from its own source address.
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
