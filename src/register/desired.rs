//! The entries to register: which containers of a host, under which names, at which addresses. Pure.

mod exports;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::cluster::condition::ContainerHealth;
use crate::config::grammar::target::container_name;
use crate::discovery::docker::{Container, ContainerId, Containers, NetworkMode, SelectError};
use crate::ordered::CollectOrdered;
use crate::route::Protocol;

/// `ambassador.register=NAME` for every published port, `ambassador.register.PORT=NAME` for one.
const LABEL: &str = "ambassador.register";

/// Entries of one host: any user who may start a container may label it and publish ports.
const ENTRIES_MAX: usize = 1024;

/// Digits of a container's ID, as in `docker ps`. Containers of two hosts may have the same name, but not the same ID.
const ID_SHOWN: usize = 12;

/// What to register, in addition to labelled containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// `--name`: containers, or Compose services.
    pub names: Vec<String>,
    /// `--all`: every container with a published port.
    pub all: bool,
    /// The address of this host, as other hosts reach it.
    pub advertise: IpAddr,
    /// What is registered of a container.
    pub via: Via,
}

/// How other hosts reach a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// By its published ports.
    Ports,
    /// By the exports that its labels request from the ambassador of this host.
    Peer {
        /// The port of that ambassador's `--peer-listen`.
        port: u16,
    },
}

/// The address of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) addr: SocketAddr,
    /// The export, if the address is that of a peer.
    pub(super) export: Option<String>,
}

/// A service, the port of its container, and where it is reached.
type Port = (String, u16, Protocol, Address);

/// `10.0.0.5:49153`, `peer://10.0.0.5:15008/redis`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { addr, export } = self;
        match export {
            Some(export) => write!(f, "peer://{addr}/{export}"),
            None => write!(f, "{addr}"),
        }
    }
}

/// The identity of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) service: String,
    /// The port of the container, which is the same on every host.
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// The prefix of its ID.
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

/// Entries, with the addresses at which other hosts reach them.
pub(super) type Entries = BTreeMap<Entry, Address>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) entries: Entries,
    /// Why further containers or ports are not registered.
    pub(super) problems: BTreeSet<String>,
}

/// Returns the entries to register for these containers.
pub(super) fn desired(containers: &Containers, choice: &Choice) -> Desired {
    let mut desired = Desired::default();
    let named = named(containers, &choice.names, &mut desired.problems);
    for (id, container) in containers.others().filter(|(_, container)| container.running) {
        let ports =
            match choice.via {
                Via::Ports => Services::of(container, named.get(id), choice.all, &mut desired.problems)
                    .ports(container, choice.advertise, &mut desired.problems),
                Via::Peer { port } => {
                    let peer = SocketAddr::new(choice.advertise, port);
                    exports::exports(container, peer, &mut desired.problems)
                }
            };
        // A container that is starting is registered: its first check may be half a minute away.
        if container.health == ContainerHealth::Unhealthy && !ports.is_empty() {
            desired
                .problems
                .insert(format!("container {} is unhealthy: it is not registered", container.name));
            continue;
        }
        for (service, port, protocol, addr) in ports {
            let container = id.0.get(..ID_SHOWN).unwrap_or(&id.0).to_owned();
            desired.entries.insert(Entry { service, port, protocol, container }, addr);
        }
    }
    if desired.entries.len() > ENTRIES_MAX {
        let count = desired.entries.len();
        let problem = format!("{count} ports to register; only the first {ENTRIES_MAX} are registered");
        desired.problems.insert(problem);
        desired.entries = desired.entries.into_iter().take(ENTRIES_MAX).collect_ordered();
    }
    desired
}

/// Returns the containers of `--name`, with the service name of each.
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
                    let service = container.compose_service().filter(|service| service == name);
                    named.entry(id).or_insert_with(|| service.unwrap_or(&container.name).to_owned());
                }
            }
            Err(SelectError::Absent(why) | SelectError::Ambiguous(why)) => {
                problems.insert(why);
            }
        }
    }
    named
}

/// The services of one container, by its labels and the command line.
#[derive(Default)]
struct Services {
    /// The service of every published port without a service of its own.
    every: Option<String>,
    ports: BTreeMap<(u16, Protocol), String>,
}

impl Services {
    fn of(
        container: &Container,
        named: Option<&String>,
        all: bool,
        problems: &mut BTreeSet<String>,
    ) -> Services {
        let mut services = Services::default();
        if let Some(label) = container.inherited.keys().find(|label| key(label).is_some()) {
            let problem = format!(
                "container {}, label {label}: it comes with the image, so it is ignored",
                container.name
            );
            problems.insert(problem);
        }
        for (label, value) in
            container.labels.range(LABEL.to_owned()..).take_while(|(label, _)| label.starts_with(LABEL))
        {
            match (key(label), container_name(value)) {
                (Some(Key::Every), Ok(service)) => services.every = Some(service),
                (Some(Key::Port(port)), Ok(service)) => {
                    services.ports.insert(port, service);
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
        services.every = services
            .every
            .or_else(|| named.cloned())
            .or_else(|| all.then(|| default_service(container)).flatten());
        services
    }

    fn ports(&self, container: &Container, advertise: IpAddr, problems: &mut BTreeSet<String>) -> Vec<Port> {
        let mut ports = BTreeMap::new();
        for published in &container.published {
            let key = (published.port, published.protocol);
            let Some(service) = self.ports.get(&key).or(self.every.as_ref()) else { continue };
            if reaches(published.host_ip, advertise) {
                // Several ports of the host lead to the same port: the lowest is registered.
                ports.entry(key).or_insert((service, published.host_port));
            }
        }
        if container.network_mode == NetworkMode::Host {
            let own = self.ports.iter().map(|(key, service)| (*key, (service, key.0)));
            ports.extend(own);
        }
        problems.extend(self.missing(container, advertise, |key| ports.contains_key(key)));
        let entry = |((port, protocol), (service, host_port)): (_, (&String, u16))| {
            let addr = Address { addr: SocketAddr::new(advertise, host_port), export: None };
            (service.clone(), port, protocol, addr)
        };
        ports.into_iter().map(entry).collect()
    }

    /// Returns why a port cannot be registered.
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
                "container {name}: port {} is published only on {}, which is not reached at {advertise}",
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

/// Returns the service of a container with `--all`: its Compose service, or its own name. One-off containers have none.
fn default_service(container: &Container) -> Option<String> {
    let service = container.compose_service().unwrap_or(&container.name);
    let serves = !container.is_oneoff() && !container.published.is_empty();
    let service = container_name(service).ok().filter(|_| serves);
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

/// Returns whether a port published on this address of the host is reached at `advertise`.
fn reaches(host_ip: IpAddr, advertise: IpAddr) -> bool {
    host_ip == advertise || (host_ip.is_unspecified() && host_ip.is_ipv4() == advertise.is_ipv4())
}

#[cfg(test)]
mod tests;
