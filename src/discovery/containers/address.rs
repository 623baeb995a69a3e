//! Where a container can be reached from here. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Attachment, Container, ContainerId, Containers, NetworkMode};

/// A container that follows another that follows another is rare, and a longer chain unheard of; a circle, which no
/// engine should tell us of, must not hold us in it.
const FOLLOWED_MAX: usize = 8;

/// Whose network namespace a process is in.
enum Standing<'a> {
    /// The container's own, or that of the container it follows.
    Attached(&'a Container),
    Host,
    /// Nothing but its loopback.
    Alone,
}

impl Containers {
    /// The address of `target` as seen from our own network namespace, or what stands in the way.
    pub(super) fn address(&self, target: &Container) -> Result<IpAddr, String> {
        let own = self
            .own()
            .map(|own| Ok((own, self.standing(own)?)))
            .transpose()
            .map_err(|why: String| format!("this ambassador's own network is not known: {why}"))?;
        match (own, self.standing(target)?) {
            (_, Standing::Alone) => {
                Err(format!("container {} has no network (network_mode: none): give it one", target.name))
            }
            // One namespace, so its ports are our ports.
            (Some((_, Standing::Host)), Standing::Host) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            (_, Standing::Host) => Err(format!(
                "container {0} uses the host's network (network_mode: host) and has no address of its own: write \
                 the host's, LISTEN=HOST:PORT, or run {0} on a network",
                target.name
            )),
            (Some((own, Standing::Alone)), Standing::Attached(_)) => Err(format!(
                "this ambassador has no network (network_mode: none): docker network connect NETWORK {}",
                own.name
            )),
            // On the host, or where we cannot know: the host reaches every bridge.
            (None | Some((_, Standing::Host)), Standing::Attached(at)) => {
                preferred(at.networks.values()).ok_or_else(|| no_address(target, at))
            }
            (Some((own, Standing::Attached(own_at))), Standing::Attached(at)) => {
                shared(own, own_at, target, at)
            }
        }
    }

    fn standing<'a>(&'a self, container: &'a Container) -> Result<Standing<'a>, String> {
        let mut at = container;
        for _ in 0..FOLLOWED_MAX {
            let followed = match &at.network_mode {
                NetworkMode::Networks => return Ok(Standing::Attached(at)),
                NetworkMode::Host => return Ok(Standing::Host),
                NetworkMode::None => return Ok(Standing::Alone),
                NetworkMode::Container(followed) => followed,
            };
            at = self.followed(followed).ok_or_else(|| {
                format!("container {} is on the network of {followed}, which is gone", container.name)
            })?;
            if !at.running {
                return Err(format!(
                    "container {} is on the network of {}, which is not running",
                    container.name, at.name
                ));
            }
        }
        Err(format!("container {} follows too many others (network_mode: container:...)", container.name))
    }

    fn followed(&self, name: &str) -> Option<&Container> {
        let by_id = self.by_id.get(&ContainerId(name.to_owned()));
        by_id.or_else(|| self.by_id.values().find(|container| container.name == name))
    }
}

/// An address on a network that both are on.
fn shared(own: &Container, own_at: &Container, target: &Container, at: &Container) -> Result<IpAddr, String> {
    // Its namespace is ours: any address of it is one of ours.
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
        at.networks.iter().filter(|(id, _)| own_at.networks.contains_key(*id)).collect();
    if common.is_empty() {
        return Err(format!(
            "container {} shares no network with this ambassador: it is on {}, we ({}) are on {}; connect us: docker \
             network connect {} {}",
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

/// The first by network name, and IPv4 before IPv6: what Docker's own DNS would give most clients.
fn preferred<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Option<IpAddr> {
    let mut attachments: Vec<&Attachment> = attachments.collect();
    attachments.sort_by_key(|attachment| &attachment.name);
    let first_v4 = attachments.iter().find_map(|attachment| attachment.ipv4).map(IpAddr::V4);
    first_v4.or_else(|| attachments.iter().find_map(|attachment| attachment.ipv6).map(IpAddr::V6))
}

fn no_address(target: &Container, at: &Container) -> String {
    format!("container {} has no address on {}", target.name, at.network_names())
}
