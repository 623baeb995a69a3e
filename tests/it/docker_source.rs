//! Docker as a source, with the real engine of a test host.
//!
//! Each test creates its own containers and networks, named after it, and removes them.

#[path = "docker_source/engine.rs"]
mod engine;
#[path = "docker_source/proxy.rs"]
mod proxy;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambassador::config::DockerHost;
use ambassador::discovery::docker::{Container, ContainerId, Containers, Docker};
use ambassador::discovery::{Snapshot, SourceUpdate, follow};
use ambassador::route::Protocol;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use engine::{Engine, Private};
use proxy::Proxy;

/// The timeout of one operation of the engine, which is slow when its disk is busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running source and its updates.
struct Followed {
    news: mpsc::Receiver<SourceUpdate>,
    _source: AbortOnDropHandle<()>,
}

impl Followed {
    fn new(socket: &Path) -> Followed {
        let (sender, news) = mpsc::channel(1024);
        let source =
            follow(Docker { host: DockerHost::Unix(socket.into()), trouble: Arc::default() }, sender);
        Followed { news, _source: source }
    }

    async fn next(&mut self, awaited: &str) -> SourceUpdate {
        let news = tokio::time::timeout(TIMEOUT, self.news.recv()).await;
        assert!(news.is_ok(), "waited too long until {awaited}");
        news.unwrap().expect("the source never ends")
    }

    /// Returns the first snapshot that satisfies the condition; `each` sees every snapshot before it.
    async fn until(
        &mut self,
        awaited: &str,
        mut each: impl FnMut(&Containers),
        condition: impl Fn(&Containers) -> bool,
    ) -> Arc<Containers> {
        loop {
            if let SourceUpdate::Snapshot(Snapshot::Docker(containers)) = self.next(awaited).await {
                each(&containers);
                if condition(&containers) {
                    return containers;
                }
            }
        }
    }

    async fn sees(&mut self, awaited: &str, condition: impl Fn(&Containers) -> bool) -> Arc<Containers> {
        self.until(awaited, |_| {}, condition).await
    }

    async fn lost(&mut self) -> String {
        loop {
            if let SourceUpdate::Lost { why, .. } = self.next("the engine is lost").await {
                return why;
            }
        }
    }
}

fn named<'a>(containers: &'a Containers, name: &str) -> Option<(&'a ContainerId, &'a Container)> {
    containers.by_id.iter().find(|(_, container)| container.name == name)
}

fn runs(containers: &Containers, name: &str) -> bool {
    named(containers, name).is_some_and(|(_, container)| container.running)
}

fn stopped(containers: &Containers, name: &str) -> bool {
    named(containers, name).is_some_and(|(_, container)| !container.running)
}

fn address_on(containers: &Containers, name: &str, network: &str) -> Option<Ipv4Addr> {
    let (_, container) = named(containers, name)?;
    container.networks.values().find(|attachment| attachment.name == network)?.ipv4
}

fn endpoints(containers: &Containers, name: &str) -> usize {
    containers.resolve(name, Some(80), None, Protocol::Tcp).endpoints.len()
}

#[tokio::test]
async fn container_changes_are_followed() {
    let Some(engine) = Engine::shared("container_changes_are_followed") else { return };
    let mut seen = Followed::new(&engine.socket);
    let name = engine.name("one");
    let renamed = engine.name("renamed");

    let id = engine.run(&["--name", &name, "--expose", "53/udp", "-l", "ambassador.listen.80=80"]).await;
    let containers = seen.sees("it runs", |now| runs(now, &name) && endpoints(now, &name) == 1).await;
    let (known, container) = named(&containers, &name).unwrap();
    assert_eq!(known.0, id);
    assert_eq!(container.exposed, [(53, Protocol::Udp), (6379, Protocol::Tcp)]);
    assert_eq!(container.labels.get("ambassador.listen.80").map(String::as_str), Some("80"));

    engine.docker(&["stop", "-t", "0", &name]).await;
    seen.sees("it is stopped", |now| stopped(now, &name) && endpoints(now, &name) == 0).await;
    engine.docker(&["start", &name]).await;
    seen.sees("it runs again", |now| endpoints(now, &name) == 1).await;
    engine.docker(&["kill", &name]).await;
    seen.sees("it is killed", |now| stopped(now, &name)).await;
    engine.docker(&["restart", "-t", "0", &name]).await;
    seen.sees("it is restarted", |now| endpoints(now, &name) == 1).await;
    engine.docker(&["pause", &name]).await;
    seen.sees("it is paused", |now| stopped(now, &name)).await;
    engine.docker(&["unpause", &name]).await;
    seen.sees("it is not paused any more", |now| endpoints(now, &name) == 1).await;

    engine.docker(&["rename", &name, &renamed]).await;
    let containers = seen.sees("it has another name", |now| runs(now, &renamed)).await;
    assert_eq!(named(&containers, &name), None);
    assert_eq!(named(&containers, &renamed).unwrap().0.0, id);

    engine.docker(&["rm", "-f", &renamed]).await;
    seen.sees("it is gone", |now| named(now, &renamed).is_none()).await;
}

