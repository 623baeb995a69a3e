//! A TLS connection over a socket, with the operations of a socket.
//!
//! ```text
//!   socket ──► scratch ──► (decrypted) ──► the caller's buffer      what does not fit waits in `plain`,
//!                                                                   an incomplete record in `incoming`
//!   socket ◄── scratch ◄── (encrypted) ◄── the caller's bytes       what the socket does not accept waits in `outgoing`
//! ```
//!
//! The scratch buffer belongs to the thread, so that an idle connection has no buffer. `outgoing` has at most one write: while it
//! is not empty, the stream is not writable, and the relay reads no more.
//!
//! close_notify is the FIN, in TLS 1.2, too: the other direction stays open. A FIN without close_notify is the same, as for nginx
//! and HAProxy, unless it cuts a record: then bytes were lost, and it is a reset.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::event::PollFlags;
use tokio_rustls::rustls::CommonState;
use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::server::UnbufferedServerConnection;

use super::connection::{Connection, Output, Processed};
use crate::socket::Socket;

/// The most bytes of a record (RFC 8446, 5.1), and what encryption adds at most (RFC 5246, 6.2.3).
const PLAINTEXT_MAX: usize = 16 << 10;
const EXPANSION_MAX: usize = 2048 + 5;

/// What encryption adds in TLS 1.3: a header, a type and a tag.
const EXPANSION: usize = 22;

/// The most bytes of one write: four records.
const WRITE_BYTES: usize = 4 * PLAINTEXT_MAX;

/// The ciphertext of four full records, whose plaintext fits into the buffer of the relay.
const READ_BYTES: usize = 4 * (PLAINTEXT_MAX + EXPANSION);

/// The most bytes that wait for the rest of their record, or of a handshake message, which rustls limits to 64 KB.
const INCOMING_MAX: usize = 80 << 10;

/// Also has space for the records of a write, and the messages of TLS that go before them.
const SCRATCH_BYTES: usize = INCOMING_MAX + PLAINTEXT_MAX + EXPANSION_MAX;

thread_local! {
    /// `None` before the first use and while in use.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A TLS connection over a socket, in either role.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    /// Received and not processed: the start of a record.
    incoming: Vec<u8>,
    /// Decrypted and not read.
    plain: Vec<u8>,
    /// Encrypted and not sent. The first `sent` bytes were sent.
    outgoing: Vec<u8>,
    sent: usize,
    receiver: Receiver,
    sender: Sender,
    /// The close resets the connection.
    resets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Open,
    /// close_notify or FIN was received.
    Ended,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Open,
    /// close_notify was encrypted. `fin`: after it, FIN is to be sent.
    Closed {
        fin: bool,
    },
    /// A write has failed, or the peer has violated TLS.
    Failed(io::ErrorKind),
}

