//! Entries as services of a Consul agent, each with a check that fails unless we say in time that it passes
//! (<https://developer.hashicorp.com/consul/api-docs/agent/service>).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderName;
use serde_json::{Value, json};

use super::wanted::{Entries, Entry};
use crate::config::ConsulConfig;
use crate::config::secret::Secret;
use crate::discovery::http::{Client, HttpError, Request, Server, percent_encoded};
use crate::route::Protocol;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// A local agent answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Marks what is ours among an agent's services, and whose: two registrars may share an agent.
const MARK: &str = "ambassador-register";

/// Consul takes no less (agent/structs, `DeregisterCriticalServiceAfter`). Until then a service whose check failed is
/// in the catalog, and in no answer to who asks for those that pass.
const FORGOTTEN_AFTER: &str = "1m";

pub(super) struct Consul {
    client: Client,
    token: Option<Secret>,
    ttl: Duration,
    /// By the services' IDs. `None`: it is there, and we do not know with which address.
    has: BTreeMap<String, Option<SocketAddr>>,
    /// Whose services these are: of the registrar of this address.
    mark: String,
    /// What a process before us left behind is in `has`.
    looked: bool,
}

impl Consul {
    pub(super) fn new(config: ConsulConfig, ttl: Duration, advertise: IpAddr) -> Consul {
        let ConsulConfig { agent, token } = config;
        let client = Client::new(Server::Tcp(agent));
        Consul { client, token, ttl, has: BTreeMap::new(), mark: advertise.to_string(), looked: false }
    }

    /// Says of each service that it passes. One that the agent does not know any more is registered anew.
    pub(super) async fn keep_alive(&mut self) -> Result<(), String> {
        let ids: Vec<String> = self.has.keys().cloned().collect();
        for id in ids {
            let path = format!("/v1/agent/check/pass/service%3A{}", percent_encoded(&id));
            match self.put(&path, &json!({})).await {
                Ok(()) => {}
                Err(error) if is_unknown(&error) => {
                    // One that it may never have known is no news.
                    if let Some(Some(_)) = self.has.remove(&id) {
                        tracing::warn!(
                            service = id,
                            "Consul does not know it any more; it is registered anew"
                        );
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    pub(super) async fn sync(&mut self, wanted: &Entries) -> Result<(), String> {
        self.write(wanted).await.map_err(|error| error.to_string())
    }

    async fn write(&mut self, wanted: &Entries) -> Result<(), HttpError> {
        let wanted: BTreeMap<String, (&Entry, SocketAddr)> =
            wanted.iter().map(|(entry, addr)| (id(entry), (entry, *addr))).collect();
        self.look().await?;
        let gone: Vec<String> = self.has.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            self.withdraw(&id).await?;
        }
        let names = names(&wanted);
        for (id, (entry, addr)) in wanted {
            if self.has.get(&id) != Some(&Some(addr)) {
                self.has.insert(id.clone(), None);
                let name = names.get(&id).cloned().unwrap_or_else(|| entry.service.clone());
                self.put("/v1/agent/service/register", &self.service(&id, &name, entry, addr)).await?;
                tracing::info!(service = id, name, addr = %addr, "registered");
                self.has.insert(id, Some(addr));
            }
        }
        Ok(())
    }

    /// Services that a process before us registered, whose containers may be gone.
    async fn look(&mut self) -> Result<(), HttpError> {
        if self.looked {
            return Ok(());
        }
        let answer = self.client.ask(self.with_token(Request::get("/v1/agent/services"))).await?.json()?;
        for id in marked(&answer, &self.mark) {
            self.has.entry(id).or_default();
        }
        self.looked = true;
        Ok(())
    }

    async fn withdraw(&mut self, id: &str) -> Result<(), HttpError> {
        let path = format!("/v1/agent/service/deregister/{}", percent_encoded(id));
        match self.put(&path, &json!({})).await {
            // That it is not there is what was wanted.
            Err(error) if !is_unknown(&error) => return Err(error),
            _ => {}
        }
        tracing::info!(service = id, "withdrawn");
        self.has.remove(id);
        Ok(())
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(), HttpError> {
        self.client.ask(self.with_token(Request::put(path, body))).await.map(|_| ())
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

fn marked(services: &Value, mark: &str) -> Vec<String> {
    let services = services.as_object().into_iter().flatten();
    let ours = services.filter(|(_, service)| {
        service.pointer(&format!("/Meta/{MARK}")).and_then(Value::as_str) == Some(mark)
    });
    ours.map(|(id, _)| id.clone()).collect()
}

/// What the fuzz targets feed: the services of an agent.
pub(super) fn read_any(answer: &Value) {
    let _ = marked(answer, "10.0.0.1");
}

#[cfg(test)]
mod tests;
