//! What follows from sources, overrides, grace periods and switches: tables without a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::address::{EndpointAddr, EndpointKey, EndpointSpec, Identity};
use crate::config::grammar::parse_route;
use crate::reconcile::command::{Command, CommandError, SwitchRequest, Trial};
use crate::route::{HOLD_DEFAULT, OnRemove};

/// A desired state, and the time of its last update.
struct World {
    desired: DesiredState,
    now: Instant,
}

/// Where the layer of a route comes from.
fn layer(origin: &Place, lines: &[&str]) -> Layer {
    Layer { routes: lines.iter().map(|line| parse_route(line, origin).unwrap()).collect() }
}

impl World {
    fn new(config: Config) -> World {
        let mut world = World { desired: DesiredState::new(config), now: Instant::now() };
        world.desired.update(world.now);
        world
    }

    fn of_arguments(lines: &[&str]) -> World {
        World::new(Config::with_routes(layer(&Place::Argument(1), lines).routes))
    }

    fn report_file(&mut self, lines: &[&str]) -> Vec<EventKind> {
        self.desired.apply(Snapshot::File(layer(&Place::Built, lines).routes));
        self.desired.update(self.now)
    }

    fn execute(&mut self, command: &Command) -> Result<String, CommandError> {
        let keys = |route| self.desired.resolve(route).endpoints.into_iter().map(|endpoint| endpoint.key);
        let table = self.desired.table.iter();
        let endpoints: BTreeMap<Listen, Vec<EndpointKey>> =
            table.map(|(listen, route)| (listen.clone(), keys(route).collect())).collect();
        let outcome = self.desired.execute(command, |listen| endpoints[listen].clone(), self.now)?;
        self.desired.update(self.now);
        Ok(outcome.message)
    }

    fn switch(&mut self, targets: Option<&str>, trial: Option<Duration>) -> Result<String, CommandError> {
        let trial = trial.map(|timeout| Trial { timeout: Some(timeout) });
        let (route, targets) = ("r".to_owned(), targets.map(str::to_owned));
        self.execute(&Command::Switch(SwitchRequest { route, targets, old: Some(OnRemove::Cut), trial }))
    }

    fn table(&self) -> Vec<String> {
        self.desired.table().values().map(ToString::to_string).collect()
    }

    /// The endpoints of each route as one line, and completes the switches that are no longer pending.
    fn clusters(&mut self, is_unconfirmed: bool) -> Vec<String> {
        let addrs: Vec<(Listen, Vec<SocketAddr>)> =
            self.desired.table().keys().map(|listen| (listen.clone(), Vec::new())).collect();
        let plan = self.desired.plan(addrs.iter().map(|(l, addrs)| (l, addrs.as_slice())), |_| false);
        let clusters = plan.clusters(|_| is_unconfirmed, |_| false);
        let line = |cluster: &DesiredCluster<'_>| {
            let endpoint = |spec: &EndpointSpec| format!("{}*{}", spec.key, spec.weight);
            let endpoints: Vec<String> = cluster.endpoints.iter().map(endpoint).collect();
            let paused = if cluster.is_paused { " paused" } else { "" };
            let pending = if cluster.is_pending { " pending" } else { "" };
            format!("{} {:?}{paused}{pending}", endpoints.join(","), cluster.on_remove)
        };
        let lines = clusters.iter().map(line).collect();
        let in_use = clusters.iter().filter(|cluster| !cluster.is_pending);
        let in_use: Vec<String> = in_use.map(|cluster| cluster.route.options.name.clone()).collect();
        self.desired.complete_switches(&in_use);
        lines
    }
}

#[test]
fn arguments_precede_the_environment_the_file_and_link_variables() {
    let mut config = Config::with_routes(layer(&Place::Argument(1), &["1=a"]).routes);
    config.environment = layer(&Place::Built, &["1=b", "2=b"]);
    config.file = layer(&Place::Built, &["1=c", "2=c", "3=c"]);
    config.links = layer(&Place::Variable("V".to_owned()), &["1=d", "2=d", "3=d", "4=d"]);
    let mut world = World::new(config);
    assert_eq!(world.table(), ["1=a:1", "2=b:2", "3=c:3", "4=d:4"]);
    world.execute(&Command::Remove { route: "1".to_owned() }).unwrap();
    world.execute(&Command::Add { line: "1=operator".to_owned() }).unwrap();
    assert_eq!(world.table()[0], "1=operator:1");
}

