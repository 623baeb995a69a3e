//! The relay between real sockets: bytes arrive unchanged, and each ending is reported.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ambassador::ending::Ending;
use ambassador::relay::{Limits, relay};
use ambassador::socket::Socket;
use ambassador::stream::Stream;
use ambassador::traffic::Direction;
use rustix::net::sockopt;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::app::{AppPair, TlsPair};

const NO_LIMITS: Limits = Limits::new(None, Duration::from_secs(300));

/// A timeout that is reached only if a test hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes in each direction of the largest transfers; smaller ones are fractions of it. A debug build is slow at
/// hashing.
const LARGE: usize = if cfg!(debug_assertions) { 256 << 20 } else { 1 << 30 };

/// The relayed bytes that the relay reports.
#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
}

impl Counts {
    fn add(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

const NARROW_BYTES: usize = 64 << 10;

/// The kind of a connection.
#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    /// TCP with socket buffers that are full most of the time. Buffers smaller than [`NARROW_BYTES`] would measure the
    /// kernel's timers, because loopback packets are larger.
    Narrow,
    Unix,
}

use Kind::{Narrow, Tcp, Unix};

/// A blocking end of a connection, used by the test.
struct End(OwnedFd);

impl End {
    /// Returns the test's end and the relay's end.
    fn pair(kind: Kind) -> (End, OwnedFd) {
        let (outer, inner) = match kind {
            Tcp => tcp_pair(),
            Narrow => {
                let (outer, inner) = tcp_pair();
                for fd in [&outer, &inner] {
                    sockopt::set_socket_send_buffer_size(fd, NARROW_BYTES).unwrap();
                    sockopt::set_socket_recv_buffer_size(fd, NARROW_BYTES).unwrap();
                }
                (outer, inner)
            }
            Unix => {
                let (outer, inner) = UnixStream::pair().unwrap();
                (outer.into(), inner.into())
            }
        };
        rustix::io::ioctl_fionbio(&inner, true).unwrap();
        (End::of(outer), inner)
    }

    fn of(fd: OwnedFd) -> End {
        for timeout in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&fd, timeout, Some(TIMEOUT)).unwrap();
        }
        End(fd)
    }

    /// Sends FIN.
    fn finish(&self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write).unwrap();
    }

    /// Sends RST.
    fn reset(self) {
        sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }

    /// Drops all packets, including acknowledgements, like a disconnected host.
    fn drop_packets(&self) {
        let drop_all = socket2::SockFilter::new(6, 0, 0, 0);
        socket2::SockRef::from(&self.0).attach_filter(&[drop_all]).unwrap();
    }

    /// Reads until FIN.
    fn read_all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        (&mut &*self).read_to_end(&mut all).unwrap();
        all
    }

    /// Writes until the buffers stay full, and returns the number of bytes.
    fn write_until_full(&self) -> usize {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, Some(Duration::from_millis(500)))
            .unwrap();
        let mut total = 0;
        loop {
            match (&mut &*self).write(&[1; 65_536]) {
                Ok(length) => total += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
                Err(error) => unreachable!("{error}"),
            }
        }
    }
}

impl Read for &End {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(&self.0, bytes)?)
    }
}

impl Write for &End {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (inner, _) = listener.accept().unwrap();
    for stream in [&outer, &inner] {
        stream.set_nodelay(true).unwrap();
    }
    (outer.into(), inner.into())
}

/// A session on a thread of its own.
struct Session {
    client: End,
    server: End,
    counts: Arc<Counts>,
    relay: JoinHandle<Ending>,
}

impl Session {
    fn start(client: Kind, server: Kind) -> Session {
        let (client, downstream) = End::pair(client);
        let (server, upstream) = End::pair(server);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let relay = thread::spawn(move || block_on(relayed(downstream, upstream, NO_LIMITS, shared)));
        Session { client, server, counts, relay }
    }

