//! Numbered datagrams. The sender keeps a window of them in flight, as QUIC does, so that the rate is the proxy's and a
//! lost datagram is a loss of the proxy, not of a flooded queue.

use std::array::from_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::poll::{Poll, unless_blocked};
use super::{Outcome, report, seconds, step};

const WARM_UP: Duration = Duration::from_millis(150);
/// A datagram without an acknowledgement after this time is lost. Longer than any queue here, shorter than a
/// measurement.
const GIVE_UP: Duration = Duration::from_millis(20);
/// At the end: interval and number of attempts for datagrams still in flight.
const LAST_CALL: Duration = Duration::from_millis(50);
const LAST_CALLS: usize = 2;
/// The numbers of the flow and of the datagram in it, and whether to acknowledge at once.
pub(super) const NUMBERS_BYTES: usize = 24;
pub(super) const TELL_AT_ONCE: u64 = 1;
/// Passed to the kernel at once, and acknowledged with one datagram.
pub(super) const BATCH: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Args {
    target: SocketAddr,
    /// Number of sending sockets
    #[arg(long, default_value_t = 4)]
    flows: usize,
    /// Datagrams of a flow in flight. All of them fit into a receive buffer of Linux's default size
    #[arg(long, default_value_t = 16)]
    window: u64,
    /// Bytes of a datagram
    #[arg(long, default_value_t = 1200)]
    payload: usize,
    /// Send a batch as one large datagram, which the kernel cuts (`UDP_SEGMENT`), instead of many (`sendmmsg`)
    #[arg(long)]
    gso: bool,
    #[arg(long, value_parser = seconds, default_value = "1")]
    seconds: Duration,
}

pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(args.payload >= NUMBERS_BYTES, "a datagram has at least {NUMBERS_BYTES} bytes");
    ensure!(args.window >= BATCH as u64, "a window holds at least {BATCH} datagrams");
    let mut sender = Sender::new(args)?;
    sender.run(WARM_UP)?;
    step("ready")?;
    report(&sender.run(args.seconds)?)
}

struct Sender<'a> {
    args: &'a Args,
    poll: Poll,
    flows: Vec<Flow>,
    buffer: Vec<u8>,
}

struct Flow {
    number: u64,
    socket: UdpSocket,
    state: UdpSocketState,
    sent: u64,
    /// All numbers below it have arrived or are lost.
    settled: u64,
    arrived: u64,
    heard: Instant,
}

