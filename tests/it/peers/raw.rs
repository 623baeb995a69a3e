//! A peer with valid credentials that writes HTTP/2 frames by hand (RFC 9113), in either role.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ambassador::address::PeerName;
use ambassador::credentials::{CredentialFiles, Credentials};
use tokio_rustls::rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::support::Secret;

/// How long a read may take. A write that the other side does not accept fails earlier, because many attacks end so.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Types of frames.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// Settings.
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

/// One end of a tunnel.
pub(super) struct Raw {
    tls: Box<dyn Io>,
    pub(super) tcp: TcpStream,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// Reads the credentials of a peer.
fn credentials(secret: &Secret) -> Credentials {
    let files = CredentialFiles {
        secret: Some(secret.path()),
        name: Some("raw".to_owned()),
        ..CredentialFiles::default()
    };
    Credentials::load(files).unwrap()
}

impl Raw {
    /// Connects, and sends the preface with these settings.
    pub(super) fn dial(secret: &Secret, peer: SocketAddr, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::dial_without_preface(secret, peer);
        raw.tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.settings(settings);
        raw
    }

    pub(super) fn dial_without_preface(secret: &Secret, peer: SocketAddr) -> Raw {
        let name = PeerName::Host(peer.ip().to_string());
        let (config, name) = credentials(secret).connector(&name, &[b"h2"]).unwrap();
        let tcp = timed(TcpStream::connect(peer).unwrap());
        let tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp.try_clone().unwrap());
        Raw { tls: Box::new(tls), tcp }
    }

