//! One DNS name as a source: its addresses, asked again when their TTL has passed.

mod hosts;
mod lookup;
mod system;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::{Publisher, Snapshot, Source, SourceError};
use crate::cluster::{EndpointAddr, EndpointSpec, Identity};
use crate::route::Target;
use lookup::Found;
pub use lookup::Resolver;

/// Docker's DNS says 600 s for a container whose address changes at its next start, and other servers say 0 for
/// everything: a moved service is found within half a minute, and no server is asked more than once a second.
const TTL_FLOOR: Duration = Duration::from_secs(1);
const TTL_CEILING: Duration = Duration::from_secs(30);

/// A name that does not exist yet usually belongs to a service that is about to start.
const ABSENT_RETRY_MIN: Duration = Duration::from_secs(1);
const ABSENT_RETRY_MAX: Duration = Duration::from_secs(5);

pub struct Host {
    pub host: String,
    /// Of its endpoints; DNS tells addresses alone.
    pub port: u16,
    pub resolver: Resolver,
    /// Notified while sessions find no endpoint that answers: then a name is asked for again after [`TTL_FLOOR`],
    /// whatever its TTL. Docker's DNS gives a recreated container's old address ten minutes.
    pub trouble: Arc<Notify>,
}

impl Source for Host {
    fn name(&self) -> String {
        self.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        let mut shown: Option<Vec<IpAddr>> = None;
        let mut absent_retry = ABSENT_RETRY_MIN;
        loop {
            let (addresses, pause) = match self.resolver.lookup(&self.host).await {
                Err(why) => return SourceError::Failed(why),
                Ok(Found::Addresses { addresses, ttl }) => {
                    absent_retry = ABSENT_RETRY_MIN;
                    (addresses, ttl.clamp(TTL_FLOOR, TTL_CEILING))
                }
                // What it had may be what it has again in a moment: a server that restarts knows nobody at first.
                Ok(Found::Vanished) => {
                    let why = format!("{} has no address any more; those it had last stand", self.host);
                    return SourceError::Failed(why);
                }
                Ok(Found::Absent) => {
                    let pause = absent_retry;
                    absent_retry = (absent_retry * 2).min(ABSENT_RETRY_MAX);
                    (Vec::new(), pause)
                }
            };
            if shown.as_ref() != Some(&addresses) {
                let snapshot =
                    Snapshot::Target { target: self.target(), endpoints: self.endpoints(&addresses) };
                if let Err(stopped) = publisher.publish(snapshot).await {
                    return stopped.into();
                }
                shown = Some(addresses);
            }
            self.rest(pause).await;
        }
    }
}

impl Host {
    fn target(&self) -> Target {
        Target::Host { host: self.host.clone(), port: self.port }
    }

    fn endpoints(&self, addresses: &[IpAddr]) -> Vec<EndpointSpec> {
        let addr = |ip: &IpAddr| EndpointAddr::Inet(SocketAddr::new(*ip, self.port));
        addresses.iter().map(|ip| EndpointSpec::new(addr(ip), Identity::Name(self.host.clone()))).collect()
    }

    async fn rest(&self, pause: Duration) {
        let floor = pause.min(TTL_FLOOR);
        sleep(floor).await;
        tokio::select! {
            () = sleep(pause - floor) => {}
            () = self.trouble.notified() => {}
        }
    }
}

impl Resolver {
    /// The system's servers, search domains and hosts file; each is read again when it changes, as Docker rewrites both
    /// when a container joins its first network.
    pub fn from_system() -> Resolver {
        Resolver::new(system::Origin::File(PathBuf::from("/etc/resolv.conf")), PathBuf::from("/etc/hosts"))
    }

    /// With these servers, search domains and hosts file instead of the system's.
    pub fn with_servers(servers: Vec<SocketAddr>, search: Vec<String>, hosts: PathBuf) -> Resolver {
        let settings = system::Settings { servers, search, ..system::Settings::default() };
        Resolver::new(system::Origin::Fixed(settings), hosts)
    }
}

#[cfg(test)]
mod tests;
