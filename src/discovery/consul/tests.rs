//! The source with a scripted agent; tests with Consul itself are in `tests/it/consul.rs`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::discovery::dns::Resolver;
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};
use crate::discovery::{SourceUpdate, follow};

const PATIENCE: Duration = Duration::from_secs(10);

struct Followed {
    updates: mpsc::Receiver<SourceUpdate>,
    fake: Fake,
    _source: AbortOnDropHandle<()>,
}

async fn followed(answer: impl FnMut(&ReceivedRequest) -> Option<Reply> + Send + 'static) -> Followed {
    let fake = Fake::new(answer).await;
    let token = Some(Secret::new("s3cret"));
    let config = ConsulConfig { agent: fake.address.clone(), token, ..ConsulConfig::default() };
    let service = ConsulService {
        agent: None,
        service: "redis".to_owned(),
        tags: std::iter::once("primary".to_owned()).collect(),
        datacenter: None,
    };
    let resolver = Resolver::with_servers(Vec::new(), Vec::new(), PathBuf::from("/nowhere"));
    let endpoints = EndpointResolver::without_peers(resolver);
    let (sender, updates) = mpsc::channel(16);
    Followed { updates, fake, _source: follow(Consul::new(service, &config, endpoints), sender) }
}

impl Followed {
    async fn next(&mut self) -> SourceUpdate {
        timeout(PATIENCE, self.updates.recv()).await.expect("an update in time").expect("a source that runs")
    }

    async fn sees(&mut self, expected: &[&str]) {
        match self.next().await {
            SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) => {
                let shown: Vec<String> = endpoints.iter().map(|spec| spec.key.addr.to_string()).collect();
                assert_eq!(shown, expected);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn lost(&mut self) -> String {
        match self.next().await {
            SourceUpdate::Lost { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    async fn request(&mut self) -> ReceivedRequest {
        timeout(PATIENCE, self.fake.requests.recv()).await.expect("a request in time").expect("a server")
    }
}

fn at(index: u64, addresses: &[&str]) -> Option<Reply> {
    let instance = |address: &&str| json!({ "Service": { "ID": "a", "Address": address, "Port": 6379 } });
    let body = Value::from(addresses.iter().map(instance).collect::<Vec<_>>());
    Some(Reply::status(&format!("200 OK\r\nX-Consul-Index: {index}"), &body.to_string()))
}

/// One answer after the other; after the last it hangs up.
fn script(answers: Vec<Option<Reply>>) -> impl FnMut(&ReceivedRequest) -> Option<Reply> + Send {
    let mut answers = answers.into_iter();
    move |_| answers.next().flatten()
}

#[tokio::test]
async fn query_has_the_index_of_the_last_response() {
    let answers = vec![at(7, &["10.0.0.1"]), at(9, &["10.0.0.2"]), at(9, &["10.0.0.2"]), at(10, &[])];
    let mut followed = followed(script(answers)).await;
    followed.sees(&["10.0.0.1:6379"]).await;
    followed.sees(&["10.0.0.2:6379"]).await;
    followed.sees(&[]).await;
    let base = "GET /v1/health/service/redis?passing=1&tag=primary";
    for index in ["", "&index=7&wait=60s", "&index=9&wait=60s", "&index=9&wait=60s"] {
        let request = followed.request().await;
        assert!(request.line.starts_with(&format!("{base}{index}")), "{}", request.line);
        assert!(request.head.contains("x-consul-token: s3cret"), "{}", request.head);
    }
}

#[tokio::test]
async fn query_after_a_lower_index_starts_again() {
    let answers = vec![at(700, &["10.0.0.1"]), at(3, &["10.0.0.2"]), at(3, &["10.0.0.2"]), at(4, &[])];
    let mut followed = followed(script(answers)).await;
    followed.sees(&["10.0.0.1:6379"]).await;
    followed.sees(&["10.0.0.2:6379"]).await;
    followed.sees(&[]).await;
    for index in [None, Some("&index=700&"), None, Some("&index=3&")] {
        let line = followed.request().await.line;
        assert_eq!(line.contains("index"), index.is_some(), "{line}");
        assert!(line.contains(index.unwrap_or_default()), "{line}");
    }
}

#[tokio::test]
async fn agent_that_fails_is_lost_once_and_published_again_when_it_returns() {
    let down = Arc::new(Mutex::new(false));
    let is_down = down.clone();
    let mut first = true;
    let mut followed = followed(move |_| {
        if *is_down.lock().unwrap() {
            return Some(Reply::status("500 Internal Server Error", "No cluster leader"));
        }
        std::mem::take(&mut first).then(|| at(7, &["10.0.0.1"])).flatten().or(at(8, &["10.0.0.2"]))
    })
    .await;
    followed.sees(&["10.0.0.1:6379"]).await;
    *down.lock().unwrap() = true;
    loop {
        match followed.next().await {
            SourceUpdate::Lost { why, .. } => {
                assert!(why.contains("500 Internal Server Error: No cluster leader"), "{why}");
                break;
            }
            SourceUpdate::Snapshot(_) => {}
            other => panic!("{other:?}"),
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(followed.updates.try_recv().is_err(), "reported once");
    *down.lock().unwrap() = false;
    followed.sees(&["10.0.0.2:6379"]).await;
}

#[tokio::test]
async fn other_server_is_an_error_without_the_token() {
    for (reply, expected) in [
        (Reply::json(&json!([])), "is this Consul?"),
        (Reply::status("200 OK\r\nX-Consul-Index: 1", "{}"), "expected a list"),
        (Reply::status("200 OK\r\nX-Consul-Index: 1", "<html>"), "expected value"),
        (Reply::status("403 Forbidden", "ACL not found"), "403 Forbidden: ACL not found"),
    ] {
        let mut followed = followed(move |_| Some(reply.clone())).await;
        let why = followed.lost().await;
        assert!(why.contains(expected) && !why.contains("s3cret"), "{why}");
    }
}

#[tokio::test]
async fn service_with_a_changing_index_is_queried_at_most_ten_times_a_second() {
    let mut index = 0;
    let mut followed = followed(move |_| {
        index += 1;
        at(index, &[&format!("10.0.0.{}", index % 200 + 1)])
    })
    .await;
    let begun = Instant::now();
    for _ in 0..6 {
        followed.next().await;
    }
    assert!(begun.elapsed() >= PACE * 4, "{:?}", begun.elapsed());
}
