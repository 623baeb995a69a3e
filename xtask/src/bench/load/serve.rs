//! The service: replies to each complete message with one of the same length.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;
use slab::Slab;

use super::HEADER_BYTES;
use super::poll::{Poll, Ready, unless_blocked};
use super::receiver::Receiver;

/// Large, so that it does not limit a proxy that connects quickly; the kernel reduces it to its `somaxconn`.
const BACKLOG: i32 = 4096;
/// The length of a message that never ends.
pub(super) const ENDLESS: u32 = u32::MAX;
const BUFFER_BYTES: usize = 64 * 1024;
const TCP: u64 = u64::MAX;
const UDP: u64 = u64::MAX - 1;

pub(super) fn run(listen: SocketAddr) -> Result<()> {
    let mut service = Service::bind(listen)?;
    loop {
        service.turn()?;
    }
}

struct Service {
    poll: Poll,
    listener: TcpListener,
    receiver: Receiver,
    connections: Slab<Connection>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    messages: Messages,
    /// Bytes of replies that the socket has not accepted. The connection is not read until they are written.
    owed: usize,
}

impl Service {
    fn bind(listen: SocketAddr) -> Result<Service> {
        let poll = Poll::new()?;
        let listener = TcpListener::bind(listen)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        poll.watch_input(&listener, TCP)?;
        let receiver = Receiver::bind(listen)?;
        poll.watch_input(receiver.socket(), UDP)?;
        Ok(Service { poll, listener, receiver, connections: Slab::new(), buffer: vec![0; BUFFER_BYTES] })
    }

    fn turn(&mut self) -> Result<()> {
        for index in 0..self.poll.wait(None)? {
            match self.poll.ready(index) {
                Ready { token: TCP, .. } => self.accept()?,
                Ready { token: UDP, .. } => self.receiver.receive()?,
                ready => self.serve(ready),
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        while let Some((stream, _)) = unless_blocked(self.listener.accept())? {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            self.poll.watch_edges(&stream, entry.key() as u64)?;
            entry.insert(Connection { stream, messages: Messages::default(), owed: 0 });
        }
        Ok(())
    }

    /// Drops a connection that has ended or failed, which closes it.
    fn serve(&mut self, ready: Ready) {
        let key = ready.token as usize;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.serve(ready, &mut self.buffer), Ok(true)) {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    /// Returns whether the connection continues.
    fn serve(&mut self, ready: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let was_stuck = self.owed > 0;
        if was_stuck && !self.reply(buffer)? {
            return Ok(true);
        }
        if !(ready.readable || ready.ended || was_stuck) {
            return Ok(true);
        }
        loop {
            let Some(length) = unless_blocked(self.stream.read(buffer))? else { return Ok(true) };
            if length == 0 {
                return Ok(false);
            }
            self.owed += self.messages.complete(&buffer[..length]);
            // A short read has emptied the socket, unless the end of the stream follows directly.
            if !self.reply(buffer)? || (length < buffer.len() && !ready.ended) {
                return Ok(true);
            }
        }
    }

    /// Returns whether all replies are written. Only the length of a reply matters.
    fn reply(&mut self, buffer: &[u8]) -> io::Result<bool> {
        while self.owed > 0 {
            let part = &buffer[..self.owed.min(buffer.len())];
            let Some(length) = unless_blocked(self.stream.write(part))? else { return Ok(false) };
            self.owed -= length;
        }
        Ok(true)
    }
}

/// The position in the messages of a stream.
#[derive(Default)]
struct Messages {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// The remaining bytes of the message, and its length.
    missing: usize,
    length: usize,
}

impl Messages {
    /// Returns the total length of the messages that these bytes complete.
    fn complete(&mut self, mut bytes: &[u8]) -> usize {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.missing == 0 {
                let part = (HEADER_BYTES - self.header_len).min(bytes.len());
                self.header[self.header_len..self.header_len + part].copy_from_slice(&bytes[..part]);
                self.header_len += part;
                bytes = &bytes[part..];
                if self.header_len < HEADER_BYTES {
                    return complete;
                }
                self.header_len = 0;
                self.length = match u32::from_be_bytes(self.header) {
                    ENDLESS => usize::MAX,
                    length => (length as usize).max(HEADER_BYTES),
                };
                self.missing = self.length - HEADER_BYTES;
            }
            let part = self.missing.min(bytes.len());
            self.missing -= part;
            bytes = &bytes[part..];
            if self.missing == 0 {
                complete += self.length;
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::Messages;

    #[test]
    fn message_is_complete_with_its_last_byte() {
        let stream = [&[0, 0, 0, 6, 1, 2][..], &[0, 0, 0, 4], &[0, 0, 0, 7, 1, 2, 3]].concat();
        for first in 0..=stream.len() {
            let mut messages = Messages::default();
            let before = messages.complete(&stream[..first]);
            let whole = [6, 10, 17].into_iter().filter(|end| *end <= first).max().unwrap_or(0);
            assert_eq!(before, whole, "after {first} bytes");
            assert_eq!(before + messages.complete(&stream[first..]), stream.len());
        }
    }

    #[test]
    fn endless_message_is_never_complete() {
        let mut messages = Messages::default();
        assert_eq!(messages.complete(&[255, 255, 255, 255, 1]), 0);
        assert_eq!(messages.complete(&[0; 1000]), 0);
    }
}
