//! The source with a scripted gateway.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::discovery::dns::Resolver;
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};
use crate::discovery::{SourceUpdate, supervise};

fn source(members: &[&str]) -> Etcd {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    let keys = EtcdKeys { tls: false, members, prefix: "/s".to_owned() };
    let resolver = Resolver::with_servers(Vec::new(), Vec::new(), "/nowhere".into());
    Etcd::new(keys, &EtcdAccess::default(), EndpointResolver::without_peers(resolver))
}

fn listing(revision: i64, addresses: &[&str]) -> Reply {
    let key = |(n, address): (usize, &&str)| json!({ "key": api::encoded(&format!("/s/{n}")), "value": api::encoded(address), "mod_revision": "1" });
    let keys: Vec<Value> = addresses.iter().enumerate().map(key).collect();
    Reply::json(&json!({ "header": { "revision": revision.to_string() }, "kvs": keys }))
}

fn is_list(request: &ReceivedRequest) -> bool {
    request.line == "POST /v3/kv/range"
}

/// A source that is followed, and its updates.
struct Followed {
    updates: mpsc::Receiver<SourceUpdate>,
    _task: tokio::task::JoinSet<()>,
}

impl Followed {
    fn start(source: Etcd) -> Followed {
        let (sender, updates) = mpsc::channel(64);
        let publisher = Publisher::new(source.name(), sender);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(supervise(source, publisher, jittered));
        Followed { updates, _task: task }
    }

    async fn endpoints(&mut self) -> Vec<String> {
        match self.updates.recv().await.unwrap() {
            SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) => {
                endpoints.iter().map(|endpoint| endpoint.key.addr.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn lost(&mut self) -> String {
        match self.updates.recv().await.unwrap() {
            SourceUpdate::Lost { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn watch_begins_after_the_revision_of_the_list() {
    let put = json!({ "result": { "events": [
        { "kv": { "key": api::encoded("/s/9"), "value": api::encoded("10.0.0.9:9"), "mod_revision": "8" } } ] } });
    let answers = move |request: &ReceivedRequest| {
        Some(if is_list(request) {
            listing(7, &["10.0.0.1:1"])
        } else {
            Reply::stream(std::slice::from_ref(&put))
        })
    };
    let mut fake = Fake::new(answers).await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1", "10.0.0.9:9"]);
    fake.requests.recv().await.unwrap();
    let watch: Value = serde_json::from_str(&fake.requests.recv().await.unwrap().body).unwrap();
    assert_eq!(watch["create_request"]["start_revision"], "8");
    assert_eq!(watch["create_request"]["key"], api::encoded("/s"));
}

#[tokio::test]
async fn compacted_watch_lists_again_without_being_lost() {
    let compacted = json!({ "result": { "canceled": true, "compact_revision": "9" } });
    let mut lists = 0;
    let answers = move |request: &ReceivedRequest| {
        if !is_list(request) {
            return Some(Reply::stream(if lists == 1 { std::slice::from_ref(&compacted) } else { &[] }));
        }
        lists += 1;
        Some(listing(lists, if lists == 1 { &["10.0.0.1:1"] } else { &["10.0.0.2:2"] }))
    };
    let fake = Fake::new(answers).await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
    assert_eq!(followed.endpoints().await, ["10.0.0.2:2"]);
}

#[tokio::test]
async fn next_member_is_tried_before_the_source_is_lost() {
    let dead = Fake::new(|_| None).await;
    let alive = Fake::new(|request| {
        Some(if is_list(request) { listing(1, &["10.0.0.1:1"]) } else { Reply::stream(&[]) })
    })
    .await;
    let mut followed = Followed::start(source(&[&dead.address, &alive.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
}

#[tokio::test]
async fn source_is_lost_when_every_member_fails_and_each_is_named() {
    let (one, other) = (Fake::new(|_| None).await, Fake::new(|_| Some(Reply::json(&json!("hello")))).await);
    let mut followed = Followed::start(source(&[&one.address, &other.address]));
    let why = followed.lost().await;
    assert!(
        why.contains(&one.address) && why.contains(&other.address) && why.contains("expected struct"),
        "{why}"
    );
}

#[tokio::test]
async fn prefix_without_keys_is_an_empty_snapshot() {
    let fake =
        Fake::new(|request| Some(if is_list(request) { listing(1, &[]) } else { Reply::stream(&[]) })).await;
    assert_eq!(Followed::start(source(&[&fake.address])).endpoints().await, [""; 0]);
}

#[tokio::test]
async fn watch_that_failed_silently_is_detected_by_the_list() {
    let mut lists = 0;
    let answers = move |request: &ReceivedRequest| {
        if !is_list(request) {
            return Some(Reply::stream(&[]));
        }
        lists += 1;
        Some(listing(lists, &[&format!("10.0.0.{lists}:1")]))
    };
    let mut fake = Fake::new(answers).await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
    while fake.requests.recv().await.unwrap().line != "POST /v3/watch" {}
    tokio::time::pause();
    assert_eq!(followed.endpoints().await, ["10.0.0.2:1"]);
    // The third list is the second one without a response of the watch.
    assert_eq!(followed.endpoints().await, ["10.0.0.4:1"]);
    let lines: Vec<String> = fake.lines();
    assert_eq!(lines.iter().filter(|line| line.ends_with("range")).count(), 3, "{lines:?}");
}

#[tokio::test]
async fn fragments_of_a_change_are_published_together() {
    let deleted =
        |key: &str| json!({ "type": "DELETE", "kv": { "key": api::encoded(key), "mod_revision": "8" } });
    let lines = [
        json!({ "result": { "fragment": true, "events": [deleted("/s/0"), deleted("/s/1")] } }),
        json!({ "result": { "fragment": true, "events": [deleted("/s/2")] } }),
        json!({ "result": { "events": [deleted("/s/3")] } }),
    ];
    let addresses = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"];
    let fake = Fake::new(move |request| {
        Some(if is_list(request) { listing(7, &addresses) } else { Reply::stream(&lines) })
    })
    .await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, addresses);
    assert_eq!(followed.endpoints().await, [""; 0]);
}

#[tokio::test]
async fn list_with_a_lower_revision_starts_again() {
    let mut lists = 0;
    let answers = move |request: &ReceivedRequest| {
        if !is_list(request) {
            return Some(Reply::stream(&[]));
        }
        lists += 1;
        Some(if lists == 1 { listing(100, &["10.0.0.1:1"]) } else { listing(5, &["10.0.0.2:1"]) })
    };
    let mut fake = Fake::new(answers).await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
    while fake.requests.recv().await.unwrap().line != "POST /v3/watch" {}
    tokio::time::pause();
    assert_eq!(followed.endpoints().await, ["10.0.0.2:1"]);
}

#[tokio::test]
async fn response_with_too_many_fragments_starts_again() {
    let fragment = json!({ "result": { "fragment": true, "events": [] } });
    let mut lists = 0;
    let answers = move |request: &ReceivedRequest| {
        if !is_list(request) {
            return Some(Reply::stream(&vec![fragment.clone(); if lists == 1 { 100 } else { 0 }]));
        }
        lists += 1;
        Some(listing(lists, &[&format!("10.0.0.{lists}:1")]))
    };
    let fake = Fake::new(answers).await;
    let mut followed = Followed::start(source(&[&fake.address]));
    assert_eq!(followed.endpoints().await, ["10.0.0.1:1"]);
    assert_eq!(followed.endpoints().await, ["10.0.0.2:1"]);
}
