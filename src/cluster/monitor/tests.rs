//! A watched cluster, in virtual time.

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

/// Endpoints by their ports; those in the set are sick.
#[derive(Clone, Default)]
struct Sick(Arc<Mutex<BTreeSet<u16>>>);

impl Sick {
    fn set(&self, port: u16, is_sick: bool) {
        let mut sick = self.0.lock().unwrap();
        if is_sick {
            sick.insert(port)
        } else {
            sick.remove(&port)
        };
    }
}

impl Probe for Sick {
    async fn probe(&self, _: &Check, addr: &EndpointAddr, _: Duration) -> Result<(), String> {
        let EndpointAddr::Inet(addr) = addr else { return Ok(()) };
        if self.0.lock().unwrap().contains(&addr.port()) { Err("sick".to_owned()) } else { Ok(()) }
    }
}

struct World {
    cluster: Arc<Cluster>,
    sick: Sick,
    options: Options,
    _watch: AbortOnDropHandle<()>,
}

fn spec(port: u16) -> EndpointSpec {
    EndpointSpec::new(EndpointAddr::Inet(SocketAddr::from(([127, 0, 0, 1], port))), Identity::Literal)
}

impl World {
    async fn new(check: Check, ports: &[u16]) -> World {
        let health = Health { check, ..Health::default() };
        let options = Options { health, on_unhealthy: OnUnhealthy::Cut, ..Options::named("test") };
        let cluster = Arc::new(Cluster::seeded(options.clone(), CancellationToken::new(), 1));
        let sick = Sick::default();
        let means = Means::new(sick.clone(), 50, Arc::default());
        let watch = watch(cluster.clone(), Arc::new(means));
        let world = World { cluster, sick, options, _watch: watch };
        world.update(ports).await;
        world
    }

    async fn update(&self, ports: &[u16]) {
        let specs: Vec<_> = ports.iter().map(|port| spec(*port)).collect();
        self.cluster.update(&self.options, &specs);
        settle().await;
    }

    fn endpoint(&self, port: u16) -> Arc<Endpoint> {
        let members = self.cluster.members();
        let found = members.all().find(|(_, member)| member.endpoint.key == spec(port).key);
        found.unwrap().1.endpoint.clone()
    }

    /// The ports that a session would try, in order.
    fn choices(&self) -> Vec<String> {
        let members = self.cluster.members();
        let port = |endpoint: &Arc<Endpoint>| endpoint.key.addr.to_string().split_off("127.0.0.1:".len());
        let mut choices: Vec<_> = self.cluster.choices(&members, None).map(port).collect();
        choices.sort();
        choices
    }
}

/// Lets everybody do what can be done at this moment.
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

fn break_down(world: &World, port: u16) {
    let endpoint = world.endpoint(port);
    for _ in 0..5 {
        if endpoint.failed(refused()) {
            world.cluster.alarm.notify_one();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_fails_its_checks_gets_no_sessions_and_loses_those_it_has() {
    let world = World::new(Check::Tcp, &[1, 2]).await;
    let session = InFlight::on(world.endpoint(1), None).unwrap();
    world.sick.set(1, true);
    pass(5).await;
    assert_eq!(world.choices(), ["1", "2"], "once is chance");
    pass(15).await;
    assert_eq!(world.choices(), ["2"]);
    assert!(session.is_cut());
    assert!(!InFlight::on(world.endpoint(1), None).unwrap().is_cut(), "those to come are not");
    world.sick.set(1, false);
    pass(15).await;
    assert_eq!(world.choices(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_sick_all_are_tried() {
    let world = World::new(Check::Tcp, &[1, 2]).await;
    world.sick.set(1, true);
    world.sick.set(2, true);
    pass(20).await;
    assert_eq!(world.endpoint(1).condition().health, Some(State::Unhealthy));
    assert_eq!(world.choices(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_checked_at_once_and_one_that_is_sick_gets_no_session() {
    let world = World::new(Check::Tcp, &[1]).await;
    world.sick.set(2, true);
    world.update(&[1, 2]).await;
    assert_eq!(world.endpoint(2).condition().health, Some(State::Unhealthy));
    assert_eq!(world.choices(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_held_session_is_woken_when_an_endpoint_is_well_again() {
    let world = World::new(Check::Tcp, &[1, 2]).await;
    world.sick.set(1, true);
    pass(20).await;
    let changed = world.cluster.changed.notified();
    world.sick.set(1, false);
    tokio::time::timeout(Duration::from_secs(15), changed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outlier_is_left_out_and_asked_only_where_nobody_else_answers() {
    let world = World::new(Check::Off, &[1, 2, 3]).await;
    break_down(&world, 1);
    settle().await;
    assert_eq!(world.endpoint(1).condition().ejected, Some(Cause::Refused));
    let members = world.cluster.members();
    for _ in 0..9 {
        let order: Vec<_> = world.cluster.choices(&members, None).map(|endpoint| &endpoint.key).collect();
        assert_eq!((order.len(), order[2]), (3, &spec(1).key));
    }
    break_down(&world, 2);
    settle().await;
    assert_eq!(world.endpoint(2).condition().ejected, None, "one of three is all that may go");
    pass(6).await;
    assert_eq!(world.endpoint(1).condition().ejected, None);
    assert_eq!(world.endpoint(2).condition().ejected, Some(Cause::Refused), "now there is room");
}

#[tokio::test(start_paused = true)]
async fn an_outlier_that_answers_is_back_at_once() {
    let world = World::new(Check::Off, &[1, 2]).await;
    break_down(&world, 1);
    settle().await;
    let endpoint = world.endpoint(1);
    assert!(endpoint.condition().ejected.is_some());
    assert!(endpoint.answered());
    world.cluster.alarm.notify_one();
    settle().await;
    assert_eq!(endpoint.condition().ejected, None);
}

#[tokio::test(start_paused = true)]
async fn who_resets_what_it_takes_is_left_out_altogether() {
    let world = World::new(Check::Off, &[1, 2]).await;
    let endpoint = world.endpoint(1);
    for client in [1, 2, 3, 4, 4, 4] {
        world.cluster.ended(&endpoint, &reset_on(client));
    }
    world.cluster.ended(&endpoint, &Outcome { lasted: Duration::from_secs(3), ..reset_on(5) });
    world.cluster.ended(&endpoint, &Outcome { ending: Ending::Finished, ..reset_on(6) });
    settle().await;
    assert_eq!(world.choices(), ["1", "2"]);
    world.cluster.ended(&endpoint, &reset_on(7));
    settle().await;
    assert_eq!(world.endpoint(1).condition().ejected, Some(Cause::Reset));
    assert_eq!(world.choices(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_its_own_is_never_ejected_and_checks_can_be_turned_off() {
    let mut world = World::new(Check::Tcp, &[1]).await;
    break_down(&world, 1);
    world.sick.set(1, true);
    pass(20).await;
    let condition = world.endpoint(1).condition();
    assert_eq!((condition.ejected, condition.health), (None, Some(State::Unhealthy)));
    world.options.health.check = Check::Off;
    world.update(&[1]).await;
    assert_eq!(world.endpoint(1).condition(), Condition::default());
}
