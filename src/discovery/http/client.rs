//! One request and its answer, both bounded in size and time.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::Server;
use super::lines::Lines;
use super::wire::{self, Wire};

/// The servers we ask answer in milliseconds; one that is busy with its disk takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Docker's list of ten thousand containers is 20 MB, and the longest answer we ask for.
const ANSWER_MAX: usize = 64 << 20;

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
    /// With the server's own words, where it has any.
    #[error("{path}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { path: String, status: StatusCode, message: String },
}

impl HttpError {
    pub(crate) fn exchange(path: &str, why: &dyn Display) -> HttpError {
        HttpError::Exchange { path: without_query(path).to_owned(), why: why.to_string() }
    }

    /// The server's own words about a refusal.
    pub(crate) fn refusal(&self) -> Option<(StatusCode, &str)> {
        match self {
            HttpError::Status { status, message, .. } => Some((*status, message)),
            HttpError::Connect { .. } | HttpError::Exchange { .. } => None,
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
        Request { method, path, headers: HeaderMap::new(), body, patience: PATIENCE }
    }

    /// For the whole exchange; of a stream, for its beginning.
    #[must_use]
    pub(crate) fn patience(mut self, patience: Duration) -> Request {
        self.patience = patience;
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

pub(crate) struct Answer {
    path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value, HttpError> {
        serde_json::from_slice(&self.body).map_err(|why| HttpError::exchange(&self.path, &why))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: Arc<Server>,
}

pub(super) type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Full<Bytes>>;
type Sender = http1::SendRequest<Full<Bytes>>;

impl Client {
    pub(crate) fn new(server: Server) -> Client {
        Client { server: Arc::new(server) }
    }

    /// The whole answer. One that is no success is an error.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, HttpError> {
        let (path, patience) = (request.path.clone(), request.patience);
        let whole = async {
            let (mut sender, connection) = self.connect().await?;
            let asking = async {
                let response = self.answered(&mut sender, request).await?;
                let headers = response.headers().clone();
                let body = collect(response.into_body(), ANSWER_MAX).await;
                let body = body.map_err(|why| HttpError::exchange(&path, &why))?;
                Ok(Answer { path: path.clone(), headers, body })
            };
            drive(&mut Some(Box::pin(connection)), asking).await
        };
        timeout(patience, whole).await.unwrap_or_else(|_| Err(HttpError::exchange(&path, &"no answer")))
    }

    /// An answer that goes on: one JSON value a line, none longer than `line_max` bytes. Returns once the server has
    /// begun to answer.
    pub(crate) async fn lines(&self, request: Request, line_max: usize) -> Result<Lines, HttpError> {
        let (path, patience) = (request.path.clone(), request.patience);
        let begin = async {
            let (mut sender, connection) = self.connect().await?;
            let mut connection = Some(Box::pin(connection));
            let response = drive(&mut connection, self.answered(&mut sender, request)).await?;
            let path = without_query(&path).to_owned();
            Ok(Lines::new(path, connection, response.into_body(), line_max))
        };
        timeout(patience, begin).await.unwrap_or_else(|_| Err(HttpError::exchange(&path, &"no answer")))
    }

    /// Sends, and reads the headers.
    async fn answered(&self, sender: &mut Sender, request: Request) -> Result<Response<Incoming>, HttpError> {
        let path = request.path.clone();
        let request = self.written(request)?;
        let response = sender.send_request(request).await.map_err(|why| HttpError::exchange(&path, &why))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = collect(response.into_body(), REASON_MAX).await.unwrap_or_default();
        Err(HttpError::Status { path: without_query(&path).to_owned(), status, message: reason(&body) })
    }

    fn written(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let Request { method, path, headers, body, patience: _ } = request;
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

    async fn connect(&self) -> Result<(Sender, Connection), HttpError> {
        let failed = |why: String| HttpError::Connect { server: self.server.to_string(), why };
        let wire = wire::connect(&self.server).await.map_err(failed)?;
        http1::handshake(TokioIo::new(wire)).await.map_err(|why| failed(why.to_string()))
    }
}

/// Polls a connection and what is done over it in one task. Once the connection has ended, `work` finds out by itself.
pub(super) async fn drive<T>(
    connection: &mut Option<Pin<Box<Connection>>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

async fn collect(body: Incoming, max: usize) -> Result<Bytes, String> {
    let collected = Limited::new(body, max).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|why| why.to_string())
}

/// Docker and etcd say `{"message": ".."}`, Consul says it in plain text.
fn reason(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).ok();
    let message = match &json {
        Some(json) => json.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = message.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_SHOWN_MAX).collect()
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// For a query's value: all but letters and digits.
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
