//! Entries as services of a Consul agent, each with a TTL check that has to be renewed
//! (<https://developer.hashicorp.com/consul/api-docs/agent/service>).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::CONCURRENT_MAX;
use super::refusals::Refusals;
use crate::config::ConsulConfig;
use crate::config::secret::Secret;
use crate::config::server::Server;
use crate::discovery::consul::{EXPORT, TOKEN};
use crate::discovery::http::{Client, HttpError, Limit, Loose, Request, percent_encoded};
use crate::ordered::CollectOrdered;
use crate::register::desired::{Address, Entries, Entry};
use crate::route::Protocol;

/// The time limit of a request. A local agent responds in milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A service has about 500 bytes.
const SERVICES: Limit = Limit { mib: 32, help: "register with an agent that has fewer services" };

/// The metadata key that marks the services of a registrar; two registrars may share an agent.
const MARK: &str = "ambassador-register";

/// The minimum in Consul (agent/structs, `DeregisterCriticalServiceAfter`). Until then a service whose check failed is in the
/// catalog, but not among the services that pass.
const DEREGISTER_AFTER: &str = "1m";

pub(in crate::register) struct Consul {
    agent: Agent,
    /// The registered services, by ID; `None` while the address is not known.
    registered: BTreeMap<String, Option<Address>>,
    /// Whether `registered` contains the services of an earlier process.
    has_loaded: bool,
    /// The services that cannot be registered or withdrawn, by ID.
    refused: Refusals,
    /// The services whose check cannot be renewed, by ID.
    unrenewed: Refusals,
}

/// A client of the agent.
struct Agent {
    client: Client,
    token: Option<Secret>,
    ttl: Duration,
    /// The value of [`MARK`]: the address of this registrar.
    mark: String,
}

enum ServiceUpdate {
    Register {
        address: Address,
        name: String,
        /// The body of the request.
        body: Value,
    },
    Withdraw,
}

impl ServiceUpdate {
    /// Returns its identifier in [`Refusals`].
    fn entry(&self, id: &str) -> String {
        match self {
            ServiceUpdate::Register { address, .. } => format!("{id}={address}"),
            ServiceUpdate::Withdraw => id.to_owned(),
        }
    }
}

impl Consul {
    pub(super) fn new(config: ConsulConfig, ttl: Duration, advertise: IpAddr) -> Consul {
        // The agent is given by the operator, so the token is for it.
        let ConsulConfig { agent, token, hosts: _ } = config;
        let agent =
            Agent { client: Client::new(Server::Tcp(agent)), token, ttl, mark: advertise.to_string() };
        let (refused, unrenewed) = (Refusals::default(), Refusals::default());
        Consul { agent, registered: BTreeMap::new(), has_loaded: false, refused, unrenewed }
    }

