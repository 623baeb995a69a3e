//! What Docker knows, as one snapshot, and which endpoints of it a target means. Pure.

mod address;
mod find;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::cluster::condition::ContainerHealth;
use crate::route::Protocol;
pub(crate) use find::Unfound;

/// Every container of one engine. Published whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// The container this process runs in, where it runs in one of this engine.
    pub own_id: Option<ContainerId>,
    /// The version of the engine, `28.5.1`; empty where it does not say.
    pub engine: String,
    pub by_id: BTreeMap<ContainerId, Container>,
}

/// The full 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Without the leading slash.
    pub name: String,
    pub created: Option<SystemTime>,
    pub image: Image,
    /// A stopped, paused or dead container has no endpoint, whatever addresses it shows.
    pub running: bool,
    /// Why it is not running.
    pub paused: bool,
    pub health: ContainerHealth,
    pub leaving: Leaving,
    /// Those it was given when it was created.
    pub labels: BTreeMap<String, String>,
    /// Those that came with its image, or may have. They mean nothing: whoever builds an image does not choose what its
    /// containers are part of.
    pub inherited: BTreeMap<String, String>,
    pub network_mode: NetworkMode,
    /// By network ID.
    pub networks: BTreeMap<String, Attachment>,
    /// Exposed by the image or by `--expose`, sorted.
    pub exposed: Vec<(u16, Protocol)>,
    /// On the host, while it runs.
    pub published: Vec<Published>,
    /// As `HostConfig.Links` has them.
    pub links: Vec<Link>,
}

/// What a container was created from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:...`; empty where the engine does not say.
    pub id: String,
    /// Whether its labels could be read. Otherwise every label may be the image's.
    pub is_known: bool,
}

/// Containers that are replicas of one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin<'a> {
    Compose {
        project: &'a str,
        service: &'a str,
    },
    Swarm(&'a str),
    Image(&'a str),
    /// Nothing is known of what it was made from.
    Alone(&'a ContainerId),
}

/// Whether it was sent a signal to stop, and still runs: what it is asked now it may not live to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Leaving {
    #[default]
    No,
    /// By a signal that some programs take otherwise, such as a request for a thread dump: others are preferred to it.
    Perhaps,
    /// It takes no new sessions. They are held, so that the restart of a lone container is a pause.
    Surely,
}

/// Prefixes of labels with which what creates a container says that it did.
const CREATORS: [&str; 2] = ["com.docker.compose.", "com.docker.swarm."];
const SWARM_SERVICE: &str = "com.docker.swarm.service.id";
/// `True` on the containers of `docker compose run`.
const ONEOFF: &str = "com.docker.compose.oneoff";

/// A container that has not passed its check yet is tried after all others. Not left out, as Traefik does it: with
/// Docker's default interval the first check is 30 s after the start, and a service with one container would be away for
/// so long at each restart, three times longer than a session waits.
const STARTING_TIER: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    #[default]
    Networks,
    Host,
    None,
    /// `container:X`, where X is an ID or a name.
    Container(String),
}

/// A port of the host that leads to one of a container (`docker run -p`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The container's.
    pub port: u16,
    pub protocol: Protocol,
    /// The host's address that it is on; unspecified for every one of its family.
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// A link of a container: the target's name and the alias it has there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub target: String,
    pub alias: String,
}

/// The endpoints that a `docker://` target means now, and what stands in the way of others, for `status` and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    pub endpoints: Vec<EndpointSpec>,
    pub problems: Vec<String>,
}

/// Which containers a target means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector<'a> {
    /// A name, an ID or a Compose service.
    Name(&'a str),
    /// `None` is any value.
    Label { key: &'a str, value: Option<&'a str> },
}

impl<'a> From<&'a str> for Selector<'a> {
    fn from(name: &'a str) -> Selector<'a> {
        Selector::Name(name)
    }
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Name(name) => write!(f, "{name}"),
            Selector::Label { key, value: Some(value) } => write!(f, "label:{key}={value}"),
            Selector::Label { key, value: None } => write!(f, "label:{key}"),
        }
    }
}

impl Containers {
    /// What the check of the container with this ID says.
    pub fn health(&self, id: &str) -> ContainerHealth {
        let id = ContainerId(id.to_owned());
        self.by_id.get(&id).map(|container| container.health).unwrap_or_default()
    }

    /// `Docker 28.5.1, containers: 12`
    pub fn summary(&self) -> String {
        let blank = if self.engine.is_empty() { "" } else { " " };
        format!("Docker{blank}{}, containers: {}", self.engine, self.by_id.len())
    }