    /// Serves each tunnel on a thread of its own.
    pub(super) fn serve(
        secret: &Secret,
        listener: TcpListener,
        settings: &'static [(u16, u32)],
        serve: impl Fn(Raw) + Send + Sync + 'static,
    ) {
        let (credentials, serve) = (Arc::new(credentials(secret)), Arc::new(serve));
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (serve, credentials) = (serve.clone(), credentials.clone());
                std::thread::spawn(move || {
                    let config = credentials.acceptor(&[b"h2"]).unwrap();
                    if let Some(raw) = Raw::accepted(config, tcp, settings) {
                        serve(raw);
                    }
                });
            }
        });
    }

    fn accepted(
        config: Arc<tokio_rustls::rustls::ServerConfig>,
        tcp: TcpStream,
        settings: &[(u16, u32)],
    ) -> Option<Raw> {
        let tcp = timed(tcp);
        let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp.try_clone().unwrap());
        let mut raw = Raw { tls: Box::new(tls), tcp };
        let mut preface = [0; 24];
        raw.tls.read_exact(&mut preface).ok()?;
        raw.settings(settings);
        Some(raw)
    }

    /// Writes bytes. Returns false when the other side has closed, or accepts no more.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.tls.write_all(bytes).and_then(|()| self.tls.flush()).is_ok()
    }

    /// Sends a frame. Returns as [`Raw::try_write`].
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.try_write(&frame(kind, flags, stream, payload))
    }

    fn settings(&mut self, settings: &[(u16, u32)]) {
        let field = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(field).collect();
        assert!(self.frame(SETTINGS, 0, 0, &payload));
    }

    /// Sends a CONNECT.
    pub(super) fn connect(&mut self, stream: u32, authority: &str) -> bool {
        self.frame(HEADERS, END_HEADERS, stream, &connect(authority))
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) -> bool {
        self.frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
    }

    pub(super) fn goaway(&mut self, last_stream: u32, code: u32) -> bool {
        self.frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat())
    }

    /// Returns the next frame, or `None` at the end of the connection.
    pub(super) fn next(&mut self) -> Option<Frame> {
        self.try_next().expect("a frame in time")
    }

    /// As [`Raw::next`]. Fails if there is no frame in time.
    pub(super) fn try_next(&mut self) -> std::io::Result<Option<Frame>> {
        let mut head = [0; 9];
        let Some(()) = self.read_exact(&mut head)? else { return Ok(None) };
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        let read = self.read_exact(&mut payload)?;
        Ok(read.map(|()| Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload }))
    }

    /// Returns `None` if the connection has ended.
    fn read_exact(&mut self, bytes: &mut [u8]) -> std::io::Result<Option<()>> {
        match self.tls.read_exact(bytes) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(_ended) => Ok(None),
        }
    }

    /// Returns the next frame other than SETTINGS, PING and WINDOW_UPDATE, which are answered where they must be.
    pub(super) fn next_of_session(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => {
                    self.frame(SETTINGS, ACK, 0, &[]);
                }
                PING if frame.flags & ACK == 0 => {
                    self.frame(PING, ACK, 0, &frame.payload);
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// Waits for the answer to a CONNECT. Returns its status, the negative code of a reset, or `None` at the end of the
    /// connection.
    pub(super) fn answer(&mut self, stream: u32) -> Option<i64> {
        loop {
            let frame = self.next_of_session()?;
            match frame.kind {
                HEADERS if frame.stream == stream => return Some(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Some(-code(&frame.payload)),
                _ => {}
            }
        }
    }

    /// Reads to the end of the connection. Returns the code of the last GOAWAY.
    pub(super) fn goaway_code(&mut self) -> Option<i64> {
        let mut last = None;
        while let Some(frame) = self.next() {
            if let Frame { kind: GOAWAY, payload, .. } = frame {
                last = payload.get(4..).map(code);
            }
        }
        last
    }

    /// Returns the data of a stream, at least this many bytes.
    pub(super) fn data(&mut self, stream: u32, bytes: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < bytes {
            let frame = self.next_of_session().expect("an open tunnel");
            assert_ne!(
                (frame.kind, frame.stream),
                (RST_STREAM, stream),
                "{frame:?} after {} bytes",
                data.len()
            );
            if (frame.kind, frame.stream) == (DATA, stream) {
                data.extend_from_slice(&frame.payload);
            }
        }
        data
    }
}

/// Sets the timeouts of a socket.
fn timed(tcp: TcpStream) -> TcpStream {
    tcp.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    tcp.set_write_timeout(Some(WRITE_TIMEOUT)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

/// Returns the bytes of a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Returns a header field without compression (RFC 7541, 6.2.2).
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &text(name), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A prefix of 7 bits (RFC 7541, 5.1).
    match text.len() {
        short @ 0..127 => bytes.push(u8::try_from(short).unwrap()),
        long => {
            bytes.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Returns the fields of a CONNECT.
pub(super) fn connect(authority: &str) -> Vec<u8> {
    [field(":method", "CONNECT"), field(":authority", authority)].concat()
}

pub(super) fn code(payload: &[u8]) -> i64 {
    i64::from(u32::from_be_bytes(payload[..4].try_into().unwrap()))
}

/// Reads the first field of a response, which is its status: an index of the static table, or three digits in the code of
/// Huffman (RFC 7541, appendices A and B).
pub(super) fn status(block: &[u8]) -> i64 {
    // A change of the size of the dynamic table may come first.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ if block[1] & 0x80 == 0 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
        _ => {
            let length = usize::from(block[1] & 0x7f);
            let bits = block[2..2 + length].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            decimal(bits << (64 - 8 * length))
        }
    }
}

fn decimal(mut bits: u64) -> i64 {
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = match bits >> 59 {
            short @ 0..=2 => (short, 5),
            _ => ((bits >> 58) - 0x19 + 3, 6),
        };
        number = number * 10 + i64::try_from(digit).unwrap();
        bits <<= length;
    }
    number
}

#[test]
fn status_is_read_in_each_form() {
    assert_eq!(status(&[0x88]), 200);
    // 403 and 503: '4' 011010, '0' 00000, '3' 011001; '5' 011011.
    assert_eq!(status(&[0x48, 0x83, 0b0110_1000, 0b0000_1100, 0b1111_1111]), 403);
    assert_eq!(status(&[0x08, 0x83, 0b0110_1100, 0b0000_1100, 0b1111_1111]), 503);
    assert_eq!(status(b"\x48\x03429"), 429);
}
