//! Events, inspections and lists, in all possible orders.

use serde_json::json;

use super::*;
use crate::discovery::docker::api::listed;
use crate::discovery::docker::fixtures::{container, id, on};

fn found(container: Container) -> Inspection {
    Inspection::Found(Box::new(container))
}

/// Applies an event and the inspection that follows.
fn inspected(state: &mut EngineState, beginning: &str, container: Container) {
    state.apply_event(DockerEvent::Changed(id(beginning)));
    assert_eq!(state.next_inspection(), Some(id(beginning)));
    state.apply_inspection(id(beginning), found(container));
}

fn running(state: &mut EngineState) -> Vec<String> {
    let snapshot = state.snapshot();
    snapshot
        .by_id
        .values()
        .filter(|container| container.running)
        .map(|container| container.name.clone())
        .collect()
}

fn line(beginning: &str, name: &str, state: &str, ip: &str) -> serde_json::Value {
    json!({ "Id": id(beginning).0, "Names": [format!("/{name}")], "State": state,
        "NetworkSettings": { "Networks": { "bridge": { "NetworkID": "bridge-id", "IPAddress": ip } } } })
}

#[test]
fn event_is_followed_by_an_inspection_and_a_snapshot() {
    let mut state = EngineState::default();
    assert_eq!(running(&mut state), [""; 0]);
    inspected(&mut state, "a", container("redis", 2));
    assert!(state.is_settled());
    assert_eq!(running(&mut state), ["redis"]);
    assert_eq!(state.snapshot(), state.snapshot());
}

#[test]
fn container_that_dies_is_removed_before_it_is_inspected() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    state.apply_event(DockerEvent::Stopped(id("a")));
    assert_eq!(running(&mut state), [""; 0]);
    assert_eq!(state.next_inspection(), Some(id("a")));
}

/// As from 26.1 on. The problem is not logged unless it lasts: `reconcile::problems`.
#[test]
fn container_disconnected_before_it_dies_has_no_endpoint_and_then_is_not_running() {
    let mut state = EngineState::new(vec![id("0").0], String::new());
    inspected(&mut state, "0", container("ambassador", 9));
    inspected(&mut state, "a", container("redis", 2));
    let resolve = |state: &mut EngineState| {
        let snapshot = state.snapshot();
        snapshot.resolve("redis", Some(6379), None, crate::route::Protocol::Tcp)
    };
    assert_eq!(resolve(&mut state).endpoints.len(), 1);
    state.apply_event(DockerEvent::Disconnected { container: id("a"), network: "bridge-id".to_owned() });
    let left = resolve(&mut state);
    assert_eq!((left.endpoints.len(), left.problems.len()), (0, 1));
    assert!(left.problems[0].contains("about to stop"), "{left:?}");
    state.apply_event(DockerEvent::Stopped(id("a")));
    assert_eq!(resolve(&mut state).problems, ["container redis is not running"]);
}

#[test]
fn container_is_stopping_from_its_signal_to_its_death() {
    let stopping = |state: &mut EngineState| state.snapshot().by_id[&id("a")].stopping;
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    assert_eq!(stopping(&mut state), Stopping::No);
    state.apply_event(DockerEvent::Stopping(id("a"), Stopping::Certainly));
    state.apply_event(DockerEvent::Stopping(id("a"), Stopping::Possibly));
    assert_eq!(stopping(&mut state), Stopping::Certainly);
    // An inspection reports it as running.
    inspected(&mut state, "a", container("redis", 3));
    assert_eq!(stopping(&mut state), Stopping::Certainly);
    state.apply_event(DockerEvent::Stopped(id("a")));
    assert_eq!(stopping(&mut state), Stopping::No);
    inspected(&mut state, "a", container("redis", 4));
    assert_eq!(stopping(&mut state), Stopping::No);
}

#[test]
fn inspection_from_before_a_death_is_ignored() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    state.apply_event(DockerEvent::Changed(id("a")));
    state.next_inspection();
    state.apply_event(DockerEvent::Stopped(id("a")));
    assert_eq!(state.next_inspection(), None, "one inspection at a time");
    state.apply_inspection(id("a"), found(container("redis", 2)));
    assert_eq!(running(&mut state), [""; 0]);
    assert_eq!(state.next_inspection(), Some(id("a")), "inspected again");
    state.apply_inspection(id("a"), found(container("redis", 2)));
    assert_eq!(running(&mut state), ["redis"], "it was started again");
}

#[test]
fn inspection_does_not_restore_a_destroyed_container() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    state.apply_event(DockerEvent::Changed(id("a")));
    state.next_inspection();
    state.apply_event(DockerEvent::Destroyed(id("a")));
    state.apply_inspection(id("a"), found(container("redis", 2)));
    assert!(state.is_settled());
    assert_eq!(state.snapshot().by_id.len(), 0);
}

#[test]
fn container_that_is_not_found_is_removed_and_after_a_failed_inspection_it_is_kept() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    inspected(&mut state, "b", container("db", 3));
    for (beginning, answer) in [("a", Inspection::NotFound), ("b", Inspection::Failed)] {
        state.apply_event(DockerEvent::Changed(id(beginning)));
        state.next_inspection();
        state.apply_inspection(id(beginning), answer);
    }
    assert_eq!(running(&mut state), ["db"]);
}

#[test]
fn disconnecting_a_network_removes_its_address_at_once() {
    let mut state = EngineState::default();
    let mut redis = container("redis", 2);
    redis.networks.extend([on("back", [10, 0, 0, 2])]);
    inspected(&mut state, "a", redis);
    state.apply_event(DockerEvent::Disconnected { container: id("a"), network: "back-id".to_owned() });
    let snapshot = state.snapshot();
    assert_eq!(snapshot.by_id[&id("a")].networks.keys().collect::<Vec<_>>(), ["bridge-id"]);
}