    /// Starts a session through two ambassadors. Its ending and bytes are those that the consumer's ambassador reports.
    fn through_a_tunnel() -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = listener.local_addr().unwrap();
        let (counts, (started, start)) = (Arc::new(Counts::default()), std::sync::mpsc::channel());
        let shared = Arc::clone(&counts);
        let relay = thread::spawn(move || {
            block_on(async {
                let pair = AppPair::new(&service.to_string(), "").await;
                started.send(pair.addr()).unwrap();
                let (ending, up, down) = pair.dialler.first_ended("r").await;
                pair.exporter.first_ended("x").await;
                shared.add(Direction::Up, up);
                shared.add(Direction::Down, down);
                ending
            })
        });
        let client = TcpStream::connect(start.recv().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        Session { client: End::of(client.into()), server: End::of(server.into()), counts, relay }
    }

    /// Starts a session through two routes, with TLS between them. Its ending and bytes are those of the first.
    fn over_tls() -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = listener.local_addr().unwrap();
        let (counts, (started, start)) = (Arc::new(Counts::default()), std::sync::mpsc::channel());
        let shared = Arc::clone(&counts);
        let relay = thread::spawn(move || {
            block_on(async {
                let pair = TlsPair::new(&service.to_string(), "", "").await;
                started.send(pair.addr()).unwrap();
                let (ending, up, down) = pair.client.first_ended("r").await;
                pair.server.first_ended("x").await;
                shared.add(Direction::Up, up);
                shared.add(Direction::Down, down);
                ending
            })
        });
        let client = TcpStream::connect(start.recv().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        Session { client: End::of(client.into()), server: End::of(server.into()), counts, relay }
    }

    /// Exchanges a request and its reply, so that both directions are established.
    fn exchange(&self) {
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let mut byte = [0; 1];
            (&mut &*from).write_all(b"x").unwrap();
            (&mut &*to).read_exact(&mut byte).unwrap();
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs with a paused clock, which jumps to the next timer whenever the runtime is idle.
fn block_on_paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(future)
}

fn pause(duration: Duration) {
    thread::park_timeout(duration);
}

async fn relayed(downstream: OwnedFd, upstream: OwnedFd, limits: Limits, counts: Arc<Counts>) -> Ending {
    let [downstream, upstream] = [downstream, upstream].map(registered);
    relay(&downstream, &upstream, limits, |direction, bytes| counts.add(direction, bytes)).await
}

fn registered(fd: OwnedFd) -> Stream {
    let is_unix = sockopt::socket_domain(&fd).unwrap() == rustix::net::AddressFamily::UNIX;
    if is_unix { Socket::register_unix(fd).unwrap().into() } else { Socket::register(fd).unwrap().into() }
}

/// Pseudo-random bytes from a seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Sends `total` bytes in pieces of the lengths of `piece`, then FIN. Returns their hash.
fn send(mut to: &End, seed: u64, total: usize, mut piece: impl FnMut(&mut Noise) -> usize) -> String {
    let mut noise = Noise(seed);
    let mut buffer = vec![0; 1 << 20];
    noise.fill(&mut buffer);
    let mut hash = Sha256::new();
    let mut left = total;
    while left > 0 {
        let length = piece(&mut noise).clamp(1, left.min(buffer.len()));
        // Random bytes throughout would take a debug build minutes: only the start of each piece is random.
        noise.fill(&mut buffer[..8.min(length)]);
        to.write_all(&buffer[..length]).unwrap();
        hash.update(&buffer[..length]);
        left -= length;
    }
    to.finish();
    format!("{:x}", hash.finalize())
}

/// Reads until FIN, at most `piece` bytes at once. Returns the hash of all.
fn receive(mut from: &End, piece: usize) -> String {
    let mut buffer = vec![0; piece];
    let mut hash = Sha256::new();
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return format!("{:x}", hash.finalize()),
            length => hash.update(&buffer[..length]),
        }
    }
}

fn bytes_are_relayed_in_both_directions(session: Session) {
    (&session.client).write_all(b"PING").unwrap();
    let mut request = [0; 4];
    (&session.server).read_exact(&mut request).unwrap();
    assert_eq!(&request, b"PING");
    (&session.server).write_all(b"PONG!").unwrap();
    session.server.finish();
    assert_eq!(session.client.read_all(), b"PONG!");
    session.client.finish();
    assert_eq!(session.server.read_all(), b"");
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
    assert_eq!((session.counts.up(), session.counts.down()), (4, 5));
}

