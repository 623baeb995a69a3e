//! The datagrams that wait for a flow to open.

use super::socket::Datagrams;

/// Datagrams buffered while a flow opens. Later ones are dropped, as by a full socket buffer: a handshake begins with the first
/// ones, and lost datagrams are retransmitted.
const BUFFERED_DATAGRAMS: usize = 16;
const BUFFERED_BYTES: usize = 64 << 10;

/// The limit for all flows of a listener together, so that forged client addresses cannot exhaust the memory.
const BUFFERED_BYTES_TOTAL: usize = 4 << 20;

/// The datagrams that wait for a flow to open.
#[derive(Default)]
pub(super) struct Buffer {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Buffer {
    /// Keeps the datagrams that fit. `total` is the current sum of all flows. Returns the number of bytes added.
    pub(super) fn add(&mut self, datagrams: &Datagrams<'_>, total: usize) -> usize {
        let before = self.bytes;
        for bytes in datagrams.each() {
            let free = BUFFERED_BYTES
                .saturating_sub(self.bytes)
                .min(BUFFERED_BYTES_TOTAL.saturating_sub(total + self.bytes - before));
            if self.datagrams.len() < BUFFERED_DATAGRAMS && bytes.len() <= free {
                self.datagrams.push(bytes.into());
                self.bytes += bytes.len();
            }
        }
        self.bytes - before
    }

    /// Returns the sum of their sizes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the datagrams in the order of their arrival.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.datagrams.iter().map(|datagram| &**datagram)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn buffered(total: usize, sizes: &[usize]) -> Vec<usize> {
        let client = SocketAddr::from(([192, 0, 2, 1], 1234));
        let mut buffer = Buffer::default();
        let mut added = 0;
        for size in sizes {
            added += buffer.add(&Datagrams::one(client, &vec![0; *size]), total + added);
        }
        assert_eq!(added, buffer.bytes);
        buffer.datagrams.iter().map(|datagram| datagram.len()).collect()
    }

    #[test]
    fn opening_flow_buffers_its_first_datagrams_within_its_limits() {
        assert_eq!(buffered(0, &[1, 0, 2]), [1, 0, 2]);
        assert_eq!(buffered(0, &[9; 40]), [9; BUFFERED_DATAGRAMS]);
        assert_eq!(buffered(0, &[40_000, 20_000, 20_000, 5_000]), [40_000, 20_000, 5_000]);
    }

    #[test]
    fn buffers_of_all_flows_stay_within_the_limit_of_the_listener() {
        assert_eq!(buffered(BUFFERED_BYTES_TOTAL - 10, &[8, 8, 2]), [8, 2]);
        assert_eq!(buffered(BUFFERED_BYTES_TOTAL, &[1, 1]), [0usize; 0]);
    }
}
