//! Bytes through a tunnel: exact at each size, and for many sessions at once. The tests of `relay` and of
//! `hostile::bytes` run through tunnels, too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador::ending::Ending;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::{AppPair, PATIENCE, Service};

/// Sizes around the limits of a frame, a TLS record and a window.
const SIZES: [usize; 19] = [
    0,
    1,
    2,
    100,
    4_095,
    4_096,
    4_097,
    16_383,
    16_384,
    16_385,
    65_535,
    65_536,
    65_537,
    100_000,
    (1 << 20) + 1,
    (4 << 20) - 1,
    4 << 20,
    (4 << 20) + 1,
    9_000_001,
];

/// Returns bytes that differ between sessions, and within each.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((n.wrapping_mul(31) ^ (n >> 8) ^ seed) % 251).unwrap();
    (0..length).map(byte).collect()
}

#[tokio::test]
async fn bytes_are_exact_at_each_size() {
    let service = Service::named("").await;
    let pair = AppPair::new(&service.addr.to_string(), "").await;
    for (seed, size) in SIZES.into_iter().enumerate() {
        let sent = pattern(seed, size);
        let (mut read, mut write) = TcpStream::connect(pair.addr()).await.unwrap().into_split();
        let echo = async {
            let mut echo = Vec::new();
            read.read_to_end(&mut echo).await.unwrap();
            echo
        };
        let send = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (echo, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(echo, send) })
            .await
            .expect("an echo in time");
        assert!(echo == sent, "{size} bytes: {} came back", echo.len());
    }
    let sessions = u64::try_from(SIZES.len()).unwrap();
    pair.dialler.await_ended("r", Ending::Finished, sessions).await;
    pair.exporter.await_ended("x", Ending::Finished, sessions).await;
}

/// What a client wants: it sends `up` bytes, and the service sends `down` bytes at the same time.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    id: u32,
    up: u32,
    down: u32,
}

impl Exchange {
    /// Sizes from nothing to megabytes, in either direction.
    fn numbered(id: u32) -> Exchange {
        let size = |n: u32| match n % 10 {
            0 => 0,
            1..=5 => n * 37 % 5_000,
            6..=8 => n * 7_919 % 200_000,
            _ => n * 104_729 % 3_000_000,
        };
        Exchange { id, up: size(id), down: size(id * 7 + 3) }
    }

    fn sent_up(self) -> Vec<u8> {
        pattern(self.id as usize, self.up as usize)
    }

    fn sent_down(self) -> Vec<u8> {
        pattern(self.id as usize + 100, self.down as usize)
    }

    /// One of twelve clients and one of seven services is slow.
    fn pieces(self, is_client: bool) -> (usize, Duration) {
        let is_slow = if is_client { self.id.is_multiple_of(12) } else { self.id.is_multiple_of(7) };
        if is_slow { (8_000, Duration::from_millis(2)) } else { (100_000, Duration::ZERO) }
    }
}

/// Reads to the end, with pauses.
async fn read_all(mut from: impl AsyncRead + Unpin, (piece, pause): (usize, Duration)) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        let length = from.read(&mut buffer).await.unwrap();
        if length == 0 {
            return all;
        }
        all.extend_from_slice(&buffer[..length]);
        tokio::time::sleep(pause).await;
    }
}

async fn write_all(mut to: impl AsyncWrite + Unpin, bytes: Vec<u8>) {
    to.write_all(&bytes).await.unwrap();
    to.shutdown().await.unwrap();
}

/// Serves exchanges, and records the hash of what each client has sent.
#[derive(Clone, Default)]
struct Exchanges(Arc<Mutex<HashMap<u32, String>>>);

impl Exchanges {
    async fn serve(self) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "its handle is returned")]
        let task = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sessions.spawn(self.clone().serve_one(stream));
            }
        });
        (addr, task)
    }

    async fn serve_one(self, mut stream: TcpStream) {
        let (id, up, down) = (
            stream.read_u32().await.unwrap(),
            stream.read_u32().await.unwrap(),
            stream.read_u32().await.unwrap(),
        );
        let exchange = Exchange { id, up, down };
        let (read, write) = stream.into_split();
        let (received, ()) =
            tokio::join!(read_all(read, exchange.pieces(false)), write_all(write, exchange.sent_down()));
        self.0.lock().unwrap().insert(id, hash(&received));
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sessions_with_slow_readers_carry_their_own_bytes() {
    const SESSIONS: u32 = 300;
    let served = Exchanges::default();
    let (service, _task) = served.clone().serve().await;
    let pair = AppPair::new(&service.to_string(), "").await;
    let mut sessions = JoinSet::new();
    for exchange in (0..SESSIONS).map(Exchange::numbered) {
        let addr = pair.addr();
        sessions.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            for number in [exchange.id, exchange.up, exchange.down] {
                stream.write_u32(number).await.unwrap();
            }
            let (read, write) = stream.into_split();
            let (received, ()) =
                tokio::join!(read_all(read, exchange.pieces(true)), write_all(write, exchange.sent_up()));
            assert!(received == exchange.sent_down(), "{exchange:?}: {} bytes", received.len());
        });
    }
    tokio::time::timeout(4 * PATIENCE, sessions.join_all()).await.expect("all sessions end");
    pair.exporter.await_ended("x", Ending::Finished, SESSIONS.into()).await;
    pair.dialler.await_ended("r", Ending::Finished, SESSIONS.into()).await;
    let served = served.0.lock().unwrap();
    for exchange in (0..SESSIONS).map(Exchange::numbered) {
        assert_eq!(served.get(&exchange.id), Some(&hash(&exchange.sent_up())), "{exchange:?}");
    }
}
