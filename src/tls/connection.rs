//! The TLS protocol without I/O, for both roles: ciphertext in, plaintext out, and the reverse. Pure.
//!
//! rustls's unbuffered connections own no buffers: a connection that is idle keeps its keys and little else.

use std::fmt;
use std::io;

use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::server::UnbufferedServerConnection;
use tokio_rustls::rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use tokio_rustls::rustls::{CommonState, Error};

/// A connection in one of the two roles.
pub(super) enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Not what it holds: keys.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Client(_) => "Client",
            Connection::Server(_) => "Server",
        })
    }
}

/// Where the results of [`Connection::process`] are stored.
pub(super) struct Output<'a> {
    /// Receives plaintext.
    pub(super) into: &'a mut [u8],
    /// The number of bytes in `into`.
    pub(super) filled: usize,
    /// Receives the plaintext for which `into` has no space.
    pub(super) overflow: &'a mut Vec<u8>,
    /// Receives messages of TLS to be sent.
    pub(super) outgoing: &'a mut Vec<u8>,
}

/// The result of [`Connection::process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Processed {
    /// Bytes of the input that are not needed again.
    pub(super) consumed: usize,
    /// The peer has sent close_notify.
    pub(super) is_closed: bool,
}

/// What a status of rustls requires next.
enum Step {
    Continue,
    Closed,
    /// More ciphertext.
    Wait,
}

impl Connection {
    /// Processes all complete records. `records` begins with what the last call has not consumed.
    ///
    /// # Errors
    ///
    /// Fails if the peer violates TLS, is not trusted, or has sent a fatal alert. `output.outgoing` then has the alert to send. The connection
    /// must not be used again.
    pub(super) fn process(
        &mut self,
        records: &mut [u8],
        output: &mut Output<'_>,
    ) -> Result<Processed, Error> {
        let mut processed = Processed { consumed: 0, is_closed: false };
        loop {
            let rest = records.get_mut(processed.consumed..).unwrap_or_default();
            let (consumed, step) = match self {
                Connection::Client(client) => take_step(client.process_tls_records(rest), output),
                Connection::Server(server) => take_step(server.process_tls_records(rest), output),
            };
            processed.consumed += consumed;
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::Closed) => processed.is_closed = true,
                Ok(Step::Wait) => return Ok(processed),
                Err(error) => {
                    // The alert. rustls keeps positions in the input, so it must be the same.
                    let rest = records.get_mut(processed.consumed..).unwrap_or_default();
                    let _ = match self {
                        Connection::Client(client) => take_step(client.process_tls_records(rest), output),
                        Connection::Server(server) => take_step(server.process_tls_records(rest), output),
                    };
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts `bytes` into `records`, which must have space for them. `incoming` is the ciphertext that was not consumed.
    /// Returns the length of the records.
    pub(super) fn encrypt(
        &mut self,
        incoming: &mut [u8],
        bytes: &[u8],
        records: &mut [u8],
    ) -> io::Result<usize> {
        match self {
            Connection::Client(client) => {
                with_writer(client.process_tls_records(incoming), |writer| writer.encrypt(bytes, records))
            }
            Connection::Server(server) => {
                with_writer(server.process_tls_records(incoming), |writer| writer.encrypt(bytes, records))
            }
        }
    }

    /// Writes a close_notify into `records`. Returns its length.
    pub(super) fn close(&mut self, incoming: &mut [u8], records: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Client(client) => {
                with_writer(client.process_tls_records(incoming), |writer| writer.queue_close_notify(records))
            }
            Connection::Server(server) => {
                with_writer(server.process_tls_records(incoming), |writer| writer.queue_close_notify(records))
            }
        }
    }

    /// Returns what both roles have in common.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }
}

/// Handles one status. Returns how many bytes of the input are not needed again.
fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Output<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(AppDataRecord { discard: further, payload, .. })) => {
                    discard += further;
                    output.deliver(payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Continue),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            output.queue(|buffer| match message.encode(buffer) {
                Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
                Ok(length) => Ok(length),
                Err(EncodeError::AlreadyEncoded) => Ok(0),
            });
            Ok(Step::Continue)
        }
        // They are in `outgoing`, which is sent before anything else.
        Ok(ConnectionState::TransmitTlsData(sent)) => {
            sent.done();
            Ok(Step::Continue)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Closed),
        Ok(_) => Ok(Step::Wait),
    };
    (discard, step)
}

fn with_writer<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    write: impl FnOnce(&mut WriteTraffic<'_, Data>) -> Result<usize, EncryptError>,
) -> io::Result<usize> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut writer)) => write(&mut writer).map_err(io::Error::other),
        Ok(_) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

impl Output<'_> {
    fn deliver(&mut self, payload: &[u8]) {
        let space = self.into.len() - self.filled;
        let (fits, rest) = payload.split_at(payload.len().min(space));
        if let Some(into) = self.into.get_mut(self.filled..self.filled + fits.len()) {
            into.copy_from_slice(fits);
        }
        self.filled += fits.len();
        self.overflow.extend_from_slice(rest);
    }

    /// Appends a message whose length is known after the first attempt.
    fn queue(&mut self, mut encode: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
        let start = self.outgoing.len();
        if let Err(required) = encode(&mut []) {
            self.outgoing.resize(start + required, 0);
            let _ = encode(self.outgoing.get_mut(start..).unwrap_or_default());
        }
    }
}
