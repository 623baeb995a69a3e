//! SRV records (RFC 2782): the hosts of a service, with port, priority and weight.
//!
//! A priority is a tier. A weight of 0 becomes 1, which gives the record exactly the share of the RFC's algorithm: 1 of (the sum
//! of the weights + 1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::cache::{Denial, Families};
use super::records::{Found, SrvAnswer, SrvRecord};
use super::{Answer, Outcome, Resolver};
use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity};
use crate::config::dns::{Limits, TTL_FLOOR};
use crate::discovery::ENDPOINTS_MAX;
use crate::ordered::CollectOrdered;

/// Hosts of one name; an answer over TCP may have 2,000.
const HOSTS_MAX: usize = 256;

/// Concurrent lookups: enough to hide their latency, few enough not to be a burst to the server.
const LOOKUPS_MAX: usize = 16;

/// Lookups per second, on average, of the hosts of one name, whose number and TTL the server chooses.
const LOOKUPS_A_SECOND: usize = 64;

/// The time limit for the addresses of all hosts; lookups that are not complete by then have failed.
const HOSTS_TIMEOUT: Duration = Duration::from_secs(15);

/// The last SRV records of a name, and the last addresses of their hosts.
#[derive(Debug, Default)]
pub(super) struct SrvCache {
    records: Vec<SrvRecord>,
    addresses: BTreeMap<String, Families>,
    denial: Denial,
    /// The number of hosts that were looked up for the last answer.
    lookups: usize,
}

/// The results for the hosts of an answer.
#[derive(Default)]
struct Resolved {
    found: BTreeMap<String, Found>,
    /// With the reason.
    denied: BTreeMap<String, String>,
    /// Why the lookup of another host failed.
    failure: Option<String>,
    /// The number of lookups that queried a server.
    lookups: usize,
}

impl SrvCache {
    /// Looks up the service. After an error, the cache is unchanged.
    pub(super) async fn resolve(
        &mut self,
        name: &str,
        resolver: &Resolver,
    ) -> Result<Outcome<Answer>, String> {
        let answer = match resolver.srv(name).await? {
            Outcome::Found(answer) => answer,
            Outcome::Denied(why) => return Ok(self.denied(why)),
        };
        let hosts = hosts(&answer.records);
        let mut cached = self.addresses.clone();
        cached.retain(|host, _| hosts.contains(host));
        expire(&mut cached, &resolver.limits, Instant::now());
        let Resolved { found, denied, failure, lookups } = resolve(&hosts, &answer, &cached, resolver).await;
        self.lookups = lookups;
        let ttl = found.values().map(|found| found.ttl).min().unwrap_or(answer.ttl).min(answer.ttl);
        cached.extend(found.into_iter().map(|(host, found)| (host, found.families)));
        let now = Instant::now();
        for host in denied.keys() {
            let families = cached.entry(host.clone()).or_default();
            families.deny(now);
            families.expire(&resolver.limits, now);
        }
        let new = SrvCache { records: answer.records, addresses: cached, denial: Denial::default(), lookups };
        let endpoints = new.endpoints();
        match (failure, denied.first_key_value()) {
            (Some(why), _) if endpoints.is_empty() => Err(format!("{name}: {why}")),
            (None, Some((host, why))) if endpoints.is_empty() => Ok(self.denied(format!("{host}: {why}"))),
            _ => {
                *self = new;
                Ok(Outcome::Found(Answer { endpoints, ttl }))
            }
        }
    }

    /// Returns the shortest time between two lookups of the name.
    pub(super) fn min_interval(&self) -> Duration {
        let seconds = self.lookups.div_ceil(LOOKUPS_A_SECOND).max(1);
        TTL_FLOOR.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn denied(&mut self, why: String) -> Outcome<Answer> {
        self.denial.begin(Instant::now());
        Outcome::Denied(why)
    }

    pub(super) fn expire(&mut self, limits: &Limits, now: Instant) {
        expire(&mut self.addresses, limits, now);
        if self.denial.is_over(limits, now) {
            *self = SrvCache { lookups: self.lookups, ..SrvCache::default() };
        }
    }

    pub(super) fn expires_at(&self, limits: &Limits) -> Option<Instant> {
        let first = self.addresses.values().filter_map(|families| families.expires_at(limits)).min()?;
        Some(self.denial.ends_at(limits).map_or(first, |at| at.min(first)))
    }

    /// Returns the endpoints by the cached records and addresses.
    pub(super) fn endpoints(&self) -> Vec<EndpointSpec> {
        endpoints(&self.records, |host| self.addresses.get(host).map(Families::addresses))
    }
}

fn expire(cached: &mut BTreeMap<String, Families>, limits: &Limits, now: Instant) {
    cached.values_mut().for_each(|families| families.expire(limits, now));
}

async fn resolve(
    hosts: &BTreeSet<String>,
    answer: &SrvAnswer,
    cached: &BTreeMap<String, Families>,
    resolver: &Resolver,
) -> Resolved {
    let none = Families::default();
    let mut resolved = Resolved::default();
    let mut lookups: Vec<BoxFuture<'_, _>> = Vec::new();
    for host in hosts {
        match without_query(host, answer, resolver) {
            Ok(Some(found)) => {
                resolved.found.insert(host.clone(), found);
            }
            Ok(None) => {
                let last = cached.get(host).unwrap_or(&none);
                lookups.push(async move { (host, resolver.lookup(host, last).await) }.boxed());
            }
            Err(why) => resolved.failure = Some(why),
        }
    }
    resolved.lookups = lookups.len();
    let until = Instant::now() + HOSTS_TIMEOUT;
    let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS_MAX);
    loop {
        match timeout_at(until, lookups.next()).await {
            Ok(Some((host, Ok(Outcome::Found(found))))) => {
                resolved.found.insert(host.clone(), found);
            }
            Ok(Some((host, Ok(Outcome::Denied(why))))) => {
                resolved.denied.insert(host.clone(), why);
            }
            Ok(Some((_, Err(why)))) => resolved.failure = Some(why),
            Ok(None) => return resolved,
            Err(_) => {
                resolved.failure = Some(format!("not all hosts were looked up within {HOSTS_TIMEOUT:?}"));
                return resolved;
            }
        }
    }
}

