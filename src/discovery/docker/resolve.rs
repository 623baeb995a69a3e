//! The endpoints of a `docker://` target: its containers, with address, port, weight and tier. Pure.

use std::net::SocketAddr;

use super::model::{Container, ContainerId, Containers, Stopping, abbreviated};
use super::select::{SelectError, Selector};
use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::cluster::condition::ContainerHealth;
use crate::route::Protocol;

/// A container whose health check has not passed yet is tried after all others. It is not left out, as in Traefik: with
/// Docker's default interval the first check runs 30 s after the start, so a service with one container would be unavailable
/// for that long at each restart, three times longer than a session is held.
const STARTING_TIER: u32 = 1;

/// The current endpoints of a target, and why further containers are not endpoints, for `status` and the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// With weight 0 for those that take no new sessions.
    pub endpoints: Vec<EndpointSpec>,
    /// Each a reason, for people, that names its container or target.
    pub problems: Vec<String>,
}

impl Containers {
    /// Returns the endpoints of the selected containers. `port` is as in [`crate::route::Target::Docker`]; `listen_port` is
    /// the first port of the listener, if it has ports.
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
            Err(SelectError::Absent(why) | SelectError::Ambiguous(why)) => {
                return Resolution { endpoints: Vec::new(), problems: vec![why] };
            }
        };
        let port = TargetPort { selector, port, listen_port, protocol };
        let mut resolution = Resolution::default();
        for (id, container) in matches {
            match self.endpoint(id, container, &port) {
                Ok(endpoint) => resolution.endpoints.push(endpoint),
                Err(why) => {
                    resolution.problems.push(why);
                    continue;
                }
            }
            if container.stopping == Stopping::Certainly {
                let why = format!("container {} is stopping: it takes no new sessions", container.name);
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
        resolution.endpoints.sort_unstable();
        resolution
    }

    fn endpoint(
        &self,
        id: &ContainerId,
        container: &Container,
        port: &TargetPort<'_>,
    ) -> Result<EndpointSpec, String> {
        if container.paused {
            return Err(format!("container {0} is paused: `docker unpause {0}`", container.name));
        }
        if !container.running {
            return Err(format!("container {} is not running", container.name));
        }
        let port = port.of(container)?;
        let ip = self.address(container)?;
        let identity = Identity::Container { id: id.0.clone(), name: container.name.clone() };
        let spec = EndpointSpec::new(EndpointAddr::Inet(SocketAddr::new(ip, port)), identity);
        let spec = match container.stopping {
            Stopping::No => spec,
            Stopping::Possibly => EndpointSpec { tier: 1, ..spec },
            Stopping::Certainly => EndpointSpec { weight: 0, ..spec },
        };
        Ok(match container.health {
            ContainerHealth::Unchecked | ContainerHealth::Healthy => spec,
            ContainerHealth::Starting => EndpointSpec { tier: spec.tier + STARTING_TIER, ..spec },
            // It remains an endpoint, so that its open sessions continue.
            ContainerHealth::Unhealthy => EndpointSpec { weight: 0, ..spec },
        })
    }
}

/// The port of a target as written, and the listener it belongs to.
struct TargetPort<'a> {
    selector: Selector<'a>,
    port: Option<u16>,
    listen_port: Option<u16>,
    protocol: Protocol,
}

impl TargetPort<'_> {
    /// Returns the port to connect to in this container.
    fn of(&self, container: &Container) -> Result<u16, String> {
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
                "container {} exposes several {} ports ({}): write one of them, docker://{}:{first}",
                container.name,
                self.protocol,
                abbreviated(exposed.iter()),
                self.selector
            )),
        }
    }
}

#[cfg(test)]
mod tests;
