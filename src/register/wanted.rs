//! Which of a host's containers are registered, as what, and where others reach them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::cluster::condition::ContainerHealth;
use crate::config::grammar::target::container_name;
use crate::discovery::containers::{Container, ContainerId, Containers, NetworkMode, Unfound};
use crate::route::Protocol;

/// `ambassador.register=NAME` for every published port, `ambassador.register.PORT=NAME` for one.
const LABEL: &str = "ambassador.register";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";

/// Whoever may start a container may label it and publish ports: what that costs the registry has an end.
const ENTRIES_MAX: usize = 1024;

/// As `docker ps` shows it. Two hosts' containers may have one name, never one ID.
const ID_SHOWN: usize = 12;

/// What is asked for. Labels count always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `--name`: containers, or Compose services.
    pub names: Vec<String>,
    /// `--all`: every container with a published port.
    pub all: bool,
    /// The address of this host, as others reach it.
    pub advertise: IpAddr,
}

/// What makes an entry this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) service: String,
    /// The container's own, which is the same on every host.
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The beginning of its ID.
    pub(super) container: String,
}

/// `redis/6379/080ecd3b75b1`, `dns/53-udp/080ecd3b75b1`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { service, port, protocol, container } = self;
        match protocol {
            Protocol::Tcp => write!(f, "{service}/{port}/{container}"),
            Protocol::Udp => write!(f, "{service}/{port}-udp/{container}"),
        }
    }
}

/// With the addresses at which other hosts reach them.
pub(super) type Entries = BTreeMap<Entry, SocketAddr>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) entries: Entries,
    /// Why there are not more.
    pub(super) problems: BTreeSet<String>,
}

pub(super) fn wanted(containers: &Containers, choice: &Choice) -> Wanted {
    let mut wanted = Wanted::default();
    let named = named(containers, &choice.names, &mut wanted.problems);
    let others = containers.by_id.iter().filter(|(id, _)| !containers.is_own(id));
    for (id, container) in others.filter(|(_, container)| container.running) {
        let asked = Asked::of(container, named.get(id), choice.all, &mut wanted.problems);
        let ports = asked.ports(container, choice.advertise, &mut wanted.problems);
        // One that is starting may serve already, and its first check may be half a minute away.
        if container.health == ContainerHealth::Unhealthy && !ports.is_empty() {
            wanted
                .problems
                .insert(format!("container {} is unhealthy: it is not registered", container.name));
            continue;
        }
        for (service, port, protocol, addr) in ports {
            let container = id.0.get(..ID_SHOWN).unwrap_or(&id.0).to_owned();
            wanted.entries.insert(Entry { service, port, protocol, container }, addr);
        }
    }
    if wanted.entries.len() > ENTRIES_MAX {
        let problem = format!("there are {} ports to register, {ENTRIES_MAX} are", wanted.entries.len());
        wanted.problems.insert(problem);
        wanted.entries = wanted.entries.into_iter().take(ENTRIES_MAX).collect();
    }
    wanted
}

/// The containers that `--name` means, and the name each goes by.
fn named<'a>(
    containers: &'a Containers,
    names: &[String],
    problems: &mut BTreeSet<String>,
) -> BTreeMap<&'a ContainerId, String> {
    let mut named = BTreeMap::new();
    for name in names {
        match containers.find(name) {
            Ok(found) => {
                for (id, container) in found {
                    let service = container.labels.get(COMPOSE_SERVICE).filter(|service| *service == name);
                    named.entry(id).or_insert_with(|| service.unwrap_or(&container.name).clone());
                }
            }
            Err(Unfound::Absent(why) | Unfound::Ambiguous(why)) => {
                problems.insert(why);
            }
        }
    }
    named
}

/// What one container's labels, and the command line, ask for.
#[derive(Default)]
struct Asked {
    /// The service of every published port that has none of its own.
    every: Option<String>,
    ports: BTreeMap<(u16, Protocol), String>,
}

