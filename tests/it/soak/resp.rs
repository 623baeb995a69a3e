//! The part of Redis' protocol (RESP2) that the soak uses: `ECHO`, `PING`, and `CONFIG GET syslog-ident` for a server's
//! name.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any `hold` of a soak; a slower reply counts as failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(45);

pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| bytes.extend_from_slice(&bulk(word)));
    bytes
}

pub(super) fn bulk(word: &[u8]) -> Vec<u8> {
    let mut bytes = format!("${}\r\n", word.len()).into_bytes();
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The input of a connection, of the client or the server.
pub(super) struct Incoming(BufReader<TcpStream>);

impl Incoming {
    pub(super) fn of(stream: &TcpStream) -> Result<Incoming> {
        Ok(Incoming(BufReader::new(stream.try_clone()?)))
    }

    /// Reads an array of bulk strings: a command, or the reply to `CONFIG GET`. Returns `None` at the end.
    pub(super) fn array(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        match self.number(b'*')? {
            None => Ok(None),
            Some(count) => (0..count).map(|_| self.bulk()).collect::<Result<_>>().map(Some),
        }
    }

    pub(super) fn bulk(&mut self) -> Result<Vec<u8>> {
        let length = self.number(b'$')?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut word = vec![0; length + 2];
        self.0.read_exact(&mut word)?;
        word.truncate(length);
        Ok(word)
    }

    fn number(&mut self, kind: u8) -> Result<Option<usize>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let number = text.strip_prefix(kind as char).and_then(|rest| rest.trim_end().parse().ok());
        number.map(Some).ok_or_else(|| Error::other(format!("unexpected reply: {text:?}")))
    }

    /// Checks that no input is left.
    fn ended(mut self) -> Result<()> {
        match self.0.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(Error::other("a byte too many")),
        }
    }
}

/// A client's connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) incoming: Incoming,
    /// The name of the server.
    pub(super) server: String,
}

impl Connection {
    /// Connects and requests the server's name.
    pub(super) fn open(addr: SocketAddr) -> Result<Connection> {
        let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        stream.write_all(&command(&[b"CONFIG", b"GET", b"syslog-ident"]))?;
        let mut incoming = Incoming::of(&stream)?;
        let answer = incoming.array()?.ok_or(ErrorKind::UnexpectedEof)?;
        let name = answer.get(1).ok_or(ErrorKind::InvalidData)?;
        let server = String::from_utf8_lossy(name).into_owned();
        Ok(Connection { stream, incoming, server })
    }

    pub(super) fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(&command(&[b"ECHO", bytes]))?;
        if self.incoming.bulk()? == bytes {
            Ok(())
        } else {
            Err(Error::other("the reply differs from the request"))
        }
    }

    /// Closes its direction and waits for the server to do the same.
    pub(super) fn finish(self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.incoming.ended()
    }
}
