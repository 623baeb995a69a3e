//! DNS names as sources: the addresses of a host, or the SRV records of a service, looked up again after their TTL.
//!
//! ```text
//!   look up ──addresses──► publish ──► pause for the TTL ──► look up
//!    ├──never had any──► publish none ──► short pause ──► look up
//!    ├──denied──► lost: the last answer is kept ──nx_stale──► look up ──still denied──► it expires
//!    └──no answer (first lookup: within 2 s)──► lost: the last answer is kept ──stale──► look up ──none──► it expires
//! ```

mod cache;
mod hosts;
mod lookup;
mod names;
mod records;
mod srv;
mod system;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::{EndpointAddr, EndpointSpec, Identity, Scheme};
use crate::backoff::Backoff;
use crate::config::dns::{Limits, TTL_FLOOR};
use crate::route::{PeerHost, PeerTarget, Target, TlsHost};
use cache::Families;
pub use lookup::{QueryFn, Resolver};
pub(crate) use names::NAMES_MAX;
pub use names::Names;
use srv::SrvCache;

/// The pauses after a lookup of a name that has never existed: it usually belongs to a service that is about to start.
const ABSENT_RETRY_MIN: Duration = Duration::from_secs(1);
const ABSENT_RETRY_MAX: Duration = Duration::from_secs(5);

/// The time after which servers that do not answer the first lookup of a name are reported. A lookup fails after up to 15 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The source for one name.
pub struct Dns {
    query: Query,
    resolver: Resolver,
    /// Notified while sessions find no endpoint that responds: then the name is looked up again after [`TTL_FLOOR`], whatever its
    /// TTL. Docker's DNS gives the old address of a recreated container a TTL of ten minutes.
    trouble: Arc<Notify>,
    last_lookup: Option<Instant>,
    /// Whether the name has ever had an address.
    has_existed: bool,
}

/// What is looked up, and the last answer, which outlives a run that fails.
enum Query {
    /// The addresses of a host; the port is that of the target.
    Host {
        host: String,
        port: u16,
        scheme: Scheme,
        cache: Families,
    },
    Srv {
        name: String,
        cache: SrvCache,
    },
}

/// The answer of the servers.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<T> {
    Found(T),
    /// The name or its records do not exist: the reason, with the servers.
    Denied(String),
}

struct Answer {
    endpoints: Vec<EndpointSpec>,
    ttl: Duration,
}

impl Dns {
    /// Returns the source of a target; `None` if the target is not a DNS name.
    pub fn of(target: &Target, resolver: Resolver, trouble: Arc<Notify>) -> Option<Dns> {
        let query = match target {
            Target::Host { host, port } => Query::host(host, *port, Scheme::Plain),
            Target::Tls(TlsHost::Name { host, port }) => Query::host(host, *port, Scheme::Tls),
            Target::Peer(PeerTarget { host: PeerHost::Name { host, port }, export }) => {
                Query::host(host, *port, Scheme::Peer(export.clone()))
            }
            Target::Srv { name } => Query::Srv { name: name.clone(), cache: SrvCache::default() },
            _ => return None,
        };
        Some(Dns { query, resolver, trouble, last_lookup: None, has_existed: false })
    }
}

impl Source for Dns {
    fn name(&self) -> String {
        self.query.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(error) => error,
        }
    }

    /// A container that is being recreated has no name meanwhile; and a long back-off must not delay the expiry of an answer.
    async fn retry_requested(&mut self) {
        let expires_at = self.query.expires_at(&self.resolver.limits);
        tokio::select! {
            () = self.trouble.notified() => {}
            () = sleep_until(expires_at.unwrap_or_else(Instant::now)), if expires_at.is_some() => {}
        }
    }
}

impl Dns {
    async fn follow(&mut self, publisher: &mut Publisher) -> Result<Infallible, SourceError> {
        let mut is_first = true;
        let mut absent = Backoff::new(ABSENT_RETRY_MIN, ABSENT_RETRY_MAX);
        loop {
            self.wait_for_min_interval().await;
            let outcome = match std::mem::take(&mut is_first) {
                true => self.first_lookup(publisher).await?,
                false => self.query.resolve(&self.resolver).await,
            };
            let (endpoints, problem, pause) = match outcome {
                Ok(Outcome::Found(Answer { endpoints, ttl })) => {
                    self.has_existed = true;
                    absent.reset();
                    (endpoints, None, self.resolver.limits.pause(ttl))
                }
                Ok(Outcome::Denied(why)) if !self.has_existed => (Vec::new(), Some(why), absent.next_pause()),
                // A server that has just restarted may have an empty zone at first.
                Ok(Outcome::Denied(why)) | Err(why) => return Err(self.failed(why, publisher).await),
            };
            publisher.answered().record();
            publisher.publish_changed(self.query.snapshot(endpoints, problem)).await?;
            super::pause(pause, TTL_FLOOR, self.trouble.notified()).await;
        }
    }

    /// Looks up the name for the first time in this run, and reports servers that do not answer before the lookup has failed.
    async fn first_lookup(
        &mut self,
        publisher: &mut Publisher,
    ) -> Result<Result<Outcome<Answer>, String>, Stopped> {
        let mut lookup = pin!(self.query.resolve(&self.resolver));
        if let Ok(outcome) = timeout(SILENCE_MAX, &mut lookup).await {
            return Ok(outcome);
        }
        publisher.lost(format!("no answer (asked {})", self.resolver.shown())).await?;
        Ok(lookup.await)
    }

