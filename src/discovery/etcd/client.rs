//! One member of an etcd cluster, through its JSON gateway: questions, a watch, and a token where it wants one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};

use super::api::{self, Listing, Watched};
use crate::config::etcd::{EtcdAccess, Login};
use crate::discovery::http::{self, HttpError, Lines, Request};

/// A member that has not answered by then is taken for dead: it takes milliseconds. etcd itself gives up after 5 s when
/// it has lost its quorum (server.go, `ReqTimeout`); the others may have one before that.
const PATIENCE: Duration = Duration::from_secs(4);

/// etcd fragments what it tells at 1.5 MB, its largest request; base64 makes 2 MB of that.
const LINE_MAX: usize = 8 << 20;

/// A member that has lost its quorum ends a watch that asks for a leader, instead of keeping silent (etcd's
/// `clientv3.WithRequireLeader`).
const REQUIRE_LEADER: HeaderName = HeaderName::from_static("grpc-metadata-hasleader");

#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{path}: etcd answers what makes no sense")]
    Senseless { path: &'static str },
    #[error("the watch ended: {0}")]
    Watch(String),
    #[error("etcd wants to know who we are: set AMBASSADOR_ETCD_USER and AMBASSADOR_ETCD_PASSWORD")]
    Nobody,
}

/// Clones share the token.
#[derive(Clone)]
pub(crate) struct Client {
    http: http::Client,
    login: Option<Login>,
    /// What [`Client::authenticate`] got. Held only to copy in or out.
    token: Arc<Mutex<Option<String>>>,
    patience: Duration,
}

impl Client {
    pub(crate) fn new(member: &str, tls: bool, access: &EtcdAccess) -> Client {
        let http = http::Client::new(access.server(member, tls));
        Client { http, login: access.login.clone(), token: Arc::default(), patience: PATIENCE }
    }

    /// For each answer, where that is less than what is usual.
    #[must_use]
    pub(crate) fn patience(self, patience: Duration) -> Client {
        Client { patience: self.patience.min(patience), ..self }
    }

    /// All keys below a prefix, as the cluster's majority has them.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing, EtcdError> {
        let path = "/v3/kv/range";
        api::listing(&self.ask(path, &api::range(prefix)).await?).ok_or(EtcdError::Senseless { path })
    }

    /// What happens to them from this revision on.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, EtcdError> {
        let request = self.request("/v3/watch", &api::watch(prefix, from)).header(REQUIRE_LEADER, "true");
        Ok(Watch { lines: self.http.lines(request, LINE_MAX).await? })
    }

    /// One question. A token that has expired, or was never got, is got on the way.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Result<Value, EtcdError> {
        if self.login.is_some() && self.token().is_none() {
            self.authenticate().await?;
        }
        let refused = match self.http.ask(self.request(path, body)).await {
            Ok(answer) => return Ok(answer.json()?),
            Err(error) => error,
        };
        if !wants_token(&refused) {
            return Err(refused.into());
        }
        self.authenticate().await?;
        Ok(self.http.ask(self.request(path, body)).await?.json()?)
    }

    fn request(&self, path: &str, body: &Value) -> Request {
        let request = Request::post(path, body).patience(self.patience);
        match self.token() {
            Some(token) => request.header(AUTHORIZATION, &token),
            None => request,
        }
    }

    async fn authenticate(&self) -> Result<(), EtcdError> {
        let Some(Login { user, password }) = &self.login else { return Err(EtcdError::Nobody) };
        let path = "/v3/auth/authenticate";
        let request =
            Request::post(path, &json!({ "name": user, "password": password })).patience(self.patience);
        let answer = match self.http.ask(request).await {
            Ok(answer) => answer.json()?,
            // As etcdctl does: an etcd that asks nobody needs no token.
            Err(error) if says(&error, "authentication is not enabled") => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let token = answer.get("token").and_then(Value::as_str).ok_or(EtcdError::Senseless { path })?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(())
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `invalid auth token` and its kin; `user name is empty`, which is how it says that none was shown; and a token from
/// before the users changed (api/v3rpc/rpctypes/error.go).
fn wants_token(error: &HttpError) -> bool {
    let unauthenticated = matches!(error.refusal(), Some((StatusCode::UNAUTHORIZED, _)));
    unauthenticated
        || ["invalid auth token", "user name is empty", "revision of auth store is old"]
            .iter()
            .any(|said| says(error, said))
}

fn says(error: &HttpError, words: &str) -> bool {
    error.refusal().is_some_and(|(_, message)| message.contains(words))
}

/// What happens, line by line.
pub(crate) struct Watch {
    lines: Lines,
}

impl Watch {
    /// Never ends well. May be dropped and called again without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Watched, EtcdError> {
        api::watched(&self.lines.next().await?).map_err(EtcdError::Watch)
    }
}

#[cfg(test)]
mod tests;
