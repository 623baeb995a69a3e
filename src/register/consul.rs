//! Entries as services of a Consul agent, each with a check that fails unless we say in time that it passes
//! (<https://developer.hashicorp.com/consul/api-docs/agent/service>).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::refusals::Refusals;
use super::registry::AT_ONCE;
use super::wanted::{Entries, Entry};
use crate::config::ConsulConfig;
use crate::config::secret::Secret;
use crate::config::server::Server;
use crate::discovery::http::{Client, HttpError, Limit, Loose, Request, percent_encoded};
use crate::route::Protocol;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// A local agent answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service is some 500 bytes.
const SERVICES: Limit = Limit { mib: 32, help: "register with an agent that has fewer services" };

/// Marks what is ours among an agent's services, and whose: two registrars may share an agent.
const MARK: &str = "ambassador-register";

/// Consul takes no less (agent/structs, `DeregisterCriticalServiceAfter`). Until then a service whose check failed is
/// in the catalog, and in no answer to who asks for those that pass.
const FORGOTTEN_AFTER: &str = "1m";

pub(super) struct Consul {
    agent: Agent,
    /// By the services' IDs. `None`: it is there, and we do not know with which address.
    has: BTreeMap<String, Option<SocketAddr>>,
    /// What a process before us left behind is in `has`.
    looked: bool,
    /// By the services' IDs: those that cannot be registered or withdrawn, and those whose check cannot be passed.
    refused: Refusals,
    unrenewed: Refusals,
}

/// The requests.
struct Agent {
    client: Client,
    token: Option<Secret>,
    ttl: Duration,
    /// Whose services these are: of the registrar of this address.
    mark: String,
}

enum Step {
    /// With its name and the request's body.
    Register {
        addr: SocketAddr,
        name: String,
        body: Value,
    },
    Withdraw,
}

impl Step {
    /// For [`Refusals`].
    fn entry(&self, id: &str) -> String {
        match self {
            Step::Register { addr, .. } => format!("{id}={addr}"),
            Step::Withdraw => id.to_owned(),
        }
    }
}

impl Consul {
    pub(super) fn new(config: ConsulConfig, ttl: Duration, advertise: IpAddr) -> Consul {
        // The operator's own words name the agent.
        let ConsulConfig { agent, token, hosts: _ } = config;
        let agent =
            Agent { client: Client::new(Server::Tcp(agent)), token, ttl, mark: advertise.to_string() };
        let (refused, unrenewed) = (Refusals::default(), Refusals::default());
        Consul { agent, has: BTreeMap::new(), looked: false, refused, unrenewed }
    }

