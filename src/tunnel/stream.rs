//! One session in a tunnel: an HTTP/2 stream after its CONNECT, with the operations of a socket.
//!
//! A FIN is END_STREAM. A reset is RST_STREAM with CONNECT_ERROR (RFC 9113, 8.5), always sent explicitly: h2 resets a dropped
//! stream with CANCEL, which others read as a clean end. Credit is returned to the sender only after the bytes were delivered.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Response;

use super::payload::{Payload, Unsent};
use super::refusal::Refusal;
use super::{Counted, Tunnel, lock};
use crate::ending::Ending;

/// The most bytes of one frame, and so of one write.
pub(crate) const FRAME_BYTES: usize = 64 << 10;

/// Received frames that are smaller are merged, so that a stream that is not read keeps bytes and not frames.
const MERGED_BYTES: usize = 4 << 10;

/// A session in a tunnel.
#[derive(Debug)]
pub struct TunnelStream {
    tunnel: Counted,
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
    unsent: Arc<Unsent>,
    /// The close must reset the stream.
    reset: AtomicBool,
    /// How long the peer waits for the answer to its request.
    hold: Option<Duration>,
}

/// The direction to the peer.
#[derive(Debug)]
enum Sender {
    /// A request of the peer that is not answered yet.
    Requested(SendResponse<Payload>),
    Open(SendStream<Payload>),
    /// END_STREAM was sent. The stream is kept to detect a reset.
    Ended(SendStream<Payload>),
    Closed,
}

/// The direction from the peer.
#[derive(Debug)]
struct Receiver {
    tunnel: Arc<Tunnel>,
    stream: RecvStream,
    /// Received and not delivered, in front of `merged`.
    chunks: VecDeque<Bytes>,
    merged: BytesMut,
    /// Bytes that were received and whose credit was not returned yet.
    unreleased: usize,
    state: ReceiverState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiverState {
    Open,
    /// END_STREAM was received.
    Ended,
    /// The stream was reset, or the tunnel was lost.
    Failed,
}

/// Not one of the errors by which a service closes a connection with unread bytes: a reset in a tunnel is a reset.
fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Returns the result of writing bytes after the stream was reset. A peer that needs no more refuses them, like a service that has
/// closed. Otherwise they are lost, as in TCP: a write that failed would end the session before what was received is delivered.
fn lost(stream: &mut SendStream<Payload>, bytes: usize) -> io::Result<usize> {
    let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
    match stream.poll_reset(&mut cx) {
        Poll::Ready(Ok(Reason::NO_ERROR)) => Err(io::ErrorKind::BrokenPipe.into()),
        Poll::Ready(Ok(_) | Err(_)) => Ok(bytes),
        Poll::Pending => Err(aborted()),
    }
}

impl TunnelStream {
    /// Wraps a stream that the peer has accepted.
    pub(super) fn opened(tunnel: Counted, send: SendStream<Payload>, receive: RecvStream) -> TunnelStream {
        TunnelStream::new(tunnel, Sender::Open(send), receive, None)
    }

    /// Wraps a request of the peer, to be answered by [`TunnelStream::accept`] or [`TunnelStream::refuse`].
    pub(super) fn requested(
        tunnel: Counted,
        respond: SendResponse<Payload>,
        receive: RecvStream,
        hold: Option<Duration>,
    ) -> TunnelStream {
        TunnelStream::new(tunnel, Sender::Requested(respond), receive, hold)
    }

    fn new(tunnel: Counted, sender: Sender, stream: RecvStream, hold: Option<Duration>) -> TunnelStream {
        let receiver = Receiver {
            tunnel: tunnel.get().clone(),
            stream,
            chunks: VecDeque::new(),
            merged: BytesMut::new(),
            unreleased: 0,
            state: ReceiverState::Open,
        };
        TunnelStream {
            tunnel,
            sender: Mutex::new(sender),
            receiver: Mutex::new(receiver),
            unsent: Arc::default(),
            reset: AtomicBool::new(false),
            hold,
        }
    }

    /// Returns how long the peer waits for the answer to its request, if it has said so.
    pub(crate) fn hold(&self) -> Option<Duration> {
        self.hold
    }

    /// Returns the tunnel.
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        self.tunnel.get()
    }

