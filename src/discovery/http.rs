//! What sources that ask an HTTP API have in common: one request a connection, and its answer whole or piece by piece.
//!
//! A connection is driven by whoever waits for its answer, so that no task outlives a source that is dropped.

mod client;
mod lines;
mod server;
mod tls;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::dns::Resolver;
#[cfg(test)]
pub(crate) use client::tests as fake;
pub(crate) use client::{Client, HttpError, Request};
pub(crate) use lines::Lines;
pub use server::{ClientFiles, Server};

/// Whatever carries the bytes: a unix socket, TCP, TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A stream of events may be silent for days: a peer that is gone without a word is found by these probes, within a
/// minute, and a firewall that forgets idle connections (often after minutes) is reminded.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Full<Bytes>>;

/// The head of an answer, and its body as it comes.
pub(super) struct Answer {
    connection: Driven,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
}

/// `None` once the connection has ended.
type Driven = Option<Pin<Box<Connection>>>;

/// Sends one request; returns with the head of its answer. Has no limit of time.
pub(super) async fn send(
    wire: Box<dyn Wire>,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(wire)).await.map_err(|error| error.to_string())?;
    let mut connection = Some(Box::pin(connection));
    let response =
        drive(&mut connection, sender.send_request(request)).await.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    Ok(Answer { connection, status: head.status, headers: head.headers, body })
}

impl Answer {
    /// The next piece of the body; `None` at its end. May be dropped and called again without losing anything.
    pub(super) async fn piece(&mut self) -> Option<Result<Bytes, String>> {
        let frame = drive(&mut self.connection, self.body.frame()).await?;
        // Trailers are no bytes.
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|error| error.to_string()))
    }

    /// The whole body, if it has no more bytes than this.
    pub(super) async fn whole(mut self, max: usize) -> Result<Bytes, String> {
        let collected = drive(&mut self.connection, Limited::new(self.body, max).collect()).await;
        collected.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    }
}

/// Polls a connection and what is done over it in one task. Once the connection has ended, `work` finds out by itself.
async fn drive<T>(connection: &mut Driven, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// To the first address of `host:port` that answers.
pub(super) async fn tcp(address: &str) -> Result<TcpStream, String> {
    let (host, port) = split(address)?;
    let mut failure = format!("{host} has no address");
    for ip in addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                keep_alive(&stream).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

/// Not by the C library: a static binary does not have all of it.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    match host.parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => Resolver::from_system().addresses(host).await,
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))
}

/// `host:port`, `[::1]:port`.
pub(super) fn split(address: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host, port.parse().map_err(|_| wrong())?))
}

/// For a segment of a path or a query's value: all but letters and digits.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// The first line of the buffer that is not blank, without its end, taken out of it.
pub(super) fn take_line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let end = buffer.iter().position(|byte| *byte == b'\n')?;
        let rest = buffer.split_off(end + 1);
        let line = std::mem::replace(buffer, rest);
        if !line.trim_ascii().is_empty() {
            return Some(line);
        }
    }
}

/// What the fuzz targets feed: a server's answer, read to its end as lines.
#[doc(hidden)]
pub async fn read_any(server: tokio::net::UnixStream) {
    const LINE_BYTES_MAX: usize = 1 << 10;
    let request = hyper::Request::get("/").header("host", "localhost").body(Full::default());
    let Ok(request) = request else { return };
    if let Ok(answer) = send(Box::new(server), request).await {
        let mut lines = Lines::new("/", answer, LINE_BYTES_MAX);
        while lines.next().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(split("docker.example:2376"), Ok(("docker.example", 2376)));
        assert_eq!(split("[::1]:2375"), Ok(("::1", 2375)));
        for wrong in ["docker.example", ":2375", "host:", "host:99999", ""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_taken_when_it_is_whole() {
        let mut buffer = b"\n{}\r\n{\"a\"".to_vec();
        assert_eq!(take_line(&mut buffer).as_deref(), Some(&b"{}\r\n"[..]));
        assert_eq!(take_line(&mut buffer), None);
        buffer.extend_from_slice(b":1}\n");
        assert_eq!(take_line(&mut buffer).as_deref(), Some(&b"{\"a\":1}\n"[..]));
    }
}