    /// Waits until the next lookup is allowed; the first back-offs are shorter than the interval.
    async fn wait_for_min_interval(&mut self) {
        if let Some(last) = self.last_lookup {
            sleep_until(last + self.query.min_interval()).await;
        }
        self.last_lookup = Some(Instant::now());
    }

    /// Returns the error of a failed lookup, after expiring what is too old.
    async fn failed(&mut self, why: String, publisher: &mut Publisher) -> SourceError {
        let endpoints = self.query.unexpired(&self.resolver.limits, Instant::now());
        let problem = endpoints.is_empty().then(|| why.clone());
        match publisher.expire(self.query.snapshot(endpoints, problem)).await {
            Ok(()) => SourceError::Failed(why),
            Err(stopped) => stopped.into(),
        }
    }
}

impl Query {
    fn host(host: &str, port: u16, scheme: Scheme) -> Query {
        Query::Host { host: host.to_owned(), port, scheme, cache: Families::default() }
    }

    /// Looks up the name. Fails if no server answers.
    async fn resolve(&mut self, resolver: &Resolver) -> Result<Outcome<Answer>, String> {
        match self {
            Query::Srv { name, cache } => cache.resolve(name, resolver).await,
            Query::Host { host, cache, .. } => {
                cache.expire(&resolver.limits, Instant::now());
                match resolver.lookup(host, cache).await? {
                    Outcome::Denied(why) => {
                        cache.deny(Instant::now());
                        Ok(Outcome::Denied(why))
                    }
                    Outcome::Found(found) => {
                        *cache = found.families;
                        Ok(Outcome::Found(Answer { endpoints: self.endpoints(), ttl: found.ttl }))
                    }
                }
            }
        }
    }

    /// Returns the endpoints of the last answer that have not expired.
    fn unexpired(&mut self, limits: &Limits, now: Instant) -> Vec<EndpointSpec> {
        match self {
            Query::Host { cache, .. } => cache.expire(limits, now),
            Query::Srv { cache, .. } => cache.expire(limits, now),
        }
        self.endpoints()
    }

    fn endpoints(&self) -> Vec<EndpointSpec> {
        match self {
            Query::Srv { cache, .. } => cache.endpoints(),
            Query::Host { host, port, scheme, cache } => {
                let endpoint = |ip| {
                    let addr = EndpointAddr::of_host(SocketAddr::new(ip, *port), host, scheme);
                    EndpointSpec::new(addr, Identity::Name(host.clone()))
                };
                cache.addresses().into_iter().map(endpoint).collect()
            }
        }
    }

    /// Returns the shortest time between two lookups.
    fn min_interval(&self) -> Duration {
        match self {
            Query::Host { .. } => TTL_FLOOR,
            Query::Srv { cache, .. } => cache.min_interval(),
        }
    }

    /// Returns when the first endpoint expires.
    fn expires_at(&self, limits: &Limits) -> Option<Instant> {
        match self {
            Query::Host { cache, .. } => cache.expires_at(limits),
            Query::Srv { cache, .. } => cache.expires_at(limits),
        }
    }

    fn target(&self) -> Target {
        match self {
            Query::Host { host, port, scheme, .. } => {
                let (host, port) = (host.clone(), *port);
                match scheme {
                    Scheme::Plain => Target::Host { host, port },
                    Scheme::Tls => Target::Tls(TlsHost::Name { host, port }),
                    Scheme::Peer(export) => Target::Peer(PeerTarget {
                        host: PeerHost::Name { host, port },
                        export: export.clone(),
                    }),
                }
            }
            Query::Srv { name, .. } => Target::Srv { name: name.clone() },
        }
    }

    fn snapshot(&self, endpoints: Vec<EndpointSpec>, problem: Option<String>) -> Snapshot {
        Snapshot::Target { target: self.target(), endpoints, problem }
    }
}

impl Resolver {
    /// Returns a resolver with the system's servers, search domains and hosts file. Each is read again when it changes: Docker
    /// rewrites both files when a container joins its first network.
    pub fn from_system() -> Resolver {
        Resolver::new(system::Origin::File(PathBuf::from("/etc/resolv.conf")), PathBuf::from("/etc/hosts"))
    }

    /// Returns a resolver with these servers, search domains and hosts file.
    pub fn with_servers(servers: Vec<SocketAddr>, search: Vec<String>, hosts: PathBuf) -> Resolver {
        let settings = system::Settings { servers, search, ..system::Settings::default() };
        Resolver::new(system::Origin::Fixed(settings), hosts)
    }
}

/// Fuzz target: reads a `resolv.conf`, or a hosts file.
#[doc(hidden)]
pub fn read_any(text: &str) {
    let settings = system::Settings::parse(text);
    let _ = settings.names("redis");
    let _ = hosts::addresses(text, "redis");
}

/// Fuzz target: reads a server's answer, as received from the network.
#[doc(hidden)]
pub fn read_any_answer(bytes: &[u8]) {
    lookup::read_any(bytes);
}

#[cfg(test)]
mod tests;
