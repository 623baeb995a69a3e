//! A monitored cluster, in virtual time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::address::{EndpointAddr, EndpointSpec, Identity};
use crate::client_net::ClientNet;
use crate::cluster::outlier::{Cause, Outcome};
use crate::cluster::{ConnectError, InFlight};
use crate::ending::Ending;
use crate::route::{Options, Protocol};

/// The ports of the endpoints whose checks fail.
#[derive(Clone, Default)]
struct FailingPorts(Arc<Mutex<BTreeSet<u16>>>);

impl FailingPorts {
    fn set(&self, port: u16, is_failing: bool) {
        let mut failing = self.0.lock().unwrap();
        if is_failing {
            failing.insert(port)
        } else {
            failing.remove(&port)
        };
    }
}

impl Probe for FailingPorts {
    async fn probe(
        &self,
        _: &Check,
        addr: &EndpointAddr,
        _: &'static [u8],
        _: Duration,
    ) -> Result<(), String> {
        let EndpointAddr::Inet(addr) = addr else { return Ok(()) };
        if self.0.lock().unwrap().contains(&addr.port()) { Err("failing".to_owned()) } else { Ok(()) }
    }
}

struct MonitoredCluster {
    cluster: Arc<Cluster>,
    failing: FailingPorts,
    options: Options,
    _monitor: AbortOnDropHandle<()>,
}

fn spec(port: u16) -> EndpointSpec {
    EndpointSpec::new(EndpointAddr::Inet(SocketAddr::from(([127, 0, 0, 1], port))), Identity::Literal)
}

impl MonitoredCluster {
    async fn new(check: Check, ports: &[u16]) -> MonitoredCluster {
        let health = Health { check, ..Health::default() };
        let options = Options { health, on_unhealthy: OnUnhealthy::Cut, ..Options::named("test") };
        let cluster = Arc::new(Cluster::seeded(options.clone(), CancellationToken::new(), 1));
        let failing = FailingPorts::default();
        let context = MonitorContext::new(failing.clone(), 50, Arc::default());
        let monitor = spawn(cluster.clone(), Arc::new(context));
        let monitored = MonitoredCluster { cluster, failing, options, _monitor: monitor };
        monitored.update(ports).await;
        monitored
    }

    async fn update(&self, ports: &[u16]) {
        let specs: Vec<_> = ports.iter().map(|port| spec(*port)).collect();
        self.cluster.update(&self.options, &specs);
        settle().await;
    }

    fn endpoint(&self, port: u16) -> Arc<Endpoint> {
        let members = self.cluster.members_arc();
        let found = members.all().find(|(_, member)| member.endpoint.key == spec(port).key);
        found.unwrap().1.endpoint.clone()
    }

    /// Returns the ports that a session would try, sorted.
    fn choices(&self) -> Vec<String> {
        let members = self.cluster.members_arc();
        let port = |endpoint: &Arc<Endpoint>| endpoint.key.addr.to_string().split_off("127.0.0.1:".len());
        let mut choices: Vec<_> = self.cluster.choices(&members, None).map(port).collect();
        choices.sort();
        choices
    }
}

/// Runs all tasks that are ready.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    settle().await;
}

/// A session of this client that was reset at once.
fn reset_on(client: u8) -> Outcome {
    Outcome {
        protocol: Protocol::Tcp,
        ending: Ending::UpstreamReset,
        bytes_up: 0,
        bytes_down: 0,
        lasted: Duration::from_millis(3),
        client: Some(ClientNet::of([192, 0, 2, client].into())),
        client_left: false,
    }
}

fn refused() -> ConnectError {
    ConnectError::of(&std::io::ErrorKind::ConnectionRefused.into())
}