    /// Answers the request of the peer: the session is connected. Does nothing on a stream that is open.
    ///
    /// # Errors
    ///
    /// Fails if the stream was reset.
    pub fn accept(&self) -> io::Result<()> {
        self.accept_with(super::headers::accepted())
    }

    /// Like [`TunnelStream::accept`], with this response.
    pub(super) fn accept_with(&self, response: Response<()>) -> io::Result<()> {
        let mut sender = lock(&self.sender);
        if let Sender::Requested(respond) = &mut *sender {
            let stream = respond.send_response(response, false).map_err(|_reset| aborted())?;
            *sender = Sender::Open(stream);
        }
        Ok(())
    }

    /// Answers the request of the peer with why the session is not connected. On a stream that is open, the close resets.
    pub fn refuse(&self, refusal: &Refusal) {
        let mut sender = lock(&self.sender);
        if let Sender::Requested(respond) = &mut *sender {
            // Fails if the peer has reset the stream: then the answer has no recipient.
            let _ = respond.send_response(super::headers::refused(refusal), true);
            *sender = Sender::Closed;
        } else {
            self.reset_on_close();
        }
    }

    /// Refuses the request of the peer, which may repeat it in another tunnel (RFC 9113, 8.7).
    pub(super) fn refuse_unprocessed(&self) {
        if let Sender::Requested(respond) = &mut *lock(&self.sender) {
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    }

    /// Returns received bytes, none for the peer's FIN. Their credit is returned by [`TunnelStream::release`].
    ///
    /// # Errors
    ///
    /// Fails when the stream was reset or the tunnel was lost, after all bytes received before.
    pub fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        lock(&self.receiver).poll_chunk(cx)
    }

    /// Puts the rest of a chunk back.
    pub(crate) fn put_back(&self, rest: Bytes) {
        if !rest.is_empty() {
            lock(&self.receiver).chunks.push_front(rest);
        }
    }

    /// Returns the credit of bytes that were delivered to the other side.
    pub fn release(&self, bytes: usize) {
        lock(&self.receiver).release(bytes);
    }

    /// Returns whether a frame can be written.
    pub(crate) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.unsent.poll_sent(cx)
    }

    /// Writes one frame without waiting. Returns the number of bytes written.
    ///
    /// # Errors
    ///
    /// Fails with `WouldBlock` while the previous frame is not written.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsent.is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = bytes.get(..FRAME_BYTES).unwrap_or(bytes);
        let Sender::Open(stream) = &mut *lock(&self.sender) else { return Err(aborted()) };
        let payload = self.unsent.payload(Bytes::copy_from_slice(bytes));
        match stream.send_data(payload, false) {
            Ok(()) => Ok(bytes.len()),
            Err(_closed) => lost(stream, bytes.len()),
        }
    }

    /// Sends the FIN.
    pub fn shutdown_write(&self) {
        let mut sender = lock(&self.sender);
        *sender = match std::mem::replace(&mut *sender, Sender::Closed) {
            Sender::Open(mut stream) => {
                // Fails if the stream is closed already, which is fine.
                let _ = stream.send_data(Payload::empty(), true);
                Sender::Ended(stream)
            }
            other => other,
        };
    }

    /// Makes the close reset the stream.
    pub fn reset_on_close(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Ready when the stream was reset or the tunnel was lost. Received bytes stay available. The stream is read all the same,
    /// so that what the peer sends is kept as bytes, and not as frames.
    pub(crate) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = {
            let mut receiver = lock(&self.receiver);
            receiver.receive_all(cx);
            receiver.state
        };
        match state {
            ReceiverState::Failed => Poll::Ready(()),
            ReceiverState::Open => Poll::Pending,
            ReceiverState::Ended => match &mut *lock(&self.sender) {
                Sender::Requested(respond) => respond.poll_reset(cx).map(drop),
                Sender::Open(stream) | Sender::Ended(stream) => {
                    match ready!(stream.poll_reset(cx)) {
                        // The peer needs no more of what we send, but has received it.
                        Ok(Reason::NO_ERROR) => Poll::Pending,
                        Ok(_) | Err(_) => Poll::Ready(()),
                    }
                }
                Sender::Closed => Poll::Ready(()),
            },
        }
    }

    /// Ready when the peer has left without being served: it reset the stream, or ended it before any byte.
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut receiver = lock(&self.receiver);
        receiver.receive_all(cx);
        match receiver.state {
            ReceiverState::Failed => Poll::Ready(()),
            ReceiverState::Ended if receiver.is_empty() => Poll::Ready(()),
            ReceiverState::Open | ReceiverState::Ended => Poll::Pending,
        }
    }

    /// Returns whether the peer has ended or reset the stream. Unread bytes count as present.
    pub(crate) fn peer_has_left(&self) -> bool {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        self.poll_left(&mut cx).is_ready()
    }

    /// Returns why the tunnel was lost, if it was.
    pub(crate) fn loss(&self) -> Option<Ending> {
        self.tunnel().loss()
    }
}

