//! Requests in a closed loop: each connection sends the next one after the reply, over the same connection or a new
//! one. Alternatively at a fixed rate.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::pace::{self, Pace};
use super::poll::{Poll, Ready, unless_blocked};
use super::{HEADER_BYTES, Outcome, report, seconds, step};

/// The warm-up, which is not counted: connections settle, caches and branch predictors adapt.
const WARM_UP: Duration = Duration::from_millis(150);
/// A proxy that refuses everything is not measured to the end.
const MOST_FAILURES: u64 = 1000;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    target: SocketAddr,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Bytes of a request and of its reply
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Requests written at once
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Requests per second, whether earlier ones have replies or not
    #[arg(long)]
    rate: Option<f64>,
    /// Send each request over a connection of its own
    #[arg(long)]
    connect: bool,
    #[arg(long, value_parser = seconds, default_value = "1")]
    seconds: Duration,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut client = Client::new(args.target, args.payload, args.depth, args.connect)?;
    client.open(args.connections)?;
    client.pace = args.rate.map(|rate| Pace::new(&client.poll, rate, args.connections)).transpose()?;
    client.run(WARM_UP)?;
    step("ready")?;
    report(&client.run(args.seconds)?)
}

pub(super) struct Client {
    target: SocketAddr,
    /// The requests that are written at once, and their number.
    requests: Vec<u8>,
    depth: usize,
    reconnect: bool,
    /// Without it, a connection sends as soon as it has its reply.
    pace: Option<Pace>,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    latencies: Histogram<u64>,
    failures: u64,
}

struct Connection {
    stream: TcpStream,
    sent: usize,
    received: usize,
    /// Requests are in flight.
    busy: bool,
    /// The number of its requests in this run.
    requests: u64,
    since: Instant,
}

impl Client {
    pub(super) fn new(target: SocketAddr, payload: usize, depth: usize, reconnect: bool) -> Result<Client> {
        ensure!(payload >= HEADER_BYTES && depth > 0, "a message has at least {HEADER_BYTES} bytes");
        let mut request = vec![b'x'; payload];
        request[..HEADER_BYTES].copy_from_slice(&u32::try_from(payload)?.to_be_bytes());
        Ok(Client {
            target,
            requests: request.repeat(depth),
            depth,
            reconnect,
            pace: None,
            poll: Poll::new()?,
            connections: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            // From a nanosecond to a minute, with three digits.
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            failures: 0,
        })
    }

    /// Opens this many more connections, one after the other, so that no backlog overflows.
    pub(super) fn open(&mut self, connections: usize) -> Result<()> {
        for _ in 0..connections {
            let stream = TcpStream::connect(self.target).context("cannot connect")?;
            self.connections.push(registered(stream, &self.poll, self.connections.len())?);
        }
        Ok(())
    }

    /// Sends one request over each connection in turn.
    pub(super) fn send_each(&mut self) -> Result<()> {
        for Connection { stream, .. } in &mut self.connections {
            stream.set_nonblocking(false)?;
            stream.write_all(&self.requests)?;
            stream.read_exact(&mut self.buffer[..self.requests.len()])?;
            stream.set_nonblocking(true)?;
        }
        Ok(())
    }

