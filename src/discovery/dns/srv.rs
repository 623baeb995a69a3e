//! SRV records (RFC 2782): who offers a service, on which port, in which order.
//!
//! A priority is a tier and a weight is a weight. A weight of 0 is 1 here, which gives it exactly the share that the RFC's
//! own way of choosing does: 1 of (the sum of the weights + 1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::lookup::Found;
use super::memory::{Denial, Families};
use super::{Answer, Resolver, Said};
use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity};
use crate::config::dns::{Limits, TTL_FLOOR};
use crate::discovery::ENDPOINTS_MAX;

/// Of one name; an answer over TCP could hold two thousand.
const HOSTS_MAX: usize = 256;

/// Lookups under way at once: enough to hide their latency, few enough not to be a burst to the server.
const LOOKUPS_MAX: usize = 16;

/// Lookups a second, on average, of the hosts of one name. Whoever answers for the name decides how many hosts it has and
/// that their TTL is 0.
const LOOKUPS_A_SECOND: usize = 64;

/// For the addresses of all hosts; those that are not looked up by then have failed.
const HOSTS_TIMEOUT: Duration = Duration::from_secs(15);

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// In lower case, with the dot at its end. The root, `.`, is the RFC's word for "not offered here".
    pub(super) host: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Services {
    /// At least one.
    pub(super) offers: Vec<Offer>,
    /// The hosts that the server gave the addresses of unasked.
    pub(super) additional: BTreeMap<String, Found>,
    pub(super) ttl: Duration,
}

/// Who offered the service, by the last answer, and the addresses of those hosts as they were told last.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    offers: Vec<Offer>,
    told: BTreeMap<String, Families>,
    denial: Denial,
    /// Hosts that were looked up for the last answer, whatever came of it.
    asked: usize,
}

/// What came of looking up the hosts of an answer.
#[derive(Default)]
struct Resolved {
    found: BTreeMap<String, Found>,
    /// With what the server answered.
    denied: BTreeMap<String, String>,
    /// Why one of the others could not be looked up.
    failure: Option<String>,
    /// Lookups that took a question to a server.
    asked: usize,
}

impl Hosts {
    /// Who offers the service now. An error leaves what was known as it was.
    pub(super) async fn ask(&mut self, name: &str, resolver: &Resolver) -> Result<Answer<Said>, String> {
        let services = match resolver.services(name).await? {
            Answer::Has(services) => services,
            Answer::Denied(why) => return Ok(self.denied(why)),
        };
        let hosts = hosts(&services.offers);
        let mut told = self.told.clone();
        told.retain(|host, _| hosts.contains(host));
        forget_stale(&mut told, &resolver.limits, Instant::now());
        let Resolved { found, denied, failure, asked } = resolve(&hosts, &services, &told, resolver).await;
        self.asked = asked;
        let ttl = found.values().map(|found| found.ttl).min().unwrap_or(services.ttl).min(services.ttl);
        told.extend(found.into_iter().map(|(host, found)| (host, found.families)));
        let now = Instant::now();
        for host in denied.keys() {
            let families = told.entry(host.clone()).or_default();
            families.deny(now);
            families.forget_stale(&resolver.limits, now);
        }
        let answered = Hosts { offers: services.offers, told, denial: Denial::default(), asked };
        let endpoints = answered.endpoints();
        match (failure, denied.first_key_value()) {
            (Some(why), _) if endpoints.is_empty() => Err(format!("{name}: {why}")),
            (None, Some((host, why))) if endpoints.is_empty() => Ok(self.denied(format!("{host}: {why}"))),
            _ => {
                *self = answered;
                Ok(Answer::Has(Said { endpoints, ttl }))
            }
        }
    }

    /// How long after it was asked for the name may be asked for again.
    pub(super) fn floor(&self) -> Duration {
        let seconds = self.asked.div_ceil(LOOKUPS_A_SECOND).max(1);
        TTL_FLOOR.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn denied(&mut self, why: String) -> Answer<Said> {
        self.denial.begin(Instant::now());
        Answer::Denied(why)
    }

    pub(super) fn forget_stale(&mut self, limits: &Limits, now: Instant) {
        forget_stale(&mut self.told, limits, now);
        if self.denial.is_over(limits, now) {
            *self = Hosts { asked: self.asked, ..Hosts::default() };
        }
    }

    pub(super) fn stale_at(&self, limits: &Limits) -> Option<Instant> {
        let first = self.told.values().filter_map(|families| families.stale_at(limits)).min()?;
        Some(self.denial.ends_at(limits).map_or(first, |at| at.min(first)))
    }

    /// By what is known.
    pub(super) fn endpoints(&self) -> Vec<EndpointSpec> {
        endpoints(&self.offers, |host| self.told.get(host).map(Families::addresses))
    }
}

fn forget_stale(told: &mut BTreeMap<String, Families>, limits: &Limits, now: Instant) {
    told.values_mut().for_each(|families| families.forget_stale(limits, now));
}

async fn resolve(
    hosts: &BTreeSet<String>,
    services: &Services,
    told: &BTreeMap<String, Families>,
    resolver: &Resolver,
) -> Resolved {
    let none = Families::default();
    let mut resolved = Resolved::default();
    let mut lookups: Vec<BoxFuture<'_, _>> = Vec::new();
    for host in hosts {
        match unasked(host, services, resolver) {
            Ok(Some(found)) => {
                resolved.found.insert(host.clone(), found);
            }
            Ok(None) => {
                let last = told.get(host).unwrap_or(&none);
                lookups.push(async move { (host, resolver.lookup(host, last).await) }.boxed());
            }
            Err(why) => resolved.failure = Some(why),
        }
    }
    resolved.asked = lookups.len();
    let until = Instant::now() + HOSTS_TIMEOUT;
    let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS_MAX);
    loop {
        match timeout_at(until, lookups.next()).await {
            Ok(Some((host, Ok(Answer::Has(found))))) => {
                resolved.found.insert(host.clone(), found);
            }
            Ok(Some((host, Ok(Answer::Denied(why))))) => {
                resolved.denied.insert(host.clone(), why);
            }
            Ok(Some((_, Err(why)))) => resolved.failure = Some(why),
            Ok(None) => return resolved,
            Err(_) => {
                resolved.failure = Some(format!("not all hosts were looked up in {HOSTS_TIMEOUT:?}"));
                return resolved;
            }
        }
    }
}

