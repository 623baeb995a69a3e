//! One request and its response, both limited in size and time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::error::{HttpError, Limit, REASON_MAX, without_query};
use super::lines::Lines;
use super::{BodyError, Response, json, wire};
use crate::config::server::Server;

/// The default time limit of a request. The servers respond in milliseconds; one that waits for its disk takes seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A request. Not `Debug`: its headers and body may contain secrets.
#[derive(Clone)]
pub(crate) struct Request {
    method: Method,
    /// The path and query.
    path: String,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
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
        Request {
            method,
            path,
            headers: HeaderMap::new(),
            body,
            timeout: REQUEST_TIMEOUT,
            limit: Limit::default(),
        }
    }

    /// Limits the time of the whole exchange; of a stream, that until its response begins.
    #[must_use]
    pub(crate) fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = timeout;
        self
    }

    #[must_use]
    pub(crate) fn limit(mut self, limit: Limit) -> Request {
        self.limit = limit;
        self
    }

    /// Adds a header. A value that is not valid in a header is left out, which the server reports.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Request {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }
}

/// A response with its whole body.
pub(crate) struct FullResponse {
    path: String,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl FullResponse {
    /// Parses the body; a long one on another thread.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(self) -> Result<T, HttpError> {
        json::parse(self.body).await.map_err(|why| HttpError::exchange(&self.path, &why))
    }
}

/// A client of one server. Does not follow redirects, because a request may contain credentials of this server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: Arc<Server>,
    /// Selects the address that is tried first: another one after a request that failed.
    turn: Arc<AtomicUsize>,
}

impl Client {
    pub(crate) fn new(server: Server) -> Client {
        Client { server: Arc::new(server), turn: Arc::default() }
    }

    /// Sends a request and reads the whole response. A status other than success is an error.
    pub(crate) async fn send(&self, request: Request) -> Result<FullResponse, HttpError> {
        let (path, limit) = (request.path.clone(), request.limit);
        self.within(request.timeout, &path, async {
            let response = self.begin(request).await?;
            let headers = response.headers.clone();
            let body = response.full_body(limit.mib << 20).await.map_err(|error| match error {
                BodyError::TooLong => HttpError::too_long(&path, limit),
                BodyError::Failed(why) => HttpError::exchange(&path, &why),
            })?;
            Ok(FullResponse { path: path.clone(), headers, body })
        })
        .await
    }

    /// Sends a request and returns its response as a stream: one JSON value a line, none longer than `line_max` bytes. Returns
    /// once the response has begun.
    pub(crate) async fn lines<T>(&self, request: Request, line_max: usize) -> Result<Lines<T>, HttpError> {
        let path = request.path.clone();
        let response = self.within(request.timeout, &path, self.begin(request)).await?;
        Ok(Lines::new(without_query(&path), response, line_max))
    }

    /// Sends a request and reads the headers of the response.
    async fn begin(&self, request: Request) -> Result<Response, HttpError> {
        let path = request.path.clone();
        let failed = |why: String| HttpError::Connect { server: self.server.to_string(), why };
        let wire = wire::connect(&self.server, self.turn.load(Relaxed)).await.map_err(failed)?;
        let response = super::send(wire, self.to_hyper(request)?).await;
        let response = response.map_err(|why| HttpError::exchange(&path, &why))?;
        let status = response.status;
        if status.is_success() {
            return Ok(response);
        }
        let body = response.full_body(REASON_MAX).await.unwrap_or_default();
        Err(HttpError::status(&path, status, &body))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        path: &str,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let done = timeout(limit, work).await.unwrap_or_else(|_| Err(HttpError::timeout(path)));
        if let Err(HttpError::Connect { .. } | HttpError::Exchange { .. } | HttpError::Timeout { .. }) = &done
        {
            self.turn.fetch_add(1, Relaxed);
        }
        done
    }

    fn to_hyper(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let Request { method, path, headers, body, timeout: _, limit: _ } = request;
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

#[cfg(test)]
pub(crate) mod tests;