#[test]
fn contested_address_is_removed_from_both_containers() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("before", 2));
    inspected(&mut state, "b", container("after", 2));
    inspected(&mut state, "c", container("other", 3));
    let snapshot = state.snapshot();
    let address = |beginning: &str| snapshot.by_id[&id(beginning)].networks["bridge-id"].ipv4;
    assert_eq!((address("a"), address("b")), (None, None));
    assert!(address("c").is_some());
    state.apply_event(DockerEvent::Stopped(id("a")));
    let snapshot = state.snapshot();
    assert!(snapshot.by_id[&id("b")].networks["bridge-id"].ipv4.is_some());
}

#[test]
fn list_reveals_changes_without_an_event() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("same", 2));
    inspected(&mut state, "b", container("stopped", 3));
    inspected(&mut state, "c", container("removed", 4));
    inspected(&mut state, "d", container("moved", 5));
    let before = state.begin_list();
    inspected(&mut state, "e", container("created-since", 6));
    let list = listed(&json!([
        line("a", "same", "running", "172.17.0.2"),
        line("b", "stopped", "exited", ""),
        line("d", "moved", "running", "172.17.0.9"),
        line("f", "new", "running", "172.17.0.7"),
    ]));
    state.apply_list(&list.unwrap(), &before);
    let inspected: Vec<_> = std::iter::from_fn(|| state.next_inspection()).collect();
    assert_eq!(inspected, [id("b"), id("d"), id("f")]);
    let snapshot = state.snapshot();
    assert!(!snapshot.by_id.contains_key(&id("c")));
    assert!(snapshot.by_id.contains_key(&id("e")));
}

#[test]
fn own_container_is_the_first_candidate_that_exists() {
    let own = |candidates: &[&str]| {
        let mut state = EngineState::new(
            candidates.iter().map(|candidate| (*candidate).to_owned()).collect(),
            String::new(),
        );
        inspected(&mut state, "abcdef012345", container("one", 2));
        inspected(&mut state, "abcdef012346", container("two", 3));
        state.snapshot().own_id
    };
    assert_eq!(own(&[&id("abcdef012346").0]), Some(id("abcdef012346")));
    assert_eq!(own(&[&id("fff").0, "abcdef012345"]), Some(id("abcdef012345")));
    assert_eq!(own(&["abcdef01234"]), None, "a prefix of two");
    assert_eq!(own(&[]), None);
    assert_eq!(own(&["ffffffffffff"]), None);
}

/// Applies a list that was requested after the last event.
fn lists(state: &mut EngineState, lines: &[serde_json::Value]) {
    let before = state.begin_list();
    state.apply_list(&listed(&json!(lines)).unwrap(), &before);
}

fn address(state: &mut EngineState, beginning: &str) -> Option<std::net::Ipv4Addr> {
    let snapshot = state.snapshot();
    snapshot.by_id[&id(beginning)].networks.values().find_map(|attachment| attachment.ipv4)
}

#[test]
fn container_listed_as_dead_is_stopped_before_it_is_inspected() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    lists(&mut state, &[line("a", "redis", "exited", "")]);
    assert_eq!(running(&mut state), [""; 0]);
    assert!(state.take_missed_event() && !state.take_missed_event());
    assert_eq!(state.next_inspection(), Some(id("a")));
}

#[test]
fn address_listed_with_another_container_is_removed_at_once() {
    let mut state = EngineState::default();
    let redis = container("redis", 2);
    let ip = redis.networks.values().find_map(|attachment| attachment.ipv4).unwrap().to_string();
    inspected(&mut state, "a", redis);
    assert!(address(&mut state, "a").is_some());
    let gone = json!({ "Id": id("a").0, "Names": ["/redis"], "State": "running", "NetworkSettings": {} });
    let mut thief = line("b", "web", "running", &ip);
    let network = state.containers[&id("a")].networks.keys().next().unwrap().clone();
    thief["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] = json!(network);
    lists(&mut state, &[gone, thief]);
    assert_eq!(address(&mut state, "a"), None);
    assert!(state.take_missed_event());
}

#[test]
fn list_removes_nothing_from_a_container_with_a_later_event() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    let before = state.begin_list();
    state.apply_event(DockerEvent::Changed(id("a")));
    state.apply_list(&listed(&json!([line("a", "redis", "exited", "")])).unwrap(), &before);
    assert_eq!(running(&mut state), ["redis"]);
    assert!(!state.take_missed_event());
}

#[test]
fn difference_not_confirmed_by_an_inspection_is_not_a_missed_event() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    // Some engines list containers without addresses.
    let line = json!({ "Id": id("a").0, "Names": ["/redis"], "State": "running" });
    lists(&mut state, &[line]);
    assert_eq!(state.next_inspection(), Some(id("a")));
    state.apply_inspection(id("a"), found(container("redis", 2)));
    assert!(!state.take_missed_event());
    assert!(address(&mut state, "a").is_some());
}

#[test]
fn containers_that_contest_an_address_are_inspected_once() {
    let mut state = EngineState::default();
    inspected(&mut state, "a", container("redis", 2));
    inspected(&mut state, "b", container("web", 2));
    assert_eq!(address(&mut state, "a"), None);
    assert_eq!(
        (state.next_inspection(), state.next_inspection(), state.next_inspection()),
        (Some(id("a")), Some(id("b")), None)
    );
    state.apply_inspection(id("a"), found(container("redis", 2)));
    state.apply_inspection(id("b"), found(container("web", 2)));
    assert_eq!((address(&mut state, "a"), address(&mut state, "b")), (None, None));
    assert_eq!(state.next_inspection(), None);
}