/// Returns the addresses of a host that needs no query: those of the hosts file, or of the answer's additional section.
fn without_query(host: &str, answer: &SrvAnswer, resolver: &Resolver) -> Result<Option<Found>, String> {
    let pinned = resolver.pinned(host)?;
    Ok(pinned.or_else(|| answer.additional.get(host).cloned()))
}

/// Returns the hosts to look up, by priority up to [`HOSTS_MAX`].
fn hosts(records: &[SrvRecord]) -> BTreeSet<String> {
    let mut records: Vec<&SrvRecord> = records.iter().filter(|record| record.host != ".").collect();
    records.sort_unstable_by_key(|record| (record.priority, &record.host));
    records.into_iter().map(|record| record.host.clone()).take(HOSTS_MAX).collect_ordered()
}

/// Returns every address of each host, with the port and weight of its record. An address of several records is used once, in the
/// lowest tier. Ends one past [`ENDPOINTS_MAX`], which shows that there are more: 3,000 records of one host with 6,000 addresses
/// would be 18 million.
fn endpoints(records: &[SrvRecord], addresses: impl Fn(&str) -> Option<Vec<IpAddr>>) -> Vec<EndpointSpec> {
    let mut endpoints: BTreeMap<EndpointKey, EndpointSpec> = BTreeMap::new();
    let mut records: Vec<&SrvRecord> = records.iter().filter(|record| record.port != 0).collect();
    records.sort_by_key(|record| record.priority);
    for SrvRecord { priority, weight, port, host } in records {
        for ip in addresses(host).unwrap_or_default() {
            if endpoints.len() > ENDPOINTS_MAX {
                break;
            }
            let addr = EndpointAddr::Inet(SocketAddr::new(ip, *port));
            let identity = Identity::Name(host.trim_end_matches('.').to_owned());
            let key = EndpointKey { addr, identity };
            let (weight, tier) = (u32::from(*weight).max(1), u32::from(*priority));
            endpoints.entry(key.clone()).or_insert(EndpointSpec { key, weight, tier });
        }
    }
    endpoints.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn record(priority: u16, weight: u16, port: u16, host: &str) -> SrvRecord {
        SrvRecord { priority, weight, port, host: host.to_owned() }
    }

    /// As `ADDRESS tier weight`.
    fn check(records: &[SrvRecord], expected: &[&str]) {
        let addresses = |host: &str| match host {
            "one." => Some(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            "two." => Some(vec!["10.0.0.2".parse().unwrap()]),
            _ => None,
        };
        let shown = |spec: &EndpointSpec| format!("{} {} {}", spec.key.addr, spec.tier, spec.weight);
        assert_eq!(endpoints(records, addresses).iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn priority_is_the_tier_and_every_address_has_the_weight() {
        check(
            &[record(10, 60, 6379, "one."), record(20, 5, 6380, "two.")],
            &["10.0.0.1:6379 10 60", "10.0.0.2:6380 20 5", "[fd00::1]:6379 10 60"],
        );
    }

    #[test]
    fn weight_zero_is_the_smallest_share() {
        check(&[record(0, 0, 1, "two."), record(0, 9, 2, "two.")], &["10.0.0.2:1 0 1", "10.0.0.2:2 0 9"]);
    }

    #[test]
    fn duplicate_address_is_used_once_in_the_lowest_tier() {
        check(
            &[record(9, 1, 1, "two."), record(3, 7, 1, "two."), record(5, 1, 1, "two.")],
            &["10.0.0.2:1 3 7"],
        );
    }

    #[test]
    fn root_and_port_zero_are_not_endpoints() {
        let none = [record(0, 0, 80, "."), record(0, 0, 0, "two."), record(0, 0, 80, "unknown.")];
        check(&none, &[]);
        assert_eq!(hosts(&none).into_iter().collect::<Vec<_>>(), ["two.", "unknown."]);
    }

    #[test]
    fn records_times_addresses_are_limited() {
        let many: Vec<SrvRecord> = (1..=3000).map(|port| record(port % 7, 1, port, "one.")).collect();
        let addresses = |_: &str| Some((0..6000).map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))).collect());
        let found = endpoints(&many, addresses);
        assert_eq!(found.len(), ENDPOINTS_MAX + 1);
        assert!(found.iter().all(|spec| spec.tier == 0), "the best priority first");
    }

    #[test]
    fn name_with_many_hosts_is_queried_less_often() {
        for (lookups, seconds) in [(0, 1), (64, 1), (65, 2), (HOSTS_MAX, 4)] {
            assert_eq!(
                SrvCache { lookups, ..SrvCache::default() }.min_interval(),
                Duration::from_secs(seconds),
                "{lookups}"
            );
        }
    }

    #[test]
    fn hosts_are_limited_to_those_of_the_lowest_priorities() {
        let many: Vec<SrvRecord> = (0..2000).map(|n| record(2000 - n, 1, 80, &format!("h{n}."))).collect();
        let hosts = hosts(&many);
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert!(hosts.contains("h1999.") && !hosts.contains("h0."));
    }
}
