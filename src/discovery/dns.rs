//! DNS names as sources: the addresses of a host, or the SRV records of a service, asked for again when their TTL has
//! passed.
//!
//! ```text
//!   ask ──addresses──► publish ──► rest for the TTL ──► ask
//!    ├──none yet──► publish none ──► rest a little ──► ask
//!    ├──none any more──► lost: the last answer is kept ──nx_stale──► ask ──the same──► it expires
//!    └──no answer──► lost, at the first lookup after 2 s already: the last answer is kept ──stale──► ask ──the same──► it expires
//! ```

mod hosts;
mod lookup;
mod memory;
mod names;
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
use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::config::dns::{Limits, TTL_FLOOR};
use crate::route::Target;
pub use lookup::{Asking, Resolver};
use memory::Families;
pub(crate) use names::NAMES_MAX;
pub use names::Names;
use srv::Hosts;

/// A name that does not exist yet usually belongs to a service that is about to start.
const ABSENT_RETRY_MIN: Duration = Duration::from_secs(1);
const ABSENT_RETRY_MAX: Duration = Duration::from_secs(5);

/// How long servers may be silent at the first lookup of a name before they are reported. A lookup that fails takes up to 15 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// One name, followed.
pub struct Dns {
    question: Question,
    resolver: Resolver,
    /// Notified while sessions find no endpoint that answers: then a name is asked for again after [`TTL_FLOOR`],
    /// whatever its TTL. Docker's DNS gives a recreated container's old address ten minutes.
    trouble: Arc<Notify>,
    /// When it was asked for last.
    asked: Option<Instant>,
    /// Whether it ever had an address.
    answered: bool,
    /// What was published last, but for what has expired since.
    standing: Vec<EndpointSpec>,
    /// Published with it.
    problem: Option<String>,
}

/// What is asked, and what was answered last, which outlives a run that fails.
enum Question {
    /// DNS tells addresses alone; the port is the target's.
    Host {
        host: String,
        port: u16,
        last: Families,
    },
    Srv {
        name: String,
        last: Hosts,
    },
}

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer<T> {
    Has(T),
    /// There is no such name, or it has no such record: which, in words, and the servers that were asked.
    Denied(String),
}

struct Said {
    endpoints: Vec<EndpointSpec>,
    ttl: Duration,
}

impl Dns {
    /// `None` for a target that is no DNS name.
    pub fn of(target: &Target, resolver: Resolver, trouble: Arc<Notify>) -> Option<Dns> {
        let question = match target {
            Target::Host { host, port } => {
                Question::Host { host: host.clone(), port: *port, last: Families::default() }
            }
            Target::Srv { name } => Question::Srv { name: name.clone(), last: Hosts::default() },
            _ => return None,
        };
        Some(Dns {
            question,
            resolver,
            trouble,
            asked: None,
            answered: false,
            standing: Vec::new(),
            problem: None,
        })
    }
}

impl Source for Dns {
    fn name(&self) -> String {
        self.question.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(error) => error,
        }
    }

    /// A container that is made anew has no name in between. And what is stale shall not stand until a long back-off is
    /// over.
    async fn retry_requested(&mut self) {
        let stale_at = self.question.stale_at(&self.resolver.limits);
        tokio::select! {
            () = self.trouble.notified() => {}
            () = sleep_until(stale_at.unwrap_or_else(Instant::now)), if stale_at.is_some() => {}
        }
    }
}

impl Dns {
    async fn follow(&mut self, publisher: &mut Publisher) -> Result<Infallible, SourceError> {
        let mut is_told = false;
        let mut absent_retry = ABSENT_RETRY_MIN;
        loop {
            self.breathe().await;
            let answer = match is_told {
                true => self.question.ask(&self.resolver).await,
                false => self.ask_first(publisher).await?,
            };
            let (endpoints, problem, pause) = match answer {
                Ok(Answer::Has(Said { endpoints, ttl })) => {
                    self.answered = true;
                    absent_retry = ABSENT_RETRY_MIN;
                    (endpoints, None, self.resolver.limits.pause(ttl))
                }
                Ok(Answer::Denied(why)) if !self.answered => {
                    let pause = absent_retry;
                    absent_retry = (absent_retry * 2).min(ABSENT_RETRY_MAX);
                    (Vec::new(), Some(why), pause)
                }
                // What it had may be what it has again in a moment: a server that restarts has an empty zone at first.
                Ok(Answer::Denied(why)) | Err(why) => return Err(self.failed(why, publisher).await),
            };
            // The same again is news to those who were told that it is lost.
            if !is_told || self.standing != endpoints || self.problem != problem {
                publisher.publish(self.snapshot(endpoints, problem)).await?;
                is_told = true;
            }
            super::pause(pause, TTL_FLOOR, self.trouble.notified()).await;
        }
    }

