//! A scripted agent with the responses of Consul 1.8.

use std::net::SocketAddr;

use super::*;
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};

fn entry(port: u16) -> (Entry, Address) {
    let entry = Entry {
        service: "redis".to_owned(),
        port,
        protocol: Protocol::Tcp,
        container: "080ecd3b75b1".to_owned(),
    };
    (entry, Address { addr: SocketAddr::from(([10, 0, 0, 5], 40000 + port)), export: None })
}

fn entries(ports: &[u16]) -> Entries {
    ports.iter().map(|port| entry(*port)).collect()
}

fn consul(fake: &Fake) -> Consul {
    let token = Some(Secret::new("hush"));
    let config = ConsulConfig { agent: fake.address.clone(), token, ..ConsulConfig::default() };
    Consul::new(config, Duration::from_secs(10), [10, 0, 0, 5].into())
}

fn fine() -> Option<Reply> {
    Some(Reply::status("200 OK", "{}"))
}

#[tokio::test]
async fn service_is_registered_with_a_ttl_check() {
    let mut fake = Fake::new(|_| fine()).await;
    let mut consul = consul(&fake);
    consul.sync(&entries(&[6379])).await.unwrap();
    fake.requests.recv().await.unwrap();
    let request = fake.requests.recv().await.unwrap();
    assert!(request.head.contains("x-consul-token: hush"), "{}", request.head);
    let service: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(service["ID"], "redis:6379:080ecd3b75b1");
    assert_eq!((&service["Name"], &service["Tags"][0]), (&json!("redis"), &json!("6379")));
    assert_eq!((&service["Address"], &service["Port"]), (&json!("10.0.0.5"), &json!(46379)));
    assert_eq!(service["Check"]["TTL"], "10s");
    consul.sync(&entries(&[6379])).await.unwrap();
    consul.keep_alive().await.unwrap();
    assert_eq!(fake.lines(), ["PUT /v1/agent/check/pass/service%3Aredis%3A6379%3A080ecd3b75b1"]);
}

#[tokio::test]
async fn export_is_a_service_with_its_name_in_the_metadata() {
    let mut fake = Fake::new(|_| fine()).await;
    let (entry, mut address) = entry(6379);
    let mut consul = consul(&fake);
    consul.sync(&[(entry.clone(), address.clone())].into()).await.unwrap();
    address.export = Some("redis".to_owned());
    consul.sync(&[(entry, address)].into()).await.unwrap();
    let metas: Vec<Value> = std::iter::from_fn(|| fake.requests.try_recv().ok())
        .filter_map(|request| {
            Some(serde_json::from_str::<Value>(&request.body).ok()?["Meta"][EXPORT].clone())
        })
        .collect();
    assert_eq!(metas, [Value::Null, json!("redis")], "the service is registered again");
}

#[tokio::test]
async fn ports_of_a_service_are_separate_services() {
    let mut fake = Fake::new(|_| fine()).await;
    consul(&fake).sync(&entries(&[80, 443])).await.unwrap();
    let bodies: Vec<Value> = std::iter::from_fn(|| fake.requests.try_recv().ok())
        .filter_map(|request| serde_json::from_str(&request.body).ok())
        .collect();
    let mut names: Vec<_> = bodies.iter().map(|body| body["Name"].as_str().unwrap_or_default()).collect();
    names.sort_unstable();
    assert_eq!(names, ["redis-443", "redis-80"]);
}

#[tokio::test]
async fn service_lost_by_the_agent_is_registered_again() {
    let forgotten = |request: &ReceivedRequest| {
        let pass = request.line.contains("/check/pass/");
        let why = "CheckID \"service:redis:6379:080ecd3b75b1\" does not have associated TTL";
        if pass { Some(Reply::status("500 Internal Server Error", why)) } else { fine() }
    };
    let mut fake = Fake::new(forgotten).await;
    let mut consul = consul(&fake);
    consul.sync(&entries(&[6379])).await.unwrap();
    consul.keep_alive().await.unwrap();
    fake.lines();
    consul.sync(&entries(&[6379])).await.unwrap();
    assert_eq!(fake.lines(), ["PUT /v1/agent/service/register"]);
}

#[tokio::test]
async fn refused_renewal_is_not_a_lost_service() {
    let fake = Fake::new(|request: &ReceivedRequest| {
        if request.line.contains("/check/pass/") {
            Some(Reply::status("403 Forbidden", "Permission denied"))
        } else {
            fine()
        }
    })
    .await;
    let mut consul = consul(&fake);
    consul.sync(&entries(&[6379])).await.unwrap();
    consul.keep_alive().await.unwrap();
    let id = "redis:6379:080ecd3b75b1";
    assert!(consul.registered[id].is_some() && !consul.unrenewed.is_due(id));
    consul.keep_alive().await.unwrap();
    assert!(consul.retry_at().is_none(), "each renewal is one more attempt");
}

#[tokio::test]
async fn refused_service_affects_no_other_and_is_retried() {
    let mut fake = Fake::new(|request: &ReceivedRequest| {
        if request.body.contains("redis:1:") { Some(Reply::status("400 Bad Request", "no")) } else { fine() }
    })
    .await;
    let mut consul = consul(&fake);
    consul.sync(&entries(&[1, 2, 3])).await.unwrap();
    assert_eq!(fake.lines().iter().filter(|line| line.ends_with("/register")).count(), 3);
    consul.sync(&entries(&[1, 2, 3])).await.unwrap();
    assert_eq!(fake.lines(), [""; 0], "not at once");
    assert!(consul.retry_at().is_some());
    consul.sync(&entries(&[2, 3])).await.unwrap();
    assert_eq!(fake.lines(), ["PUT /v1/agent/service/deregister/redis%3A1%3A080ecd3b75b1"]);
    assert!(consul.retry_at().is_none(), "it is wanted no more");
}

#[tokio::test]
async fn closed_connection_is_an_error() {
    let fake =
        Fake::new(|request: &ReceivedRequest| if request.line.starts_with("GET") { fine() } else { None })
            .await;
    let mut consul = consul(&fake);
    assert!(consul.sync(&entries(&[1, 2, 3])).await.is_err());
    assert!(consul.retry_at().is_none());
}

#[tokio::test]
async fn services_of_an_earlier_process_are_withdrawn() {
    let services = json!({
        "redis:6379:dead": { "ID": "redis:6379:dead", "Meta": { "ambassador-register": "10.0.0.5" } },
        "redis:6379:other": { "ID": "redis:6379:other", "Meta": { "ambassador-register": "10.0.0.6" } },
        "web": { "ID": "web", "Meta": {} },
    });
    let mut fake =
        Fake::new(
            move |request: &ReceivedRequest| {
                if request.line.starts_with("GET") { Some(Reply::json(&services)) } else { fine() }
            },
        )
        .await;
    consul(&fake).sync(&Entries::new()).await.unwrap();
    assert_eq!(
        fake.lines(),
        ["GET /v1/agent/services", "PUT /v1/agent/service/deregister/redis%3A6379%3Adead"]
    );
}
