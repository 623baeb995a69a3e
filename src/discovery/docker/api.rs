//! Converts the engine's responses to the types of [`super::model`], leniently. Pure.
//!
//! They are read as JSON values and not as generated models, which reject a whole response for one unknown value (a new
//! container state, a new kind of mount): all engines from 20.10 on are to be supported. A value that is missing, null or of
//! another type is absent; only the ID is required.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::model::{Attachment, Container, ContainerId, Image, Link, NetworkMode, Published, Stopping};
use crate::cluster::condition::ContainerHealth;
use crate::discovery::http::Element;
use crate::ordered::CollectOrdered;
use crate::route::Protocol;

/// More containers than any engine runs; [`super::watch`] fails with so many.
const LISTED_MAX: usize = 200_000;

/// Reads the response to `GET /containers/{id}/json`.
pub(super) fn inspected(answer: &Value) -> Option<(ContainerId, Container)> {
    let id = container_id(text(answer, "/Id")?)?;
    let container = Container {
        name: text(answer, "/Name").unwrap_or_default().trim_start_matches('/').to_owned(),
        created: text(answer, "/Created").and_then(|time| humantime::parse_rfc3339(time).ok()),
        image: Image { id: image_id(answer).unwrap_or_default(), is_known: false },
        running: running(answer),
        paused: has_state(answer, "Paused"),
        health: text(answer, "/State/Health/Status").map(health).unwrap_or_default(),
        // Only events report it.
        stopping: Stopping::No,
        // Those of the image are separated once the image was inspected.
        labels: labels(answer),
        inherited: BTreeMap::new(),
        network_mode: network_mode(text(answer, "/HostConfig/NetworkMode").unwrap_or_default()),
        networks: networks(answer.pointer("/NetworkSettings/Networks")),
        exposed: exposed(answer),
        published: published(answer),
        links: links(answer),
    };
    Some((id, container))
}

/// Reads the labels from the response to `GET /images/{id}/json`. Returns `None` if it is not an image.
pub(super) fn image_labels(answer: &Value) -> Option<BTreeMap<String, String>> {
    answer.is_object().then(|| labels(answer))
}

/// Accepts only an ID, `sha256:` and 64 digits, because it becomes part of a request's path.
fn image_id(answer: &Value) -> Option<String> {
    let (algorithm, digits) = text(answer, "/Image")?.split_once(':')?;
    let is_id = algorithm.bytes().all(|b| b.is_ascii_alphanumeric())
        && (64..=128).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| format!("{algorithm}:{digits}"))
}

/// An element of `GET /containers/json`: enough to detect that the known state is out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerSummary {
    pub(super) id: ContainerId,
    name: Option<String>,
    /// `None` if the element does not contain it.
    running: Option<bool>,
    /// `None` if the element does not contain it.
    health: Option<ContainerHealth>,
    networks: BTreeMap<String, Attachment>,
}

/// `GET /containers/json?all=1` is read one element at a time, which costs less than the whole list as a value.
impl Element for ContainerSummary {
    type Json = Value;
    const MAX: usize = LISTED_MAX;

    fn read(element: Value) -> Result<Option<ContainerSummary>, String> {
        Ok(summary(&element))
    }
}

/// Reads a list that is parsed already. Returns `None` if it is not a list.
pub(super) fn listed(answer: &Value) -> Option<Vec<ContainerSummary>> {
    Some(answer.as_array()?.iter().filter_map(summary).collect())
}

fn summary(line: &Value) -> Option<ContainerSummary> {
    let id = container_id(text(line, "/Id")?)?;
    let names = line.get("Names").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // `/redis` is its name; `/web/db` is an alias from a link.
    let own_names = names.iter().filter_map(Value::as_str).map(|name| name.trim_start_matches('/'));
    let name = own_names.filter(|name| !name.contains('/')).min().map(str::to_owned);
    let running = text(line, "/State").map(|state| state == "running");
    let health = text(line, "/Status").and_then(listed_health);
    let networks = networks(line.pointer("/NetworkSettings/Networks"));
    Some(ContainerSummary { id, name, running, health, networks })
}

impl ContainerSummary {
    /// Returns whether it agrees with the known state of the container.
    pub(super) fn agrees(&self, known: &Container) -> bool {
        let same_name = self.name.as_ref().is_none_or(|name| *name == known.name);
        let same_networks = self.is_stopped() || self.networks == known.networks;
        let same_health = self.is_stopped() || self.health.is_none_or(|health| health == known.health);
        let same_state = self.running.is_none_or(|running| running == known.running);
        same_name && same_state && same_networks && same_health
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.running == Some(false)
    }

    /// Returns the networks of a running container, by ID.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&String, &Attachment)> {
        self.networks.iter().filter(|_| self.running == Some(true))
    }
}

/// An unknown status counts as no health check.
fn health(status: &str) -> ContainerHealth {
    match status {
        "starting" => ContainerHealth::Starting,
        "healthy" => ContainerHealth::Healthy,
        "unhealthy" => ContainerHealth::Unhealthy,
        _ => ContainerHealth::Unchecked,
    }
}

