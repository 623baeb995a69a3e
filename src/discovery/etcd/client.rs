//! One member of an etcd cluster, through its JSON gateway: questions, a watch, and a token where it wants one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderName};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{self, Changes, Line, Listing, Watched};
use crate::config::etcd::{EtcdAccess, Login};
use crate::config::hosts;
use crate::discovery::http::{self, HttpError, Limit, Lines, Request};

/// A member that has not answered by then is taken for dead: it takes milliseconds. etcd itself gives up after 5 s when
/// it has lost its quorum (server.go, `ReqTimeout`); the others may have one before that.
const PATIENCE: Duration = Duration::from_secs(4);

/// etcd fragments what it tells at 1.5 MB, its largest request; base64 makes 2 MB of that.
const LINE_MAX: usize = 8 << 20;

/// As many keys as are followed, each of 1 KB with a value of 4 KB, which is the longest that is read, in base64.
const LISTING: Limit =
    Limit { mib: 32, help: "name the prefix of one service, whose values are `host:port` or a short JSON" };

/// Lines that belong to one answer. Each has some 1.5 MB, so this is a change of more keys than are followed.
const FRAGMENTS_MAX: usize = 16;

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
    /// There are some, for others.
    #[error("no credentials are configured for etcd {member}: {}", hosts::HELP)]
    Withheld { member: String },
}

/// Clones share the token.
#[derive(Clone)]
pub(crate) struct Client {
    http: http::Client,
    member: String,
    login: Option<Login>,
    /// There are credentials, and they are not for this member.
    is_withheld: bool,
    /// What [`Client::authenticate`] got. Held only to copy in or out.
    token: Arc<Mutex<Option<String>>>,
    patience: Duration,
}

impl Client {
    pub(crate) fn new(member: &str, tls: bool, access: &EtcdAccess) -> Client {
        Client {
            http: http::Client::new(access.server(member, tls)),
            member: member.to_owned(),
            login: access.login(member, tls).cloned(),
            is_withheld: access.is_withheld(member, tls),
            token: Arc::default(),
            patience: PATIENCE,
        }
    }

    /// `HOST:PORT`.
    pub(crate) fn member(&self) -> &str {
        &self.member
    }

    /// For each answer, where that is less than what is usual.
    #[must_use]
    pub(crate) fn patience(self, patience: Duration) -> Client {
        Client { patience: self.patience.min(patience), ..self }
    }

    /// All keys below a prefix, as the cluster's majority has them.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing, EtcdError> {
        let path = "/v3/kv/range";
        let range = self.ask_within(path, &api::range(prefix), LISTING).await?;
        api::listing(range).ok_or(EtcdError::Senseless { path })
    }

    /// What happens to them from this revision on.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, EtcdError> {
        let request = self.request("/v3/watch", &api::watch(prefix, from)).header(REQUIRE_LEADER, "true");
        Ok(Watch {
            lines: self.http.lines(request, LINE_MAX).await?,
            begun: Changes::default(),
            fragments: 0,
        })
    }

    /// One question. A token that has expired, or was never got, is got on the way.
    pub(crate) async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        self.ask_within(path, body, Limit::default()).await
    }

    async fn ask_within<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &Value,
        limit: Limit,
    ) -> Result<T, EtcdError> {
        let request = || self.request(path, body).limit(limit);
        if self.login.is_some() && self.token().is_none() {
            self.authenticate().await?;
        }
        let refused = match self.http.ask(request()).await {
            Ok(answer) => return Ok(answer.json().await?),
            Err(error) => error,
        };
        if !wants_token(&refused) {
            return Err(refused.into());
        }
        self.authenticate().await?;
        Ok(self.http.ask(request()).await?.json().await?)
    }

    fn request(&self, path: &str, body: &Value) -> Request {
        let request = Request::post(path, body).patience(self.patience);
        match self.token() {
            Some(token) => request.header(AUTHORIZATION, &token),
            None => request,
        }
    }

    async fn authenticate(&self) -> Result<(), EtcdError> {
        let Some(Login { user, password }) = &self.login else { return Err(self.unknown()) };
        let path = "/v3/auth/authenticate";
        let request =
            Request::post(path, &json!({ "name": user, "password": password })).patience(self.patience);
        let answer: Value = match self.http.ask(request).await {
            Ok(answer) => answer.json().await?,
            // As etcdctl does: an etcd that asks nobody needs no token.
            Err(error) if says(&error, "authentication is not enabled") => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let token = answer.get("token").and_then(Value::as_str).ok_or(EtcdError::Senseless { path })?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(())
    }

    fn unknown(&self) -> EtcdError {
        if self.is_withheld { EtcdError::Withheld { member: self.member.clone() } } else { EtcdError::Nobody }
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

/// What happens, answer by answer: one that etcd sends in several lines is one here, so that no change of several keys
/// is seen by halves.
pub(crate) struct Watch {
    lines: Lines<Line>,
    /// The beginning of an answer whose end has not come.
    begun: Changes,
    fragments: usize,
}

impl Watch {
    /// Never ends well. May be dropped and called again without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Watched, EtcdError> {
        loop {
            let more = match api::watched(self.lines.next().await?).map_err(EtcdError::Watch)? {
                Watched::Changes(more) => more,
                other => return Ok(other),
            };
            let goes_on = more.goes_on;
            self.begun.changes.extend(more.changes);
            self.begun.cluster = more.cluster;
            if !goes_on {
                self.fragments = 0;
                return Ok(Watched::Changes(std::mem::take(&mut self.begun)));
            }
            self.fragments += 1;
            if self.fragments >= FRAGMENTS_MAX {
                return Err(EtcdError::Watch(format!("an answer of more than {FRAGMENTS_MAX} fragments")));
            }
        }
    }
}

#[cfg(test)]
mod tests;