impl<'a> Sender<'a> {
    fn new(args: &'a Args) -> Result<Sender<'a>> {
        let poll = Poll::new()?;
        let flow = |index| -> Result<Flow> {
            let any: SocketAddr = if args.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
            let socket = UdpSocket::bind(any)?;
            socket.connect(args.target)?;
            let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
            poll.watch_input(&socket, index)?;
            // Flows have unique numbers for the life of a service.
            let number = (u64::from(std::process::id()) << 16) + index;
            Ok(Flow { number, socket, state, sent: 0, settled: 0, arrived: 0, heard: Instant::now() })
        };
        let flows = (0..args.flows as u64).map(flow).collect::<Result<_>>()?;
        Ok(Sender { args, poll, flows, buffer: vec![0; args.payload * BATCH] })
    }

    fn run(&mut self, duration: Duration) -> Result<Outcome> {
        let start = Instant::now();
        let (sent, arrived) = self.totals();
        while start.elapsed() < duration {
            self.fill()?;
            self.listen(GIVE_UP)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let in_time = self.totals().1 - arrived;
        self.drain()?;
        let (all_sent, all_arrived) = self.totals();
        // A datagram that was duplicated on its way is counted twice.
        let lost = (all_sent - sent).saturating_sub(all_arrived - arrived);
        Ok(Outcome { seconds, done: in_time, lost, ..Outcome::default() })
    }

    fn totals(&self) -> (u64, u64) {
        self.flows.iter().fold((0, 0), |(sent, arrived), flow| (sent + flow.sent, arrived + flow.arrived))
    }

    /// Sends what the windows allow.
    fn fill(&mut self) -> Result<()> {
        for flow in &mut self.flows {
            while flow.sent + BATCH as u64 <= flow.settled + self.args.window {
                flow.number(&mut self.buffer, self.args.payload, 0);
                if !flow.send(self.args, &self.buffer)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn listen(&mut self, limit: Duration) -> Result<()> {
        let events = self.poll.wait(Some(limit))?;
        let now = Instant::now();
        for index in 0..events {
            self.flows[self.poll.ready(index).token as usize].acknowledge(now)?;
        }
        for flow in self.flows.iter_mut().filter(|flow| now.duration_since(flow.heard) > GIVE_UP) {
            (flow.settled, flow.heard) = (flow.sent, now);
        }
        Ok(())
    }

    /// Requests counts until all datagrams have arrived or no more arrive.
    fn drain(&mut self) -> Result<()> {
        for _ in 0..LAST_CALLS {
            for flow in self.flows.iter_mut().filter(|flow| flow.arrived < flow.sent) {
                flow.number(&mut self.buffer, self.args.payload, TELL_AT_ONCE);
                let asked = flow.socket.send(&self.buffer[..self.args.payload]);
                flow.sent += u64::from(asked.is_ok());
            }
            let asked = Instant::now();
            while asked.elapsed() < LAST_CALL && self.flows.iter().any(|flow| flow.arrived < flow.sent) {
                self.listen(LAST_CALL)?;
            }
        }
        Ok(())
    }
}

impl Flow {
    fn number(&self, buffer: &mut [u8], payload: usize, acknowledge: u64) {
        for (datagram, number) in buffer.chunks_mut(payload).zip(self.sent..) {
            for (place, value) in datagram.chunks_mut(8).zip([self.number, number, acknowledge]) {
                place.copy_from_slice(&value.to_be_bytes());
            }
        }
    }

    /// Returns whether the socket accepted a batch or a part of it.
    fn send(&mut self, args: &Args, buffer: &[u8]) -> Result<bool> {
        let result = if args.gso { self.send_one(args, buffer) } else { self.send_many(args, buffer) };
        match result {
            Ok(sent) => self.sent += sent as u64,
            // The previous datagram reached a closed port: it is counted as lost.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            other => return Ok(unless_blocked(other)?.is_some()),
        }
        Ok(true)
    }

    fn send_one(&self, args: &Args, buffer: &[u8]) -> io::Result<usize> {
        let transmit = Transmit {
            destination: args.target,
            ecn: None,
            contents: buffer,
            segment_size: Some(args.payload),
            src_ip: None,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit).map(|()| BATCH)
    }

    fn send_many(&self, args: &Args, buffer: &[u8]) -> io::Result<usize> {
        let slices: [_; BATCH] = from_fn(|at| [IoSlice::new(&buffer[at * args.payload..][..args.payload])]);
        let mut nothing: [_; BATCH] = from_fn(|_| SendAncillaryBuffer::default());
        let mut slices = slices.iter();
        let mut messages = nothing
            .each_mut()
            .map(|nothing| MMsgHdr::new(slices.next().map_or(&[][..], |slice| &slice[..]), nothing));
        Ok(sendmmsg(&self.socket, &mut messages, SendFlags::empty())?)
    }

    fn acknowledge(&mut self, now: Instant) -> Result<()> {
        let mut ack = [0; NUMBERS_BYTES];
        loop {
            match self.socket.recv(&mut ack) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                received => {
                    if unless_blocked(received)?.is_none() {
                        return Ok(());
                    }
                }
            }
            let [number, settled, arrived] = [0, 8, 16].map(|at| number_at(&ack, at));
            if number == self.number {
                self.settled = self.settled.max(settled);
                self.arrived = self.arrived.max(arrived);
                self.heard = now;
            }
        }
    }
}

pub(super) fn number_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_be_bytes)
}