/// Reads the health from the text for people: `Up 5 minutes (healthy)`, `Up 2 seconds (health: starting)`.
fn listed_health(status: &str) -> Option<ContainerHealth> {
    let word = status.strip_suffix(')')?.rsplit_once('(')?.1;
    Some(health(word.strip_prefix("health: ").unwrap_or(word)))
        .filter(|health| *health != ContainerHealth::Unchecked)
}

/// Accepts only a full ID, because it becomes part of a request's path and is compared with others.
pub(super) fn container_id(text: &str) -> Option<ContainerId> {
    let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| ContainerId(text.to_ascii_lowercase()))
}

/// `Running` is also true for a paused container and for one that is about to be restarted.
fn running(answer: &Value) -> bool {
    let has = |flag: &str| has_state(answer, flag);
    has("Running") && !has("Paused") && !has("Restarting") && !has("Dead")
}

fn has_state(answer: &Value, flag: &str) -> bool {
    let state = answer.pointer("/State").and_then(|state| state.get(flag)?.as_bool());
    state == Some(true)
}

fn labels(answer: &Value) -> BTreeMap<String, String> {
    let labels = object(answer, "/Config/Labels");
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect_ordered()
}

fn network_mode(text: &str) -> NetworkMode {
    match text.split_once(':') {
        Some(("container", followed)) => NetworkMode::Container(followed.to_owned()),
        _ if text == "host" => NetworkMode::Host,
        _ if text == "none" => NetworkMode::None,
        _ => NetworkMode::Networks,
    }
}

/// Reads `Networks`; the older fields beside it are empty for all networks but the default one, and were removed in 29.
fn networks(networks: Option<&Value>) -> BTreeMap<String, Attachment> {
    let networks = networks.and_then(Value::as_object).into_iter().flatten();
    networks.filter(|(_, network)| network.is_object()).map(attachment).collect_ordered()
}

fn attachment((name, network): (&String, &Value)) -> (String, Attachment) {
    let id = text(network, "/NetworkID").filter(|id| !id.is_empty());
    let attachment = Attachment {
        name: name.clone(),
        ipv4: text(network, "/IPAddress")
            .and_then(|ip| ip.parse().ok())
            .filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
        ipv6: text(network, "/GlobalIPv6Address")
            .and_then(|ip| ip.parse().ok())
            .filter(|ip: &Ipv6Addr| !ip.is_unspecified()),
    };
    // A container that has never run has networks without IDs.
    (id.map_or_else(|| format!("name:{name}"), str::to_owned), attachment)
}

/// Returns the ports exposed by the image or `--expose`, and those published without being exposed.
fn exposed(answer: &Value) -> Vec<(u16, Protocol)> {
    const PLACES: [&str; 3] = ["/Config/ExposedPorts", "/HostConfig/PortBindings", "/NetworkSettings/Ports"];
    let keys = PLACES.iter().flat_map(|place| object(answer, place)).map(|(key, _)| key);
    let ports: BTreeSet<(u16, Protocol)> = keys.filter_map(|key| port(key)).collect_ordered();
    ports.into_iter().collect()
}

/// Reads `"6379/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}]`; null for a port that is exposed but not published.
fn published(answer: &Value) -> Vec<Published> {
    let ports = object(answer, "/NetworkSettings/Ports").filter_map(|(key, bindings)| {
        let (port, protocol) = port(key)?;
        let bindings = bindings.as_array()?.iter().filter_map(move |binding| {
            let host_port = text(binding, "/HostPort")?.parse().ok().filter(|port| *port > 0)?;
            // Older engines report an empty address for all of IPv4.
            let host_ip = text(binding, "/HostIp").filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some(Published { port, protocol, host_ip: host_ip.parse().ok()?, host_port })
        });
        Some(bindings)
    });
    let published: BTreeSet<Published> = ports.flatten().collect_ordered();
    published.into_iter().collect()
}

/// Parses `6379/tcp`; `6379` is TCP. The API has no ranges; SCTP is not supported.
fn port(key: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    port.parse().ok().filter(|port| *port > 0).map(|port| (port, protocol))
}

/// Reads `/target:/self/alias` of the default network, and `target:alias` of each other network.
fn links(answer: &Value) -> Vec<Link> {
    let default = answer.pointer("/HostConfig/Links");
    let others = object(answer, "/NetworkSettings/Networks").map(|(_, network)| network.get("Links"));
    let lists = std::iter::once(default).chain(others).flatten().filter_map(Value::as_array);
    let mut links: Vec<Link> = lists.flatten().filter_map(Value::as_str).filter_map(link).collect();
    links.sort_unstable();
    links.dedup();
    links
}

fn link(text: &str) -> Option<Link> {
    let (target, alias) = text.split_once(':')?;
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    let target = target.trim_start_matches('/');
    let complete = !target.is_empty() && !alias.is_empty();
    complete.then(|| Link { target: target.to_owned(), alias: alias.to_owned() })
}

fn object<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

#[cfg(test)]
mod tests;