impl Receiver {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.is_empty() {
            match self.poll_receive(cx) {
                Poll::Ready(Some(frame)) if frame.len() >= MERGED_BYTES => return Poll::Ready(Ok(frame)),
                Poll::Ready(Some(frame)) => self.keep(frame),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        self.receive_all(cx);
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Ok(chunk));
        }
        if !self.merged.is_empty() {
            return Poll::Ready(Ok(self.merged.split().freeze()));
        }
        match self.state {
            ReceiverState::Open => Poll::Pending,
            ReceiverState::Ended => Poll::Ready(Ok(Bytes::new())),
            ReceiverState::Failed => Poll::Ready(Err(aborted())),
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.merged.is_empty()
    }

    /// Receives until the stream has no more frames, which the windows bound.
    fn receive_all(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(frame)) = self.poll_receive(cx) {
            self.keep(frame);
        }
    }

    /// Keeps a frame. The first small one is kept as it is, because it is usually the only one.
    fn keep(&mut self, frame: Bytes) {
        if frame.len() < MERGED_BYTES && (!self.merged.is_empty() || !self.chunks.is_empty()) {
            self.merged.extend_from_slice(&frame);
            return;
        }
        if !self.merged.is_empty() {
            self.chunks.push_back(self.merged.split().freeze());
        }
        self.chunks.push_back(frame);
    }

    /// Receives a frame. `None` at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.state == ReceiverState::Open {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(frame)) if frame.is_empty() => {}
                Some(Ok(frame)) => {
                    self.unreleased += frame.len();
                    self.tunnel.unreleased.fetch_add(frame.len(), Relaxed);
                    return Poll::Ready(Some(frame));
                }
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && error.is_reset() => {
                    self.state = ReceiverState::Ended;
                }
                Some(Err(_)) => self.state = ReceiverState::Failed,
                None => self.state = ReceiverState::Ended,
            }
        }
        Poll::Ready(None)
    }

    fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unreleased);
        self.unreleased -= bytes;
        self.tunnel.unreleased.fetch_sub(bytes, Relaxed);
        // Fails if the stream is closed, whose credit h2 has returned already.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }
}

impl Drop for Receiver {
    /// h2 returns the credit of a stream that is dropped.
    fn drop(&mut self) {
        self.tunnel.unreleased.fetch_sub(self.unreleased, Relaxed);
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        let must_reset = *self.reset.get_mut();
        let has_ended = lock(&self.receiver).state == ReceiverState::Ended;
        match std::mem::replace(&mut *lock(&self.sender), Sender::Closed) {
            // Nothing happens if it was refused.
            Sender::Requested(mut respond) => respond.send_reset(Reason::CONNECT_ERROR),
            Sender::Open(mut stream) if must_reset => stream.send_reset(Reason::CONNECT_ERROR),
            // A server that has sent all of its response asks the client to stop, which h2 does (RFC 9113, 8.1).
            Sender::Ended(mut stream) if must_reset || (!has_ended && !self.tunnel().is_server()) => {
                stream.send_reset(Reason::CONNECT_ERROR);
            }
            Sender::Open(mut stream) => {
                let _ = stream.send_data(Payload::empty(), true);
                if !has_ended && !self.tunnel().is_server() {
                    stream.send_reset(Reason::CONNECT_ERROR);
                }
            }
            Sender::Ended(_) | Sender::Closed => {}
        }
    }
}
