//! A client of the admin API, for the commands of the command line.

mod find;

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::address::Choice;
use crate::cluster::ConnectError;
use crate::config::AdminAddr;

/// The longest response. The ambassador sends none that is longer.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest error response to a stream request.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// Long enough for a busy machine, and shorter than the timeout of Docker's health checks (30 s).
const TIMEOUT: Duration = Duration::from_secs(5);

/// A request to the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminRequest {
    pub method: Method,
    pub path: String,
    /// JSON, or empty for no body.
    pub body: String,
}

/// A response of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminResponse {
    /// The HTTP status code.
    pub status: u16,
    pub body: String,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "no ambassador answers at {at} ({}): is one running? --admin or AMBASSADOR_ADMIN names another admin address",
        cause(.error)
    )]
    Unreachable { at: Choice, error: io::Error },
    /// Several ambassadors answer, at these addresses.
    #[error("several ambassadors are running: choose one with --admin or AMBASSADOR_ADMIN\n  {}", .0.join("\n  "))]
    Several(Vec<String>),
    #[error("connection closed: the ambassador has stopped, or has too many clients")]
    Ended,
    #[error("unexpected response from the ambassador: {0}")]
    Unexpected(String),
}

impl ClientError {
    fn timed_out(choice: &Choice) -> ClientError {
        let why = format!("no answer within {TIMEOUT:?}");
        ClientError::Unreachable { at: choice.clone(), error: io::Error::new(io::ErrorKind::TimedOut, why) }
    }
}

/// Returns the cause of an error. Errors of the system have the same wording as those of endpoints.
fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => ConnectError::of(error).to_string(),
        None => error.to_string(),
    }
}

impl AdminRequest {
    /// Creates a GET request.
    pub(crate) fn get(path: impl Into<String>) -> AdminRequest {
        AdminRequest { method: Method::GET, path: path.into(), body: String::new() }
    }

    /// Creates a POST request with a body of JSON.
    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> AdminRequest {
        AdminRequest { method: Method::POST, path: path.into(), body: body.to_string() }
    }
}

impl AdminResponse {
    /// Returns whether the status code is one of success.
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Sends a request, and reads the whole response.
pub(crate) async fn send(choice: &Choice, request: &AdminRequest) -> Result<AdminResponse, ClientError> {
    let response = async {
        let response = connect_and_send(choice, request).await?;
        let status = response.status().as_u16();
        Ok(AdminResponse { status, body: read_body(response, BODY_BYTES_MAX).await? })
    };
    match tokio::time::timeout(TIMEOUT, response).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::timed_out(choice)),
    }
}

/// Sends a request, and returns the response with its body to be read.
pub(crate) async fn open(choice: &Choice, request: &AdminRequest) -> Result<Response<Incoming>, ClientError> {
    match tokio::time::timeout(TIMEOUT, connect_and_send(choice, request)).await {
        Ok(response) => response,
        Err(_) => Err(ClientError::timed_out(choice)),
    }
}

/// Sends a request for a stream. Calls `consume` with each chunk of the body until the stream ends or `consume` returns
/// false. Returns the response, with a body only if it is an error.
pub(crate) async fn stream(
    choice: &Choice,
    request: &AdminRequest,
    mut consume: impl FnMut(&[u8]) -> bool,
) -> Result<AdminResponse, ClientError> {
    let mut response = open(choice, request).await?;
    let status = response.status().as_u16();
    if !response.status().is_success() {
        return Ok(AdminResponse { status, body: read_body(response, ERROR_BYTES_MAX).await? });
    }
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(|_| ClientError::Ended)?;
        if frame.data_ref().is_some_and(|chunk| !consume(chunk)) {
            break;
        }
    }
    Ok(AdminResponse { status, body: String::new() })
}

async fn read_body(response: Response<Incoming>, bytes_max: usize) -> Result<String, ClientError> {
    let body = Limited::new(response.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| ClientError::Unexpected(error.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn connect_and_send(
    choice: &Choice,
    request: &AdminRequest,
) -> Result<Response<Incoming>, ClientError> {
    let stream = find::connect(choice).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unexpected(&error))?;
    #[expect(clippy::disallowed_methods, reason = "it ends with the response, whose connection it drives")]
    tokio::spawn(connection);
    exchange(&mut sender, &host(choice), request).await
}

/// Returns the `Host` header.
fn host(choice: &Choice) -> String {
    match &choice.given {
        Some(AdminAddr::Tcp(addr)) => addr.to_string(),
        _ => "ambassador".to_owned(),
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    request: &AdminRequest,
) -> Result<Response<Incoming>, ClientError> {
    let AdminRequest { method, path, body } = request;
    let mut request = Request::builder().method(method.clone()).uri(path).header("host", host);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::from(body.clone()));
    let request = request.map_err(|error| ClientError::Unexpected(error.to_string()))?;
    sender.send_request(request).await.map_err(|error| unexpected(&error))
}

fn unexpected(error: &hyper::Error) -> ClientError {
    ClientError::Unexpected(error.to_string())
}

/// Escapes text for use in a path. Slashes are not escaped: the name of a route is the rest of its path.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Parses the kernel's table of unix sockets, for the fuzz targets.
pub(super) fn read_any(table: &[u8]) {
    find::read_any(table);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_escaped_except_for_its_slashes() {
        assert_eq!(escaped("53/udp"), "53/udp");
        assert_eq!(escaped("[::1]:80 ?%"), "%5B%3A%3A1%5D%3A80%20%3F%25");
    }
}