    /// Sends on all connections until the time is up. Requests in flight at that time are not counted.
    pub(super) fn run(&mut self, duration: Duration) -> Result<Outcome> {
        let start = Instant::now();
        self.begin(start)?;
        let end = start + duration;
        let (mut now, mut done) = (start, 0);
        while now < end && self.failures < MOST_FAILURES {
            let events = self.poll.wait(Some(end - now))?;
            now = Instant::now();
            for index in 0..events {
                match self.poll.ready(index) {
                    Ready { token: pace::TOKEN, .. } => self.send_due(now)?,
                    ready if self.handle(ready, &mut now)? => done += self.depth as u64,
                    _ => {}
                }
            }
        }
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Outcome {
            seconds: start.elapsed().as_secs_f64(),
            done,
            lost: self.failures,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
        })
    }

    /// Restarts the clock: replies to requests still in flight count for this run.
    fn begin(&mut self, now: Instant) -> Result<()> {
        self.latencies.reset();
        self.failures = 0;
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            (connection.since, connection.requests) = (now, 0);
            if !connection.busy && self.pace.is_none() {
                self.send(index, now)?;
            }
        }
        self.pace.as_mut().map_or(Ok(()), |pace| pace.restart(now))?;
        Ok(())
    }

    fn send(&mut self, index: usize, since: Instant) -> Result<()> {
        match self.connections[index].send(&self.requests, since) {
            Ok(()) => Ok(()),
            Err(_) => self.fail(index, since),
        }
    }

    /// Sends on the connections that are due; a busy one sends when its reply arrives.
    fn send_due(&mut self, now: Instant) -> Result<()> {
        self.pace.iter().for_each(Pace::fired);
        while let Some((index, since)) = self.pace.as_mut().and_then(|pace| pace.next_due(now)) {
            if !self.connections[index].busy {
                self.send(index, since)?;
            }
        }
        Ok(())
    }

    /// Returns whether replies arrived; `now` is then updated.
    fn handle(&mut self, ready: Ready, now: &mut Instant) -> Result<bool> {
        let index = ready.token as usize;
        let connection = &mut self.connections[index];
        match connection.read(ready, &self.requests, &mut self.buffer) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(_) => return self.fail(index, *now).map(|()| false),
        }
        *now = Instant::now();
        let took = now.duration_since(connection.since);
        self.latencies.saturating_record(took.as_nanos() as u64);
        connection.busy = false;
        match &self.pace {
            _ if self.reconnect => self.reconnect(index, *now)?,
            None => self.send(index, *now)?,
            Some(pace) => {
                if let Some(since) = pace.overdue(index, connection.requests) {
                    self.send(index, since)?;
                }
            }
        }
        Ok(true)
    }

    fn fail(&mut self, index: usize, now: Instant) -> Result<()> {
        self.failures += 1;
        self.reconnect(index, now)
    }

    /// Replaces a connection by a new one, which sends as soon as it is established.
    fn reconnect(&mut self, index: usize, now: Instant) -> Result<()> {
        let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.target) {
            // Already refused: the first write returns the error.
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        let mut connection = registered(socket.into(), &self.poll, index)?;
        (connection.busy, connection.since) = (true, now);
        connection.requests = self.connections[index].requests;
        self.connections[index] = connection;
        Ok(())
    }
}

fn registered(stream: TcpStream, poll: &Poll, index: usize) -> Result<Connection> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    poll.watch_edges(&stream, index as u64)?;
    Ok(Connection { stream, sent: 0, received: 0, busy: false, requests: 0, since: Instant::now() })
}

impl Connection {
    fn send(&mut self, requests: &[u8], now: Instant) -> io::Result<()> {
        (self.sent, self.received, self.busy, self.since) = (0, 0, true, now);
        self.requests += 1;
        self.write(requests).map(drop)
    }

    /// Returns whether everything is written.
    fn write(&mut self, requests: &[u8]) -> io::Result<bool> {
        while self.sent < requests.len() {
            let Some(length) = unless_blocked(self.stream.write(&requests[self.sent..]))? else {
                return Ok(false);
            };
            self.sent += length;
        }
        Ok(true)
    }

    /// Returns whether all replies have arrived.
    fn read(&mut self, ready: Ready, requests: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        if !self.busy || !self.write(requests)? || !(ready.readable || ready.ended) {
            return Ok(false);
        }
        loop {
            let Some(length) = unless_blocked(self.stream.read(buffer))? else { return Ok(false) };
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received += length;
            if self.received >= requests.len() {
                return Ok(true);
            }
            // A short read has emptied the socket, unless the end of the stream follows directly.
            if length < buffer.len() && !ready.ended {
                return Ok(false);
            }
        }
    }
}
