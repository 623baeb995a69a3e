//! A small HTTP client for sources: one request per connection, and its response as a whole or as a stream.
//!
//! A connection is driven by the future that waits for its response, so no task outlives a source that is dropped.

mod client;
mod dial;
mod error;
mod json;
mod lines;
mod tls;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(test)]
pub(crate) use client::tests as fake;
pub(crate) use client::{Client, Request};
pub(crate) use error::{HttpError, Limit};
pub(crate) use json::{Element, Elements, Loose};
pub(crate) use lines::Lines;

/// A transport: a unix socket, TCP, TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Full<Bytes>>;

/// The head of a response, and its body as it arrives.
pub(super) struct Response {
    connection: Driven,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
}

/// Why a body could not be read.
pub(super) enum BodyError {
    TooLong,
    Failed(String),
}

/// `None` once the connection has ended.
type Driven = Option<Pin<Box<Connection>>>;

/// Sends one request and returns the head of its response. Has no timeout.
pub(super) async fn send(
    wire: Box<dyn Wire>,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Response, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(wire)).await.map_err(|error| error.to_string())?;
    let mut connection = Some(Box::pin(connection));
    let response =
        drive(&mut connection, sender.send_request(request)).await.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    Ok(Response { connection, status: head.status, headers: head.headers, body })
}

impl Response {
    /// Returns the next chunk of the body; `None` at its end. Cancel safe.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, String>> {
        let frame = drive(&mut self.connection, self.body.frame()).await?;
        // Trailers have no data.
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|error| error.to_string()))
    }

    /// Returns the whole body, of at most `max` bytes. A body that announces more is not read.
    pub(super) async fn full_body(mut self, max: usize) -> Result<Bytes, BodyError> {
        if self.body.size_hint().lower() > max as u64 {
            return Err(BodyError::TooLong);
        }
        match drive(&mut self.connection, Limited::new(self.body, max).collect()).await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
            Err(error) => Err(BodyError::Failed(error.to_string())),
        }
    }
}

/// Polls a connection and the work that uses it in one task. After the end of the connection, `work` fails by itself.
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

/// Splits `host:port` or `[::1]:port`.
pub(super) fn split(address: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host, port.parse().map_err(|_| wrong())?))
}

/// Encodes everything but letters and digits, for a path segment or a query value.
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

/// Fuzz target: reads a server's response to its end as lines.
#[doc(hidden)]
pub async fn read_any(server: tokio::net::UnixStream) {
    const LINE_BYTES_MAX: usize = 1 << 10;
    let request = hyper::Request::get("/").header("host", "localhost").body(Full::default());
    let Ok(request) = request else { return };
    if let Ok(response) = send(Box::new(server), request).await {
        let mut lines: Lines = Lines::new("/", response, LINE_BYTES_MAX);
        while lines.next().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_host_and_a_port() {
        assert_eq!(split("docker.example:2376"), Ok(("docker.example", 2376)));
        assert_eq!(split("[::1]:2375"), Ok(("::1", 2375)));
        for wrong in ["docker.example", ":2375", "host:", "host:99999", ""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
