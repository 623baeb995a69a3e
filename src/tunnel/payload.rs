//! The payload of a DATA frame, which reports when it was written to the connection.
//!
//! A session has at most one payload that is not written yet. This bounds what a stream queues, and while the connection is
//! busy, small writes of the session's other side are read together: a peer receives few large frames instead of many small
//! ones, each of which would cost it memory (RUSTSEC-2024-0003 and h2's budget for small frames).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

/// The bytes of one DATA frame.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Bytes,
    /// `None` for a frame without bytes.
    unsent: Option<Arc<Unsent>>,
}

/// Whether a stream has a payload that is not written yet.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    is_pending: AtomicBool,
    writer: AtomicWaker,
}

impl Payload {
    /// Returns an empty payload, for END_STREAM.
    pub(super) fn empty() -> Payload {
        Payload { bytes: Bytes::new(), unsent: None }
    }
}

impl Unsent {
    /// Returns a payload of `bytes`. Until it is dropped, [`Unsent::is_pending`] is true.
    pub(super) fn payload(self: &Arc<Unsent>, bytes: Bytes) -> Payload {
        self.is_pending.store(true, SeqCst);
        Payload { bytes, unsent: Some(self.clone()) }
    }

    /// Returns whether the last payload is not written yet.
    pub(super) fn is_pending(&self) -> bool {
        self.is_pending.load(SeqCst)
    }

    /// Ready when the last payload was written, or dropped because the stream was reset.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_pending() {
            return Poll::Ready(());
        }
        self.writer.register(cx.waker());
        // Again, for a payload that was written before the waker was registered.
        if self.is_pending() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(unsent) = self.unsent.take() {
            unsent.is_pending.store(false, SeqCst);
            unsent.writer.wake();
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writer_is_woken_when_the_payload_is_dropped() {
        let unsent = Arc::new(Unsent::default());
        let payload = unsent.payload(Bytes::from_static(b"x"));
        let mut sent = tokio_test_poll(&unsent);
        assert!(sent.is_pending() && unsent.is_pending());
        drop(payload);
        sent = tokio_test_poll(&unsent);
        assert!(sent.is_ready() && !unsent.is_pending());
    }

    fn tokio_test_poll(unsent: &Unsent) -> Poll<()> {
        unsent.poll_sent(&Context::from_waker(futures_util::task::noop_waker_ref()))
    }
}