    /// While nothing is known of the name, reports servers that are silent before the lookup has failed.
    async fn ask_first(
        &mut self,
        publisher: &mut Publisher,
    ) -> Result<Result<Answer<Said>, String>, Stopped> {
        let mut answer = pin!(self.question.ask(&self.resolver));
        if let Ok(answer) = timeout(SILENCE_MAX, &mut answer).await {
            return Ok(answer);
        }
        publisher.lost(format!("no answer (asked {})", self.resolver.shown())).await?;
        Ok(answer.await)
    }

    /// Remembers what is published.
    fn snapshot(&mut self, endpoints: Vec<EndpointSpec>, problem: Option<String>) -> Snapshot {
        self.standing.clone_from(&endpoints);
        self.problem.clone_from(&problem);
        Snapshot::Target { target: self.question.target(), endpoints, problem }
    }

    /// A back-off begins shorter than the floor.
    async fn breathe(&mut self) {
        if let Some(asked) = self.asked {
            sleep_until(asked + self.question.floor()).await;
        }
        self.asked = Some(Instant::now());
    }

    /// What was said last stands, but not for ever.
    async fn failed(&mut self, why: String, publisher: &mut Publisher) -> SourceError {
        let believed = self.question.believed(&self.resolver.limits, Instant::now());
        if self.standing != believed {
            let problem = believed.is_empty().then(|| why.clone());
            if let Err(stopped) = publisher.expire(self.snapshot(believed, problem)).await {
                return stopped.into();
            }
        }
        SourceError::Failed(why)
    }
}

impl Question {
    /// An error is that no server could answer.
    async fn ask(&mut self, resolver: &Resolver) -> Result<Answer<Said>, String> {
        match self {
            Question::Srv { name, last } => last.ask(name, resolver).await,
            Question::Host { host, last, .. } => {
                last.forget_stale(&resolver.limits, Instant::now());
                match resolver.lookup(host, last).await? {
                    Answer::Denied(why) => {
                        last.deny(Instant::now());
                        Ok(Answer::Denied(why))
                    }
                    Answer::Has(found) => {
                        *last = found.families;
                        Ok(Answer::Has(Said { endpoints: self.endpoints(), ttl: found.ttl }))
                    }
                }
            }
        }
    }

    /// By what was answered last and is not stale.
    fn believed(&mut self, limits: &Limits, now: Instant) -> Vec<EndpointSpec> {
        match self {
            Question::Host { last, .. } => last.forget_stale(limits, now),
            Question::Srv { last, .. } => last.forget_stale(limits, now),
        }
        self.endpoints()
    }

    fn endpoints(&self) -> Vec<EndpointSpec> {
        match self {
            Question::Srv { last, .. } => last.endpoints(),
            Question::Host { host, port, last } => {
                let endpoint = |ip| {
                    let addr = EndpointAddr::Inet(SocketAddr::new(ip, *port));
                    EndpointSpec::new(addr, Identity::Name(host.clone()))
                };
                last.addresses().into_iter().map(endpoint).collect()
            }
        }
    }

    /// From one lookup to the next, at least.
    fn floor(&self) -> Duration {
        match self {
            Question::Host { .. } => TTL_FLOOR,
            Question::Srv { last, .. } => last.floor(),
        }
    }

    /// When the first of it is.
    fn stale_at(&self, limits: &Limits) -> Option<Instant> {
        match self {
            Question::Host { last, .. } => last.stale_at(limits),
            Question::Srv { last, .. } => last.stale_at(limits),
        }
    }

    fn target(&self) -> Target {
        match self {
            Question::Host { host, port, .. } => Target::Host { host: host.clone(), port: *port },
            Question::Srv { name, .. } => Target::Srv { name: name.clone() },
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

/// What the fuzz targets feed: a `resolv.conf`, or a hosts file.
#[doc(hidden)]
pub fn read_any(text: &str) {
    let settings = system::Settings::parse(text);
    let _ = settings.names("redis");
    let _ = hosts::addresses(text, "redis");
}

/// The same: a server's answer, as it comes over the network.
#[doc(hidden)]
pub fn read_any_answer(bytes: &[u8]) {
    lookup::read_any(bytes);
}

#[cfg(test)]
mod tests;