    /// `port` as in [`crate::route::Target::Docker`]; `listen_port` is the listener's first port, if it has ports.
    pub fn resolve<'a>(
        &self,
        selector: impl Into<Selector<'a>>,
        port: Option<u16>,
        listen_port: Option<u16>,
        protocol: Protocol,
    ) -> Resolution {
        let selector = selector.into();
        let matches = match self.select(selector) {
            Ok(matches) => matches,
            Err(Unfound::Absent(why) | Unfound::Ambiguous(why)) => {
                return Resolution { endpoints: Vec::new(), problems: vec![why] };
            }
        };
        let wanted = Wanted { selector, port, listen_port, protocol };
        let mut resolution = Resolution::default();
        for (id, container) in matches {
            match self.endpoint(id, container, &wanted) {
                Ok(endpoint) => resolution.endpoints.push(endpoint),
                Err(why) => {
                    resolution.problems.push(why);
                    continue;
                }
            }
            if container.leaving == Leaving::Surely {
                let why = format!("container {} was told to stop: it takes no new sessions", container.name);
                resolution.problems.push(why);
            }
            if container.health == ContainerHealth::Unhealthy {
                let name = &container.name;
                let why = format!(
                    "container {name} is unhealthy: it takes no new sessions; `docker inspect {name}` shows why"
                );
                resolution.problems.push(why);
            }
        }
        resolution.endpoints.sort();
        resolution
    }

    fn endpoint(
        &self,
        id: &ContainerId,
        container: &Container,
        wanted: &Wanted<'_>,
    ) -> Result<EndpointSpec, String> {
        if container.paused {
            return Err(format!("container {0} is paused: `docker unpause {0}`", container.name));
        }
        if !container.running {
            return Err(format!("container {} is not running", container.name));
        }
        let port = wanted.port_of(container)?;
        let ip = self.address(container)?;
        let identity = Identity::Container { id: id.0.clone(), name: container.name.clone() };
        let spec = EndpointSpec::new(EndpointAddr::Inet(SocketAddr::new(ip, port)), identity);
        // One that may have been told to stop, or has yet to pass its check, comes after the others.
        let spec = match container.leaving {
            Leaving::No => spec,
            Leaving::Perhaps => EndpointSpec { tier: 1, ..spec },
            Leaving::Surely => EndpointSpec { weight: 0, ..spec },
        };
        Ok(match container.health {
            ContainerHealth::Unchecked | ContainerHealth::Healthy => spec,
            ContainerHealth::Starting => EndpointSpec { tier: spec.tier + STARTING_TIER, ..spec },
            // It stays what it is, so that its sessions go on: it is not gone.
            ContainerHealth::Unhealthy => EndpointSpec { weight: 0, ..spec },
        })
    }
}

/// A target as it is written, and the listener that asks for it.
struct Wanted<'a> {
    selector: Selector<'a>,
    port: Option<u16>,
    listen_port: Option<u16>,
    protocol: Protocol,
}

impl Wanted<'_> {
    fn port_of(&self, container: &Container) -> Result<u16, String> {
        if let Some(port) = self.port {
            return Ok(port);
        }
        let exposed: Vec<u16> = container.exposed_ports(self.protocol).collect();
        if let Some(port) = self.listen_port.filter(|port| exposed.contains(port)) {
            return Ok(port);
        }
        match exposed.as_slice() {
            [only] => Ok(*only),
            [] => Err(format!(
                "container {} exposes no {} port: write the port, docker://{}:PORT",
                container.name, self.protocol, self.selector
            )),
            [first, ..] => Err(format!(
                "container {} exposes several {} ports ({}): write the one you mean, docker://{}:{first}",
                container.name,
                self.protocol,
                shortened(exposed.iter()),
                self.selector
            )),
        }
    }
}

impl Container {
    /// Moves the labels that the image has too to those inherited; all of them where the image's are not known.
    ///
    /// Compose and swarm mode label each container that they create in several ways, some of which no image can have. Their
    /// labels are then the container's own, though `docker compose build` gives some of them to the image as well.
    pub(crate) fn inherit(&mut self, image: Option<&BTreeMap<String, String>>) {
        self.image.is_known = image.is_some();
        let is_own = |key: &String, value: &String| image.is_some_and(|image| image.get(key) != Some(value));
        let labels = std::mem::take(&mut self.labels);
        let (own, inherited): (BTreeMap<_, _>, BTreeMap<_, _>) =
            labels.into_iter().partition(|(key, value)| is_own(key, value));
        (self.labels, self.inherited) = (own, inherited);
        for creator in CREATORS {
            if self.labels.keys().any(|key| key.starts_with(creator)) {
                self.labels.extend(self.inherited.extract_if(.., |key, _| key.starts_with(creator)));
            }
        }
    }

    /// What it is a replica of.
    pub(crate) fn kin<'a>(&'a self, id: &'a ContainerId) -> Kin<'a> {
        let label = |key| self.labels.get(key).map(String::as_str);
        match (label(find::PROJECT), label(find::SERVICE), label(SWARM_SERVICE)) {
            (Some(project), Some(service), _) => Kin::Compose { project, service },
            (_, _, Some(service)) => Kin::Swarm(service),
            _ if self.image.id.is_empty() => Kin::Alone(id),
            _ => Kin::Image(&self.image.id),
        }
    }

    /// Whether `docker compose run` created it: it has its service's labels, but does not serve.
    pub(crate) fn is_oneoff(&self) -> bool {
        self.labels.get(ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn exposed_ports(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.exposed.iter().filter(move |(_, exposed)| *exposed == protocol).map(|(port, _)| *port)
    }

    fn network_names(&self) -> String {
        let names = shortened(self.networks.values().map(|network| &network.name));
        if names.is_empty() { "no network".to_owned() } else { names }
    }
}

/// A message is read by people: more than this many things are an ellipsis.
const LISTED_MAX: usize = 8;

fn shortened<T: ToString>(things: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = things.map(|thing| thing.to_string()).collect();
    let more = names.len() > LISTED_MAX;
    names.truncate(LISTED_MAX);
    if more {
        names.push("...".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
pub(crate) mod tests;
