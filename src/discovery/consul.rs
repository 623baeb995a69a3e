//! A service of Consul's catalog as a source, by blocking queries
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).
//!
//! ```text
//!   query at index 0 ──immediate response──► publish ──► query at its index ──response at a change──┐
//!                                               ▲                                                   │
//!                                               └───────────────────────────────────────────────────┘
//! ```

mod api;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use hyper::header::HeaderName;
use tokio::time::{Instant, sleep_until};

use super::endpoint_resolver::{EndpointResolver, ListedEndpoint, resolve};
use super::http::{Client, Elements, HttpError, Limit, Request};
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::EndpointSpec;
use crate::config::ConsulConfig;
use crate::config::secret::Secret;
use crate::config::server::Server;
use crate::route::{ConsulService, Target};
use api::{Instance, next_index, path};

/// How long Consul waits for a change before it responds. It adds up to a sixteenth, so that queries are spread.
const WAIT: Duration = Duration::from_secs(60);
/// For the response itself.
const SLACK: Duration = Duration::from_secs(10);

/// The shortest time between two queries: a service whose index changes all the time, as with some versions of Consul, is queried
/// at most ten times a second. A change after a pause is not delayed.
const PACE: Duration = Duration::from_millis(100);

/// 16,000 instances of 2 KB each.
const RESPONSE: Limit = Limit { mib: 32, help: "select fewer with tags, `consul://SERVICE+TAG`" };

const INDEX: &str = "x-consul-index";

/// The key of a service's metadata that has the name of an export: address and port of the service are those of the peer.
pub(crate) const EXPORT: &str = "ambassador-peer";

pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// The source for one service.
pub(crate) struct Consul {
    service: ConsulService,
    client: Client,
    token: Option<Secret>,
    /// Instances may be registered with a name instead of an address.
    endpoints: EndpointResolver,
}

/// Why a service is no longer followed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl Consul {
    pub(crate) fn new(service: ConsulService, config: &ConsulConfig, endpoints: EndpointResolver) -> Consul {
        let agent = service.agent.clone().unwrap_or_else(|| config.agent.clone());
        let token = config.token(&agent).cloned();
        let client = Client::new(Server::Tcp(agent));
        Consul { service, client, token, endpoints }
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
        let (mut index, mut has_listed) = (0, false);
        loop {
            let begun = Instant::now();
            let (client, request) = (self.client.clone(), self.request(index));
            let mut response = pin!(async move {
                let response = query(&client, request).await?;
                sleep_until(begun + PACE).await;
                Ok::<_, HttpError>(response)
            });
            let (endpoints, new_index) = loop {
                tokio::select! {
                    response = &mut response => break response?,
                    // Before the first response, the instances are those of the run that failed.
                    () = self.endpoints.changed(), if has_listed => self.publish(publisher).await?,
                }
            };
            publisher.answered().record();
            self.endpoints.set(endpoints);
            has_listed = true;
            self.publish(publisher).await?;
            index = next_index(index, new_index);
        }
    }

    fn request(&self, index: u64) -> Request {
        let request = Request::get(path(&self.service, index, WAIT)).limit(RESPONSE);
        let request = request.timeout(WAIT + WAIT / 16 + SLACK);
        match &self.token {
            Some(token) => request.header(TOKEN, token.reveal()),
            None => request,
        }
    }

    async fn publish(&mut self, publisher: &mut Publisher) -> Result<(), Stopped> {
        let endpoints = sorted(self.endpoints.endpoints());
        let problem = self.endpoints.problem();
        publisher.publish_changed(Snapshot::Target { target: self.target(), endpoints, problem }).await
    }

    fn target(&self) -> Target {
        Target::Consul(self.service.clone())
    }
}

/// Consul returns instances in any order.
fn sorted(mut endpoints: Vec<EndpointSpec>) -> Vec<EndpointSpec> {
    endpoints.sort_unstable();
    endpoints
}

/// Returns the instances, and the index of the response.
async fn query(client: &Client, request: Request) -> Result<(Vec<ListedEndpoint>, u64), HttpError> {
    let response = client.send(request).await?;
    let index = response.headers.get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
    let index =
        index.ok_or_else(|| HttpError::exchange("/v1/health/service", &"no index: is this Consul?"))?;
    let Elements(instances) = response.json().await?;
    Ok((instances.into_iter().map(Instance::into_endpoint).collect(), index))
}

/// Fuzz target: reads a response of an agent.
#[doc(hidden)]
pub fn read_any(response: &[u8]) {
    if let Ok(Elements(instances)) = serde_json::from_slice::<Elements<Instance>>(response) {
        let listed: Vec<_> = instances.into_iter().map(Instance::into_endpoint).collect();
        let _ = resolve(&listed, |_| Vec::new(), &BTreeSet::new());
    }
}

#[cfg(test)]
mod tests;
