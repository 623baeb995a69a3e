//! The addresses of several names, each asked for again when its TTL has passed: for sources whose endpoints are names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::lookup::Found;
use super::memory::Families;
use super::{ABSENT_RETRY_MAX, Answer, Resolver};
use crate::config::dns::Limits;

/// A name that has no address, and servers that do not answer, are asked again after so long.
const RETRY: Duration = ABSENT_RETRY_MAX;

/// What happened to a name.
enum Event {
    /// It is time to ask for it again.
    Due(String),
    Found(String, Result<Answer<Found>, String>),
}

/// Of one name among many. An answer over TCP holds up to 6,400, and its server may be hostile: 256 names of so many
/// would be 1.6 million endpoints.
const ADDRESSES_MAX: usize = 1024;

/// Names that one source may want: each is asked for by itself, for ever.
pub(crate) const NAMES_MAX: usize = 256;

pub struct Names {
    resolver: Resolver,
    wanted: BTreeSet<String>,
    /// Empty until it has an address; the last addresses are kept until they are stale. Of a name that is no
    /// longer wanted, until it is time to ask for it again: it may be wanted again before.
    known: BTreeMap<String, Families>,
    /// One for each name that is known.
    events: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Names {
    pub fn new(resolver: Resolver) -> Names {
        let (wanted, known) = (BTreeSet::new(), BTreeMap::new());
        Names { resolver, wanted, known, events: FuturesUnordered::new() }
    }

    /// These, and no longer any other.
    pub fn want(&mut self, names: &BTreeSet<String>) {
        self.wanted.clone_from(names);
        for name in names {
            if !self.known.contains_key(name) {
                self.known.insert(name.clone(), Families::default());
                self.ask(name.clone());
            }
        }
    }

    /// At most [`ADDRESSES_MAX`].
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut addresses = self.known.get(name).map(Families::addresses).unwrap_or_default();
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// Returns when a name has other addresses than before; waits for ever while none is wanted. May be dropped and
    /// called again without losing anything.
    pub async fn changed(&mut self) {
        loop {
            match self.events.next().await {
                Some(Event::Due(name)) if self.wanted.contains(&name) => self.ask(name),
                Some(Event::Due(name)) => {
                    self.known.remove(&name);
                }
                Some(Event::Found(name, found)) => {
                    if self.found(name, found) {
                        return;
                    }
                }
                None => std::future::pending::<()>().await,
            }
        }
    }

    fn found(&mut self, name: String, found: Result<Answer<Found>, String>) -> bool {
        let (limits, now) = (self.resolver.limits, Instant::now());
        let known = self.known.entry(name.clone()).or_default();
        let before = known.addresses();
        let pause = match found {
            Ok(Answer::Has(Found { families, ttl })) => {
                *known = families;
                limits.pause(ttl)
            }
            Ok(Answer::Denied(_)) => {
                known.deny(now);
                retry(known, &limits, now)
            }
            Err(why) => {
                tracing::debug!(name, why, "name lookup failed; the last addresses are kept");
                retry(known, &limits, now)
            }
        };
        let changed = known.addresses() != before;
        let is_wanted = self.wanted.contains(&name);
        self.events.push(sleep(pause).map(|()| Event::Due(name)).boxed());
        changed && is_wanted
    }

    fn ask(&self, name: String) {
        let resolver = self.resolver.clone();
        let mut last = self.known.get(&name).cloned().unwrap_or_default();
        last.forget_stale(&resolver.limits, Instant::now());
        let lookup = async move {
            let found = resolver.lookup(&name, &last).await;
            Event::Found(name, found)
        };
        self.events.push(lookup.boxed());
    }
}

/// Forgets what is stale; returns how long to wait before the next lookup.
fn retry(known: &mut Families, limits: &Limits, now: Instant) -> Duration {
    known.forget_stale(limits, now);
    limits.retry(RETRY, known, now)
}