#[test]
fn file_that_was_read_again_replaces_its_routes_and_keeps_overrides() {
    let mut world = World::of_arguments(&["1=10.0.0.1:1?name=r"]);
    world.report_file(&["2=10.0.0.2:1"]);
    world.switch(Some("10.0.0.9:1"), None).unwrap();
    assert_eq!(world.table(), ["1=10.0.0.9:1?name=r", "2=10.0.0.2:1"]);
    let events = world.report_file(&["2=10.0.0.3:1", "3=10.0.0.3:1"]);
    assert!(matches!(events.as_slice(), [EventKind::RouteReplaced { .. }]), "{events:?}");
    assert_eq!(world.table(), ["1=10.0.0.9:1?name=r", "2=10.0.0.3:1", "3=10.0.0.3:1"]);
    world.switch(None, None).unwrap();
    assert_eq!(world.table()[0], "1=10.0.0.1:1?name=r");
}

#[test]
fn labelled_route_stays_for_its_grace_period_unless_it_was_removed_by_hand() {
    for is_removed in [false, true] {
        let mut world = World::of_arguments(&[]);
        let label = Place::Label { container: "web".to_owned(), label: "l".to_owned() };
        let route = parse_route("80=10.0.0.1:1", &label).unwrap();
        world.desired.source_table.insert(route.listen.clone(), route);
        world.desired.update(world.now);
        assert_eq!(world.table().len(), 1);
        assert_eq!(world.desired.next(world.now), Some(world.now + HOLD_DEFAULT));
        if is_removed {
            world.execute(&Command::Remove { route: "80".to_owned() }).unwrap();
        } else {
            world.desired.update(world.now + HOLD_DEFAULT);
        }
        assert_eq!(world.table(), [""; 0]);
    }
}

#[test]
fn commands_change_the_cluster_of_their_route() {
    let mut world = World::of_arguments(&["1=10.0.0.1:1,10.0.0.2:1?name=r"]);
    let (route, endpoint) = ("r".to_owned(), "10.0.0.1:1".to_owned());
    for (command, cluster) in [
        (Command::Pause { route: route.clone() }, "10.0.0.1:1*1,10.0.0.2:1*1 Drain paused"),
        (Command::Resume { route: route.clone() }, "10.0.0.1:1*1,10.0.0.2:1*1 Drain"),
        (
            Command::Weight { route: route.clone(), endpoint: endpoint.clone(), weight: Some(7) },
            "10.0.0.1:1*7,10.0.0.2:1*1 Drain",
        ),
        (
            Command::Drain { route: route.clone(), endpoint: endpoint.clone() },
            "10.0.0.1:1*0,10.0.0.2:1*1 Drain",
        ),
        (Command::Undrain { route, endpoint }, "10.0.0.1:1*7,10.0.0.2:1*1 Drain"),
    ] {
        world.execute(&command).unwrap();
        assert_eq!(world.clusters(false), [cluster], "{command:?}");
    }
}

#[test]
fn command_that_fails_changes_nothing() {
    let mut world = World::of_arguments(&["1=10.0.0.1:1?name=r"]);
    let endpoint = "10.0.0.2:1".to_owned();
    for (command, error) in [
        (Command::Pause { route: "x".to_owned() }, "unknown route `x`"),
        (Command::Drain { route: "r".to_owned(), endpoint }, "unknown endpoint `10.0.0.2:1`"),
        (Command::Add { line: "1=b".to_owned() }, "already has this listener or this name"),
    ] {
        let result = world.execute(&command).unwrap_err().to_string();
        assert!(result.contains(error), "{result}");
    }
    assert_eq!(world.desired.overrides, Overrides::default());
    let again = world.execute(&Command::Resume { route: "r".to_owned() });
    assert_eq!(again.as_deref(), Ok("route r is not paused"));
}

