//! A service that returns what it receives, and says so at the end: for the check of a pair.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::spawn;

use anyhow::Result;

/// Sent after the end of what was received, so that a client sees whether its half-close has arrived.
pub(crate) const FAREWELL: &[u8] = b"end";

pub(super) fn run(listen: SocketAddr) -> Result<()> {
    for stream in TcpListener::bind(listen)?.incoming() {
        let stream = stream?;
        spawn(move || mirror(stream).ok());
    }
    Ok(())
}

fn mirror(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(FAREWELL),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}