/// Makes three tests of a function: on a relay between sockets of these kinds, through two ambassadors with a tunnel, and over TLS.
macro_rules! also_through_tunnels_and_tls {
    ($($case:ident($client:ident, $server:ident);)*) => {
        mod between_sockets {
            use super::{Session, Kind::*};
            $(#[test]
            fn $case() {
                super::$case(Session::start($client, $server));
            })*
        }

        mod through_a_tunnel {
            use super::Session;
            $(#[test]
            fn $case() {
                super::$case(Session::through_a_tunnel());
            })*
        }

        mod over_tls {
            use super::Session;
            $(#[test]
            fn $case() {
                super::$case(Session::over_tls());
            })*
        }
    };
}

also_through_tunnels_and_tls! {
    bytes_are_relayed_in_both_directions(Tcp, Tcp);
    reply_may_follow_long_after_the_half_close(Tcp, Tcp);
    both_sides_may_close_without_a_byte(Tcp, Tcp);
    a_reset_by_the_client_reaches_the_service_as_a_reset(Tcp, Tcp);
    a_reset_by_the_service_reaches_the_client_as_a_reset(Tcp, Tcp);
    reset_after_a_bulk_transfer_is_relayed_as_a_reset(Tcp, Tcp);
    reset_after_a_half_close_ends_the_session_at_once(Tcp, Tcp);
    client_reset_is_detected_while_the_service_does_not_read(Tcp, Tcp);
    client_that_closes_with_unread_data_has_reset(Tcp, Tcp);
    urgent_data_does_not_stop_a_bulk_transfer(Tcp, Tcp);
    client_may_send_after_the_half_close_of_the_service(Tcp, Unix);
    half_close_after_a_bulk_transfer_loses_nothing(Tcp, Narrow);
}

/// Sends `total` bytes in both directions at once and compares the hashes. The readers are slower than the writers, and
/// each has its own read size.
fn both_ways(ends: [Kind; 2], total: usize, piece: impl Fn(&mut Noise) -> usize + Copy + Send) {
    exchange_bulk(Session::start(ends[0], ends[1]), total, piece);
}

fn exchange_bulk(session: Session, total: usize, piece: impl Fn(&mut Noise) -> usize + Copy + Send) {
    let (client, server) = (&session.client, &session.server);
    thread::scope(|scope| {
        let sent_up = scope.spawn(move || send(client, 1, total, piece));
        let sent_down = scope.spawn(move || send(server, 2, total, piece));
        let got_up = scope.spawn(move || receive(server, 200_000));
        let got_down = scope.spawn(move || receive(client, 30_000));
        assert_eq!(sent_up.join().unwrap(), got_up.join().unwrap(), "upwards");
        assert_eq!(sent_down.join().unwrap(), got_down.join().unwrap(), "downwards");
    });
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
    assert_eq!((session.counts.up(), session.counts.down()), (total as u64, total as u64));
}

#[test]
fn bulk_transfer_in_both_directions_is_complete() {
    both_ways([Tcp, Tcp], LARGE, |_| 1 << 20);
}

#[test]
fn bulk_transfer_through_a_tunnel_is_complete() {
    exchange_bulk(Session::through_a_tunnel(), LARGE / 8, |_| 1 << 20);
    exchange_bulk(Session::through_a_tunnel(), LARGE / 16, |noise| match noise.below(4) {
        0 => 1 + noise.below(20),
        1 => 1 + noise.below(5_000),
        _ => 1 + noise.below(300_000),
    });
}

#[test]
fn bulk_transfer_over_tls_is_complete() {
    exchange_bulk(Session::over_tls(), LARGE / 8, |_| 1 << 20);
    exchange_bulk(Session::over_tls(), LARGE / 16, |noise| match noise.below(4) {
        0 => 1 + noise.below(20),
        1 => 1 + noise.below(5_000),
        _ => 1 + noise.below(300_000),
    });
}