    /// Says of each service that it passes. One that the agent does not know any more is registered anew.
    pub(super) async fn keep_alive(&mut self) -> Result<(), String> {
        let Consul { agent, has, unrenewed, .. } = self;
        unrenewed.retain(|id| has.contains_key(id));
        let ids: Vec<String> = has.keys().cloned().collect();
        let pass = |id: String| async { (agent.pass(&id).await, id) };
        let mut passes = stream::iter(ids.into_iter().map(pass)).buffer_unordered(AT_ONCE);
        while let Some((passed, id)) = passes.next().await {
            match passed {
                Ok(()) => unrenewed.accepted(&id),
                Err(error) if is_unknown(&error) => forget(has, &id),
                Err(error) if error.concerns_request_alone() => unrenewed.refused(&id, &error.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    pub(super) async fn sync(&mut self, wanted: &Entries) -> Result<(), String> {
        self.write(wanted).await.map_err(|error| error.to_string())
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refused.next()
    }

    /// Takes everything back, what could not be withdrawn before included.
    pub(super) async fn end(&mut self) -> Result<(), String> {
        self.refused = Refusals::default();
        self.sync(&Entries::new()).await
    }

    async fn write(&mut self, wanted: &Entries) -> Result<(), HttpError> {
        self.look().await?;
        let steps = self.steps(wanted);
        let Consul { agent, has, refused, .. } = self;
        let entries: BTreeSet<String> = steps.iter().map(|(id, step)| step.entry(id)).collect();
        refused.retain(|entry| entries.contains(entry));
        let due: Vec<_> = steps.into_iter().filter(|(id, step)| refused.is_due(&step.entry(id))).collect();
        for (id, _) in due.iter().filter(|(_, step)| matches!(step, Step::Register { .. })) {
            // Until it is answered, it may be either.
            has.insert(id.clone(), None);
        }
        let take = |(id, step): (String, Step)| async { (agent.take(&id, &step).await, id, step) };
        let mut taken = stream::iter(due.into_iter().map(take)).buffer_unordered(AT_ONCE);
        while let Some((taken, id, step)) = taken.next().await {
            match taken {
                Ok(()) => {
                    refused.accepted(&step.entry(&id));
                    done(has, &id, step);
                }
                Err(error) if error.concerns_request_alone() => {
                    refused.refused(&step.entry(&id), &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// By ID. First what is gone: it must not be found while what is new is registered.
    fn steps(&self, wanted: &Entries) -> Vec<(String, Step)> {
        let wanted: BTreeMap<String, (&Entry, SocketAddr)> =
            wanted.iter().map(|(entry, addr)| (id(entry), (entry, *addr))).collect();
        let gone = self.has.keys().filter(|id| !wanted.contains_key(*id));
        let mut steps: Vec<_> = gone.map(|id| (id.clone(), Step::Withdraw)).collect();
        let names = names(&wanted);
        for (id, (entry, addr)) in wanted {
            if self.has.get(&id) != Some(&Some(addr)) {
                let name = names.get(&id).cloned().unwrap_or_else(|| entry.service.clone());
                let body = self.agent.service(&id, &name, entry, addr);
                steps.push((id, Step::Register { addr, name, body }));
            }
        }
        steps
    }

    /// Services that a process before us registered, whose containers may be gone.
    async fn look(&mut self) -> Result<(), HttpError> {
        if !self.looked {
            for id in self.agent.marked().await? {
                self.has.entry(id).or_default();
            }
            self.looked = true;
        }
        Ok(())
    }
}

fn done(has: &mut BTreeMap<String, Option<SocketAddr>>, id: &str, step: Step) {
    match step {
        Step::Register { addr, name, .. } => {
            tracing::info!(service = id, name, addr = %addr, "registered");
            has.insert(id.to_owned(), Some(addr));
        }
        Step::Withdraw => {
            tracing::info!(service = id, "withdrawn");
            has.remove(id);
        }
    }
}

/// One that the agent may never have known is no news.
fn forget(has: &mut BTreeMap<String, Option<SocketAddr>>, id: &str) {
    if let Some(Some(_)) = has.remove(id) {
        tracing::warn!(service = id, "Consul does not know it any more; it is registered anew");
    }
}

impl Agent {
    async fn pass(&self, id: &str) -> Result<(), HttpError> {
        self.put(&format!("/v1/agent/check/pass/service%3A{}", percent_encoded(id)), &json!({})).await
    }

    async fn take(&self, id: &str, step: &Step) -> Result<(), HttpError> {
        match step {
            Step::Register { body, .. } => self.put("/v1/agent/service/register", body).await,
            Step::Withdraw => {
                let path = format!("/v1/agent/service/deregister/{}", percent_encoded(id));
                match self.put(&path, &json!({})).await {
                    // That it is not there is what was wanted.
                    Err(error) if is_unknown(&error) => Ok(()),
                    done => done,
                }
            }
        }
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(), HttpError> {
        self.client.ask(self.with_token(Request::put(path, body))).await.map(|_| ())
    }

    /// The IDs of those services that have our mark.
    async fn marked(&self) -> Result<Vec<String>, HttpError> {
        let request = Request::get("/v1/agent/services").limit(SERVICES);
        let services: Services = self.client.ask(self.with_token(request)).await?.json().await?;
        Ok(marked(services, &self.mark))
    }

    /// The check passes from the beginning: a container that runs is as good as Docker can tell.
    fn service(&self, id: &str, name: &str, entry: &Entry, addr: SocketAddr) -> Value {
        json!({
            "ID": id,
            "Name": name,
            "Address": addr.ip().to_string(),
            "Port": addr.port(),
            "Tags": [port(entry)],
            "Meta": { MARK: self.mark, "container": entry.container },
            "Check": {
                "TTL": format!("{}s", self.ttl.as_secs()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": FORGOTTEN_AFTER,
            },
        })
    }

    fn with_token(&self, request: Request) -> Request {
        let request = request.patience(PATIENCE.min(self.ttl / 4));
        match &self.token {
            Some(token) => request.header(TOKEN, token.reveal()),
            None => request,
        }
    }
}

/// `GET /v1/agent/services`, by ID.
type Services = BTreeMap<String, Loose<Service>>;

#[derive(Deserialize)]
struct Service {
    #[serde(default, rename = "Meta")]
    meta: Loose<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, rename = "ambassador-register")]
    mark: Loose,
}

/// The IDs of the services that have this mark.
fn marked(services: Services, mark: &str) -> Vec<String> {
    let is_ours = |service: Loose<Service>| {
        let meta = service.object().and_then(|service| service.meta.object());
        meta.is_some_and(|meta| meta.mark.text() == Some(mark))
    };
    services.into_iter().filter_map(|(id, service)| is_ours(service).then_some(id)).collect()
}

/// A service or check that is not there: 404 says so today, and 500 with these words did in 1.8.
fn is_unknown(error: &HttpError) -> bool {
    const SAID: [&str; 3] = ["does not have associated TTL", "Unknown check", "Unknown service"];
    error.refusal().is_some_and(|(status, message)| {
        status == StatusCode::NOT_FOUND || SAID.iter().any(|said| message.contains(said))
    })
}

fn id(entry: &Entry) -> String {
    entry.to_string().replace('/', ":")
}

/// A service of Consul has one port. Where a container serves several under one name, each is a service of its own,
/// `NAME-PORT`.
fn names(wanted: &BTreeMap<String, (&Entry, SocketAddr)>) -> BTreeMap<String, String> {
    let mut ports: BTreeMap<&str, BTreeSet<(u16, Protocol)>> = BTreeMap::new();
    for (entry, _) in wanted.values() {
        ports.entry(&entry.service).or_default().insert((entry.port, entry.protocol));
    }
    let name = |(id, (entry, _)): (&String, &(&Entry, SocketAddr))| {
        let several = ports.get(entry.service.as_str()).is_some_and(|ports| ports.len() > 1);
        let name = if several { format!("{}-{}", entry.service, port(entry)) } else { entry.service.clone() };
        (id.clone(), name)
    };
    wanted.iter().map(name).collect()
}

fn port(entry: &Entry) -> String {
    match entry.protocol {
        Protocol::Tcp => entry.port.to_string(),
        Protocol::Udp => format!("{}-udp", entry.port),
    }
}

/// What the fuzz targets feed: the services of an agent.
pub(super) fn read_any(answer: &[u8]) {
    if let Ok(services) = serde_json::from_slice(answer) {
        let _ = marked(services, "10.0.0.1");
    }
}

#[cfg(test)]
mod tests;
