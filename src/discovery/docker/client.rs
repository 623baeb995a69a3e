//! GET requests to one engine: over a unix socket, TCP or TLS, at a version that both sides speak.
//!
//! Not bollard: its models refuse a whole answer for one value they do not know and there is no way past them to the
//! JSON, it has no TLS without verification (Docker's `--tls`), and it negotiates a version but then asks without one.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::api::{self, Listed, text};
use super::event::{self, Event};
use super::version::Version;
use super::view::Answer;
use super::wire;
use crate::config::DockerHost;
use crate::discovery::containers::ContainerId;
use crate::discovery::http::{self, percent_encoded, take_line};

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
        let begin = async { Ok(Events { answer: self.send(&path, "/events").await?, buffer: Vec::new() }) };
        timeout(ANSWER_TIMEOUT, begin).await.map_err(|_| exchange("/events", &"no answer"))?
    }

    async fn get(&self, path: &str) -> Result<Value, ApiError> {
        let whole = async {
            let body = self.send(path, path).await?.whole(ANSWER_MAX).await;
            let body = body.map_err(|why| exchange(path, &why))?;
            serde_json::from_slice(&body).map_err(|why| exchange(path, &why))
        };
        timeout(ANSWER_TIMEOUT, whole).await.map_err(|_| exchange(path, &"no answer"))?
    }

    /// Asks, and reads the head; an answer other than 200 is an error with the engine's own words. `shown` is the path
    /// as people read it.
    async fn send(&self, path: &str, shown: &str) -> Result<http::Answer, ApiError> {
        let failed = |why: String| ApiError::Connect { host: wire::shown(&self.host), why };
        let wire = wire::connect(&self.host).await.map_err(failed)?;
        let answer = http::send(wire, self.request(path)?).await.map_err(|why| exchange(shown, &why))?;
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        const REASON_MAX: usize = 4096;
        let body = answer.whole(REASON_MAX).await.unwrap_or_default();
        let words = serde_json::from_slice::<Value>(&body).ok();
        let message = words.as_ref().and_then(|words| text(words, "/message")).unwrap_or_default().to_owned();
        Err(ApiError::Status { path: shown.to_owned(), status, message })
    }

    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, ApiError> {
        let host = match &*self.host {
            DockerHost::Unix(_) => "localhost",
            DockerHost::Tcp(address) | DockerHost::Tls { address, .. } => address,
        };
        let uri = format!("{}{path}", self.prefix);
        let request = Request::get(uri).header("host", host).header("connection", "close");
        request.body(Full::default()).map_err(|why| exchange(path, &why))
    }
}

/// The event stream, line by line.
pub(super) struct Events {
    answer: http::Answer,
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
            match self.answer.piece().await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(why)) => return Err(exchange("/events", &why)),
                None => return Err(exchange("/events", &"the engine closed the event stream")),
            }
        }
    }
}

fn exchange(path: &str, why: &dyn Display) -> ApiError {
    ApiError::Exchange { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests;