    /// Renews the check of each service. A service that the agent has lost is registered again.
    pub(super) async fn keep_alive(&mut self) -> Result<(), HttpError> {
        let Consul { agent, registered, unrenewed, .. } = self;
        unrenewed.retain(|id| registered.contains_key(id));
        let ids: Vec<String> = registered.keys().cloned().collect();
        let renew = |id: String| async { (agent.renew(&id).await, id) };
        let mut renewals = stream::iter(ids.into_iter().map(renew)).buffer_unordered(CONCURRENT_MAX);
        while let Some((result, id)) = renewals.next().await {
            match result {
                Ok(()) => unrenewed.accepted(&id),
                Err(error) if is_unknown(&error) => remove_lost(registered, &id),
                Err(error) if error.is_request_specific() => unrenewed.refused(&id, &error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.refused.next_retry()
    }

    /// Withdraws everything, including services whose withdrawal was refused before.
    pub(super) async fn withdraw_all(&mut self) -> Result<(), HttpError> {
        self.refused = Refusals::default();
        self.sync(&Entries::new()).await
    }

    pub(super) async fn sync(&mut self, desired: &Entries) -> Result<(), HttpError> {
        self.load().await?;
        let updates = self.updates(desired);
        let Consul { agent, registered, refused, .. } = self;
        let entries: BTreeSet<String> = updates.iter().map(|(id, update)| update.entry(id)).collect_ordered();
        refused.retain(|entry| entries.contains(entry));
        let due: Vec<_> =
            updates.into_iter().filter(|(id, update)| refused.is_due(&update.entry(id))).collect();
        for (id, _) in due.iter().filter(|(_, update)| matches!(update, ServiceUpdate::Register { .. })) {
            // Not known until the response.
            registered.insert(id.clone(), None);
        }
        let apply =
            |(id, update): (String, ServiceUpdate)| async { (agent.apply(&id, &update).await, id, update) };
        let mut results = stream::iter(due.into_iter().map(apply)).buffer_unordered(CONCURRENT_MAX);
        while let Some((result, id, update)) = results.next().await {
            match result {
                Ok(()) => {
                    refused.accepted(&update.entry(&id));
                    applied(registered, &id, update);
                }
                Err(error) if error.is_request_specific() => {
                    refused.refused(&update.entry(&id), &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the updates that lead to the desired entries, by ID. Withdrawals come first: a removed container must not be found
    /// while new ones are registered.
    fn updates(&self, desired: &Entries) -> Vec<(String, ServiceUpdate)> {
        let desired: BTreeMap<String, (&Entry, &Address)> =
            desired.iter().map(|(entry, address)| (id(entry), (entry, address))).collect_ordered();
        let removed = self.registered.keys().filter(|id| !desired.contains_key(*id));
        let mut updates: Vec<_> = removed.map(|id| (id.clone(), ServiceUpdate::Withdraw)).collect();
        let names = names(&desired);
        for (id, (entry, address)) in desired {
            if self.registered.get(&id).and_then(Option::as_ref) != Some(address) {
                let name = names.get(&id).cloned().unwrap_or_else(|| entry.service.clone());
                let body = self.agent.service(&id, &name, entry, address);
                updates.push((id, ServiceUpdate::Register { address: address.clone(), name, body }));
            }
        }
        updates
    }

    /// Loads the services of an earlier process, whose containers may have been removed.
    async fn load(&mut self) -> Result<(), HttpError> {
        if !self.has_loaded {
            for id in self.agent.marked().await? {
                self.registered.entry(id).or_default();
            }
            self.has_loaded = true;
        }
        Ok(())
    }
}

fn applied(registered: &mut BTreeMap<String, Option<Address>>, id: &str, update: ServiceUpdate) {
    match update {
        ServiceUpdate::Register { address, name, .. } => {
            tracing::info!(service = id, name, addr = %address, "registered");
            registered.insert(id.to_owned(), Some(address));
        }
        ServiceUpdate::Withdraw => {
            tracing::info!(service = id, "withdrawn");
            registered.remove(id);
        }
    }
}

/// Does not report a service whose registration was not confirmed.
fn remove_lost(registered: &mut BTreeMap<String, Option<Address>>, id: &str) {
    if let Some(Some(_)) = registered.remove(id) {
        tracing::warn!(service = id, "service unknown to Consul; registering it again");
    }
}

impl Agent {
    async fn renew(&self, id: &str) -> Result<(), HttpError> {
        self.put(&format!("/v1/agent/check/pass/service%3A{}", percent_encoded(id)), &json!({})).await
    }

    async fn apply(&self, id: &str, update: &ServiceUpdate) -> Result<(), HttpError> {
        match update {
            ServiceUpdate::Register { body, .. } => self.put("/v1/agent/service/register", body).await,
            ServiceUpdate::Withdraw => {
                let path = format!("/v1/agent/service/deregister/{}", percent_encoded(id));
                match self.put(&path, &json!({})).await {
                    // It was withdrawn already.
                    Err(error) if is_unknown(&error) => Ok(()),
                    result => result,
                }
            }
        }
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(), HttpError> {
        self.client.send(self.with_token(Request::put(path, body))).await.map(|_| ())
    }

    /// Returns the IDs of the services with our mark.
    async fn marked(&self) -> Result<Vec<String>, HttpError> {
        let request = Request::get("/v1/agent/services").limit(SERVICES);
        let services: Services = self.client.send(self.with_token(request)).await?.json().await?;
        Ok(marked(services, &self.mark))
    }

    /// Returns the definition of a service. Its check passes from the beginning, because the container runs.
    fn service(&self, id: &str, name: &str, entry: &Entry, address: &Address) -> Value {
        let Address { addr, export } = address;
        let mut service = json!({
            "ID": id,
            "Name": name,
            "Address": addr.ip().to_string(),
            "Port": addr.port(),
            "Tags": [port(entry)],
            "Meta": { MARK: self.mark, "container": entry.container },
            "Check": {
                "TTL": format!("{}s", self.ttl.as_secs()),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            },
        });
        if let Some(export) = export {
            service["Meta"][EXPORT] = export.as_str().into();
        }
        service
    }

    fn with_token(&self, request: Request) -> Request {
        let request = request.timeout(REQUEST_TIMEOUT.min(self.ttl / 4));
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

/// Returns the IDs of the services with this mark.
fn marked(services: Services, mark: &str) -> Vec<String> {
    let is_ours = |service: Loose<Service>| {
        let meta = service.object().and_then(|service| service.meta.object());
        meta.is_some_and(|meta| meta.mark.text() == Some(mark))
    };
    services.into_iter().filter_map(|(id, service)| is_ours(service).then_some(id)).collect()
}

/// Returns whether the service or check does not exist: status 404, or, in 1.8, status 500 with one of these messages.
fn is_unknown(error: &HttpError) -> bool {
    const MESSAGES: [&str; 3] = ["does not have associated TTL", "Unknown check", "Unknown service"];
    error.refusal().is_some_and(|(status, message)| {
        status == StatusCode::NOT_FOUND || MESSAGES.iter().any(|text| message.contains(text))
    })
}

fn id(entry: &Entry) -> String {
    entry.to_string().replace('/', ":")
}

/// Returns the name of each service. A service of Consul has one port; if a name has several, each is a service `NAME-PORT`.
fn names(wanted: &BTreeMap<String, (&Entry, &Address)>) -> BTreeMap<String, String> {
    let mut ports: BTreeMap<&str, BTreeSet<(u16, Protocol)>> = BTreeMap::new();
    for (entry, _) in wanted.values() {
        ports.entry(&entry.service).or_default().insert((entry.port, entry.protocol));
    }
    let name = |(id, (entry, _)): (&String, &(&Entry, &Address))| {
        let several = ports.get(entry.service.as_str()).is_some_and(|ports| ports.len() > 1);
        let name = if several { format!("{}-{}", entry.service, port(entry)) } else { entry.service.clone() };
        (id.clone(), name)
    };
    wanted.iter().map(name).collect_ordered()
}

fn port(entry: &Entry) -> String {
    match entry.protocol {
        Protocol::Tcp => entry.port.to_string(),
        Protocol::Udp => format!("{}-udp", entry.port),
    }
}

/// Fuzz target: reads the services of an agent.
pub(super) fn read_any(response: &[u8]) {
    if let Ok(services) = serde_json::from_slice(response) {
        let _ = marked(services, "10.0.0.1");
    }
}

#[cfg(test)]
mod tests;
