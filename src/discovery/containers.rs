//! What Docker knows, as one snapshot, and which endpoints of it a target means. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::cluster::EndpointSpec;
use crate::route::Protocol;

/// Every container of one engine. Published whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// The container this process runs in, where it runs in one of this engine.
    pub own_id: Option<ContainerId>,
    pub by_id: BTreeMap<ContainerId, Container>,
}

/// The full 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Without the leading slash.
    pub name: String,
    /// A stopped, paused or dead container has no endpoint, whatever addresses it shows.
    pub running: bool,
    pub labels: BTreeMap<String, String>,
    pub network_mode: NetworkMode,
    /// By network ID.
    pub networks: BTreeMap<String, Attachment>,
    /// Exposed by the image or by `--expose`, sorted.
    pub exposed: Vec<(u16, Protocol)>,
    /// As `HostConfig.Links` has them.
    pub links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    Networks,
    Host,
    None,
    /// `container:X`, where X is an ID or a name.
    Container(String),
}

/// A link of a container: the target's name and the alias it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Containers {
    /// `port` as in [`crate::route::Target::Docker`]; `listen_port` is the listener's first port, if it has ports.
    pub fn resolve(
        &self,
        _name: &str,
        _port: Option<u16>,
        _listen_port: Option<u16>,
        _protocol: Protocol,
    ) -> Resolution {
        Resolution::default()
    }
}
