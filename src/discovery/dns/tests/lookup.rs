//! Lookups of addresses and services.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::CNAME;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout};

use super::server::{Reply, Server, ips, srv};
use crate::discovery::dns::cache::Families;
use crate::discovery::dns::{Outcome, Resolver, system};

async fn check(resolver: &Resolver, host: &str, expected: &[&str]) {
    assert_eq!(resolver.addresses(host).await, Ok(ips(expected)), "{host}");
}

#[tokio::test]
async fn addresses_of_both_families_are_sorted_and_deduplicated() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]);
    check(&server.resolver(&[]), "redis", &["10.0.0.1", "10.0.0.2", "fd00::1"]).await;
}

#[tokio::test]
async fn names_with_underscores_are_looked_up() {
    let server = Server::new().await;
    server.has("testapp_fpm_1.", 9, &["10.0.0.2"]);
    check(&server.resolver(&[]), "testapp_fpm_1", &["10.0.0.2"]).await;
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = Server::new().await;
    let alias = RData::CNAME(CNAME(Name::from_ascii("real.").unwrap()));
    server.says("alias.", RecordType::A, Reply::Records(5, vec![alias.clone()]));
    server.says("alias.", RecordType::AAAA, Reply::Records(5, vec![alias]));
    server.has("real.", 9, &["10.0.0.2"]);
    check(&server.resolver(&[]), "alias", &["10.0.0.2"]).await;
}

#[tokio::test]
async fn search_list_is_tried_in_order() {
    let server = Server::new().await;
    server.has("redis.two.example.", 9, &["10.0.0.2"]);
    server.has("redis.", 9, &["10.0.0.3"]);
    let resolver = server.resolver(&["one.example", "two.example"]);
    check(&resolver, "redis", &["10.0.0.2"]).await;
    check(&resolver, "redis.", &["10.0.0.3"]).await;
    let queries: Vec<String> = server.queries.lock().unwrap().iter().step_by(2).cloned().collect();
    assert_eq!(queries, ["redis.one.example.", "redis.two.example.", "redis."]);
}

