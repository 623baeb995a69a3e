//! A client of one member of an etcd cluster, through its JSON gateway: requests, a watch, and authentication where it is enabled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{self, Changes, Listing, WatchLine, WatchResponse};
use crate::config::etcd::{EtcdAccess, Login};
use crate::config::hosts;
use crate::discovery::http::{self, HttpError, Limit, Lines, Request};

/// The time limit of a request, which takes milliseconds. etcd itself fails a request after 5 s without a quorum (server.go,
/// `ReqTimeout`); other members may have one before that.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// etcd fragments a response at 1.5 MB, its largest request, which is 2 MB in base64.
const LINE_MAX: usize = 8 << 20;

/// As many keys as are followed, each of 1 KB with a value of 4 KB, in base64.
const LISTING: Limit =
    Limit { mib: 32, help: "name the prefix of one service, whose values are `host:port` or a short JSON" };

/// Lines of one response. Each has about 1.5 MB, so this is a change of more keys than are followed.
const FRAGMENTS_MAX: usize = 16;

/// With this header, a member that has lost its quorum ends the watch instead of reporting nothing (etcd's
/// `clientv3.WithRequireLeader`).
const REQUIRE_LEADER: HeaderName = HeaderName::from_static("grpc-metadata-hasleader");

/// Why a request to etcd failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{path}: unexpected response from etcd")]
    Unexpected { path: &'static str },
    #[error("the watch ended: {0}")]
    Watch(String),
    #[error("etcd requires authentication: set AMBASSADOR_ETCD_USER and AMBASSADOR_ETCD_PASSWORD")]
    Unauthenticated,
    /// The configured credentials are for other hosts.
    #[error("no credentials are configured for etcd {member}: {}", hosts::HELP)]
    Withheld { member: String },
}

/// Clones share the token.
#[derive(Clone)]
pub(crate) struct Client {
    http: http::Client,
    member: String,
    login: Option<Login>,
    /// Whether the configured credentials are for other hosts.
    is_withheld: bool,
    /// The token from [`Client::authenticate`]. Locked only to copy it in or out.
    token: Arc<Mutex<Option<String>>>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(member: &str, tls: bool, access: &EtcdAccess) -> Client {
        Client {
            http: http::Client::new(access.server(member, tls)),
            member: member.to_owned(),
            login: access.login(member, tls).cloned(),
            is_withheld: access.is_withheld(member, tls),
            token: Arc::default(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// Returns `HOST:PORT`.
    pub(crate) fn member(&self) -> &str {
        &self.member
    }

    /// Lowers the time limit of each request to `timeout`, if it is shorter.
    #[must_use]
    pub(crate) fn timeout(self, timeout: Duration) -> Client {
        Client { timeout: self.timeout.min(timeout), ..self }
    }

    /// Lists all keys below a prefix, linearizably.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing, EtcdError> {
        let path = "/v3/kv/range";
        let range = self.call_within(path, &api::range(prefix), LISTING).await?;
        api::listing(range).ok_or(EtcdError::Unexpected { path })
    }

    /// Watches the keys below a prefix, from this revision on.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<EtcdWatch, EtcdError> {
        let request = self.request("/v3/watch", &api::watch(prefix, from)).header(REQUIRE_LEADER, "true");
        Ok(EtcdWatch {
            lines: self.http.lines(request, LINE_MAX).await?,
            partial: Changes::default(),
            fragments: 0,
        })
    }

    /// Sends a request and returns its response. Obtains a token if there is none or if it has expired.
    pub(crate) async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        self.call_within(path, body, Limit::default()).await
    }

    async fn call_within<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &Value,
        limit: Limit,
    ) -> Result<T, EtcdError> {
        let request = || self.request(path, body).limit(limit);
        if self.login.is_some() && self.token().is_none() {
            self.authenticate().await?;
        }
        let refused = match self.http.send(request()).await {
            Ok(response) => return Ok(response.json().await?),
            Err(error) => error,
        };
        if !requires_token(&refused) {
            return Err(refused.into());
        }
        self.authenticate().await?;
        Ok(self.http.send(request()).await?.json().await?)
    }

    fn request(&self, path: &str, body: &Value) -> Request {
        let request = Request::post(path, body).timeout(self.timeout);
        match self.token() {
            Some(token) => request.header(AUTHORIZATION, &token),
            None => request,
        }
    }

    async fn authenticate(&self) -> Result<(), EtcdError> {
        let Some(Login { user, password }) = &self.login else { return Err(self.no_credentials()) };
        let path = "/v3/auth/authenticate";
        let request =
            Request::post(path, &json!({ "name": user, "password": password })).timeout(self.timeout);
        let response: Value = match self.http.send(request).await {
            Ok(response) => response.json().await?,
            // Not an error, as in etcdctl.
            Err(error) if has_message(&error, "authentication is not enabled") => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let token = response.get("token").and_then(Value::as_str).ok_or(EtcdError::Unexpected { path })?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(())
    }

    fn no_credentials(&self) -> EtcdError {
        match self.is_withheld {
            true => EtcdError::Withheld { member: self.member.clone() },
            false => EtcdError::Unauthenticated,
        }
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns whether etcd refused a request for want of a valid token: an expired one, none (`user name is empty`), or one from
/// before the users changed (api/v3rpc/rpctypes/error.go).
fn requires_token(error: &HttpError) -> bool {
    let unauthenticated = matches!(error.refusal(), Some((StatusCode::UNAUTHORIZED, _)));
    unauthenticated
        || ["invalid auth token", "user name is empty", "revision of auth store is old"]
            .iter()
            .any(|message| has_message(error, message))
}

fn has_message(error: &HttpError, text: &str) -> bool {
    error.refusal().is_some_and(|(_, message)| message.contains(text))
}

/// A watch, response by response. Fragments of a response are joined, so that a transaction is seen as a whole.
pub(crate) struct EtcdWatch {
    lines: Lines<WatchLine>,
    /// The fragments of an incomplete response.
    partial: Changes,
    fragments: usize,
}

impl EtcdWatch {
    /// Returns the next response. A watch that ends is an error. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, EtcdError> {
        loop {
            let more = match api::watch_response(self.lines.next().await?).map_err(EtcdError::Watch)? {
                WatchResponse::Changes(more) => more,
                other => return Ok(other),
            };
            let is_fragment = more.is_fragment;
            self.partial.changes.extend(more.changes);
            self.partial.cluster = more.cluster;
            if !is_fragment {
                self.fragments = 0;
                return Ok(WatchResponse::Changes(std::mem::take(&mut self.partial)));
            }
            self.fragments += 1;
            if self.fragments >= FRAGMENTS_MAX {
                let why = format!("a response has more than {FRAGMENTS_MAX} fragments");
                return Err(EtcdError::Watch(why));
            }
        }
    }
}

#[cfg(test)]
mod tests;