fn fail_connects(monitored: &MonitoredCluster, port: u16) {
    let endpoint = monitored.endpoint(port);
    for _ in 0..5 {
        if endpoint.failed(refused()) {
            monitored.cluster.monitor_wakeup.notify_one();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_fails_its_checks_gets_no_sessions_and_loses_those_it_has() {
    let monitored = MonitoredCluster::new(Check::Tcp, &[1, 2]).await;
    let session = InFlight::on(monitored.endpoint(1), None).unwrap();
    monitored.failing.set(1, true);
    pass(5).await;
    assert_eq!(monitored.choices(), ["1", "2"], "one failure is not enough");
    pass(15).await;
    assert_eq!(monitored.choices(), ["2"]);
    assert!(session.is_cut());
    assert!(!InFlight::on(monitored.endpoint(1), None).unwrap().is_cut(), "later sessions are not cut");
    monitored.failing.set(1, false);
    pass(15).await;
    assert_eq!(monitored.choices(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn all_endpoints_are_tried_when_all_are_unhealthy() {
    let monitored = MonitoredCluster::new(Check::Tcp, &[1, 2]).await;
    monitored.failing.set(1, true);
    monitored.failing.set(2, true);
    pass(20).await;
    assert_eq!(monitored.endpoint(1).condition().health, Some(State::Unhealthy));
    assert_eq!(monitored.choices(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_joins_is_checked_at_once_and_gets_no_session_while_unhealthy() {
    let monitored = MonitoredCluster::new(Check::Tcp, &[1]).await;
    monitored.failing.set(2, true);
    monitored.update(&[1, 2]).await;
    assert_eq!(monitored.endpoint(2).condition().health, Some(State::Unhealthy));
    assert_eq!(monitored.choices(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn held_session_is_woken_when_an_endpoint_recovers() {
    let monitored = MonitoredCluster::new(Check::Tcp, &[1, 2]).await;
    monitored.failing.set(1, true);
    pass(20).await;
    let changed = monitored.cluster.changed.notified();
    monitored.failing.set(1, false);
    tokio::time::timeout(Duration::from_secs(15), changed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn endpoint_ejected_for_refusals_is_tried_last() {
    let monitored = MonitoredCluster::new(Check::Off, &[1, 2, 3]).await;
    fail_connects(&monitored, 1);
    settle().await;
    assert_eq!(monitored.endpoint(1).condition().ejected, Some(Cause::Refused));
    let members = monitored.cluster.members_arc();
    for _ in 0..9 {
        let order: Vec<_> = monitored.cluster.choices(&members, None).map(|endpoint| &endpoint.key).collect();
        assert_eq!((order.len(), order[2]), (3, &spec(1).key));
    }
    fail_connects(&monitored, 2);
    settle().await;
    assert_eq!(monitored.endpoint(2).condition().ejected, None, "at most one of three may be ejected");
    pass(6).await;
    assert_eq!(monitored.endpoint(1).condition().ejected, None);
    assert_eq!(
        monitored.endpoint(2).condition().ejected,
        Some(Cause::Refused),
        "now another one may be ejected"
    );
}

#[tokio::test(start_paused = true)]
async fn ejected_endpoint_that_answers_returns_at_once() {
    let monitored = MonitoredCluster::new(Check::Off, &[1, 2]).await;
    fail_connects(&monitored, 1);
    settle().await;
    let endpoint = monitored.endpoint(1);
    assert!(endpoint.condition().ejected.is_some());
    assert!(endpoint.answered());
    monitored.cluster.monitor_wakeup.notify_one();
    settle().await;
    assert_eq!(endpoint.condition().ejected, None);
}

#[tokio::test(start_paused = true)]
async fn endpoint_ejected_for_resets_is_not_tried() {
    let monitored = MonitoredCluster::new(Check::Off, &[1, 2]).await;
    let endpoint = monitored.endpoint(1);
    for client in [1, 2, 3, 4, 4, 4] {
        monitored.cluster.ended(&endpoint, &reset_on(client));
    }
    monitored.cluster.ended(&endpoint, &Outcome { lasted: Duration::from_secs(3), ..reset_on(5) });
    monitored.cluster.ended(&endpoint, &Outcome { ending: Ending::Finished, ..reset_on(6) });
    settle().await;
    assert_eq!(monitored.choices(), ["1", "2"]);
    monitored.cluster.ended(&endpoint, &reset_on(7));
    settle().await;
    assert_eq!(monitored.endpoint(1).condition().ejected, Some(Cause::Reset));
    assert_eq!(monitored.choices(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn only_endpoint_is_never_ejected_and_checks_can_be_disabled() {
    let mut monitored = MonitoredCluster::new(Check::Tcp, &[1]).await;
    fail_connects(&monitored, 1);
    monitored.failing.set(1, true);
    pass(20).await;
    let condition = monitored.endpoint(1).condition();
    assert_eq!((condition.ejected, condition.health), (None, Some(State::Unhealthy)));
    monitored.options.health.check = Check::Off;
    monitored.update(&[1]).await;
    assert_eq!(monitored.endpoint(1).condition(), Condition::default());
}
