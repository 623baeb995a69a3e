//! The requests and responses of Consul, read leniently. Pure.

use std::time::Duration;

use serde::Deserialize;

use crate::address::{Identity, WEIGHT_MAX};
use crate::config::grammar::peer;
use crate::discovery::ENDPOINTS_MAX;
use crate::discovery::endpoint_resolver::{ListedEndpoint, Location};
use crate::discovery::http::{Element, Loose, percent_encoded};
use crate::route::ConsulService;

/// Characters of a service ID, which is shown in logs and in `status`.
const ID_MAX: usize = 200;

/// An instance of a service that passes its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// The ID of the service on its node.
    id: String,
    /// An address or a name.
    host: String,
    port: u16,
    weight: u32,
    /// The export, if the address is that of a peer.
    export: Option<String>,
}

/// Returns the path and query of `GET /v1/health/service/:service`.
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

/// Returns the index of the next query, after the query at index `before` returned `new`: the start if the index went backwards
/// (Consul was restored or replaced), and otherwise never 0, which would not block.
pub(super) fn next_index(before: u64, new: u64) -> u64 {
    if new < before { 0 } else { new.max(1) }
}

/// One element of the response. A value of an unexpected type is absent.
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
    meta: Loose<Meta>,
}

/// The metadata of a service, an object of texts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    /// [`EXPORT`](super::EXPORT).
    #[serde(rename = "ambassador-peer")]
    export: Loose,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Weights {
    passing: Loose,
}

impl Element for Instance {
    type Json = Loose<Entry>;
    const MAX: usize = ENDPOINTS_MAX;

    fn read(entry: Loose<Entry>) -> Result<Option<Instance>, String> {
        Ok(entry.object().and_then(instance))
    }
}

impl Instance {
    pub(super) fn into_endpoint(self) -> ListedEndpoint {
        ListedEndpoint {
            location: Location::new(&self.host, self.port, self.export),
            identity: Identity::Key(self.id),
            weight: self.weight,
            tier: 0,
        }
    }
}

/// Returns `None` for an instance without a port, without an address, or with an invalid name of an export.
fn instance(Entry { node, service }: Entry) -> Option<Instance> {
    let (node, service) = (node.object().unwrap_or_default(), service.object()?);
    let host = service.address.text().or(node.address.text())?;
    let weight = service.weights.object().and_then(|weights| weights.passing.number()).unwrap_or(1);
    let export = service.meta.object().and_then(|meta| meta.export.text().map(peer::export));
    Some(Instance {
        export: export.transpose().ok()?,
        id: printable(service.id.text().unwrap_or_default()),
        host: host.to_owned(),
        port: u16::try_from(service.port.number()?).ok().filter(|port| *port > 0)?,
        weight: u32::try_from(weight.min(WEIGHT_MAX.into())).unwrap_or(1),
    })
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(ID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::address::EndpointSpec;
    use crate::discovery::consul::sorted;
    use crate::discovery::endpoint_resolver::resolve;
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
    fn first_query_does_not_block_and_the_others_do() {
        let wait = Duration::from_secs(60);
        assert_eq!(path(&service(&[], None), 0, wait), "/v1/health/service/redis%5F1?passing=1");
        assert_eq!(
            path(&service(&["b", "a=/&"], Some("eu")), 7, wait),
            "/v1/health/service/redis%5F1?passing=1&tag=a%3D%2F%26&tag=b&dc=eu&index=7&wait=60s"
        );
    }

    #[test]
    fn index_that_goes_backwards_starts_again() {
        for (before, new, next) in [(0, 7, 7), (7, 7, 7), (7, 9, 9), (7, 3, 0), (0, 0, 1), (1, 0, 0)] {
            assert_eq!(next_index(before, new), next, "{before} {new}");
        }
    }

    /// As `ADDRESS (ID) weight`.
    fn check(answer: &Value, expected: &[&str]) {
        let known = |host: &str| match host {
            "db.example" => vec!["10.0.0.8".parse().unwrap(), "10.0.0.9".parse().unwrap()],
            _ => Vec::new(),
        };
        let Elements(instances): Elements<Instance> = serde_json::from_value(answer.clone()).expect("a list");
        let listed: Vec<_> = instances.into_iter().map(Instance::into_endpoint).collect();
        let shown = |spec: &EndpointSpec| format!("{} {}", spec.key, spec.weight);
        assert_eq!(
            sorted(resolve(&listed, known, &BTreeSet::new())).iter().map(shown).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn instance_has_its_own_address_or_that_of_its_node() {
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
    fn instance_with_the_name_of_an_export_is_a_peer() {
        let service = |address: &str, meta: Value| {
            let mut service = json!({ "ID": "r", "Address": address, "Port": 15008 });
            service["Meta"] = meta;
            json!({ "Service": service })
        };
        let export = |name: &str| json!({ crate::discovery::consul::EXPORT: name, "other": 1 });
        check(
            &json!([
                service("10.0.0.2", export("redis")),
                service("db.example", export("pg:5432")),
                service("10.0.0.3", export("a/b")),
                service("10.0.0.4", json!(["ambassador-peer"])),
            ]),
            &[
                "10.0.0.4:15008 (r) 1",
                "peer://10.0.0.2:15008/redis (r) 1",
                "peer://10.0.0.8:15008/pg:5432 (r) 1",
                "peer://10.0.0.9:15008/pg:5432 (r) 1",
            ],
        );
    }

    #[test]
    fn instance_without_address_or_port_is_ignored() {
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
