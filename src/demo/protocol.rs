//! The protocol of the demo: a request is a byte, an answer is a line.

use std::io;

use tokio::net::TcpStream;

/// Longer than any name.
const LINE_BYTES_MAX: usize = 64;

pub(super) const REQUEST: &[u8] = b"?";

pub(super) async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes. Returns 0 if the peer has closed its sending side.
pub(super) async fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Sends a request and returns the answer.
pub(super) async fn request(stream: &TcpStream) -> io::Result<String> {
    write(stream, REQUEST).await?;
    let mut line = Vec::new();
    let mut buffer = [0; LINE_BYTES_MAX];
    loop {
        let count = read(stream, &mut buffer).await?;
        if count == 0 {
            return Err(io::Error::other("the connection was closed before the answer"));
        }
        line.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(line) = line.strip_suffix(b"\n") {
            return String::from_utf8(line.to_vec()).map_err(io::Error::other);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}
