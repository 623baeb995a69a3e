//! Single requests to servers, each on a connection of its own.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the default `hold`; a slower reply counts as failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns `PONG` from a Redis server.
pub(crate) fn redis_ping(addr: SocketAddr) -> Result<String> {
    redis_ping_on(connect(addr)?)
}

/// Does the same on an existing connection.
pub(crate) fn redis_ping_on(mut stream: TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    match line.as_slice() {
        b"+PONG\r\n" => Ok("PONG".to_owned()),
        other => Err(Error::other(format!("not PONG: {}", other.escape_ascii()))),
    }
}

/// Returns the body of `/` from a web server.
pub(crate) fn http_get(addr: SocketAddr) -> Result<String> {
    let mut stream = connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    if !head.contains(" 200 ") {
        return Err(Error::other(head.to_owned()));
    }
    Ok(body.trim_end().to_owned())
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&addr, TIMEOUT)
}
