//! The relay between real sockets: what one side sends the other gets, and each end has its name.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ambassador::ending::Ending;
use ambassador::relay::{Direction, Limits, relay};
use ambassador::socket::Socket;
use sha2::{Digest, Sha256};

const NO_LIMITS: Limits = Limits { idle: None, half_close: Duration::from_secs(300) };

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// The moved bytes, as the relay tells of them.
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

/// A connected pair: the outer end for the test, the inner one for the relay.
trait Pair: Sized {
    fn pair() -> (Self, OwnedFd);
}

impl Pair for TcpStream {
    fn pair() -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (inner, _) = listener.accept().unwrap();
        for stream in [&outer, &inner] {
            stream.set_nodelay(true).unwrap();
        }
        outer.set_read_timeout(Some(PATIENCE)).unwrap();
        outer.set_write_timeout(Some(PATIENCE)).unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, inner.into())
    }
}

impl Pair for UnixStream {
    fn pair() -> (UnixStream, OwnedFd) {
        let (outer, inner) = UnixStream::pair().unwrap();
        outer.set_read_timeout(Some(PATIENCE)).unwrap();
        outer.set_write_timeout(Some(PATIENCE)).unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, inner.into())
    }
}

/// One session with a thread of its own.
struct Session<C, S> {
    client: C,
    server: S,
    counts: Arc<Counts>,
    relay: JoinHandle<Ending>,
}

impl<C: Pair, S: Pair> Session<C, S> {
    fn start(limits: Limits) -> Session<C, S> {
        let (client, downstream) = C::pair();
        let (server, upstream) = S::pair();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let relay = thread::spawn(move || block_on(relayed(downstream, upstream, limits, shared)));
        Session { client, server, counts, relay }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn relayed(downstream: OwnedFd, upstream: OwnedFd, limits: Limits, counts: Arc<Counts>) -> Ending {
    let downstream = Socket::register(downstream).unwrap();
    let upstream = Socket::register(upstream).unwrap();
    relay(&downstream, &upstream, limits, &|direction, bytes| counts.add(direction, bytes)).await
}

/// The same bytes for the same seed, different from one position to the next.
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

/// Sends `total` bytes in pieces of what `piece` says, then FIN. Returns their hash.
fn send(mut to: impl Write, seed: u64, total: usize, mut piece: impl FnMut(&mut Noise) -> usize) -> String {
    let mut noise = Noise(seed);
    let mut buffer = vec![0; 1 << 20];
    // Hashing a gigabyte of fresh noise takes a debug build a minute, so most of it repeats.
    noise.fill(&mut buffer);
    let mut hash = Sha256::new();
    let mut left = total;
    while left > 0 {
        let length = piece(&mut noise).clamp(1, left.min(buffer.len()));
        noise.fill(&mut buffer[..8.min(length)]);
        to.write_all(&buffer[..length]).unwrap();
        hash.update(&buffer[..length]);
        left -= length;
    }
    format!("{:x}", hash.finalize())
}

/// Reads until FIN, at most `piece` bytes at once. Returns the hash of all.
fn receive(mut from: impl Read, piece: usize) -> String {
    let mut buffer = vec![0; piece];
    let mut hash = Sha256::new();
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return format!("{:x}", hash.finalize()),
            length => hash.update(&buffer[..length]),
        }
    }
}

#[test]
fn what_one_side_sends_the_other_gets() {
    let mut session = Session::<TcpStream, TcpStream>::start(NO_LIMITS);
    session.client.write_all(b"PING").unwrap();
    let mut request = [0; 4];
    session.server.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"PING");
    session.server.write_all(b"PONG!").unwrap();
    session.server.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    session.client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"PONG!");
    session.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(session.server.read(&mut request).unwrap(), 0);
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
    assert_eq!((session.counts.up(), session.counts.down()), (4, 5));
}

/// Sends `total` bytes each way at once and compares.
fn both_ways<C, S>(total: usize, piece: impl Fn(&mut Noise) -> usize + Copy + Send)
where
    C: Pair + Sync + Send,
    S: Pair + Sync + Send,
    for<'a> &'a C: Read + Write,
    for<'a> &'a S: Read + Write,
    C: Finish,
    S: Finish,
{
    let session = Session::<C, S>::start(NO_LIMITS);
    let (client, server) = (&session.client, &session.server);
    thread::scope(|scope| {
        let sent_up = scope.spawn(move || {
            let hash = send(client, 1, total, piece);
            client.finish();
            hash
        });
        let sent_down = scope.spawn(move || {
            let hash = send(server, 2, total, piece);
            server.finish();
            hash
        });
        let got_up = scope.spawn(move || receive(server, 200_000));
        let got_down = scope.spawn(move || receive(client, 30_000));
        assert_eq!(sent_up.join().unwrap(), got_up.join().unwrap());
        assert_eq!(sent_down.join().unwrap(), got_down.join().unwrap());
    });
    assert_eq!(session.relay.join().unwrap(), Ending::Finished);
    assert_eq!((session.counts.up(), session.counts.down()), (total as u64, total as u64));
}

trait Finish {
    fn finish(&self);
}

impl Finish for TcpStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Finish for UnixStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

#[test]
fn a_bulk_transfer_each_way_arrives_whole() {
    both_ways::<TcpStream, TcpStream>(64 << 20, |_| 1 << 20);
}