#[tokio::test]
async fn network_changes_are_followed() {
    let Some(engine) = Engine::shared("network_changes_are_followed") else { return };
    let mut seen = Followed::new(&engine.socket);
    let (name, network) = (engine.name("two"), engine.name("net"));
    engine.docker(&["network", "create", &network]).await;
    engine.run(&["--name", &name]).await;
    seen.sees("it runs on the default network", |now| address_on(now, &name, "bridge").is_some()).await;

    engine.docker(&["network", "connect", &network, &name]).await;
    seen.sees("it has a second address", |now| address_on(now, &name, &network).is_some()).await;
    engine.docker(&["network", "disconnect", &network, &name]).await;
    let containers = seen.sees("it lost it", |now| address_on(now, &name, &network).is_none()).await;
    assert!(address_on(&containers, &name, "bridge").is_some());
}

#[tokio::test]
async fn reused_address_is_never_attributed_to_its_previous_container() {
    let Some(engine) = Engine::shared("reused_address_is_never_attributed_to_its_previous_container") else {
        return;
    };
    let mut seen = Followed::new(&engine.socket);
    let network = engine.name("reused");
    engine.docker(&["network", "create", "--subnet", "10.213.7.0/24", &network]).await;
    let address: IpAddr = "10.213.7.77".parse().unwrap();
    let start = async |name: &str| {
        engine.run(&["--name", name, "--network", &network, "--ip", "10.213.7.77"]).await;
    };
    let holders = |now: &Containers| {
        let held = |container: &Container| {
            let mut attachments = container.networks.values();
            container.running && attachments.any(|a| a.ipv4.map(IpAddr::V4) == Some(address))
        };
        now.by_id.values().filter(|container| held(container)).map(|c| c.name.clone()).collect::<Vec<_>>()
    };

    let mut before = engine.name("holder-0");
    start(&before).await;
    seen.sees("the first has the address", |now| holders(now) == [before.clone()]).await;
    for n in 1..=5 {
        let after = engine.name(&format!("holder-{n}"));
        engine.docker(&["kill", &before]).await;
        start(&after).await;
        let check = |now: &Containers| {
            assert!(holders(now).len() <= 1, "{:?}", holders(now));
            assert!(
                named(now, &after).is_none() || !runs(now, &before),
                "{before} outlives its successor's birth"
            );
        };
        seen.until("the next has the address", check, |now| holders(now) == [after.clone()]).await;
        before = after;
    }
}

#[tokio::test]
async fn only_five_read_only_requests_are_sent() {
    let Some(engine) = Engine::shared("only_five_read_only_requests_are_sent") else { return };
    let proxy = Proxy::new(&engine.socket);
    let mut seen = Followed::new(&proxy.socket);
    let name = engine.name("behind-a-proxy");
    engine.run(&["--name", &name]).await;
    seen.sees("it runs", |now| endpoints(now, &name) == 1).await;
    engine.docker(&["rm", "-f", &name]).await;
    seen.sees("it is gone", |now| named(now, &name).is_none()).await;

    let requests = proxy.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert!(proxy::is_allowed(&request), "{request}");
    }
}

#[tokio::test]
async fn lost_event_stream_makes_the_source_unavailable_until_the_next_list() {
    let Some(engine) = Engine::shared("lost_event_stream_makes_the_source_unavailable_until_the_next_list")
    else {
        return;
    };
    let mut proxy = Proxy::new(&engine.socket);
    let mut seen = Followed::new(&proxy.socket);
    let name = engine.name("meanwhile");
    seen.sees("the first list", |_| true).await;

    proxy.close();
    let why = seen.lost().await;
    assert!(why.contains("/events") || why.contains("connect"), "{why}");
    engine.run(&["--name", &name]).await;
    proxy.open();
    seen.sees("what happened meanwhile", |now| runs(now, &name)).await;
}

#[tokio::test]
async fn killed_engine_is_unavailable_and_recovers() {
    let Some(engine) = Private::start("killed_engine_is_unavailable_and_recovers") else {
        return;
    };
    let mut seen = Followed::new(&engine.socket);
    seen.sees("an empty engine", |now| now.by_id.is_empty()).await;

    engine.kill();
    let why = seen.lost().await;
    assert!(why.contains("/events"), "{why}");
    engine.start_again();
    seen.sees("the engine, back", |_| true).await;
}
