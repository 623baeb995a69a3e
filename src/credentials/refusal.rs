//! Keeps why TLS failed on a stream that another library reads and writes.
//!
//! In TLS 1.3 the side that dials can write before the other side has verified its certificate. If that is refused, it reads
//! the alert later, and h2 keeps only the text of an I/O error. This stream keeps the first TLS error.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::Error;

use super::{CredentialKind, HandshakeFailure};

/// A TLS stream whose first TLS error is kept.
#[derive(Debug)]
pub struct Refusable<S> {
    stream: S,
    refusal: Refusal,
}

/// The first TLS error of a stream. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Refusal(Arc<OnceLock<Error>>);

impl<S> Refusable<S> {
    /// Wraps a stream after its handshake.
    pub fn new(stream: S) -> Refusable<S> {
        Refusable { stream, refusal: Refusal::default() }
    }

    /// Returns where the error is kept.
    pub fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }

    /// Returns the wrapped stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl Refusal {
    /// Explains the error, if there was one.
    pub fn failure(&self, kind: CredentialKind) -> Option<HandshakeFailure> {
        let error = self.0.get()?;
        Some(HandshakeFailure::of(&io::Error::other(error.clone()), kind))
    }

    fn keep(&self, error: &io::Error) {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            // The first error is the cause of the others.
            let _ = self.0.set(error.clone());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Refusable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if let Err(error) = &result {
            self.refusal.keep(error);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Refusable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
