//! Joins datagrams that arrive one by one, so that the kernel segments them again (GSO): one system call for many.

use std::cell::Cell;
use std::net::SocketAddr;

use super::socket::{Datagrams, MERGED_BYTES_MAX, SEGMENT_BYTES_MAX};

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Consecutive datagrams of one size, of which the last may be shorter.
pub(super) struct Run<H> {
    peer: SocketAddr,
    bytes: Vec<u8>,
    stride: Option<usize>,
    handle: H,
}

impl<H: FnMut(&Datagrams<'_>)> Run<H> {
    /// Starts without datagrams. Each run is passed to `handle` when the next datagram does not continue it, the last one by
    /// [`Run::finish`].
    pub(super) fn new(peer: SocketAddr, handle: H) -> Run<H> {
        Run { peer, bytes: BUFFER.take(), stride: None, handle }
    }

    /// Adds the datagram that consists of these parts.
    pub(super) fn push(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum();
        if !self.is_continued_by(length) {
            self.flush();
            self.stride = Some(length);
        }
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    fn is_continued_by(&self, length: usize) -> bool {
        self.stride.is_some_and(|stride| {
            (1..=SEGMENT_BYTES_MAX).contains(&stride)
                && self.bytes.len().is_multiple_of(stride)
                && (1..=stride).contains(&length)
                && self.bytes.len() + length <= MERGED_BYTES_MAX
        })
    }

    fn flush(&mut self) {
        if let Some(stride) = self.stride.take() {
            (self.handle)(&Datagrams::joined(self.peer, &self.bytes, stride));
            self.bytes.clear();
        }
    }

    /// Passes on the last run.
    pub(super) fn finish(mut self) {
        self.flush();
        BUFFER.set(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the runs that datagrams of these sizes are joined into: bytes and datagrams.
    fn joined(sizes: &[usize]) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let peer = SocketAddr::from(([192, 0, 2, 1], 53));
        let mut run = Run::new(peer, |datagrams: &Datagrams<'_>| {
            runs.push((datagrams.bytes.len(), datagrams.each().count()));
        });
        sizes.iter().for_each(|size| run.push(&[&vec![7; *size]]));
        run.finish();
        runs
    }

    #[test]
    fn consecutive_datagrams_of_one_size_are_joined() {
        assert_eq!(joined(&[]), []);
        assert_eq!(joined(&[0]), [(0, 1)]);
        assert_eq!(joined(&[0, 0, 9]), [(0, 1), (0, 1), (9, 1)], "empty ones are not joined");
        assert_eq!(joined(&[1200, 1200, 7]), [(2407, 3)]);
        assert_eq!(joined(&[1200, 7, 7]), [(1207, 2), (7, 1)], "a shorter one is the last");
        assert_eq!(joined(&[7, 9, 9]), [(7, 1), (18, 2)], "none is longer");
        assert_eq!(joined(&[1453, 1453]), [(1453, 1), (1453, 1)], "too large for GSO");
        assert_eq!(joined(&[1400; 64]), [(64_400, 46), (25_200, 18)], "within the limit of one send");
    }
}
