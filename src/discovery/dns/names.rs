//! The addresses of several names, each asked for again when its TTL has passed: for sources whose endpoints are names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use super::lookup::Found;
use super::memory::Families;
use super::{ABSENT_RETRY_MAX, Resolver};

/// A name that has no address, and servers that do not answer, are asked again after so long.
const RETRY: Duration = ABSENT_RETRY_MAX;

type Lookup = BoxFuture<'static, (String, Result<Option<Found>, String>)>;

/// Names that one source may want: each is asked for by itself, for ever.
pub(crate) const NAMES_MAX: usize = 256;

pub(crate) struct Names {
    resolver: Resolver,
    /// Empty until it has an address; what it had last stands while it has none, until that is stale.
    known: BTreeMap<String, Families>,
    /// One for each name that is wanted, and one for each that was until it ends.
    lookups: FuturesUnordered<Lookup>,
    asked: BTreeSet<String>,
}

impl Names {
    pub(crate) fn new(resolver: Resolver) -> Names {
        Names { resolver, known: BTreeMap::new(), lookups: FuturesUnordered::new(), asked: BTreeSet::new() }
    }

    /// These, and no longer any other.
    pub(crate) fn want(&mut self, names: &BTreeSet<String>) {
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            self.known.entry(name.clone()).or_default();
            if self.asked.insert(name.clone()) {
                self.ask(name.clone(), Families::default(), Duration::ZERO);
            }
        }
    }

    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.known.get(name).map(Families::addresses).unwrap_or_default()
    }

    /// Returns when a name has other addresses than before; waits for ever while none is wanted. May be dropped and
    /// called again without losing anything.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.lookups.next().await {
                Some((name, found)) => {
                    if self.found(name, found) {
                        return;
                    }
                }
                None => std::future::pending::<()>().await,
            }
        }
    }

    fn found(&mut self, name: String, found: Result<Option<Found>, String>) -> bool {
        let Some(known) = self.known.get_mut(&name) else {
            self.asked.remove(&name);
            return false;
        };
        let before = known.addresses();
        known.forget_stale(&self.resolver.limits, Instant::now());
        let pause = match found {
            Ok(Some(Found { families, ttl })) => {
                *known = families;
                self.resolver.limits.pause(ttl)
            }
            Ok(None) => RETRY,
            Err(why) => {
                tracing::debug!(name, why, "a name cannot be looked up; the addresses it had stand");
                RETRY
            }
        };
        let changed = known.addresses() != before;
        let last = known.clone();
        self.ask(name, last, pause);
        changed
    }

    fn ask(&self, name: String, last: Families, pause: Duration) {
        let resolver = self.resolver.clone();
        let lookup = async move {
            sleep(pause).await;
            let found = resolver.lookup(&name, &last).await;
            (name, found)
        };
        self.lookups.push(lookup.boxed());
    }
}
