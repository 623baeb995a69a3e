//! GET requests to one engine: over a unix socket, TCP or TLS, at a version that both sides speak.
//!
//! Not bollard: its models refuse a whole answer for one value they do not know and there is no way past them to the
//! JSON, it has no TLS without verification (Docker's `--tls`), and it negotiates a version but then asks without one.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::api::{self, Listed, text};
use super::event::{self, Event};
use super::version::Version;
use super::view::Answer;
use super::wire::{self, Wire};
use crate::config::DockerHost;
use crate::discovery::containers::ContainerId;

/// An engine answers in milliseconds; one that pulls and builds on slow disks takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A thousand containers list as about 2 MB, and inspect as 10 KB each, most of it environment and mounts.
const ANSWER_MAX: usize = 64 << 20;
const EVENT_MAX: usize = 1 << 20;

/// Why the engine did not say.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("cannot connect to {host}: {why}")]
    Connect { host: String, why: String },
    #[error("{path}: {why}")]
    Exchange { path: String, why: String },
    #[error("{path}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { path: String, status: StatusCode, message: String },
    #[error("{0}")]
    Unusable(String),
}

#[derive(Clone)]
pub(super) struct Client {
    host: Arc<DockerHost>,
    /// `/v1.41`, or empty while it is being asked for.
    prefix: Arc<str>,
}

type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Empty<Bytes>>;

impl Client {
    /// Asks the engine which versions it speaks.
    pub(super) async fn negotiate(host: &DockerHost) -> Result<Client, ApiError> {
        let mut client = Client { host: Arc::new(host.clone()), prefix: Arc::from("") };
        let answer = client.get("/version").await?;
        let version = Version::common(text(&answer, "/MinAPIVersion"), text(&answer, "/ApiVersion"));
        let version = version.map_err(ApiError::Unusable)?;
        client.prefix = Arc::from(format!("/v{version}"));
        Ok(client)
    }

    /// Every container, running or not.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, ApiError> {
        let path = "/containers/json?all=1";
        let not_a_list = || ApiError::Exchange { path: path.to_owned(), why: "not a list".to_owned() };
        api::listed(&self.get(path).await?).ok_or_else(not_a_list)
    }

    pub(super) async fn inspect(&self, id: &ContainerId) -> Result<Answer, ApiError> {
        let path = format!("/containers/{}/json", id.0);
        match self.get(&path).await {
            Ok(answer) => match api::inspected(&answer) {
                Some((answered, container)) if answered == *id => Ok(Answer::Is(Box::new(container))),
                _ => Err(ApiError::Exchange { path, why: "not this container".to_owned() }),
            },
            Err(ApiError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(Answer::Gone),
            Err(error) => Err(error),
        }
    }

    /// Returns once the engine has begun to answer, so about when it has subscribed us (see
    /// [`super::watch::RESYNC_FIRST`]).
    pub(super) async fn events(&self) -> Result<Events, ApiError> {
        let filters = serde_json::json!({ "type": ["container", "network"], "event": event::WANTED });
        let path = format!("/events?filters={}", percent_encoded(&filters.to_string()));
        let begin = async {
            let (mut sender, connection) = self.connect().await?;
            let mut connection = Some(Box::pin(connection));
            let response =
                drive(&mut connection, answered("/events", &mut sender, self.request(&path)?)).await?;
            Ok(Events { connection, body: response.into_body(), buffer: Vec::new() })
        };
        timeout(ANSWER_TIMEOUT, begin).await.map_err(|_| exchange("/events", &"no answer"))?
    }

    async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let whole = async {
            let (mut sender, connection) = self.connect().await?;
            let request = self.request(path)?;
            let asking = async move {
                let body = answered(path, &mut sender, request).await?.into_body();
                collect(body, ANSWER_MAX).await.map_err(|why| exchange(path, &why))
            };
            let bytes = drive(&mut Some(Box::pin(connection)), asking).await?;
            serde_json::from_slice(&bytes).map_err(|why| exchange(path, &why))
        };
        timeout(ANSWER_TIMEOUT, whole).await.map_err(|_| exchange(path, &"no answer"))?
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, ApiError> {
        let host = match &*self.host {
            DockerHost::Unix(_) => "localhost",
            DockerHost::Tcp(address) | DockerHost::Tls { address, .. } => address,
        };
        let uri = format!("{}{path}", self.prefix);
        let request = Request::get(uri).header("host", host).header("connection", "close");
        request.body(Empty::new()).map_err(|why| exchange(path, &why))
    }

    async fn connect(&self) -> Result<(http1::SendRequest<Empty<Bytes>>, Connection), ApiError> {
        let failed = |why: String| ApiError::Connect { host: wire::shown(&self.host), why };
        let wire = wire::connect(&self.host).await.map_err(failed)?;
        http1::handshake(TokioIo::new(wire)).await.map_err(|why| failed(why.to_string()))
    }
}

/// The event stream, line by line.
pub(super) struct Events {
    connection: Option<Pin<Box<Connection>>>,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event that concerns us. Never ends well: an event stream that ends is a lost engine. May be dropped
    /// and called again without losing anything.
    pub(super) async fn next(&mut self) -> Result<Event, ApiError> {
        loop {
            while let Some(line) = take_line(&mut self.buffer) {
                let value = serde_json::from_slice(&line).map_err(|why| exchange("/events", &why))?;
                if let Some(event) = event::event(&value) {
                    return Ok(event);
                }
            }
            if self.buffer.len() > EVENT_MAX {
                return Err(exchange("/events", &"an event of more than a megabyte"));
            }
            match drive(&mut self.connection, self.body.frame()).await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(why)) => return Err(exchange("/events", &why)),
                None => return Err(exchange("/events", &"the engine closed the event stream")),
            }
        }
    }
}

/// Polls a connection and what is done over it in one task. Once the connection has ended, `work` finds out by itself.
async fn drive<T>(connection: &mut Option<Pin<Box<Connection>>>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Sends, and reads the headers; an answer other than 200 is an error with the engine's own words.
async fn answered(
    path: &str,
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, ApiError> {
    let response = sender.send_request(request).await.map_err(|why| exchange(path, &why))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    const REASON_MAX: usize = 4096;
    let body = collect(response.into_body(), REASON_MAX).await.unwrap_or_default();
    let words = serde_json::from_slice::<Value>(&body).ok();
    let message = words.as_ref().and_then(|words| text(words, "/message")).unwrap_or_default().to_owned();
    Err(ApiError::Status { path: path.to_owned(), status, message })
}

async fn collect(body: Incoming, max: usize) -> Result<Bytes, String> {
    let collected = Limited::new(body, max).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|why| why.to_string())
}

/// The first line of the buffer, without its end, taken out of it.
fn take_line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let end = buffer.iter().position(|byte| *byte == b'\n')?;
        let rest = buffer.split_off(end + 1);
        let line = std::mem::replace(buffer, rest);
        if !line.trim_ascii().is_empty() {
            return Some(line);
        }
    }
}

fn exchange(path: &str, why: &dyn Display) -> ApiError {
    ApiError::Exchange { path: path.to_owned(), why: why.to_string() }
}

/// For a query's value: all but letters and digits.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests;