/// The addresses of a host without a question: by the hosts file, or as they came with the answer.
fn unasked(host: &str, services: &Services, resolver: &Resolver) -> Result<Option<Found>, String> {
    let pinned = resolver.pinned(host)?;
    Ok(pinned.or_else(|| services.additional.get(host).cloned()))
}

/// Those to look up, the first by priority.
fn hosts(offers: &[Offer]) -> BTreeSet<String> {
    let mut offers: Vec<&Offer> = offers.iter().filter(|offer| offer.host != ".").collect();
    offers.sort_by_key(|offer| (offer.priority, &offer.host));
    offers.into_iter().map(|offer| offer.host.clone()).take(HOSTS_MAX).collect()
}

/// Every address of a host, on the port and with the weight of its record. Two records that mean the same address mean it
/// once, in the better of their tiers. Stops one past [`ENDPOINTS_MAX`], which shows that there are more: three thousand
/// records of one host with six thousand addresses would be eighteen million.
fn endpoints(offers: &[Offer], addresses: impl Fn(&str) -> Option<Vec<IpAddr>>) -> Vec<EndpointSpec> {
    let mut endpoints: BTreeMap<EndpointKey, EndpointSpec> = BTreeMap::new();
    let mut offers: Vec<&Offer> = offers.iter().filter(|offer| offer.port != 0).collect();
    offers.sort_by_key(|offer| offer.priority);
    for Offer { priority, weight, port, host } in offers {
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

    fn offer(priority: u16, weight: u16, port: u16, host: &str) -> Offer {
        Offer { priority, weight, port, host: host.to_owned() }
    }

    /// As `ADDRESS tier weight`.
    fn check(offers: &[Offer], expected: &[&str]) {
        let addresses = |host: &str| match host {
            "one." => Some(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            "two." => Some(vec!["10.0.0.2".parse().unwrap()]),
            _ => None,
        };
        let shown = |spec: &EndpointSpec| format!("{} {} {}", spec.key.addr, spec.tier, spec.weight);
        assert_eq!(endpoints(offers, addresses).iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_priority_is_a_tier_and_every_address_has_the_records_weight() {
        check(
            &[offer(10, 60, 6379, "one."), offer(20, 5, 6380, "two.")],
            &["10.0.0.1:6379 10 60", "10.0.0.2:6380 20 5", "[fd00::1]:6379 10 60"],
        );
    }

    #[test]
    fn a_weight_of_zero_is_the_smallest_share_and_not_none() {
        check(&[offer(0, 0, 1, "two."), offer(0, 9, 2, "two.")], &["10.0.0.2:1 0 1", "10.0.0.2:2 0 9"]);
    }

    #[test]
    fn the_same_address_twice_is_once_in_the_better_tier() {
        check(&[offer(9, 1, 1, "two."), offer(3, 7, 1, "two."), offer(5, 1, 1, "two.")], &["10.0.0.2:1 3 7"]);
    }

    #[test]
    fn the_root_offers_nothing_and_port_zero_is_no_port() {
        let none = [offer(0, 0, 80, "."), offer(0, 0, 0, "two."), offer(0, 0, 80, "unknown.")];
        check(&none, &[]);
        assert_eq!(hosts(&none).into_iter().collect::<Vec<_>>(), ["two.", "unknown."]);
    }

    #[test]
    fn records_times_addresses_are_bounded() {
        let many: Vec<Offer> = (1..=3000).map(|port| offer(port % 7, 1, port, "one.")).collect();
        let addresses = |_: &str| Some((0..6000).map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))).collect());
        let found = endpoints(&many, addresses);
        assert_eq!(found.len(), ENDPOINTS_MAX + 1);
        assert!(found.iter().all(|spec| spec.tier == 0), "the best priority first");
    }

    #[test]
    fn a_name_with_many_hosts_is_asked_for_less_often() {
        for (asked, seconds) in [(0, 1), (64, 1), (65, 2), (HOSTS_MAX, 4)] {
            assert_eq!(Hosts { asked, ..Hosts::default() }.floor(), Duration::from_secs(seconds), "{asked}");
        }
    }

    #[test]
    fn no_more_hosts_are_looked_up_than_anybody_has_and_those_of_the_best_priority_are() {
        let many: Vec<Offer> = (0..2000).map(|n| offer(2000 - n, 1, 80, &format!("h{n}."))).collect();
        let hosts = hosts(&many);
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert!(hosts.contains("h1999.") && !hosts.contains("h0."));
    }
}
