//! Two hosts, and an agent that may be away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::config::ConsulConfig;
use crate::discovery::containers::tests::{container, engine, labelled};
use crate::discovery::containers::{Containers, Published};
use crate::discovery::http::fake::{Asked, Fake, Reply};
use crate::register::RegistryConfig;
use crate::route::Protocol;

type Requests = Arc<Mutex<Vec<String>>>;

/// An agent that takes everything, while it is there.
async fn agent(away: Arc<AtomicBool>, requests: Requests) -> Fake {
    Fake::new(move |asked: &Asked| {
        if away.load(Ordering::Relaxed) {
            return None;
        }
        requests.lock().unwrap().push(asked.line.clone());
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
    news: mpsc::Sender<SourceUpdate>,
    stop: CancellationToken,
    requests: Requests,
    away: Arc<AtomicBool>,
    task: tokio::task::JoinSet<()>,
    _agent: Fake,
}

impl Run {
    async fn start() -> Run {
        let (away, requests) = (Arc::<AtomicBool>::default(), Requests::default());
        let fake = agent(away.clone(), requests.clone()).await;
        let config = ConsulConfig { agent: fake.address.clone(), ..ConsulConfig::default() };
        let choice = Choice { names: Vec::new(), all: false, advertise: "10.0.0.5".parse().unwrap() };
        let ttl = Duration::from_secs(2);
        let registry = Registry::new(RegistryConfig::Consul(config), ttl, choice.advertise);
        let stop = CancellationToken::new();
        let (news, inbox) = mpsc::channel(16);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(Registrar::new(choice, registry, ttl, stop.clone()).run(inbox));
        Run { news, stop, requests, away, task, _agent: fake }
    }

    async fn says(&self, containers: Containers) {
        self.news.send(SourceUpdate::Snapshot(Snapshot::Docker(Arc::new(containers)))).await.unwrap();
    }

    /// Until a request like this has come; forgets those up to then.
    async fn asks(&self, part: &str) {
        let come = || {
            let mut requests = self.requests.lock().unwrap();
            let at = requests.iter().position(|line| line.contains(part));
            at.map(|at| requests.drain(..=at).count()).is_some()
        };
        let found = async {
            while !come() {
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
async fn nothing_is_said_before_docker_has_and_all_is_taken_back_at_the_end() {
    let mut run = Run::start().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*run.requests.lock().unwrap(), [""; 0]);
    run.says(published(80)).await;
    run.asks(REGISTER).await;
    run.asks("/v1/agent/check/pass/").await;
    run.stop.cancel();
    run.asks(WITHDRAW).await;
    run.task.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_container_that_is_gone_is_withdrawn_and_one_that_moved_is_registered_again() {
    let run = Run::start().await;
    run.says(published(80)).await;
    run.asks(REGISTER).await;
    run.says(published(81)).await;
    run.asks(REGISTER).await;
    run.says(Containers::default()).await;
    run.asks(WITHDRAW).await;
}

#[tokio::test]
async fn what_happens_while_the_registry_is_away_is_made_good_when_it_is_back() {
    let run = Run::start().await;
    run.says(published(80)).await;
    run.asks(REGISTER).await;
    run.away.store(true, Ordering::Relaxed);
    run.says(Containers::default()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.away.store(false, Ordering::Relaxed);
    run.asks(WITHDRAW).await;
    run.says(published(82)).await;
    run.asks(REGISTER).await;
}

#[tokio::test]
async fn a_docker_that_is_lost_takes_nothing_back() {
    let run = Run::start().await;
    run.says(published(80)).await;
    run.asks(REGISTER).await;
    run.news.send(SourceUpdate::Lost { source: "docker".to_owned(), why: "away".to_owned() }).await.unwrap();
    run.asks("/v1/agent/check/pass/").await;
    assert!(run.requests.lock().unwrap().iter().all(|line| !line.contains("deregister")));
}
