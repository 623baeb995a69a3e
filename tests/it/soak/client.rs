//! The clients: some open short connections continuously, some keep long ones and stream in both directions.

use std::collections::BTreeSet;
use std::io::{Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::resp::{Connection, Incoming, command};
use super::rng::Rng;
use crate::support::pause;

/// The pause between two connections of a client: some hundreds per second from all, which leaves time for other
/// processes on two cores.
const PACE: Duration = Duration::from_millis(10);
/// Fills every buffer on the path, so that the relay splices.
const BURST_BYTES: usize = 1 << 20;
const END: &[u8] = b"that is all";

/// The observations of all clients of one route.
#[derive(Default)]
pub(super) struct Observations {
    pub(super) connects: u64,
    pub(super) answered: u64,
    pub(super) streamed: u64,
    pub(super) long_finished: u64,
    /// Long sessions on a server that was killed, whose end is expected.
    pub(super) ended_with_their_server: u64,
    pub(super) servers: BTreeSet<String>,
    pub(super) longest: Duration,
    pub(super) failures: Vec<String>,
}

/// A client that runs for the whole soak.
pub(super) struct Client<'a> {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    pub(super) rng: Rng,
    pub(super) started: Instant,
    pub(super) until: Instant,
    pub(super) seen: &'a Mutex<Observations>,
    /// Servers that were killed or are about to be killed.
    pub(super) killed: &'a Mutex<BTreeSet<String>>,
}

impl Client<'_> {
    /// Repeatedly opens a connection, sends a request and checks the reply.
    pub(super) fn run_short_sessions(mut self) {
        while Instant::now() < self.until {
            let started = Instant::now();
            let length = 1 + self.rng.below(20_000);
            let question = self.rng.bytes(length);
            match self.ask(&question) {
                Ok(server) => self.answered(server, started.elapsed()),
                Err(why) => self.failed(started, &format!("a fresh request: {why}")),
            }
            pause(PACE);
        }
    }

    fn ask(&self, question: &[u8]) -> Result<String> {
        let mut connection = self.connect()?;
        connection.echo(question)?;
        let server = connection.server.clone();
        connection.finish()?;
        Ok(server)
    }

    fn connect(&self) -> Result<Connection> {
        self.seen.lock().unwrap().connects += 1;
        Connection::open(self.addr)
    }

    fn answered(&self, server: String, took: Duration) {
        let mut seen = self.seen.lock().unwrap();
        seen.answered += 1;
        seen.longest = seen.longest.max(took);
        seen.servers.insert(server);
    }

    fn failed(&self, since: Instant, what: &str) {
        let (began, took) = (since - self.started, since.elapsed());
        let line = format!("{} began at {began:.3?}, after {took:.3?}: {what}", self.name);
        self.seen.lock().unwrap().failures.push(line);
    }

    /// Repeatedly opens sessions of some seconds.
    pub(super) fn run_long_sessions(mut self) {
        while Instant::now() < self.until {
            let began = Instant::now();
            let until = self.until.min(began + self.rng.millis(1_000, 15_000));
            match self.connect() {
                Ok(connection) => self.stream(connection, began, until),
                Err(why) => self.failed(began, &format!("a long session's connect: {why}")),
            }
        }
    }

    fn stream(&mut self, connection: Connection, began: Instant, until: Instant) {
        let server = connection.server.clone();
        let mut rng = Rng::new(self.rng.next_u64(), 0);
        let outcome = transfer(connection, &mut rng, until);
        let was_killed = self.killed.lock().unwrap().contains(&server);
        let mut seen = self.seen.lock().unwrap();
        match outcome {
            Ok(bytes) => {
                seen.streamed += bytes;
                seen.long_finished += 1;
            }
            Err(_) if was_killed => seen.ended_with_their_server += 1,
            Err(why) => {
                drop(seen);
                self.failed(began, &format!("a long session on {server}: {why}"));
            }
        }
    }
}

/// Transfers bytes in both directions and compares what was sent and received.
fn transfer(mut connection: Connection, rng: &mut Rng, until: Instant) -> std::result::Result<u64, String> {
    let stream = connection.stream.try_clone().map_err(|why| why.to_string())?;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(&stream, rng, until);
            if sent.is_err() {
                stream.shutdown(Shutdown::Both).ok();
            }
            sent
        });
        let received = receive(&mut connection.incoming);
        if received.is_err() {
            connection.stream.shutdown(Shutdown::Both).ok();
        }
        (sender.join().expect("a sender that does not panic"), received)
    });
    let sent = sent.map_err(|why| format!("sending: {why}; receiving: {:?}", received.as_ref().err()))?;
    let received = received.map_err(|why| format!("receiving: {why}"))?;
    if sent != received {
        return Err(format!("sent {sent:?}, and received {received:?}"));
    }
    connection.finish().map_err(|why| format!("finishing: {why}"))?;
    Ok(sent.bytes)
}

/// Length and hash of what was sent or received.
#[derive(Debug, PartialEq, Eq)]
struct Checksum {
    bytes: u64,
    sha256: String,
}

impl Checksum {
    fn of(bytes: u64, hash: Sha256) -> Checksum {
        Checksum { bytes, sha256: data_encoding::HEXLOWER.encode(&hash.finalize()) }
    }
}

fn send(mut stream: &TcpStream, rng: &mut Rng, until: Instant) -> Result<Checksum> {
    let (mut bytes, mut hash) = (0, Sha256::new());
    let mut chunk = rng.bytes(BURST_BYTES);
    loop {
        bytes += chunk.len() as u64;
        hash.update(&chunk);
        stream.write_all(&command(&[b"ECHO", &chunk]))?;
        if Instant::now() >= until {
            break;
        }
        pause(rng.millis(5, 100));
        let length = 1 + rng.below(1 << 16);
        chunk = rng.bytes(length);
    }
    stream.write_all(&command(&[b"ECHO", END]))?;
    Ok(Checksum::of(bytes, hash))
}

fn receive(incoming: &mut Incoming) -> Result<Checksum> {
    let (mut bytes, mut hash) = (0, Sha256::new());
    loop {
        let chunk = incoming.bulk()?;
        if chunk == END {
            return Ok(Checksum::of(bytes, hash));
        }
        bytes += chunk.len() as u64;
        hash.update(&chunk);
    }
}
