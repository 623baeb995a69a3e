//! The containers of one Docker engine, as one immutable snapshot. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use crate::cluster::condition::ContainerHealth;
use crate::route::Protocol;

/// Every container of one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// The container this process runs in, if it runs in a container of this engine.
    pub own_id: Option<ContainerId>,
    /// The version of the engine, such as `28.5.1`; empty if the engine does not report one.
    pub engine: String,
    /// The containers, stopped ones included.
    pub by_id: BTreeMap<ContainerId, Container>,
}

/// A full container ID: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

/// One container, from its inspection and its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The name, without the leading slash.
    pub name: String,
    /// `None` if the engine reports no valid time (RFC 3339).
    pub created: Option<SystemTime>,
    /// The image it was created from.
    pub image: Image,
    /// Whether it runs. A stopped, paused or dead container has no endpoint, whatever addresses it reports.
    pub running: bool,
    /// Whether its processes are frozen (`docker pause`).
    pub paused: bool,
    /// The result of its health check (`HEALTHCHECK`).
    pub health: ContainerHealth,
    /// Derived from `kill` events; an inspection does not report it.
    pub stopping: Stopping,
    /// The labels given when the container was created.
    pub labels: BTreeMap<String, String>,
    /// The labels that come, or may come, from its image. They are ignored: the author of an image does not choose which
    /// services its containers belong to.
    pub inherited: BTreeMap<String, String>,
    /// `HostConfig.NetworkMode`.
    pub network_mode: NetworkMode,
    /// The attached networks, by network ID.
    pub networks: BTreeMap<String, Attachment>,
    /// The ports exposed by the image or by `--expose`, sorted.
    pub exposed: Vec<(u16, Protocol)>,
    /// The ports published on the host, while the container runs.
    pub published: Vec<Published>,
    /// The links, as in `HostConfig.Links`.
    pub links: Vec<Link>,
}

/// The image a container was created from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:...`; empty if the engine does not report it.
    pub id: String,
    /// Whether the image's labels could be read. Otherwise every label may come from the image.
    pub is_known: bool,
}

/// A group of containers that are replicas of one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaGroup {
    Compose {
        project: String,
        service: String,
    },
    Swarm(String),
    Image(String),
    /// The image is not known, so the container is a group of its own.
    Single(ContainerId),
}

/// Whether a running container was sent a signal to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stopping {
    #[default]
    No,
    /// The signal has other uses as well, such as requesting a thread dump: other endpoints are preferred.
    Possibly,
    /// It takes no new sessions. They are held, so that the restart of a single container is a pause.
    Certainly,
}

/// Prefixes of the labels that mark the creator of a container.
const CREATORS: [&str; 2] = ["com.docker.compose.", "com.docker.swarm."];

pub(super) const COMPOSE_PROJECT: &str = "com.docker.compose.project";
pub(crate) const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const SWARM_SERVICE: &str = "com.docker.swarm.service.id";
/// `True` on the containers of `docker compose run`.
const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";

/// The addresses of a container on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the network.
    pub name: String,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

/// Which network namespace a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// One of its own, attached to networks.
    #[default]
    Networks,
    /// That of the host.
    Host,
    /// One of its own, without networks.
    None,
    /// `container:X`, where X is an ID or a name.
    Container(String),
}

/// A port of the host that is forwarded to a container (`docker run -p`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The container's port.
    pub port: u16,
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// The host's address; unspecified for every address of its family.
    pub host_ip: IpAddr,
    /// The host's port, not 0.
    pub host_port: u16,
}

/// A link of a container: the name of the target and its alias in the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub target: String,
    pub alias: String,
}

impl Containers {
    /// Returns the result of the health check of the container with this ID.
    pub fn health(&self, id: &str) -> ContainerHealth {
        let id = ContainerId(id.to_owned());
        self.by_id.get(&id).map(|container| container.health).unwrap_or_default()
    }

    /// Returns a summary for the log: `Docker 28.5.1, containers: 12`.
    pub fn summary(&self) -> String {
        let blank = if self.engine.is_empty() { "" } else { " " };
        format!("Docker{blank}{}, containers: {}", self.engine, self.by_id.len())
    }

    /// Returns the container with exactly this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Container> {
        self.by_id.values().find(|container| container.name == name)
    }

    /// Returns the container this process runs in.
    pub(crate) fn own(&self) -> Option<&Container> {
        self.by_id.get(self.own_id.as_ref()?)
    }

    pub(crate) fn is_own(&self, id: &ContainerId) -> bool {
        self.own_id.as_ref() == Some(id)
    }

    /// Returns all containers but the one this process runs in, by ID.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&ContainerId, &Container)> {
        self.by_id.iter().filter(|(id, _)| !self.is_own(id))
    }
}

impl Container {
    /// Moves the labels that the image has as well to `inherited`; all of them if the labels of the image are not known.
    ///
    /// Compose and swarm mode label each container in several ways, some of which no image can have. Their labels then
    /// belong to the container, although `docker compose build` also adds some of them to the image.
    pub(super) fn inherit(&mut self, image: Option<&BTreeMap<String, String>>) {
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

    /// Returns the replica group of this container, whose ID is `id`.
    pub(super) fn replica_group(&self, id: &ContainerId) -> ReplicaGroup {
        let label = |key| self.labels.get(key).cloned();
        match (label(COMPOSE_PROJECT), label(COMPOSE_SERVICE), label(SWARM_SERVICE)) {
            (Some(project), Some(service), _) => ReplicaGroup::Compose { project, service },
            (_, _, Some(service)) => ReplicaGroup::Swarm(service),
            _ if self.image.id.is_empty() => ReplicaGroup::Single(id.clone()),
            _ => ReplicaGroup::Image(self.image.id.clone()),
        }
    }

    /// Returns whether `docker compose run` created it: such a container has the labels of its service, but does not serve.
    pub(crate) fn is_oneoff(&self) -> bool {
        self.labels.get(COMPOSE_ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Returns the Compose project that it belongs to.
    pub(super) fn compose_project(&self) -> Option<&str> {
        self.labels.get(COMPOSE_PROJECT).map(String::as_str)
    }

    /// Returns the Compose service that it is a container of, one-off containers included.
    pub(crate) fn compose_service(&self) -> Option<&str> {
        self.labels.get(COMPOSE_SERVICE).map(String::as_str)
    }

    pub(super) fn exposed_ports(&self, protocol: Protocol) -> impl Iterator<Item = u16> {
        self.exposed.iter().filter(move |(_, exposed)| *exposed == protocol).map(|(port, _)| *port)
    }

    /// Returns the names of its networks, for a message.
    pub(super) fn network_names(&self) -> String {
        let names = abbreviated(self.networks.values().map(|network| &network.name));
        if names.is_empty() { "no network".to_owned() } else { names }
    }
}

/// Items listed in a message before an ellipsis.
const LISTED_MAX: usize = 8;

/// Joins these items with commas, for a message.
pub(super) fn abbreviated<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let mut names: Vec<String> = items.map(|item| item.to_string()).collect();
    let more = names.len() > LISTED_MAX;
    names.truncate(LISTED_MAX);
    if more {
        names.push("...".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests;
