//! One request and its answer, both bounded in size and time.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::lines::Lines;
use super::{Answer, Unread, json, wire};
use crate::config::server::Server;

/// The servers we ask answer in milliseconds; one that is busy with its disk takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, and what to do about a longer one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) mib: usize,
    pub(crate) help: &'static str,
}

/// For answers of which no long one is expected.
impl Default for Limit {
    fn default() -> Limit {
        Limit { mib: 4, help: "is this the server that was meant?" }
    }
}

/// What a server says about its refusal is for a line of the log.
const REASON_MAX: usize = 4096;
const REASON_SHOWN_MAX: usize = 300;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot connect to {server}: {why}")]
    Connect { server: String, why: String },
    #[error("{path}: {why}")]
    Exchange { path: String, why: String },
    #[error("{path}: no answer")]
    Silent { path: String },
    #[error("{path}: the answer has more than {} MiB: {}", limit.mib, limit.help)]
    TooLong { path: String, limit: Limit },
    /// With the server's own words, where it has any.
    #[error("{path}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { path: String, status: StatusCode, message: String },
}

impl HttpError {
    pub(crate) fn exchange(path: &str, why: &dyn Display) -> HttpError {
        HttpError::Exchange { path: without_query(path).to_owned(), why: shown(&why.to_string()) }
    }

    fn unread(path: &str, limit: Limit, unread: Unread) -> HttpError {
        match unread {
            Unread::TooLong => HttpError::TooLong { path: without_query(path).to_owned(), limit },
            Unread::Failed(why) => HttpError::exchange(path, &why),
        }
    }

    /// Whether the server may well answer other requests: it refused this one, or did not answer it in time.
    pub(crate) fn concerns_request_alone(&self) -> bool {
        match self {
            HttpError::Status { .. } | HttpError::Silent { .. } | HttpError::TooLong { .. } => true,
            HttpError::Connect { .. } | HttpError::Exchange { .. } => false,
        }
    }

    /// The server's own words about a refusal.
    pub(crate) fn refusal(&self) -> Option<(StatusCode, &str)> {
        match self {
            HttpError::Status { status, message, .. } => Some((*status, message)),
            _ => None,
        }
    }
}

/// Not `Debug`: its headers and body may hold secrets.
#[derive(Clone)]
pub(crate) struct Request {
    method: Method,
    /// With the query.
    path: String,
    headers: HeaderMap,
    body: Bytes,
    patience: Duration,
    limit: Limit,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Request {
        Request::new(Method::GET, path.into(), Bytes::new())
    }

    pub(crate) fn put(path: impl Into<String>, body: &Value) -> Request {
        Request::new(Method::PUT, path.into(), Bytes::from(body.to_string()))
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Request {
        Request::new(Method::POST, path.into(), Bytes::from(body.to_string()))
    }

    fn new(method: Method, path: String, body: Bytes) -> Request {
        Request { method, path, headers: HeaderMap::new(), body, patience: PATIENCE, limit: Limit::default() }
    }

    /// For the whole exchange; of a stream, for its beginning.
    #[must_use]
    pub(crate) fn patience(mut self, patience: Duration) -> Request {
        self.patience = patience;
        self
    }

    #[must_use]
    pub(crate) fn limit(mut self, limit: Limit) -> Request {
        self.limit = limit;
        self
    }

    /// A value that no header can hold is left out, and the server says what it misses.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Request {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }
}

/// An answer with all of its body.
pub(crate) struct Whole {
    path: String,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Whole {
    /// Its body; a long one is parsed on another thread.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(self) -> Result<T, HttpError> {
        json::parse(self.body).await.map_err(|why| HttpError::exchange(&self.path, &why))
    }
}

/// Follows no redirect: what is sent is for this server alone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: Arc<Server>,
    /// Which of its addresses is tried first: the next one after a request that was not answered.
    turn: Arc<AtomicUsize>,
}

impl Client {
    pub(crate) fn new(server: Server) -> Client {
        Client { server: Arc::new(server), turn: Arc::default() }
    }

    /// The whole answer. One that is no success is an error.
    pub(crate) async fn ask(&self, request: Request) -> Result<Whole, HttpError> {
        let (path, limit) = (request.path.clone(), request.limit);
        self.within(request.patience, &path, async {
            let answer = self.answered(request).await?;
            let headers = answer.headers.clone();
            let body = answer.whole(limit.mib << 20).await;
            let body = body.map_err(|unread| HttpError::unread(&path, limit, unread))?;
            Ok(Whole { path: path.clone(), headers, body })
        })
        .await
    }

    /// An answer that goes on: one JSON value a line, none longer than `line_max` bytes. Returns once the server has
    /// begun to answer.
    pub(crate) async fn lines<T>(&self, request: Request, line_max: usize) -> Result<Lines<T>, HttpError> {
        let path = request.path.clone();
        let answer = self.within(request.patience, &path, self.answered(request)).await?;
        Ok(Lines::new(without_query(&path), answer, line_max))
    }

    /// Sends, and reads the headers.
    async fn answered(&self, request: Request) -> Result<Answer, HttpError> {
        let path = request.path.clone();
        let failed = |why: String| HttpError::Connect { server: self.server.to_string(), why };
        let wire = wire::connect(&self.server, self.turn.load(Relaxed)).await.map_err(failed)?;
        let answer = super::send(wire, self.written(request)?).await;
        let answer = answer.map_err(|why| HttpError::exchange(&path, &why))?;
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.whole(REASON_MAX).await.unwrap_or_default();
        Err(HttpError::Status { path: without_query(&path).to_owned(), status, message: reason(&body) })
    }

    async fn within<T>(
        &self,
        patience: Duration,
        path: &str,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let silent = |_| Err(HttpError::Silent { path: without_query(path).to_owned() });
        let done = timeout(patience, work).await.unwrap_or_else(silent);
        if let Err(HttpError::Connect { .. } | HttpError::Exchange { .. } | HttpError::Silent { .. }) = &done
        {
            self.turn.fetch_add(1, Relaxed);
        }
        done
    }

    fn written(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let Request { method, path, headers, body, patience: _, limit: _ } = request;
        let host = match &*self.server {
            Server::Unix(_) => "localhost",
            Server::Tcp(address) | Server::Tls { address, .. } => address,
        };
        let mut builder = hyper::Request::builder().method(method).uri(&path);
        builder = builder.header("host", host).header("connection", "close");
        if !body.is_empty() {
            builder = builder.header("content-type", "application/json");
        }
        let mut written = builder.body(Full::new(body)).map_err(|why| HttpError::exchange(&path, &why))?;
        written.headers_mut().extend(headers);
        Ok(written)
    }
}

/// Docker and etcd say `{"message": ".."}`, Consul says it in plain text.
fn reason(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).ok();
    let message = match &json {
        Some(json) => json.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    shown(message.trim())
}

/// For a line of the log.
fn shown(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_SHOWN_MAX).collect()
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

#[cfg(test)]
pub(crate) mod tests;