#[test]
fn bulk_transfer_through_small_socket_buffers_is_complete() {
    both_ways([Narrow, Narrow], LARGE / 8, |_| 1 << 20);
}

#[test]
fn pieces_smaller_than_the_buffer_are_complete() {
    both_ways([Narrow, Narrow], LARGE / 16, |_| 9_000);
}

#[test]
fn bursts_between_small_writes_and_pauses_are_complete() {
    both_ways([Narrow, Tcp], LARGE / 16, |noise| match noise.below(8) {
        0 => {
            pause(Duration::from_millis(1));
            1 + noise.below(20)
        }
        1 | 2 => 1 + noise.below(2_000),
        3 | 4 => 1 + noise.below(100_000),
        _ => 1 << 20,
    });
}

#[test]
fn unix_sockets_on_either_side_carry_the_same_bytes() {
    both_ways([Unix, Tcp], LARGE / 32, |noise| 1 + noise.below(300_000));
    both_ways([Tcp, Unix], LARGE / 32, |noise| 1 + noise.below(300_000));
    both_ways([Unix, Unix], LARGE / 32, |noise| 1 + noise.below(300_000));
}

fn reply_may_follow_long_after_the_half_close(session: Session) {
    (&session.client).write_all(b"request").unwrap();
    session.client.finish();
    assert_eq!(session.server.read_all(), b"request");
    pause(Duration::from_millis(200));
    (&session.server).write_all(&[7; 300_000]).unwrap();
    session.server.finish();
    assert_eq!(session.client.read_all(), [7; 300_000]);
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

fn client_may_send_after_the_half_close_of_the_service(session: Session) {
    (&session.server).write_all(b"banner").unwrap();
    session.server.finish();
    assert_eq!(session.client.read_all(), b"banner");
    (&session.client).write_all(&[9; 300_000]).unwrap();
    session.client.finish();
    assert_eq!(session.server.read_all(), [9; 300_000]);
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

fn both_sides_may_close_without_a_byte(session: Session) {
    session.client.finish();
    session.server.finish();
    assert_eq!(session.client.read_all(), b"");
    assert_eq!(session.server.read_all(), b"");
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

fn half_close_after_a_bulk_transfer_loses_nothing(session: Session) {
    let client = session.client;
    let sender = thread::spawn(move || {
        (&client).write_all(&vec![5; 20 << 20]).unwrap();
        client.finish();
        client
    });
    pause(Duration::from_millis(300));
    assert_eq!(session.server.read_all().len(), 20 << 20);
    session.server.finish();
    assert_eq!(sender.join().unwrap().read_all(), b"");
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

fn a_reset_by_the_client_reaches_the_service_as_a_reset(session: Session) {
    session.exchange();
    session.client.reset();
    assert_eq!((&session.server).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(session.relay.join().unwrap(), Ending::DownstreamReset);
}

fn a_reset_by_the_service_reaches_the_client_as_a_reset(session: Session) {
    session.exchange();
    session.server.reset();
    assert_eq!((&session.client).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(session.relay.join().unwrap(), Ending::UpstreamReset);
}

fn reset_after_a_bulk_transfer_is_relayed_as_a_reset(session: Session) {
    const BYTES: usize = 20 << 20;
    let client = session.client;
    let sender = thread::spawn(move || {
        (&client).write_all(&vec![5; BYTES]).unwrap();
        client
    });
    (&session.server).read_exact(&mut vec![0; BYTES]).unwrap();
    sender.join().unwrap().reset();
    assert_eq!((&session.server).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(session.relay.join().unwrap(), Ending::DownstreamReset);
}

fn reset_after_a_half_close_ends_the_session_at_once(session: Session) {
    (&session.client).write_all(b"request").unwrap();
    session.client.finish();
    assert_eq!(session.server.read_all(), b"request");
    session.client.reset();
    assert_eq!(session.relay.join().unwrap(), Ending::DownstreamReset);
    // FIN was read above, so the reset is visible only to a write.
    assert_eq!((&session.server).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn client_reset_is_detected_while_the_service_does_not_read(session: Session) {
    session.client.write_until_full();
    session.client.reset();
    assert_eq!(session.relay.join().unwrap(), Ending::DownstreamReset);
    let error = std::io::copy(&mut &session.server, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn client_that_closes_with_unread_data_has_reset(session: Session) {
    session.exchange();
    drop(session.client);
    assert_eq!((&session.server).read(&mut [0; 1]).unwrap(), 0, "a plain close is only a FIN");
    let refused = loop {
        if let Err(error) = (&session.server).write_all(&[1; 10_000]) {
            break error.kind();
        }
    };
    assert!(matches!(refused, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    assert_eq!(session.relay.join().unwrap(), Ending::DownstreamReset);
}

#[test]
fn closed_unix_service_is_an_upstream_reset() {
    let session = Session::start(Tcp, Unix);
    (&session.client).write_all(b"never read").unwrap();
    while session.counts.up() < 10 {
        thread::yield_now();
    }
    drop(session.server);
    assert_eq!((&session.client).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(session.relay.join().unwrap(), Ending::UpstreamReset);
}

#[test]
fn unreachable_client_ends_its_session() {
    let (client, downstream) = End::pair(Tcp);
    let (server, upstream) = End::pair(Tcp);
    sockopt::set_tcp_user_timeout(&downstream, 300).unwrap();
    let relay = thread::spawn(move || block_on(relayed(downstream, upstream, NO_LIMITS, Arc::default())));
    client.drop_packets();
    (&server).write_all(b"is anybody there?").unwrap();
    assert_eq!(relay.join().unwrap(), Ending::DownstreamReset);
    assert_eq!((&server).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn urgent_data_does_not_stop_a_bulk_transfer(session: Session) {
    let client = session.client;
    let sender = thread::spawn(move || {
        for _ in 0..20 {
            (&client).write_all(&[3; 300_000]).unwrap();
            rustix::net::send(&client.0, b"!", rustix::net::SendFlags::OOB).unwrap();
        }
        client.finish();
        client
    });
    let received = session.server.read_all();
    assert_eq!(received.iter().filter(|byte| **byte == 3).count(), 20 * 300_000);
    session.server.finish();
    drop(sender.join().unwrap());
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

#[test]
fn backpressure_reaches_the_writer() {
    let session = Session::start(Narrow, Narrow);
    let written = session.client.write_until_full();
    // Two small socket buffers each way and at most one pipe.
    assert!(written < 4 << 20, "{written} bytes went somewhere");
    assert!(session.counts.up() <= written as u64);
    session.client.finish();
    assert_eq!(session.server.read_all().len(), written);
    session.server.finish();
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
}

#[test]
fn a_bulk_transfer_without_a_pipe_is_copied() {
    // The limit is per process, so the test needs a process of its own.
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relay::bulk_transfer_works_without_free_descriptors", "--ignored"])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "takes all descriptors of its process: the test above runs it in one of its own"]
fn bulk_transfer_works_without_free_descriptors() {
    let (client, downstream) = End::pair(Tcp);
    let (server, upstream) = End::pair(Tcp);
    block_on(async move {
        let (downstream, upstream) = (registered(downstream), registered(upstream));
        let limit = rustix::process::Rlimit { current: Some(3), maximum: Some(3) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        rustix::pipe::pipe().unwrap_err();
        let sender = thread::spawn(move || send(&client, 1, 32 << 20, |_| 1 << 20));
        let receiver = thread::spawn(move || {
            let hash = receive(&server, 100_000);
            server.finish();
            hash
        });
        assert_eq!(relay(&downstream, &upstream, NO_LIMITS, |_, _| {}).await, Ending::Finished);
        assert_eq!(sender.join().unwrap(), receiver.join().unwrap());
    });
}

/// Returns the ending of a session with `limits` and its duration by the paused clock, while `script` runs.
fn under<F: Future<Output = ()>>(limits: Limits, script: impl FnOnce(End, End) -> F) -> (Ending, Duration) {
    block_on_paused(async {
        let (client, downstream) = End::pair(Tcp);
        let (server, upstream) = End::pair(Tcp);
        let start = Instant::now();
        let relay = async {
            let ending = relayed(downstream, upstream, limits, Arc::default()).await;
            (ending, start.elapsed())
        };
        tokio::join!(relay, script(client, server)).0
    })
}

const MINUTE: Duration = Duration::from_secs(60);

fn is_close(measured: Duration, expected: Duration) -> bool {
    // Tokio's timers count whole milliseconds.
    measured.abs_diff(expected) < Duration::from_millis(3)
}

#[test]
fn idle_timeout_is_off_unless_configured() {
    let limits = Limits::new(Some(MINUTE), 5 * MINUTE);
    let (ending, lasted) = under(limits, |client, server| async move {
        tokio::time::sleep(2 * MINUTE).await;
        for end in [&client, &server] {
            assert_eq!((&mut &*end).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
    assert_eq!(ending, Ending::Idle);
    assert!(is_close(lasted, MINUTE), "{lasted:?}");
}

#[test]
fn byte_in_either_direction_restarts_the_idle_timeout() {
    let limits = Limits::new(Some(MINUTE), 5 * MINUTE);
    let (ending, lasted) = under(limits, |client, server| async move {
        tokio::time::sleep(40 * MINUTE / 60).await;
        (&client).write_all(b"x").unwrap();
        tokio::time::sleep(50 * MINUTE / 60).await;
        (&server).write_all(b"x").unwrap();
        tokio::time::sleep(2 * MINUTE).await;
    });
    assert_eq!(ending, Ending::Idle);
    assert!(is_close(lasted, 150 * MINUTE / 60), "{lasted:?}");
}

#[test]
fn half_close_timeout_starts_at_the_half_close() {
    let limits = Limits::new(None, 5 * MINUTE);
    let (ending, lasted) = under(limits, |client, server| async move {
        tokio::time::sleep(10 * MINUTE).await;
        client.finish();
        tokio::time::sleep(2 * MINUTE).await;
        (&server).write_all(b"still working").unwrap();
        tokio::time::sleep(20 * MINUTE).await;
        drop((client, server));
    });
    assert_eq!(ending, Ending::HalfCloseTimeout);
    assert!(is_close(lasted, 17 * MINUTE), "{lasted:?}");
}

#[test]
fn shorter_timeout_determines_the_ending() {
    let limits = Limits::new(Some(MINUTE), 5 * MINUTE);
    let (ending, lasted) = under(limits, |client, server| async move {
        client.finish();
        tokio::time::sleep(20 * MINUTE).await;
        drop((client, server));
    });
    assert_eq!((ending, is_close(lasted, MINUTE)), (Ending::Idle, true));
    let limits = Limits::new(Some(10 * MINUTE), MINUTE);
    let (ending, lasted) = under(limits, |client, server| async move {
        tokio::time::sleep(2 * MINUTE).await;
        server.finish();
        tokio::time::sleep(20 * MINUTE).await;
        drop((client, server));
    });
    assert_eq!((ending, is_close(lasted, 3 * MINUTE)), (Ending::HalfCloseTimeout, true), "{lasted:?}");
}

/// The service replies and closes with unread bytes while the client sends more: simultaneously for the relay, because
/// there is no `await` in between.
async fn refuse(client: &End, server: End) {
    (&*client).write_all(b"request").unwrap();
    tokio::time::sleep(MINUTE).await;
    (&server).write_all(b"answer").unwrap();
    drop(server);
    (&*client).write_all(b"more").unwrap();
}

#[test]
fn refused_client_that_does_not_close_is_closed_after_five_seconds() {
    let (ending, lasted) = under(NO_LIMITS, |client, server| async move {
        refuse(&client, server).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(client.read_all(), b"answer");
    });
    assert_eq!(ending, Ending::UpstreamReset);
    assert!(is_close(lasted, MINUTE + Duration::from_secs(5)), "{lasted:?}");
}

#[test]
fn refused_client_that_keeps_sending_is_closed_after_thirty_seconds() {
    let (ending, lasted) = under(NO_LIMITS, |client, server| async move {
        refuse(&client, server).await;
        for _ in 0..29 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (&client).write_all(&[7; 10_000]).unwrap();
        }
        tokio::time::sleep(MINUTE).await;
        assert_eq!(client.read_all(), b"answer");
    });
    assert_eq!(ending, Ending::UpstreamReset);
    assert!(is_close(lasted, MINUTE + Duration::from_secs(30)), "{lasted:?}");
}

#[test]
fn refused_client_that_closes_ends_the_session() {
    let (ending, lasted) = under(NO_LIMITS, |client, server| async move {
        refuse(&client, server).await;
        client.finish();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(client.read_all(), b"answer");
    });
    assert_eq!((ending, is_close(lasted, MINUTE)), (Ending::UpstreamReset, true), "{lasted:?}");
}

#[test]
fn refused_client_that_reads_late_gets_the_complete_reply() {
    let session = Session::start(Narrow, Unix);
    session.exchange();
    let client = session.client;
    (&client).write_all(b"request").unwrap();
    (&session.server).read_exact(&mut [0; 3]).unwrap();
    let written = session.server.write_until_full();
    // Bytes that the relay buffers for the service: writing them fails as soon as the service has closed.
    client.write_until_full();
    drop(session.server);
    assert_eq!(client.read_all().len(), written);
    client.finish();
    assert_eq!(session.relay.join().unwrap(), Ending::UpstreamReset);
    assert_eq!(session.counts.down(), 1 + written as u64);
}

#[test]
fn timeout_beyond_the_clock_is_unlimited() {
    let limits = Limits::new(Some(Duration::MAX), Duration::MAX);
    let (ending, _) = under(limits, |client, server| async move {
        tokio::time::sleep(100 * MINUTE).await;
        client.finish();
        tokio::time::sleep(100 * MINUTE).await;
        server.finish();
    });
    assert_eq!(ending, Ending::Finished);
}

#[test]
fn bulk_sessions_do_not_starve_a_small_one() {
    const ROUND_TRIPS: u64 = 50;
    let bulk = Arc::new(Counts::default());
    let mut ends = Vec::new();
    let mut inner = Vec::new();
    for _ in 0..3 {
        let (client, downstream) = End::pair(Tcp);
        let (server, upstream) = End::pair(Tcp);
        ends.push((client, server));
        inner.push((downstream, upstream));
    }
    let counts = Arc::clone(&bulk);
    let relays = thread::spawn(move || {
        block_on(async {
            let small = inner.pop().unwrap();
            let [first, second]: [_; 2] = inner.try_into().unwrap();
            tokio::join!(
                relayed(first.0, first.1, NO_LIMITS, Arc::clone(&counts)),
                relayed(second.0, second.1, NO_LIMITS, counts),
                relayed(small.0, small.1, NO_LIMITS, Arc::default()),
            )
        })
    });
    let (client, server) = ends.pop().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for (client, server) in &ends {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    (&mut &*client).write_all(&[1; 1 << 18]).unwrap();
                }
                client.finish();
                assert_eq!(client.read_all(), b"");
            });
            scope.spawn(|| {
                std::io::copy(&mut &*server, &mut std::io::sink()).unwrap();
                server.finish();
            });
        }
        while bulk.up() < 64 << 20 {
            thread::yield_now();
        }
        let before = bulk.up();
        for _ in 0..ROUND_TRIPS {
            for (from, to) in [(&client, &server), (&server, &client)] {
                let mut byte = [0; 1];
                (&mut &*from).write_all(b"x").unwrap();
                (&mut &*to).read_exact(&mut byte).unwrap();
            }
        }
        // Each of its turns waits for one turn of each bulk session, and for threads that share the processors.
        let each = (bulk.up() - before) / ROUND_TRIPS;
        stop.store(true, Ordering::Relaxed);
        assert!(each < 16 << 20, "{each} bytes passed by for each round trip");
    });
    client.finish();
    server.finish();
    assert_eq!(relays.join().unwrap(), (Ending::Finished, Ending::Finished, Ending::Finished));
}
