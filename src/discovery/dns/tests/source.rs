//! Hosts as sources.

use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::followed::{Followed, follow, follow_within};
use super::server::{Reply, Server, ips};
use crate::address::{EndpointAddr, EndpointSpec, Identity, Scheme};
use crate::config::dns::Limits;
use crate::discovery::{Snapshot, SourceUpdate};

/// Held sessions, which notify the source again and again.
fn held_sessions(source: &Followed) -> JoinSet<()> {
    let trouble = source.trouble.clone();
    let mut sessions = JoinSet::new();
    sessions.spawn(async move {
        loop {
            trouble.notify_waiters();
            sleep(Duration::from_millis(50)).await;
        }
    });
    sessions
}

#[tokio::test]
async fn changed_address_is_published_after_its_ttl() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
    server.has("redis.", 1, &["10.0.0.2", "10.0.0.3"]);
    let changed = Instant::now();
    assert_eq!(source.next().await, ips(&["10.0.0.2", "10.0.0.3"]));
    assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());
}

#[tokio::test]
async fn answer_without_a_change_is_recorded_and_not_published() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
    let first = source.answered.at().unwrap();
    let later = async {
        while source.answered.at().unwrap() == first {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), later).await.unwrap();
    assert!(source.updates.try_recv().is_err());
    assert!(source.answered.age().unwrap() < Duration::from_secs(10));
}

#[tokio::test]
async fn each_address_of_a_peer_is_an_endpoint_whose_certificate_must_have_the_name() {
    let server = Server::new().await;
    server.has("host1.", 60, &["10.0.0.1", "10.0.0.2"]);
    let mut source = follow("peer://host1:15009/redis", &server.resolver(&[]));
    let endpoints = source.endpoints().await;
    let expected = ["10.0.0.1:15009", "10.0.0.2:15009"].map(|addr| {
        let addr = EndpointAddr::of_host(addr.parse().unwrap(), "host1", &Scheme::Peer("redis".to_owned()));
        EndpointSpec::new(addr, Identity::Name("host1".to_owned()))
    });
    assert_eq!(endpoints, expected);
}

#[tokio::test]
async fn name_is_looked_up_before_its_ttl_while_endpoints_do_not_respond() {
    let server = Server::new().await;
    server.has("redis.", 600, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.has("redis.", 600, &["10.0.0.2"]);
    let _held_sessions = held_sessions(&source);
    assert_eq!(source.next().await, ips(&["10.0.0.2"]));
    assert_eq!(server.queries.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn server_is_queried_at_most_once_a_second() {
    let server = Server::new().await;
    server.has("redis.", 0, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.has("redis.", 0, &["10.0.0.2"]);
    let begun = Instant::now();
    source.next().await;
    assert!(begun.elapsed() > Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(server.queries.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn name_that_does_not_exist_yet_is_an_empty_snapshot() {
    let server = Server::new().await;
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&[]));
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
}

#[tokio::test]
async fn silent_server_is_reported_before_the_first_lookup_has_failed_and_once() {
    let server = Server::new().await;
    server.says("redis.", RecordType::A, Reply::Silence);
    server.says("redis.", RecordType::AAAA, Reply::Silence);
    let begun = Instant::now();
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.failure().await, format!("no answer (asked {})", server.address));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.has("redis.", 1, &["10.0.0.1"]);
    let update = timeout(Duration::from_secs(30), source.updates.recv()).await.unwrap();
    assert!(matches!(update, Some(SourceUpdate::Snapshot(_))), "{update:?}");
}

#[tokio::test]
async fn denied_name_is_lost_once_and_published_when_it_returns() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
    server.forgets("redis.");
    let why = source.failure().await;
    assert!(why.contains("no such name (asked 127."), "{why}");
    sleep(Duration::from_millis(500)).await;
    assert!(source.updates.try_recv().is_err(), "it is reported once, and nothing is published");
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]), "published again after the failure");
    server.says("redis.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.says("redis.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    source.failure().await;
}

/// The back-off of the source would have grown to more than three seconds by then, and at its maximum exceeds `hold`.
#[tokio::test]
async fn name_is_found_within_a_second_of_its_return_while_sessions_are_held() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.forgets("redis.");
    source.failure().await;
    let _held_sessions = held_sessions(&source);
    sleep(Duration::from_secs(5)).await;
    server.has("redis.", 600, &["10.0.0.2"]);
    let back = Instant::now();
    assert_eq!(source.next().await, ips(&["10.0.0.2"]));
    assert!(back.elapsed() < Duration::from_millis(1500), "{:?}", back.elapsed());
}

/// Expects that addresses expire after 2.5 s, with these limits.
async fn check_stale(
    limits: impl Fn(Duration) -> Limits,
    break_it: impl Fn(&Server),
    expected: &str,
) -> (Server, Followed) {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let stale = Duration::from_millis(2500);
    let mut source = follow_within("redis", &server.resolver(&[]), limits(stale));
    let answered = Instant::now();
    source.next().await;
    break_it(&server);
    let why = source.failure().await;
    assert!(why.contains(expected), "{why}");
    match source.update().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    assert!(answered.elapsed() > stale, "{:?}", answered.elapsed());
    (server, source)
}

#[tokio::test]
async fn denied_name_expires_after_nx_stale_and_is_lost_until_it_returns() {
    let denied = |nx_stale| Limits { nx_stale, ..Limits::default() };
    let forgets = |server: &Server| server.forgets("redis.");
    let (server, mut source) = check_stale(denied, forgets, "no such name").await;
    sleep(Duration::from_millis(500)).await;
    assert!(source.updates.try_recv().is_err(), "still lost, reported once");
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
}

#[tokio::test]
async fn addresses_expire_after_stale_while_servers_fail() {
    let fails = |server: &Server| {
        for kind in [RecordType::A, RecordType::AAAA] {
            server.says("redis.", kind, Reply::Code(ResponseCode::ServFail));
        }
    };
    // The limit for denials does not apply to failures.
    let failed = |stale| Limits { stale, nx_stale: Duration::ZERO, ..Limits::default() };
    let (_server, mut source) = check_stale(failed, fails, "redis").await;
    sleep(Duration::from_millis(500)).await;
    assert!(source.updates.try_recv().is_err(), "still lost, reported once");
}