#[test]
fn peers_need_credentials() {
    let mut config = Config::with_routes(layer(&Place::Argument(1), &["1=10.0.0.1:1,file:/f?name=r"]).routes);
    let mut world = World::new(config.clone());
    let add = Command::Add { line: "peer:a=b:1".to_owned() };
    for result in [world.execute(&add), world.switch(Some("peer://10.0.0.2/a"), None)] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("needs credentials for peers"), "{error}");
    }
    let endpoint = EndpointAddr::peer_at("10.0.0.3:15008".parse().unwrap(), "a");
    let listed = Snapshot::Target {
        target: Target::File("/f".into()),
        endpoints: vec![EndpointSpec::new(endpoint, Identity::Key("file:/f".to_owned()))],
        problem: None,
    };
    let resolved = |world: &mut World| {
        world.desired.apply(listed.clone());
        let route = world.desired.table().values().find(|route| route.options.name == "r").unwrap();
        world.desired.resolve(route)
    };
    let Resolved { endpoints, problems } = resolved(&mut world);
    assert_eq!(endpoints.len(), 1);
    assert_eq!(
        problems,
        ["peer://10.0.0.3:15008/a (file:/f): not used, because there are no credentials for peers"]
    );
    config.settings.peer.secret_file = Some("/s".into());
    let mut world = World::new(config);
    world.execute(&add).unwrap();
    assert_eq!(resolved(&mut world).endpoints.len(), 2);
    world.switch(Some("peer://10.0.0.2/a"), None).unwrap();
    assert_eq!(world.table(), ["1=peer://10.0.0.2/a?name=r", "peer:a=b:1"]);
}

#[test]
fn previous_endpoints_serve_until_the_new_targets_have_a_confirmed_endpoint() {
    let mut world = World::of_arguments(&["1=10.0.0.1:1?name=r"]);
    world.switch(Some("unresolved:1"), None).unwrap();
    assert_eq!(world.clusters(false), ["10.0.0.1:1*1 Drain pending"]);
    world.switch(Some("10.0.0.2:1"), Some(Duration::from_secs(9))).unwrap();
    assert_eq!(world.clusters(true), ["10.0.0.1:1*1 Drain pending"]);
    assert_eq!(world.clusters(false), ["10.0.0.2:1*1 Cut"], "old endpoints are removed as requested");
    assert_eq!(world.clusters(false), ["10.0.0.2:1*1 Drain"], "once");
    assert_eq!(world.clusters(true), ["10.0.0.2:1*1 Drain"], "nothing is pending");
}

#[test]
fn switch_that_does_not_settle_is_rolled_back_to_the_override_before_it() {
    let mut world = World::of_arguments(&["1=10.0.0.1:1?name=r"]);
    world.switch(Some("10.0.0.2:1"), None).unwrap();
    world.clusters(false);
    world.switch(Some("10.0.0.3:1"), Some(Duration::from_secs(9))).unwrap();
    assert_eq!(world.clusters(true), ["10.0.0.2:1*1 Drain pending"]);
    let judge = |world: &mut World, after: u64| {
        let now = world.now + Duration::from_secs(after);
        let events =
            world.desired.judge_switches(now, |_, is_pending| Some(format!("pending: {is_pending}")));
        world.desired.update(now);
        events.len()
    };
    assert_eq!((judge(&mut world, 8), world.table()), (0, vec!["1=10.0.0.3:1?name=r".to_owned()]));
    assert_eq!((judge(&mut world, 9), world.table()), (1, vec!["1=10.0.0.2:1?name=r".to_owned()]));
    let last = world.desired.last_switch("r").cloned();
    assert_eq!(last.and_then(|last| last.why).as_deref(), Some("pending: true"));
    assert_eq!(world.clusters(false), ["10.0.0.2:1*1 Drain"]);
}

#[test]
fn sources_are_followed_while_a_route_or_a_pending_switch_needs_them() {
    let mut world = World::of_arguments(&["1=before:1?name=r"]);
    let followed = |world: &World| -> Vec<String> {
        world.desired.followed_targets().iter().map(ToString::to_string).collect()
    };
    world.switch(Some("after:1"), None).unwrap();
    assert_eq!(followed(&world), ["after:1", "before:1"]);
    world.desired.complete_switches(&["r".to_owned()]);
    assert_eq!(followed(&world), ["after:1"]);
}
