//! The engine's answers, read leniently into our own words. Pure.
//!
//! Read as JSON values and not as generated models: those refuse the whole answer for one value they do not know
//! (a new container state, a new kind of mount), and engines from 20.10 to tomorrow's shall be understood. What is
//! missing, null or of another type is absent; only an ID must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use crate::cluster::condition::ContainerHealth;
use crate::discovery::containers::{
    Attachment, Container, ContainerId, Image, Leaving, Link, NetworkMode, Published,
};
use crate::discovery::http::Element;
use crate::route::Protocol;

/// More containers than any engine runs; [`super::watch`] gives up on so many.
const LISTED_MAX: usize = 200_000;

/// `GET /containers/{id}/json`.
pub(super) fn inspected(answer: &Value) -> Option<(ContainerId, Container)> {
    let id = container_id(text(answer, "/Id")?)?;
    let container = Container {
        name: text(answer, "/Name").unwrap_or_default().trim_start_matches('/').to_owned(),
        created: text(answer, "/Created").and_then(|time| humantime::parse_rfc3339(time).ok()),
        image: Image { id: image_id(answer).unwrap_or_default(), is_known: false },
        running: running(answer),
        paused: has_state(answer, "Paused"),
        health: text(answer, "/State/Health/Status").map(health).unwrap_or_default(),
        // Events alone tell.
        leaving: Leaving::No,
        // Those of the image are told apart once that was inspected.
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

/// `GET /images/{id}/json`: the image's labels. `None` if it is no image at all.
pub(super) fn image_labels(answer: &Value) -> Option<BTreeMap<String, String>> {
    answer.is_object().then(|| labels(answer))
}

/// Only what is an ID can go into a request's path: `sha256:` and 64 digits.
fn image_id(answer: &Value) -> Option<String> {
    let (algorithm, digits) = text(answer, "/Image")?.split_once(':')?;
    let is_id = algorithm.bytes().all(|b| b.is_ascii_alphanumeric())
        && (64..=128).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| format!("{algorithm}:{digits}"))
}

/// One line of `GET /containers/json`: enough to see whether what we know is out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: ContainerId,
    name: Option<String>,
    /// `None` where the line does not say.
    running: Option<bool>,
    /// `None` where the line does not say.
    health: Option<ContainerHealth>,
    networks: BTreeMap<String, Attachment>,
}

/// `GET /containers/json?all=1`: one line at a time, which costs less than the whole list as a value.
impl Element for Listed {
    type Json = Value;
    const MAX: usize = LISTED_MAX;

    fn read(line: Value) -> Result<Option<Listed>, String> {
        Ok(listed_one(&line))
    }
}

/// The same of a list that is parsed already. `None` if it is no list at all.
pub(super) fn listed(answer: &Value) -> Option<Vec<Listed>> {
    Some(answer.as_array()?.iter().filter_map(listed_one).collect())
}

fn listed_one(line: &Value) -> Option<Listed> {
    let id = container_id(text(line, "/Id")?)?;
    let names = line.get("Names").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // `/redis` is its name; `/web/db` is the alias that a link gave it.
    let own_names = names.iter().filter_map(Value::as_str).map(|name| name.trim_start_matches('/'));
    let name = own_names.filter(|name| !name.contains('/')).min().map(str::to_owned);
    let running = text(line, "/State").map(|state| state == "running");
    let health = text(line, "/Status").and_then(listed_health);
    let networks = networks(line.pointer("/NetworkSettings/Networks"));
    Some(Listed { id, name, running, health, networks })
}

impl Listed {
    /// Whether this line says nothing that we do not know.
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

    /// What it has while it runs, by network ID.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&String, &Attachment)> {
        self.networks.iter().filter(|_| self.running == Some(true))
    }
}

/// An engine that says something new says nothing bad.
fn health(status: &str) -> ContainerHealth {
    match status {
        "starting" => ContainerHealth::Starting,
        "healthy" => ContainerHealth::Healthy,
        "unhealthy" => ContainerHealth::Unhealthy,
        _ => ContainerHealth::Unchecked,
    }
}

/// Of the words for people: `Up 5 minutes (healthy)`, `Up 2 seconds (health: starting)`.
fn listed_health(status: &str) -> Option<ContainerHealth> {
    let word = status.strip_suffix(')')?.rsplit_once('(')?.1;
    Some(health(word.strip_prefix("health: ").unwrap_or(word)))
        .filter(|health| *health != ContainerHealth::Unchecked)
}

/// Only what is an ID can go into a request's path, and be compared with one.
pub(super) fn container_id(text: &str) -> Option<ContainerId> {
    let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| ContainerId(text.to_ascii_lowercase()))
}

/// `Running` is true of a container that is paused, and of one that waits to be restarted.
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
    labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn network_mode(text: &str) -> NetworkMode {
    match text.split_once(':') {
        Some(("container", followed)) => NetworkMode::Container(followed.to_owned()),
        _ if text == "host" => NetworkMode::Host,
        _ if text == "none" => NetworkMode::None,
        _ => NetworkMode::Networks,
    }
}

/// From `Networks`; the older fields beside it are empty on networks other than the default one, and gone in 29.
fn networks(networks: Option<&Value>) -> BTreeMap<String, Attachment> {
    let networks = networks.and_then(Value::as_object).into_iter().flatten();
    networks.filter(|(_, network)| network.is_object()).map(attachment).collect()
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
    // A container that never ran has its networks by name only.
    (id.map_or_else(|| format!("name:{name}"), str::to_owned), attachment)
}

/// By the image or `--expose`, and those published without being exposed.
fn exposed(answer: &Value) -> Vec<(u16, Protocol)> {
    const PLACES: [&str; 3] = ["/Config/ExposedPorts", "/HostConfig/PortBindings", "/NetworkSettings/Ports"];
    let keys = PLACES.iter().flat_map(|place| object(answer, place)).map(|(key, _)| key);
    let ports: BTreeSet<(u16, Protocol)> = keys.filter_map(|key| port(key)).collect();
    ports.into_iter().collect()
}

/// `"6379/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}]`; null for a port that is exposed alone.
fn published(answer: &Value) -> Vec<Published> {
    let ports = object(answer, "/NetworkSettings/Ports").filter_map(|(key, bindings)| {
        let (port, protocol) = port(key)?;
        let bindings = bindings.as_array()?.iter().filter_map(move |binding| {
            let host_port = text(binding, "/HostPort")?.parse().ok().filter(|port| *port > 0)?;
            // Older engines leave the address empty for all of IPv4.
            let host_ip = text(binding, "/HostIp").filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some(Published { port, protocol, host_ip: host_ip.parse().ok()?, host_port })
        });
        Some(bindings)
    });
    let published: BTreeSet<Published> = ports.flatten().collect();
    published.into_iter().collect()
}

/// `6379/tcp`; a bare `6379` is TCP. Ranges never reach the API; SCTP is not ours.
fn port(key: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    port.parse().ok().filter(|port| *port > 0).map(|port| (port, protocol))
}

/// `/target:/self/alias` on the default network; `target:alias` on others, each of which has its own.
fn links(answer: &Value) -> Vec<Link> {
    let default = answer.pointer("/HostConfig/Links");
    let others = object(answer, "/NetworkSettings/Networks").map(|(_, network)| network.get("Links"));
    let lists = std::iter::once(default).chain(others).flatten().filter_map(Value::as_array);
    let mut links: Vec<Link> = lists.flatten().filter_map(Value::as_str).filter_map(link).collect();
    links.sort();
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
