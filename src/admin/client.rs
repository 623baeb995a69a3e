//! The admin API from the other end, for the verbs of the command line.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use super::address::Choice;
use super::find;
use crate::cluster::ConnectError;
use crate::config::AdminAddr;

/// An answer longer than this is not one of ours.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Of an error's answer.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// Long enough for a busy machine, short enough for a health check of Docker's (30 s).
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub method: Method,
    pub path: String,
    /// JSON; empty for none.
    pub body: String,
}

/// What the ambassador answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    pub body: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no ambassador answers at {at} ({}): is one running? --admin or AMBASSADOR_ADMIN names another admin address",
        cause(.error)
    )]
    Unreachable { at: Choice, error: io::Error },
    /// Their addresses.
    #[error("several ambassadors run here; name one of them with --admin or AMBASSADOR_ADMIN:\n  {}", .0.join("\n  "))]
    Several(Vec<String>),
    #[error("the ambassador has ended, or had no more room for us")]
    Ended,
    #[error("the ambassador's answer makes no sense: {0}")]
    Garbled(String),
}

impl ClientError {
    fn silent(choice: &Choice) -> ClientError {
        let why = format!("no answer within {TIMEOUT:?}");
        ClientError::Unreachable { at: choice.clone(), error: io::Error::new(io::ErrorKind::TimedOut, why) }
    }
}

/// The system's errors in the words of other messages.
fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => ConnectError::of(error).to_string(),
        None => error.to_string(),
    }
}

impl Question {
    pub fn get(path: impl Into<String>) -> Question {
        Question { method: Method::GET, path: path.into(), body: String::new() }
    }

    pub fn post(path: impl Into<String>, body: &serde_json::Value) -> Question {
        Question { method: Method::POST, path: path.into(), body: body.to_string() }
    }
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Asks, and reads the whole answer.
pub async fn ask(choice: &Choice, question: &Question) -> Result<Answer, ClientError> {
    let answer = async {
        let response = send(choice, question).await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: whole(response, BODY_BYTES_MAX).await? })
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::silent(choice)),
    }
}

/// Asks for a stream of lines, and hands on each piece of it as it comes, until it ends or `take` says that it is enough.
/// An answer that is no stream but an error is returned.
pub async fn follow(
    choice: &Choice,
    question: &Question,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<Answer, ClientError> {
    let mut response = match tokio::time::timeout(TIMEOUT, send(choice, question)).await {
        Ok(response) => response?,
        Err(_) => return Err(ClientError::silent(choice)),
    };
    let status = response.status().as_u16();
    if !response.status().is_success() {
        return Ok(Answer { status, body: whole(response, ERROR_BYTES_MAX).await? });
    }
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(|_| ClientError::Ended)?;
        if frame.data_ref().is_some_and(|piece| !take(piece)) {
            break;
        }
    }
    Ok(Answer { status, body: String::new() })
}

async fn whole(response: Response<Incoming>, bytes_max: usize) -> Result<String, ClientError> {
    let body = Limited::new(response.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| ClientError::Garbled(error.to_string()))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn send(choice: &Choice, question: &Question) -> Result<Response<Incoming>, ClientError> {
    let stream = find::connect(choice).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| garbled(&error))?;
    #[expect(clippy::disallowed_methods, reason = "it ends with the response, whose connection it drives")]
    tokio::spawn(connection);
    exchange(&mut sender, &host(choice), question).await
}

fn host(choice: &Choice) -> String {
    match &choice.given {
        Some(AdminAddr::Tcp(addr)) => addr.to_string(),
        _ => "ambassador".to_owned(),
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    question: &Question,
) -> Result<Response<Incoming>, ClientError> {
    let Question { method, path, body } = question;
    let mut request = Request::builder().method(method.clone()).uri(path).header("host", host);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::from(body.clone()));
    let request = request.map_err(|error| ClientError::Garbled(error.to_string()))?;
    sender.send_request(request).await.map_err(|error| garbled(&error))
}

fn garbled(error: &hyper::Error) -> ClientError {
    ClientError::Garbled(error.to_string())
}

/// A word as one part of a path, whatever is in it. Slashes may stay: a route's name is the rest of its path.
pub fn escaped(word: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    word.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_escaped_but_for_its_slashes() {
        assert_eq!(escaped("53/udp"), "53/udp");
        assert_eq!(escaped("[::1]:80 ?%"), "%5B%3A%3A1%5D%3A80%20%3F%25");
    }
}
