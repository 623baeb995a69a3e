//! SRV records (RFC 2782): who offers a service, on which port, in which order.
//!
//! A priority is a tier and a weight is a weight. A weight of 0 is 1 here, which gives it exactly the share that the RFC's
//! own way of choosing does: 1 of (the sum of the weights + 1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::lookup::Found;
use super::memory::{Families, Limits};
use super::{Resolver, Said};
use crate::cluster::{EndpointAddr, EndpointKey, EndpointSpec, Identity};

/// Of one name; an answer over TCP could hold two thousand.
const HOSTS_MAX: usize = 256;

/// Lookups under way at once: enough to hide their latency, few enough not to be a burst to the server.
const LOOKUPS_MAX: usize = 16;

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
}

impl Hosts {
    /// Who offers the service now. `None`: nobody, and nobody says so. An error leaves what was known as it was.
    pub(super) async fn ask(&mut self, name: &str, resolver: &Resolver) -> Result<Option<Said>, String> {
        let Some(services) = resolver.services(name).await? else { return Ok(None) };
        let hosts = hosts(&services.offers);
        let mut told = self.told.clone();
        told.retain(|host, _| hosts.contains(host));
        forget_stale(&mut told, &resolver.limits, Instant::now());
        let (found, failure) = resolve(&hosts, &services, &told, resolver).await;
        let ttl = found.values().map(|found| found.ttl).min().unwrap_or(services.ttl).min(services.ttl);
        told.extend(found.into_iter().map(|(host, found)| (host, found.families)));
        let asked = Hosts { offers: services.offers, told };
        let endpoints = asked.endpoints();
        match failure {
            Some(why) if endpoints.is_empty() => Err(format!("{name}: {why}")),
            _ => {
                *self = asked;
                Ok(Some(Said { endpoints, ttl }))
            }
        }
    }

    pub(super) fn forget_stale(&mut self, limits: &Limits, now: Instant) {
        forget_stale(&mut self.told, limits, now);
    }

    pub(super) fn stale_at(&self, limits: &Limits) -> Option<Instant> {
        self.told.values().filter_map(|families| families.stale_at(limits)).min()
    }

    /// By what is known.
    pub(super) fn endpoints(&self) -> Vec<EndpointSpec> {
        endpoints(&self.offers, |host| self.told.get(host).map(Families::addresses))
    }
}

fn forget_stale(told: &mut BTreeMap<String, Families>, limits: &Limits, now: Instant) {
    told.values_mut().for_each(|families| families.forget_stale(limits, now));
}

/// The hosts that could be resolved, and why another could not.
async fn resolve(
    hosts: &BTreeSet<String>,
    services: &Services,
    told: &BTreeMap<String, Families>,
    resolver: &Resolver,
) -> (BTreeMap<String, Found>, Option<String>) {
    let none = Families::default();
    let lookups: Vec<BoxFuture<'_, _>> = hosts
        .iter()
        .map(|host| {
            let last = told.get(host).unwrap_or(&none);
            let unasked = services.additional.get(host).cloned();
            let ask = async move {
                match unasked {
                    Some(found) => (host, Ok(Some(found))),
                    None => (host, resolver.lookup(host, last).await),
                }
            };
            ask.boxed()
        })
        .collect();
    let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS_MAX);
    let (mut all, mut failure) = (BTreeMap::new(), None);
    while let Some((host, found)) = lookups.next().await {
        match found {
            Ok(Some(found)) => {
                all.insert(host.clone(), found);
            }
            Ok(None) => failure = Some(format!("{host} has no address")),
            Err(why) => failure = Some(why),
        }
    }
    (all, failure)
}

/// Those to look up, the first by priority.
fn hosts(offers: &[Offer]) -> BTreeSet<String> {
    let mut offers: Vec<&Offer> = offers.iter().filter(|offer| offer.host != ".").collect();
    offers.sort_by_key(|offer| (offer.priority, &offer.host));
    offers.into_iter().map(|offer| offer.host.clone()).take(HOSTS_MAX).collect()
}

/// Every address of a host, on the port and with the weight of its record. Two records that mean the same address mean it
/// once, in the better of their tiers.
fn endpoints(offers: &[Offer], addresses: impl Fn(&str) -> Option<Vec<IpAddr>>) -> Vec<EndpointSpec> {
    let mut endpoints: BTreeMap<EndpointKey, EndpointSpec> = BTreeMap::new();
    for Offer { priority, weight, port, host } in offers.iter().filter(|offer| offer.port != 0) {
        for ip in addresses(host).unwrap_or_default() {
            let addr = EndpointAddr::Inet(SocketAddr::new(ip, *port));
            let identity = Identity::Name(host.trim_end_matches('.').to_owned());
            let key = EndpointKey { addr, identity };
            let tier = u32::from(*priority);
            let spec = EndpointSpec { key: key.clone(), weight: u32::from(*weight).max(1), tier };
            let best = endpoints.entry(key).or_insert_with(|| spec.clone());
            if spec.tier < best.tier {
                *best = spec;
            }
        }
    }
    endpoints.into_values().collect()
}

#[cfg(test)]
mod tests {
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
    fn no_more_hosts_are_looked_up_than_anybody_has_and_those_of_the_best_priority_are() {
        let many: Vec<Offer> = (0..2000).map(|n| offer(2000 - n, 1, 80, &format!("h{n}."))).collect();
        let hosts = hosts(&many);
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert!(hosts.contains("h1999.") && !hosts.contains("h0."));
    }
}
