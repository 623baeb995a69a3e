//! The addresses of several names, each looked up again after its TTL: for sources that list names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::cache::Families;
use super::records::Found;
use super::{ABSENT_RETRY_MAX, Outcome, Resolver};
use crate::config::dns::Limits;

/// The pause after a lookup that found no address or failed.
const RETRY: Duration = ABSENT_RETRY_MAX;

/// A name whose pause or lookup has ended.
enum NameEvent {
    /// The name is to be looked up again.
    Due(String),
    Found(String, Result<Outcome<Found>, String>),
}

/// Addresses of one name. An answer over TCP contains up to 6,400, and its server may be hostile: 256 names would have 1.6
/// million endpoints.
const ADDRESSES_MAX: usize = 1024;

/// Names of one source: each is looked up separately.
pub(crate) const NAMES_MAX: usize = 256;

/// The names of one source.
pub struct Names {
    resolver: Resolver,
    wanted: BTreeSet<String>,
    /// The last addresses of each name, until they expire. Those of a name that is not wanted any more are kept until its next
    /// lookup is due: it may be wanted again before.
    cached: BTreeMap<String, Families>,
    /// Why the last lookup of a name found no address.
    failures: BTreeMap<String, String>,
    /// One for each name in `cached`.
    events: FuturesUnordered<BoxFuture<'static, NameEvent>>,
}

impl Names {
    /// Returns an empty set of names; nothing is looked up.
    pub fn new(resolver: Resolver) -> Names {
        let (wanted, cached, failures) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Names { resolver, wanted, cached, failures, events: FuturesUnordered::new() }
    }

    /// Replaces the names to look up.
    pub fn want(&mut self, names: &BTreeSet<String>) {
        self.wanted.clone_from(names);
        for name in names {
            if !self.cached.contains_key(name) {
                self.cached.insert(name.clone(), Families::default());
                self.look_up(name.clone());
            }
        }
    }

    /// Returns the last addresses of a name, at most [`ADDRESSES_MAX`].
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut addresses = self.cached.get(name).map(Families::addresses).unwrap_or_default();
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// Returns the names that were looked up and have no address, each with the reason.
    pub fn without_address(&self) -> impl Iterator<Item = (&str, &str)> {
        let failures = self.failures.iter().filter(|(name, _)| {
            self.wanted.contains(*name)
                && self.cached.get(*name).is_none_or(|last| last.addresses().is_empty())
        });
        failures.map(|(name, why)| (name.as_str(), why.as_str()))
    }

    /// Completes when the addresses of a name have changed, or the reason why it has none; never while there are no names. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            match self.events.next().await {
                Some(NameEvent::Due(name)) if self.wanted.contains(&name) => self.look_up(name),
                Some(NameEvent::Due(name)) => {
                    self.cached.remove(&name);
                    self.failures.remove(&name);
                }
                Some(NameEvent::Found(name, found)) => {
                    if self.apply(name, found) {
                        return;
                    }
                }
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// Returns whether a name that is still wanted has other addresses, or another reason to have none.
    fn apply(&mut self, name: String, found: Result<Outcome<Found>, String>) -> bool {
        let (limits, now) = (self.resolver.limits, Instant::now());
        let cached = self.cached.entry(name.clone()).or_default();
        let (before, failure) = (cached.addresses(), self.failures.remove(&name));
        let pause = match found {
            Ok(Outcome::Found(Found { families, ttl })) => {
                *cached = families;
                limits.pause(ttl)
            }
            Ok(Outcome::Denied(why)) => {
                cached.deny(now);
                self.failures.insert(name.clone(), why);
                retry(cached, &limits, now)
            }
            Err(why) => {
                tracing::debug!(name, why, "name lookup failed; keeping its last addresses");
                self.failures.insert(name.clone(), why);
                retry(cached, &limits, now)
            }
        };
        let after = cached.addresses();
        let changed = after != before || after.is_empty() && self.failures.get(&name) != failure.as_ref();
        let is_wanted = self.wanted.contains(&name);
        self.events.push(sleep(pause).map(|()| NameEvent::Due(name)).boxed());
        changed && is_wanted
    }

    fn look_up(&self, name: String) {
        let resolver = self.resolver.clone();
        let mut last = self.cached.get(&name).cloned().unwrap_or_default();
        last.expire(&resolver.limits, Instant::now());
        let lookup = async move {
            let found = resolver.lookup(&name, &last).await;
            NameEvent::Found(name, found)
        };
        self.events.push(lookup.boxed());
    }
}

/// Drops expired addresses, and returns the pause before the next lookup.
fn retry(cached: &mut Families, limits: &Limits, now: Instant) -> Duration {
    cached.expire(limits, now);
    limits.retry(RETRY, cached, now)
}
