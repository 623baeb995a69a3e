//! What is asked of Consul, and its answers, read leniently into our own words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity, WEIGHT_MAX};
use crate::discovery::dns::NAMES_MAX;
use crate::discovery::http::{Element, Loose, percent_encoded};
use crate::route::ConsulService;

/// More than anybody balances over.
const INSTANCES_MAX: usize = 16_384;
/// Goes to logs and to `status`.
const ID_MAX: usize = 200;

/// One that passes its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Of the service, on its node.
    id: String,
    /// An address, or a name.
    host: String,
    port: u16,
    weight: u32,
}

/// `GET /v1/health/service/:service`
pub(super) fn path(service: &ConsulService, index: u64, wait: Duration) -> String {
    let ConsulService { agent: _, service, tags, datacenter } = service;
    let mut path = format!("/v1/health/service/{}?passing=1", percent_encoded(service));
    for tag in tags {
        path += &format!("&tag={}", percent_encoded(tag));
    }
    if let Some(datacenter) = datacenter {
        path += &format!("&dc={}", percent_encoded(datacenter));
    }
    if index > 0 {
        path += &format!("&index={index}&wait={}s", wait.as_secs());
    }
    path
}

/// The index to ask at, after the answer to a question at `asked` said `told`: from the start where it went backwards
/// (Consul was restored, or is another), and never 0 while it goes on, which would not wait.
pub(super) fn next_index(asked: u64, told: u64) -> u64 {
    if told < asked { 0 } else { told.max(1) }
}

/// One element of the answer. What is of another type than expected is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Loose<Node>,
    service: Loose<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Node {
    address: Loose,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: Loose,
    address: Loose,
    port: Loose,
    weights: Loose<Weights>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Weights {
    passing: Loose,
}

impl Element for Instance {
    type Json = Loose<Entry>;
    const MAX: usize = INSTANCES_MAX;

    fn read(entry: Loose<Entry>) -> Result<Option<Instance>, String> {
        Ok(entry.object().and_then(instance))
    }
}

/// `None` for one without a port, or without an address.
fn instance(Entry { node, service }: Entry) -> Option<Instance> {
    let (node, service) = (node.object().unwrap_or_default(), service.object()?);
    let host = service.address.text().or(node.address.text())?;
    let weight = service.weights.object().and_then(|weights| weights.passing.number()).unwrap_or(1);
    Some(Instance {
        id: printable(service.id.text().unwrap_or_default()),
        host: host.to_owned(),
        port: u16::try_from(service.port.number()?).ok().filter(|port| *port > 0)?,
        weight: u32::try_from(weight.min(WEIGHT_MAX.into())).unwrap_or(1),
    })
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(ID_MAX).collect()
}

/// Those to look up.
pub(super) fn names(instances: &[Instance]) -> BTreeSet<String> {
    let hosts = instances.iter().map(|instance| &instance.host);
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).take(NAMES_MAX).cloned().collect()
}

/// Sorted, each once.
pub(super) fn endpoints(
    instances: &[Instance],
    addresses: impl Fn(&str) -> Vec<IpAddr>,
) -> Vec<EndpointSpec> {
    let mut endpoints: BTreeMap<EndpointKey, EndpointSpec> = BTreeMap::new();
    for Instance { id, host, port, weight } in instances {
        let ips = host.parse().map_or_else(|_| addresses(host), |ip| vec![ip]);
        for ip in ips.into_iter().take(INSTANCES_MAX.saturating_sub(endpoints.len())) {
            let addr = EndpointAddr::Inet(SocketAddr::new(ip, *port));
            let spec = EndpointSpec::new(addr, Identity::Key(id.clone()));
            endpoints.entry(spec.key.clone()).or_insert(EndpointSpec { weight: *weight, ..spec });
        }
    }
    endpoints.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery::http::Elements;

    fn service(tags: &[&str], datacenter: Option<&str>) -> ConsulService {
        ConsulService {
            agent: None,
            service: "redis_1".to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            datacenter: datacenter.map(str::to_owned),
        }
    }

    #[test]
    fn the_first_question_does_not_wait_and_the_others_do() {
        let wait = Duration::from_secs(60);
        assert_eq!(path(&service(&[], None), 0, wait), "/v1/health/service/redis%5F1?passing=1");
        assert_eq!(
            path(&service(&["b", "a=/&"], Some("eu")), 7, wait),
            "/v1/health/service/redis%5F1?passing=1&tag=a%3D%2F%26&tag=b&dc=eu&index=7&wait=60s"
        );
    }

    #[test]
    fn an_index_that_goes_backwards_begins_again() {
        for (asked, told, next) in [(0, 7, 7), (7, 7, 7), (7, 9, 9), (7, 3, 0), (0, 0, 1), (1, 0, 0)] {
            assert_eq!(next_index(asked, told), next, "{asked} {told}");
        }
    }

    /// As `ADDRESS (ID) weight`.
    fn check(answer: &Value, expected: &[&str]) {
        let known = |host: &str| match host {
            "db.example" => vec!["10.0.0.8".parse().unwrap(), "10.0.0.9".parse().unwrap()],
            _ => Vec::new(),
        };
        let Elements(instances) = serde_json::from_value(answer.clone()).expect("a list");
        let shown = |spec: &EndpointSpec| format!("{} {}", spec.key, spec.weight);
        assert_eq!(endpoints(&instances, known).iter().map(shown).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_instance_has_its_own_address_or_its_nodes() {
        check(
            &json!([
                { "Node": { "Address": "10.0.0.1" }, "Checks": [],
                  "Service": { "ID": "redis-2", "Address": "10.0.0.2", "Port": 6379, "Weights": { "Passing": 5 } } },
                { "Node": { "Address": "10.0.0.1" }, "Service": { "ID": "redis-1", "Address": "", "Port": 6379 } },
                { "Node": { "Address": "10.0.0.1" }, "Service": { "ID": "v6", "Address": "fd00::1", "Port": 1 } },
                { "Service": { "ID": "db", "Address": "db.example", "Port": 5432, "Weights": null } },
            ]),
            &[
                "10.0.0.1:6379 (redis-1) 1",
                "10.0.0.2:6379 (redis-2) 5",
                "10.0.0.8:5432 (db) 1",
                "10.0.0.9:5432 (db) 1",
                "[fd00::1]:1 (v6) 1",
            ],
        );
    }

    #[test]
    fn what_has_no_address_or_port_is_passed_over() {
        check(
            &json!([
                null, 7, {}, { "Service": null },
                { "Service": { "ID": "a", "Address": "10.0.0.2", "Port": 0 } },
                { "Service": { "ID": "a", "Address": "10.0.0.2", "Port": 99999 } },
                { "Service": { "ID": "a", "Address": "10.0.0.2", "Port": "80" } },
                { "Service": { "ID": "a", "Port": 80 } },
                { "Service": { "Address": "10.0.0.2", "Port": 80, "Weights": { "Passing": 18446744073709551615u64 } } },
                { "Service": { "ID": "x\n\u{1b}[1m", "Address": "10.0.0.3", "Port": 80 } },
                { "Service": { "ID": "unknown", "Address": "nowhere.example", "Port": 80 } },
            ]),
            &["10.0.0.2:80 () 65535", "10.0.0.3:80 (x[1m) 1"],
        );
        assert!(serde_json::from_value::<Elements<Instance>>(json!({ "no": "list" })).is_err());
    }
}
