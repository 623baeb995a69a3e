//! A host, and a scripted agent that may be unavailable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::config::ConsulConfig;
use crate::discovery::docker::fixtures::{container, engine, labelled};
use crate::discovery::docker::{Containers, Published};
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};
use crate::register::RegistryConfig;
use crate::register::desired::Via;
use crate::route::Protocol;

type Requests = Arc<Mutex<Vec<String>>>;

/// An agent that accepts all requests while it is available.
async fn agent(unavailable: Arc<AtomicBool>, requests: Requests) -> Fake {
    Fake::new(move |request: &ReceivedRequest| {
        if unavailable.load(Ordering::Relaxed) {
            return None;
        }
        requests.lock().unwrap().push(request.line.clone());
        Some(Reply::status("200 OK", "{}"))
    })
    .await
}

fn published(host_port: u16) -> Containers {
    let mut redis = labelled(container("redis", 2), &[("ambassador.register", "redis")]);
    let host_ip = "0.0.0.0".parse().unwrap();
    redis.published = vec![Published { port: 6379, protocol: Protocol::Tcp, host_ip, host_port }];
    engine([("a", redis)])
}

struct Run {
    updates: mpsc::Sender<SourceUpdate>,
    stop: CancellationToken,
    requests: Requests,
    unavailable: Arc<AtomicBool>,
    task: tokio::task::JoinSet<()>,
    _agent: Fake,
}

impl Run {
    async fn start() -> Run {
        let (unavailable, requests) = (Arc::<AtomicBool>::default(), Requests::default());
        let fake = agent(unavailable.clone(), requests.clone()).await;
        let config = ConsulConfig { agent: fake.address.clone(), ..ConsulConfig::default() };
        let advertise = "10.0.0.5".parse().unwrap();
        let choice = Choice { names: Vec::new(), all: false, advertise, via: Via::Ports };
        let ttl = Duration::from_secs(2);
        let registry = Registry::new(RegistryConfig::Consul(config), ttl, choice.advertise);
        let stop = CancellationToken::new();
        let (updates, inbox) = mpsc::channel(16);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(Registrar::new(choice, registry, ttl, stop.clone()).run(inbox));
        Run { updates, stop, requests, unavailable, task, _agent: fake }
    }

    async fn publish(&self, containers: Containers) {
        self.updates.send(SourceUpdate::Snapshot(Snapshot::Docker(Arc::new(containers)))).await.unwrap();
    }

    /// Waits for a request like this, and drops those up to it.
    async fn requests(&self, part: &str) {
        let received = || {
            let mut requests = self.requests.lock().unwrap();
            let at = requests.iter().position(|line| line.contains(part));
            at.map(|at| requests.drain(..=at).count()).is_some()
        };
        let found = async {
            while !received() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = timeout(Duration::from_secs(30), found).await;
        assert!(found.is_ok(), "{part}: {:?}", self.requests.lock().unwrap());
    }
}

const REGISTER: &str = "PUT /v1/agent/service/register";
const WITHDRAW: &str = "PUT /v1/agent/service/deregister/redis%3A6379%3Aa00000000000";

#[tokio::test]
async fn nothing_is_registered_before_the_first_snapshot_and_all_is_withdrawn_at_the_end() {
    let mut run = Run::start().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*run.requests.lock().unwrap(), [""; 0]);
    run.publish(published(80)).await;
    run.requests(REGISTER).await;
    run.requests("/v1/agent/check/pass/").await;
    run.stop.cancel();
    run.requests(WITHDRAW).await;
    run.task.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn removed_container_is_withdrawn_and_a_new_address_is_registered() {
    let run = Run::start().await;
    run.publish(published(80)).await;
    run.requests(REGISTER).await;
    run.publish(published(81)).await;
    run.requests(REGISTER).await;
    run.publish(Containers::default()).await;
    run.requests(WITHDRAW).await;
}

#[tokio::test]
async fn changes_while_the_registry_is_unavailable_are_applied_later() {
    let run = Run::start().await;
    run.publish(published(80)).await;
    run.requests(REGISTER).await;
    run.unavailable.store(true, Ordering::Relaxed);
    run.publish(Containers::default()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.unavailable.store(false, Ordering::Relaxed);
    run.requests(WITHDRAW).await;
    run.publish(published(82)).await;
    run.requests(REGISTER).await;
}

#[tokio::test]
async fn entries_stay_registered_while_docker_is_unavailable() {
    let run = Run::start().await;
    run.publish(published(80)).await;
    run.requests(REGISTER).await;
    run.updates
        .send(SourceUpdate::Lost { source: "docker".to_owned(), why: "away".to_owned() })
        .await
        .unwrap();
    run.requests("/v1/agent/check/pass/").await;
    assert!(run.requests.lock().unwrap().iter().all(|line| !line.contains("deregister")));
}