#[tokio::test]
async fn failure_for_a_search_domain_does_not_lead_to_the_next() {
    let failures = [
        Reply::Code(ResponseCode::ServFail),
        Reply::Code(ResponseCode::Refused),
        Reply::Code(ResponseCode::Unknown(12)),
        Reply::Referral,
        Reply::Silence,
    ];
    for failure in failures {
        for nothing in [failure.clone(), Reply::Records(1, Vec::new())] {
            let server = Server::new().await;
            server.has("db.", 9, &["10.0.0.9"]);
            server.says("db.corp.example.", RecordType::A, nothing);
            server.says("db.corp.example.", RecordType::AAAA, failure.clone());
            let settings = system::Settings {
                servers: vec![server.address],
                search: vec!["corp.example".to_owned()],
                timeout: Duration::from_millis(300),
                attempts: 1,
                ..system::Settings::default()
            };
            let resolver = Resolver::new(system::Origin::Fixed(settings), "/nowhere/hosts".into());
            let why = resolver.addresses("db").await.expect_err(&format!("{failure:?}"));
            assert!(why.starts_with("db.corp.example.: "), "{failure:?}: {why}");
            assert!(!server.queries.lock().unwrap().contains(&"db.".to_owned()), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn denial_for_a_search_domain_leads_to_the_next_although_aaaa_fails() {
    let server = Server::new().await;
    server.has("db.", 9, &["10.0.0.9"]);
    server.says("db.corp.example.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    check(&server.resolver(&["corp.example"]), "db", &["10.0.0.9"]).await;
    // The reverse does not hold: some servers deny every name in response to an AAAA query.
    server.forgets("db.corp.example.");
    server.says("db.corp.example.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.resolver(&["corp.example"]).addresses("db").await.unwrap_err();
}

#[tokio::test]
async fn failure_of_a_service_lookup_does_not_lead_to_the_next_domain() {
    let server = Server::new().await;
    server.says("_db._tcp.", RecordType::SRV, Reply::Code(ResponseCode::ServFail));
    server.says("_db._tcp.example.", RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "db.")]));
    let why = server.resolver(&["example"]).srv("_db._tcp").await.unwrap_err();
    assert!(why.starts_with("_db._tcp.: "), "{why}");
}

#[tokio::test]
async fn second_server_is_queried_if_the_first_does_not_answer() {
    let (first, second) = (Server::new().await, Server::new().await);
    for kind in [RecordType::A, RecordType::AAAA] {
        first.says("redis.", kind, Reply::Silence);
    }
    second.has("redis.", 9, &["10.0.0.2"]);
    let servers = vec![first.address, second.address];
    let resolver = Resolver::with_servers(servers, Vec::new(), PathBuf::from("/nowhere/hosts"));
    let answered = timeout(Duration::from_secs(14), resolver.addresses("redis")).await;
    assert_eq!(answered.expect("in time"), Ok(ips(&["10.0.0.2"])));
}

#[tokio::test]
async fn unreadable_file_is_an_error() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().to_owned();
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts.clone());
    let why = resolver.addresses("redis").await.unwrap_err();
    assert!(why.starts_with(&hosts.display().to_string()), "{why}");
    let resolver = Resolver::new(system::Origin::File(hosts.clone()), "/nowhere/hosts".into());
    resolver.addresses("redis").await.unwrap_err();
}

#[tokio::test]
async fn failure_of_one_record_type_keeps_the_other() {
    let server = Server::new().await;
    let resolver = server.resolver(&[]);
    let mut last = Families::default();
    let mut check = async |expected: &[&str]| {
        last = match resolver.lookup("redis", &last).await {
            Ok(Outcome::Found(found)) => found.families,
            other => panic!("{other:?}"),
        };
        assert_eq!(last.addresses(), ips(expected));
    };
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    server.says("redis.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    check(&["fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    check(&["10.0.0.1", "fd00::1"]).await;
    // The addresses of a record type that fails are kept; denied ones are removed.
    server.has("redis.", 9, &["10.0.0.2", "fd00::2"]);
    server.says("redis.", RecordType::AAAA, Reply::Code(ResponseCode::Refused));
    check(&["10.0.0.2", "fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.2"]);
    check(&["10.0.0.2"]).await;
}

#[tokio::test]
async fn server_failure_is_an_error_and_not_a_denial() {
    let server = Server::new().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.says("redis.", kind, Reply::Code(ResponseCode::ServFail));
    }
    let none = Families::default();
    let why = server.resolver(&[]).lookup("redis", &none).await.unwrap_err();
    assert!(why.contains("redis") && why.contains(&server.address.to_string()), "{why}");
    let denied = format!("no such name (asked {})", server.address);
    assert_eq!(server.resolver(&[]).lookup("other", &none).await, Ok(Outcome::Denied(denied)));
    server.has("other.", 9, &[]);
    let denied = format!("no address (asked {})", server.address);
    assert_eq!(server.resolver(&[]).lookup("other", &none).await, Ok(Outcome::Denied(denied)));
}

#[tokio::test]
async fn lookup_times_out() {
    let server = Server::new().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.says("redis.", kind, Reply::Silence);
    }
    let resolver = server.resolver(&[]);
    let begun = Instant::now();
    tokio::time::pause();
    resolver.addresses("redis").await.unwrap_err();
    assert!(begun.elapsed() <= Duration::from_secs(16), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn invalid_name_is_an_error() {
    let server = Server::new().await;
    for host in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
        assert!(server.resolver(&[]).addresses(host).await.is_err(), "{host}");
    }
}

#[tokio::test]
async fn hosts_file_precedes_servers_and_is_read_again() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts.clone());
    check(&resolver, "redis", &["10.0.0.1"]).await;
    std::fs::write(&hosts, "10.9.9.9 redis\n").unwrap();
    check(&resolver, "redis", &["10.9.9.9"]).await;
    std::fs::write(&hosts, "10.9.9.8 other redis\n").unwrap();
    check(&resolver, "redis", &["10.9.9.8"]).await;
    std::fs::write(&hosts, "").unwrap();
    check(&resolver, "redis", &["10.0.0.1"]).await;
}

#[tokio::test]
async fn servers_are_updated_with_resolv_conf() {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    let resolver = Resolver::new(system::Origin::File(resolv_conf.clone()), directory.path().join("hosts"));
    std::fs::write(&resolv_conf, "search one.example\nunknown directive\n").unwrap();
    assert_eq!(resolver.names("redis"), ["redis.one.example.", "redis."]);
    std::fs::write(&resolv_conf, "search two.example\nnameserver 127.0.0.11\n").unwrap();
    assert_eq!(resolver.names("redis"), ["redis.two.example.", "redis."]);
}

#[test]
fn system_files_with_any_content_are_accepted() {
    let resolver =
        Resolver::new(system::Origin::File(Path::new("/proc/self/exe").into()), "/proc/self/exe".into());
    assert_eq!(resolver.names("redis"), ["redis."]);
}

#[tokio::test]
async fn server_that_cannot_be_reached_is_reported_with_the_cause() {
    // A broadcast address: connect(2) fails with EACCES wherever the test runs.
    let server = SocketAddr::from(([255, 255, 255, 255], 53));
    let resolver = Resolver::with_servers(vec![server], Vec::new(), PathBuf::from("/nonexistent"));
    let why = resolver.addresses("redis.test").await.unwrap_err();
    assert!(why.contains("permission denied (asked 255.255.255.255:53)"), "{why}");
}
