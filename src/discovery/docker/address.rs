//! The address of a container, as seen from the network namespace of this process. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::model::{Attachment, Container, ContainerId, Containers, NetworkMode};
use crate::ordered::CollectOrdered;

/// The longest chain of `network_mode: container:` references that is followed. Chains of more than two are rare; the limit
/// ends a cycle, which no engine should report.
const FOLLOWED_MAX: usize = 8;

/// The network namespace of a process.
enum Namespace<'a> {
    /// That of a container with networks: its own, or the one that its `network_mode` refers to.
    Container(&'a Container),
    Host,
    /// One with nothing but a loopback device.
    Isolated,
}

impl Containers {
    /// Returns the address of `target` as seen from our own network namespace, or why there is none.
    pub(super) fn address(&self, target: &Container) -> Result<IpAddr, String> {
        let own = self
            .own()
            .map(|own| Ok((own, self.namespace(own)?)))
            .transpose()
            .map_err(|why: String| format!("this ambassador's own network is not known: {why}"))?;
        match (own, self.namespace(target)?) {
            (_, Namespace::Isolated) => {
                Err(format!("container {} has no network (network_mode: none): give it one", target.name))
            }
            // Both are in the host's namespace.
            (Some((_, Namespace::Host)), Namespace::Host) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            (_, Namespace::Host) => Err(format!(
                "container {0} uses the host's network (network_mode: host) and has no address of its own: write \
                 the host's, LISTEN=HOST:PORT, or run {0} on a network",
                target.name
            )),
            (Some((own, Namespace::Isolated)), Namespace::Container(_)) => Err(format!(
                "this ambassador has no network (network_mode: none): docker network connect NETWORK {}",
                own.name
            )),
            // The host, which this process is assumed to run on if its container is not known, reaches every bridge.
            (None | Some((_, Namespace::Host)), Namespace::Container(at)) => {
                preferred(at.networks.values()).ok_or_else(|| no_address(target, at))
            }
            (Some((own, Namespace::Container(own_at))), Namespace::Container(at)) => {
                shared(own, own_at, target, at)
            }
        }
    }

    fn namespace<'a>(&'a self, container: &'a Container) -> Result<Namespace<'a>, String> {
        let mut at = container;
        for _ in 0..FOLLOWED_MAX {
            let followed = match &at.network_mode {
                NetworkMode::Networks => return Ok(Namespace::Container(at)),
                NetworkMode::Host => return Ok(Namespace::Host),
                NetworkMode::None => return Ok(Namespace::Isolated),
                NetworkMode::Container(followed) => followed,
            };
            at = self.followed(followed).ok_or_else(|| {
                format!("container {} uses the network of {followed}, which does not exist", container.name)
            })?;
            if !at.running {
                return Err(format!(
                    "container {} uses the network of {}, which is not running",
                    container.name, at.name
                ));
            }
        }
        Err(format!(
            "container {} refers to too many other containers (network_mode: container:...)",
            container.name
        ))
    }

    fn followed(&self, name: &str) -> Option<&Container> {
        self.by_id.get(&ContainerId(name.to_owned())).or_else(|| self.by_name(name))
    }
}

/// Returns the address on a network that both are attached to.
fn shared(own: &Container, own_at: &Container, target: &Container, at: &Container) -> Result<IpAddr, String> {
    // In one namespace, any of its addresses is local.
    if std::ptr::eq(own_at, at) {
        return preferred(at.networks.values()).ok_or_else(|| no_address(target, at));
    }
    if at.networks.is_empty() {
        let name = &target.name;
        return Err(format!(
            "container {name} is on no network: it is about to stop, or `docker network connect NETWORK {name}`"
        ));
    }
    let common: BTreeMap<&String, &Attachment> =
        at.networks.iter().filter(|(id, _)| own_at.networks.contains_key(*id)).collect_ordered();
    if common.is_empty() {
        return Err(format!(
            "container {} shares no network with this ambassador: it is on {}, the ambassador ({}) is on {}; connect \
             them: docker network connect {} {}",
            target.name,
            at.network_names(),
            own.name,
            own_at.network_names(),
            at.networks.values().map(|network| network.name.as_str()).min().unwrap_or("NETWORK"),
            own_at.name,
        ));
    }
    preferred(common.into_values()).ok_or_else(|| no_address(target, at))
}

/// Returns the first address by network name, IPv4 before IPv6: what Docker's own DNS returns to most clients.
fn preferred<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Option<IpAddr> {
    let mut attachments: Vec<&Attachment> = attachments.collect();
    attachments.sort_by_key(|attachment| &attachment.name);
    let first_v4 = attachments.iter().find_map(|attachment| attachment.ipv4).map(IpAddr::V4);
    first_v4.or_else(|| attachments.iter().find_map(|attachment| attachment.ipv6).map(IpAddr::V6))
}

fn no_address(target: &Container, at: &Container) -> String {
    format!("container {} has no address on {}", target.name, at.network_names())
}
