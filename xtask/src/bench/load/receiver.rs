//! The receiver of datagrams: counts those of each flow and reports the counts to the sender.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};

use super::poll::unless_blocked;
use super::udp::{BATCH, NUMBERS_BYTES, TELL_AT_ONCE, number_at};

/// A receiver drops all flows when it has more: they are from earlier measurements.
const MOST_FLOWS: usize = 1024;

/// Counts the datagrams of each flow and reports to their senders.
pub(super) struct Receiver {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    flows: HashMap<u64, FlowCount>,
    /// Flows of the last batch.
    touched: Vec<u64>,
}

#[derive(Clone, Copy)]
struct FlowCount {
    arrived: u64,
    /// The highest number plus one.
    settled: u64,
    /// The address to report to; `None` if nothing is due.
    tell: Option<SocketAddr>,
}

impl Receiver {
    pub(super) fn bind(listen: SocketAddr) -> Result<Receiver> {
        let socket = UdpSocket::bind(listen).context("no UDP socket")?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let buffers = vec![vec![0; 2048 * state.gro_segments()]; BATCH_SIZE];
        Ok(Receiver { socket, state, buffers, flows: HashMap::new(), touched: Vec::new() })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Receives one batch and acknowledges each flow that is due.
    pub(super) fn receive(&mut self) -> Result<()> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let received = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas);
        let Some(messages) = unless_blocked(received)? else { return Ok(()) };
        if self.flows.len() > MOST_FLOWS {
            self.flows.clear();
        }
        for (meta, buffer) in metas.iter().take(messages).zip(&self.buffers) {
            for datagram in
                buffer[..meta.len].chunks(meta.stride.max(1)).filter(|one| one.len() >= NUMBERS_BYTES)
            {
                let number = number_at(datagram, 0);
                let counted = self.flows.entry(number).or_insert(FlowCount::NOTHING);
                counted.arrived += 1;
                counted.settled = counted.settled.max(number_at(datagram, 8) + 1);
                let tell =
                    counted.arrived.is_multiple_of(BATCH as u64) || number_at(datagram, 16) == TELL_AT_ONCE;
                if tell && counted.tell.replace(meta.addr).is_none() {
                    self.touched.push(number);
                }
            }
        }
        self.acknowledge()
    }

    fn acknowledge(&mut self) -> Result<()> {
        for number in self.touched.drain(..) {
            let Some(counted) = self.flows.get_mut(&number) else { continue };
            let Some(from) = counted.tell.take() else { continue };
            let mut ack = [0; 24];
            for (place, value) in ack.chunks_mut(8).zip([number, counted.settled, counted.arrived]) {
                place.copy_from_slice(&value.to_be_bytes());
            }
            // The sender has ended or a buffer is full: the next acknowledgement includes this one.
            self.socket.send_to(&ack, from).ok();
        }
        Ok(())
    }
}

impl FlowCount {
    const NOTHING: FlowCount = FlowCount { arrived: 0, settled: 0, tell: None };
}