/// Not one of the errors by which a service closes a connection with unread bytes.
fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl TlsStream {
    /// Begins a connection as client. [`TlsStream::poll_handshake`] completes it.
    pub(super) fn client(socket: Socket, connection: UnbufferedClientConnection) -> io::Result<TlsStream> {
        let mut stream = TlsStream::new(socket, Connection::Client(connection));
        // The client speaks first.
        stream.state.get_mut().unwrap_or_else(PoisonError::into_inner).process(&mut [], &mut [])?;
        Ok(stream)
    }

    /// Begins a connection as server. [`TlsStream::poll_handshake`] completes it.
    pub(super) fn server(socket: Socket, connection: UnbufferedServerConnection) -> TlsStream {
        TlsStream::new(socket, Connection::Server(connection))
    }

    fn new(socket: Socket, connection: Connection) -> TlsStream {
        let state = State {
            connection,
            incoming: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            receiver: Receiver::Open,
            sender: Sender::Open,
            resets: false,
        };
        TlsStream { socket, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the socket below.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Calls `read` with what was negotiated.
    pub(crate) fn negotiated<T>(&self, read: impl FnOnce(&CommonState) -> T) -> T {
        read(self.state().connection.common())
    }

    /// Completes the handshake.
    ///
    /// # Errors
    ///
    /// Fails with the error of the socket, or with an error that wraps that of rustls. The alert was sent.
    pub(super) fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        loop {
            ready!(state.poll_flush(&self.socket, cx));
            if let Sender::Failed(kind) = state.sender {
                // The alert tells why the peer has closed the connection.
                return match state.poll_receive(&self.socket, cx, &mut []) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Ready(Err(kind.into())),
                };
            }
            if !state.connection.common().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if state.receiver != Receiver::Open {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = ready!(state.poll_receive(&self.socket, cx, &mut [])) {
                // The alert. It is small, and nothing was sent before that the peer has not read.
                let _ = state.poll_flush(&self.socket, cx);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads the available bytes. Zero is the peer's close_notify or FIN.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        // Replies to messages of TLS, which no write follows.
        let _ = state.poll_flush(&self.socket, cx);
        loop {
            if !state.plain.is_empty() {
                return Poll::Ready(Ok(state.take_plain(buffer)));
            }
            match state.receiver {
                Receiver::Open => {}
                Receiver::Ended => return Poll::Ready(Ok(0)),
                Receiver::Failed => return Poll::Ready(Err(aborted())),
            }
            let read = ready!(state.poll_receive(&self.socket, cx, buffer));
            // Replies, or the alert.
            let _ = state.poll_flush(&self.socket, cx);
            let read = read?;
            if read > 0 {
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// Encrypts and writes without waiting. Returns the number of bytes accepted.
    ///
    /// # Errors
    ///
    /// Fails with `WouldBlock` while the previous write is not sent.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let state = &mut *self.state();
        match state.sender {
            Sender::Open if !state.has_outgoing() => {}
            Sender::Open => return Err(io::ErrorKind::WouldBlock.into()),
            Sender::Closed { .. } => return Err(io::ErrorKind::BrokenPipe.into()),
            Sender::Failed(kind) => return Err(kind.into()),
        }
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        with_scratch(|scratch| {
            let length = state.connection.encrypt(&mut state.incoming, bytes, scratch)?;
            state.send(&self.socket, scratch.get(..length).unwrap_or_default())
        })?;
        Ok(bytes.len())
    }

    /// Writes as soon as the previous write is sent. Returns the number of bytes accepted.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_writable(cx));
        Poll::Ready(self.try_write(bytes))
    }

    /// Ready when the previous write is sent, or has failed.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.state().poll_flush(&self.socket, cx)
    }

    /// Sends close_notify. Ready when the socket has accepted it, or has failed.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state();
        state.close(&self.socket, false);
        state.poll_flush(&self.socket, cx)
    }

    /// Waits until the connection is reset, or abandoned by the kernel. What was written before is sent in the meantime.
    pub(crate) async fn broken(&self) {
        let mut broken = pin!(self.socket.broken());
        std::future::poll_fn(|cx| {
            let _ = self.poll_writable(cx);
            broken.as_mut().poll(cx)
        })
        .await;
    }

    /// Waits until the peer has left without being served: close_notify or a FIN before any byte, or a RST.
    pub(crate) async fn left(&self) {
        if std::future::poll_fn(|cx| self.poll_has_bytes(cx)).await {
            self.socket.broken().await;
        }
    }

    /// Returns whether the peer has closed its side or vanished. Unread bytes count as present.
    pub(crate) fn peer_has_left(&self) -> bool {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        matches!(self.poll_has_bytes(&mut cx), Poll::Ready(false))
    }

    /// Ready when there are bytes to read (`true`), or the peer sends none.
    fn poll_has_bytes(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let state = &mut *self.state();
        loop {
            if !state.plain.is_empty() || state.receiver != Receiver::Open {
                return Poll::Ready(!state.plain.is_empty());
            }
            // An error is kept in `receiver`.
            let _ = ready!(state.poll_receive(&self.socket, cx, &mut []));
            let _ = state.poll_flush(&self.socket, cx);
        }
    }

    /// Polls for one of these events, independently of what the driver has reported; see [`Socket::has_now`].
    pub(crate) fn has_now(&self, events: PollFlags) -> bool {
        self.socket.has_now(events)
    }

    /// Sends close_notify and FIN, after what was written before.
    pub(crate) fn shutdown_write(&self) {
        self.state().close(&self.socket, true);
    }

    /// Makes the close send RST, where the protocol has one.
    pub(crate) fn reset_on_close(&self) {
        self.state().resets = true;
        self.socket.reset_on_close();
    }
}

/// A peer that gets a FIN without close_notify takes it for a truncation.
impl Drop for TlsStream {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !state.resets && !state.connection.common().is_handshaking() {
            state.close(&self.socket, false);
        }
    }
}

impl State {
    fn has_outgoing(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Moves decrypted bytes to `buffer`.
    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let length = self.plain.len().min(buffer.len());
        let rest = self.plain.split_off(length);
        if let Some(into) = buffer.get_mut(..length) {
            into.copy_from_slice(&self.plain);
        }
        self.plain = rest;
        length
    }

    /// Reads once. Returns the number of decrypted bytes in `into`, which may be zero; what does not fit is in `plain`.
    fn poll_receive(
        &mut self,
        socket: &Socket,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let kept = self.incoming.len();
        if kept > INCOMING_MAX {
            self.receiver = Receiver::Failed;
            return Poll::Ready(Err(aborted()));
        }
        with_scratch(|scratch| {
            let end = READ_BYTES.max(kept + PLAINTEXT_MAX + EXPANSION_MAX);
            let space = scratch.get_mut(kept..end).unwrap_or_default();
            match ready!(socket.poll_read(cx, space)) {
                Ok(0) => Poll::Ready(self.ended()),
                Ok(received) => {
                    let records = scratch.get_mut(..kept + received).unwrap_or_default();
                    Poll::Ready(self.process(records, into))
                }
                Err(error) => {
                    self.receiver = Receiver::Failed;
                    Poll::Ready(Err(error))
                }
            }
        })
    }

    /// Handles a FIN without close_notify.
    fn ended(&mut self) -> io::Result<usize> {
        if self.incoming.is_empty() {
            self.receiver = Receiver::Ended;
            return Ok(0);
        }
        self.receiver = Receiver::Failed;
        Err(aborted())
    }

    /// Processes `records`, at whose start there is space for `incoming`.
    fn process(&mut self, records: &mut [u8], into: &mut [u8]) -> io::Result<usize> {
        if let Some(start) = records.get_mut(..self.incoming.len()) {
            start.copy_from_slice(&self.incoming);
        }
        let (overflow, outgoing) = (&mut self.plain, &mut self.outgoing);
        let mut output = Output { into, filled: 0, overflow, outgoing };
        match self.connection.process(records, &mut output) {
            Ok(Processed { consumed, is_closed }) => {
                let filled = output.filled;
                // No buffer is kept if nothing waits.
                self.incoming = records.get(consumed..).unwrap_or_default().to_vec();
                if is_closed {
                    self.receiver = Receiver::Ended;
                    self.incoming = Vec::new();
                }
                Ok(filled)
            }
            Err(error) => {
                self.receiver = Receiver::Failed;
                self.sender = Sender::Failed(io::ErrorKind::ConnectionAborted);
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Sends records, and keeps those that the socket does not accept. `outgoing` is empty.
    fn send(&mut self, socket: &Socket, records: &[u8]) -> io::Result<()> {
        let sent = match socket.try_write(records) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            result => result.inspect_err(|error| self.sender = Sender::Failed(error.kind()))?,
        };
        self.outgoing = records.get(sent..).unwrap_or_default().to_vec();
        self.sent = 0;
        Ok(())
    }

    /// Ready when `outgoing` is sent, or the socket has failed.
    fn poll_flush(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        if self.outgoing.is_empty() {
            return Poll::Ready(());
        }
        while self.has_outgoing() {
            let rest = self.outgoing.get(self.sent..).unwrap_or_default();
            match ready!(socket.poll_write_with(cx, |_| socket.try_write(rest))) {
                Ok(sent) => self.sent += sent,
                Err(error) => {
                    self.sender = Sender::Failed(error.kind());
                    self.sent = self.outgoing.len();
                }
            }
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        if let Sender::Closed { fin: true } = self.sender {
            socket.shutdown_write();
        }
        Poll::Ready(())
    }

    /// Sends close_notify, and then FIN if `fin`, both after what was written before.
    fn close(&mut self, socket: &Socket, fin: bool) {
        match self.sender {
            Sender::Open => {
                let mut records = [0; PLAINTEXT_MAX / 16];
                if let Ok(length) = self.connection.close(&mut self.incoming, &mut records) {
                    let record = records.get(..length).unwrap_or_default();
                    if self.has_outgoing() {
                        self.outgoing.extend_from_slice(record);
                    } else if self.send(socket, record).is_err() {
                        return;
                    }
                }
            }
            Sender::Closed { .. } => {}
            Sender::Failed(_) => return,
        }
        self.sender = Sender::Closed { fin };
        if fin && !self.has_outgoing() {
            socket.shutdown_write();
        }
    }
}

fn with_scratch<T>(then: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into());
    let value = then(&mut scratch);
    SCRATCH.set(Some(scratch));
    value
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

    use super::*;
    use crate::credentials::provider;

    fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let issued = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = builder.unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(client), Arc::new(server))
    }

    /// Returns both ends of a connection after the handshake.
    async fn connected() -> (TlsStream, TlsStream) {
        let (client, server) = configs();
        let (outer, inner) = pair();
        let outer = Socket::register_unix(outer.into()).unwrap();
        let name = ServerName::try_from("a").unwrap();
        let client =
            TlsStream::client(outer, UnbufferedClientConnection::new(client, name).unwrap()).unwrap();
        let server = TlsStream::server(inner, UnbufferedServerConnection::new(server).unwrap());
        let (first, second) = tokio::join!(
            std::future::poll_fn(|cx| client.poll_handshake(cx)),
            std::future::poll_fn(|cx| server.poll_handshake(cx))
        );
        first.and(second).unwrap();
        (client, server)
    }

    async fn read(stream: &TlsStream) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 100];
        let length = std::future::poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
        Ok(buffer[..length].to_vec())
    }

    #[tokio::test]
    async fn fin_after_a_record_is_the_end_and_fin_in_one_is_a_reset() {
        for missing in [0, 1] {
            let (client, server) = connected().await;
            let mut records = [0; 100];
            let length = client.state().connection.encrypt(&mut [], b"hello", &mut records).unwrap();
            client.socket.try_write(&records[..length - missing]).unwrap();
            client.socket.shutdown_write();
            if missing == 0 {
                assert_eq!(read(&server).await.unwrap(), b"hello");
                assert_eq!(read(&server).await.unwrap(), b"");
            } else {
                assert_eq!(read(&server).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            }
        }
    }

    #[tokio::test]
    async fn close_notify_ends_one_direction_and_an_idle_connection_has_no_buffers() {
        let (client, server) = connected().await;
        client.try_write(b"request").unwrap();
        std::future::poll_fn(|cx| client.poll_close(cx)).await;
        assert_eq!(client.try_write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read(&server).await.unwrap(), b"request");
        assert_eq!(read(&server).await.unwrap(), b"");
        server.try_write(b"response").unwrap();
        assert_eq!(read(&client).await.unwrap(), b"response");
        for stream in [&client, &server] {
            let state = stream.state();
            let capacities = [&state.incoming, &state.plain, &state.outgoing].map(Vec::capacity);
            assert_eq!(capacities, [0; 3]);
        }
    }

    #[tokio::test]
    async fn records_that_were_changed_are_an_error() {
        let (client, server) = connected().await;
        let mut records = [0; 100];
        let length = client.state().connection.encrypt(&mut [], b"hello", &mut records).unwrap();
        records[length - 1] ^= 1;
        client.socket.try_write(&records[..length]).unwrap();
        assert_eq!(read(&server).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(&server).await.is_err() && server.try_write(b"a").is_err());
        assert_eq!(read(&client).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "an alert");
    }

    /// Returns the handshake message of a client, without the header of its record.
    fn hello() -> Vec<u8> {
        let name = ServerName::try_from("a").unwrap();
        let client = UnbufferedClientConnection::new(configs().0, name).unwrap();
        let (_outer, inner) = pair();
        let stream = TlsStream::client(inner, client).unwrap();
        stream.state().outgoing.split_off(5)
    }

    fn pair() -> (UnixStream, Socket) {
        let (outer, inner) = UnixStream::pair().unwrap();
        outer.set_nonblocking(true).unwrap();
        inner.set_nonblocking(true).unwrap();
        (outer, Socket::register_unix(inner.into()).unwrap())
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Returns the alert of a server that receives these records in these pieces, if it has sent one.
    async fn receive(config: &Arc<ServerConfig>, pieces: &[Vec<u8>]) -> io::Result<()> {
        let (mut outer, inner) = pair();
        let connection = UnbufferedServerConnection::new(Arc::clone(config)).unwrap();
        let stream = TlsStream::server(inner, connection);
        for piece in pieces {
            outer.write_all(piece).ok();
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            let poll = std::future::poll_fn(|cx| Poll::Ready(stream.poll_handshake(cx))).await;
            if let Poll::Ready(result) = poll {
                return result;
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// A hello in records of any length, with changed bytes and more bytes after it, received in pieces of any length.
        #[test]
        fn any_bytes_of_a_client_are_processed(
            lengths in vec(1..400_usize, 1..20),
            changes in vec((0..300_usize, any::<u8>()), 0..3),
            more in vec(any::<u8>(), 0..100),
            piece in 1..500_usize,
        ) {
            let runtime = runtime();
            runtime.block_on(async {
                let ((_, config), mut message) = (configs(), hello());
                for (at, byte) in changes {
                    if let Some(changed) = message.get_mut(at) {
                        *changed = byte;
                    }
                }
                let (mut records, mut rest) = (Vec::new(), &message[..]);
                for length in lengths.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (payload, after) = rest.split_at(rest.len().min(*length));
                    records.extend([22, 3, 1]);
                    records.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
                    records.extend(payload);
                    rest = after;
                }
                records.extend(more);
                let pieces: Vec<Vec<u8>> = records.chunks(piece).map(<[u8]>::to_vec).collect();
                let _ = receive(&config, &pieces).await;
            });
        }
    }
}