impl Asked {
    fn of(
        container: &Container,
        named: Option<&String>,
        all: bool,
        problems: &mut BTreeSet<String>,
    ) -> Asked {
        let mut asked = Asked::default();
        if let Some(label) = container.inherited.keys().find(|label| key(label).is_some()) {
            let problem = format!(
                "container {}, label {label}: it came with the image, so it is not read",
                container.name
            );
            problems.insert(problem);
        }
        for (label, value) in
            container.labels.range(LABEL.to_owned()..).take_while(|(label, _)| label.starts_with(LABEL))
        {
            match (key(label), container_name(value)) {
                (Some(Key::Every), Ok(service)) => asked.every = Some(service),
                (Some(Key::Port(port)), Ok(service)) => {
                    asked.ports.insert(port, service);
                }
                (Some(_), Err(_)) => {
                    let help = "a service's name has letters, digits and `_.-`";
                    problems.insert(format!("container {}, label {label}: {help}", container.name));
                }
                (None, _) if label.starts_with("ambassador.register.") => {
                    let help = "write ambassador.register.PORT or ambassador.register.PORT/udp";
                    problems.insert(format!("container {}, label {label}: {help}", container.name));
                }
                (None, _) => {}
            }
        }
        asked.every =
            asked.every.or_else(|| named.cloned()).or_else(|| all.then(|| of_itself(container)).flatten());
        asked
    }

    fn ports(
        &self,
        container: &Container,
        advertise: IpAddr,
        problems: &mut BTreeSet<String>,
    ) -> Vec<(String, u16, Protocol, SocketAddr)> {
        let mut ports = BTreeMap::new();
        for published in &container.published {
            let key = (published.port, published.protocol);
            let Some(service) = self.ports.get(&key).or(self.every.as_ref()) else { continue };
            if reaches(published.host_ip, advertise) {
                // Of several ports of the host, the lowest: they lead to the same place.
                ports.entry(key).or_insert((service, published.host_port));
            }
        }
        if container.network_mode == NetworkMode::Host {
            let own = self.ports.iter().map(|(key, service)| (*key, (service, key.0)));
            ports.extend(own);
        }
        problems.extend(self.missing(container, advertise, |key| ports.contains_key(key)));
        let entry = |((port, protocol), (service, host_port)): (_, (&String, u16))| {
            (service.clone(), port, protocol, SocketAddr::new(advertise, host_port))
        };
        ports.into_iter().map(entry).collect()
    }

    /// What was asked for and cannot be had.
    fn missing(
        &self,
        container: &Container,
        advertise: IpAddr,
        has: impl Fn(&(u16, Protocol)) -> bool,
    ) -> Option<String> {
        let name = &container.name;
        let elsewhere = container.published.iter().find(|published| {
            let key = (published.port, published.protocol);
            (self.every.is_some() || self.ports.contains_key(&key)) && !has(&key)
        });
        if let Some(elsewhere) = elsewhere {
            return Some(format!(
                "container {name}: port {} is published on {} alone, where {advertise} does not lead",
                elsewhere.port, elsewhere.host_ip
            ));
        }
        if let Some(((port, protocol), _)) = self.ports.iter().find(|(key, _)| !has(key)) {
            return Some(format!(
                "container {name}: port {port}/{protocol} is not published: run it with -p {port}"
            ));
        }
        let none = self.every.is_some() && container.published.is_empty();
        none.then(|| format!("container {name} publishes no port: run it with -p or -P"))
    }
}

/// The service that a container is when nobody says: its Compose service, or its own name. A `compose run` is none.
fn of_itself(container: &Container) -> Option<String> {
    let oneoff = container.labels.get(COMPOSE_ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let service = container.labels.get(COMPOSE_SERVICE).unwrap_or(&container.name);
    let service = container_name(service).ok().filter(|_| !oneoff && !container.published.is_empty());
    service.filter(|_| container.network_mode != NetworkMode::Host)
}

enum Key {
    Every,
    Port((u16, Protocol)),
}

fn key(label: &str) -> Option<Key> {
    let rest = label.strip_prefix(LABEL)?;
    if rest.is_empty() {
        return Some(Key::Every);
    }
    let (port, protocol) = match rest.strip_prefix('.')?.split_once('/') {
        Some((port, "udp")) => (port, Protocol::Udp),
        Some((port, "tcp")) => (port, Protocol::Tcp),
        Some(_) => return None,
        None => (rest.strip_prefix('.')?, Protocol::Tcp),
    };
    port.parse().ok().filter(|port| *port > 0).map(|port| Key::Port((port, protocol)))
}

/// Whether who comes to `advertise` comes to what is published on this address of the host.
fn reaches(host_ip: IpAddr, advertise: IpAddr) -> bool {
    host_ip == advertise || (host_ip.is_unspecified() && host_ip.is_ipv4() == advertise.is_ipv4())
}

#[cfg(test)]
mod tests;
