//! Services (SRV records) as sources.

use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::time::sleep;

use super::followed::{follow, follow_within};
use super::server::{Reply, Server, srv};
use crate::address::EndpointSpec;
use crate::config::dns::Limits;
use crate::discovery::dns::Resolver;
use crate::discovery::{Snapshot, SourceUpdate};

/// As `ADDRESS tier weight`.
fn shown(endpoints: &[EndpointSpec]) -> Vec<String> {
    endpoints.iter().map(|spec| format!("{} {} {}", spec.key, spec.tier, spec.weight)).collect()
}

const REDIS: &str = "_redis._tcp.example.";

#[tokio::test]
async fn records_have_hosts_ports_tiers_and_weights() {
    let server = Server::new().await;
    let records = vec![srv(10, 60, 6379, "One.example."), srv(20, 0, 6380, "two.example.")];
    server.says(REDIS, RecordType::SRV, Reply::Records(600, records));
    server.has("one.example.", 600, &["10.0.0.1", "fd00::1"]);
    server.has("two.example.", 1, &["10.0.0.2"]);
    let mut source = follow("srv://_redis._tcp", &server.resolver(&["example"]));
    let first = [
        "10.0.0.1:6379 (one.example) 10 60",
        "10.0.0.2:6380 (two.example) 20 1",
        "[fd00::1]:6379 (one.example) 10 60",
    ];
    assert_eq!(shown(&source.endpoints().await), first);
    // The lowest TTL determines the next lookup.
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(10, 1, 7000, "two.example.")]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.2:7000 (two.example) 10 1"]);
}

#[tokio::test]
async fn additional_addresses_are_not_looked_up() {
    let server = Server::new().await;
    let more = vec![("one.example.", 600, "10.0.0.1".parse().unwrap())];
    server.says(REDIS, RecordType::SRV, Reply::More(600, vec![srv(1, 1, 6379, "one.example.")], more));
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:6379 (one.example) 1 1"]);
    assert_eq!(*server.queries.lock().unwrap(), [REDIS]);
}

#[tokio::test]
async fn hosts_file_precedes_additional_addresses() {
    let server = Server::new().await;
    let more = vec![("one.example.", 600, "10.0.0.1".parse().unwrap())];
    server.says(REDIS, RecordType::SRV, Reply::More(600, vec![srv(1, 1, 6379, "one.example.")], more));
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "10.9.9.9 one.example\n").unwrap();
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts);
    let mut source = follow(&format!("srv://{REDIS}"), &resolver);
    assert_eq!(shown(&source.endpoints().await), ["10.9.9.9:6379 (one.example) 1 1"]);
}

#[tokio::test]
async fn service_with_a_denied_host_expires_after_nx_stale() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let limits = Limits { nx_stale: Duration::from_millis(2500), ..Limits::default() };
    let mut source = follow_within(&format!("srv://{REDIS}"), &server.resolver(&[]), limits);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets("one.example.");
    match source.update().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    let why = source.failure().await;
    assert!(why.contains("one.example.: no such name"), "{why}");
    server.has("one.example.", 1, &["10.0.0.1"]);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets(REDIS);
    let why = source.failure().await;
    assert!(why.contains("no such name"), "{why}");
    match source.update().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn host_that_fails_keeps_its_addresses_and_affects_no_other() {
    let server = Server::new().await;
    let records =
        vec![srv(1, 1, 1, "one.example."), srv(1, 1, 2, "two.example."), srv(1, 1, 3, "gone.example.")];
    server.says(REDIS, RecordType::SRV, Reply::Records(1, records));
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.has("two.example.", 1, &["10.0.0.2"]);
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    let both = ["10.0.0.1:1 (one.example) 1 1", "10.0.0.2:2 (two.example) 1 1"];
    assert_eq!(shown(&source.endpoints().await), both);
    server.says("one.example.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.forgets("two.example.");
    server.has("gone.example.", 1, &["10.0.0.3"]);
    let three =
        ["10.0.0.1:1 (one.example) 1 1", "10.0.0.2:2 (two.example) 1 1", "10.0.0.3:3 (gone.example) 1 1"];
    assert_eq!(shown(&source.endpoints().await), three);
}

#[tokio::test]
async fn service_that_does_not_exist_yet_is_empty_and_a_denied_one_is_lost() {
    let server = Server::new().await;
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), [""; 0]);
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets(REDIS);
    let why = source.failure().await;
    assert!(why.contains("no such name"), "{why}");
    // The root means that the service is not available: an answer without endpoints.
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(0, 0, 0, ".")]));
    assert_eq!(shown(&source.endpoints().await), [""; 0]);
}

#[tokio::test]
async fn record_of_an_unknown_host_does_not_replace_the_last_record() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "two.example.")]));
    let why = source.failure().await;
    assert!(why.contains("two.example.: no such name"), "{why}");
    sleep(Duration::from_millis(1500)).await;
    assert!(source.updates.try_recv().is_err(), "the last record is kept");
    server.has("two.example.", 1, &["10.0.0.2"]);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.2:1 (two.example) 1 1"]);
}

#[tokio::test]
async fn unconfirmed_host_expires_although_the_service_exists() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let limits = Limits { stale: Duration::from_millis(2500), ..Limits::default() };
    let mut source = follow_within(&format!("srv://{REDIS}"), &server.resolver(&[]), limits);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets("one.example.");
    // Its address is kept until it expires, so nothing is lost before.
    match source.update().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    source.failure().await;
}
