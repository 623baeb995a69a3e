//! A service of Consul's catalog as a source, by blocking queries
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).
//!
//! ```text
//!   ask at index 0 ──answered at once──► publish ──► ask at its index ──answered when it changed──┐
//!                                           ▲                                                     │
//!                                           └─────────────────────────────────────────────────────┘
//! ```

mod api;

use std::convert::Infallible;
use std::time::Duration;

use hyper::header::HeaderName;
use tokio::time::{Instant, sleep_until};

use super::dns::{Names, Resolver};
use super::http::{Client, Elements, HttpError, Limit, Request};
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::EndpointSpec;
use crate::config::ConsulConfig;
use crate::config::secret::Secret;
use crate::config::server::Server;
use crate::route::{ConsulService, Target};
use api::{Instance, next_index, path};

/// How long Consul lets a query wait for a change. It adds up to a sixteenth, so that not all come at once.
const WAIT: Duration = Duration::from_secs(60);
/// For the answer itself.
const SLACK: Duration = Duration::from_secs(10);

/// Between two questions: a service whose index changes all the time, as some versions of Consul have it, is asked for
/// no more than ten times a second. A change after some quiet waits for nothing.
const PACE: Duration = Duration::from_millis(100);

/// Sixteen thousand instances of 2 KB each.
const ANSWER: Limit = Limit { mib: 32, help: "narrow it down with tags, `consul://SERVICE+TAG`" };

const INDEX: &str = "x-consul-index";
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

pub struct Consul {
    service: ConsulService,
    client: Client,
    token: Option<Secret>,
    /// Instances may be registered with a name instead of an address.
    names: Names,
}

/// What is known in one run.
#[derive(Default)]
struct Known {
    instances: Vec<Instance>,
    shown: Option<Vec<EndpointSpec>>,
}

enum Failure {
    Stopped(Stopped),
    Http(HttpError),
}

impl Consul {
    pub fn new(service: ConsulService, config: &ConsulConfig, resolver: Resolver) -> Consul {
        let agent = service.agent.clone().unwrap_or_else(|| config.agent.clone());
        let token = config.token(&agent).cloned();
        Consul { service, client: Client::new(Server::Tcp(agent)), token, names: Names::new(resolver) }
    }
}

impl Source for Consul {
    fn name(&self) -> String {
        self.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(Failure::Stopped(stopped)) => stopped.into(),
            Err(Failure::Http(error)) => SourceError::Failed(error.to_string()),
        }
    }
}

impl Consul {
    async fn follow(&mut self, publisher: &mut Publisher) -> Result<Infallible, Failure> {
        let mut known = Known::default();
        let mut index = 0;
        loop {
            let asked = Instant::now();
            let (client, question) = (self.client.clone(), self.question(index));
            let mut answer = std::pin::pin!(async move {
                let answer = ask(&client, question).await?;
                sleep_until(asked + PACE).await;
                Ok::<_, HttpError>(answer)
            });
            let (instances, told) = loop {
                tokio::select! {
                    answer = &mut answer => break answer?,
                    () = self.names.changed() => self.publish(&mut known, publisher).await?,
                }
            };
            self.names.want(&api::names(&instances));
            known.instances = instances;
            self.publish(&mut known, publisher).await?;
            index = next_index(index, told);
        }
    }

    fn question(&self, index: u64) -> Request {
        let request = Request::get(path(&self.service, index, WAIT)).limit(ANSWER);
        let request = request.patience(WAIT + WAIT / 16 + SLACK);
        match &self.token {
            Some(token) => request.header(TOKEN, token.reveal()),
            None => request,
        }
    }

    async fn publish(&mut self, known: &mut Known, publisher: &mut Publisher) -> Result<(), Stopped> {
        let endpoints = api::endpoints(&known.instances, |name| self.names.addresses(name));
        if known.shown.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        known.shown = Some(endpoints.clone());
        publisher.publish(Snapshot::Target { target: self.target(), endpoints, problem: None }).await
    }

    fn target(&self) -> Target {
        Target::Consul(self.service.clone())
    }
}

/// The instances, and the index to ask at next.
async fn ask(client: &Client, question: Request) -> Result<(Vec<Instance>, u64), HttpError> {
    let answer = client.ask(question).await?;
    let wrong = |why: &str| HttpError::exchange("/v1/health/service", &why);
    let index = answer.headers.get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
    let index = index.ok_or_else(|| wrong("no index: is this Consul?"))?;
    let Elements(instances) = answer.json().await?;
    Ok((instances, index))
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Failure {
        Failure::Stopped(stopped)
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Failure {
        Failure::Http(error)
    }
}

/// What the fuzz targets feed: an answer of an agent.
#[doc(hidden)]
pub fn read_any(answer: &[u8]) {
    if let Ok(Elements(instances)) = serde_json::from_slice::<Elements<Instance>>(answer) {
        let _ = api::endpoints(&instances, |_| Vec::new());
    }
}

#[cfg(test)]
mod tests;
