//! The updates from registered to desired keys.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::*;
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};
use crate::register::desired::{Address, Entry};
use crate::route::Protocol;

fn check(has: &[(&str, Option<&str>)], wanted: &[(&str, &str)], expected: &[&str]) {
    let has = has.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
    let wanted = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let shown: Vec<String> = updates(&has, &wanted)
        .into_iter()
        .map(|(key, step)| match step {
            KeyUpdate::Put(value) => format!("{key}={value}"),
            KeyUpdate::Delete => format!("-{key}"),
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn removed_keys_are_deleted_and_unchanged_keys_are_not_written() {
    check(&[], &[("a", "1")], &["a=1"]);
    check(&[("a", Some("1"))], &[("a", "1")], &[]);
    check(&[("a", Some("1")), ("b", Some("2"))], &[("a", "9"), ("c", "3")], &["a=9", "-b", "c=3"]);
}

#[test]
fn key_with_unknown_value_is_written_or_deleted() {
    check(&[("a", None), ("b", None)], &[("a", "1")], &["a=1", "-b"]);
}

#[test]
fn key_is_attached_to_the_lease() {
    let put = request("/s/a", &KeyUpdate::Put("x".to_owned()), 7);
    assert_eq!(put, ("/v3/kv/put", json!({ "key": "L3MvYQ==", "value": "eA==", "lease": "7" })));
    let delete = request("/s/b", &KeyUpdate::Delete, 7);
    assert_eq!(delete, ("/v3/kv/deleterange", json!({ "key": "L3MvYg==" })));
}

/// Returns a scripted etcd that refuses keys with this text in them, while it is set.
async fn etcd(refused: Arc<Mutex<Option<&'static str>>>) -> (Fake, Etcd) {
    let fake = Fake::new(move |request: &ReceivedRequest| {
        let is_refused = |word: &str| request.body.contains(&encoded(word));
        Some(if request.line.ends_with("/v3/lease/grant") {
            Reply::json(&json!({ "ID": "7" }))
        } else if refused.lock().unwrap().is_some_and(is_refused) {
            Reply::status("403 Forbidden", "{\"message\":\"etcdserver: permission denied\"}")
        } else {
            Reply::json(&json!({}))
        })
    })
    .await;
    let keys = EtcdKeys { tls: false, members: vec![fake.address.clone()], prefix: "/s".to_owned() };
    let mut etcd = Etcd::new(keys, &EtcdAccess::default(), Duration::from_secs(10));
    etcd.keep_alive().await.unwrap();
    (fake, etcd)
}

fn entries(ports: &[u16]) -> Entries {
    let entry = |port: &u16| {
        let entry = Entry {
            service: "x".to_owned(),
            port: *port,
            protocol: Protocol::Tcp,
            container: "c".to_owned(),
        };
        (entry, Address { addr: SocketAddr::from(([10, 0, 0, 5], *port)), export: None })
    };
    ports.iter().map(entry).collect()
}

#[tokio::test]
async fn refused_key_affects_no_other_and_is_retried() {
    let refused = Arc::new(Mutex::new(Some("/s/x/1/c")));
    let (mut fake, mut etcd) = etcd(refused.clone()).await;
    etcd.sync(&entries(&[1, 2, 3])).await.unwrap();
    fake.lines();
    etcd.sync(&entries(&[1, 2, 3])).await.unwrap();
    assert_eq!(fake.lines(), [""; 0], "not at once");
    *refused.lock().unwrap() = None;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    etcd.sync(&entries(&[1, 2, 3])).await.unwrap();
    assert_eq!((fake.lines(), etcd.retry_at()), (vec!["POST /v3/kv/put".to_owned()], None));
}

#[test]
fn keys_of_a_lease_of_etcd_3_4_are_accepted() {
    assert_eq!(
        keys(&json!({ "ID": "1", "TTL": "9", "grantedTTL": "10", "keys": ["L3MvYQ==", "%", 7] })).len(),
        1
    );
    assert!(keys(&json!({ "ID": "1", "TTL": "-1" })).is_empty());
}
