//! Events, answers and lists in the orders in which they can come.

use serde_json::json;

use super::*;
use crate::discovery::containers::tests::{container, id, on};
use crate::discovery::docker::api::listed;

fn is(container: Container) -> Answer {
    Answer::Is(Box::new(container))
}

/// Asked and answered.
fn knows(view: &mut View, beginning: &str, container: Container) {
    view.heard(Event::Touched(id(beginning)));
    assert_eq!(view.ask(), Some(id(beginning)));
    view.answered(id(beginning), is(container));
}

fn running(view: &mut View) -> Vec<String> {
    let snapshot = view.snapshot().expect("something changed");
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
fn an_event_is_a_question_and_its_answer_a_snapshot() {
    let mut view = View::default();
    assert_eq!(running(&mut view), [""; 0]);
    knows(&mut view, "a", container("redis", 2));
    assert!(view.settled());
    assert_eq!(running(&mut view), ["redis"]);
    assert_eq!(view.snapshot(), None);
}

#[test]
fn a_container_that_dies_is_gone_before_it_is_inspected() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    view.heard(Event::Stopped(id("a")));
    assert_eq!(running(&mut view), [""; 0]);
    assert_eq!(view.ask(), Some(id("a")));
}

/// From 26.1 on. What lasts for as long as the two are apart is not logged: `reconcile::problems`.
#[test]
fn a_container_that_leaves_its_networks_before_it_dies_has_no_endpoint_and_then_is_not_running() {
    let mut view = View::new(vec![id("0").0], String::new());
    knows(&mut view, "0", container("ambassador", 9));
    knows(&mut view, "a", container("redis", 2));
    let resolve = |view: &mut View| {
        let snapshot = view.snapshot().expect("something changed");
        snapshot.resolve("redis", Some(6379), None, crate::route::Protocol::Tcp)
    };
    assert_eq!(resolve(&mut view).endpoints.len(), 1);
    view.heard(Event::Left { container: id("a"), network: "bridge-id".to_owned() });
    let left = resolve(&mut view);
    assert_eq!((left.endpoints.len(), left.problems.len()), (0, 1));
    assert!(left.problems[0].contains("about to stop"), "{left:?}");
    view.heard(Event::Stopped(id("a")));
    assert_eq!(resolve(&mut view).problems, ["container redis is not running"]);
}

#[test]
fn a_container_that_was_told_to_stop_is_leaving_until_it_is_dead() {
    let leaving = |view: &mut View| view.snapshot().expect("something changed").by_id[&id("a")].leaving;
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    assert_eq!(leaving(&mut view), Leaving::No);
    view.heard(Event::Leaving(id("a"), Leaving::Surely));
    view.heard(Event::Leaving(id("a"), Leaving::Perhaps));
    assert_eq!(leaving(&mut view), Leaving::Surely);
    // An inspection says that it runs, and no more.
    knows(&mut view, "a", container("redis", 3));
    assert_eq!(leaving(&mut view), Leaving::Surely);
    view.heard(Event::Stopped(id("a")));
    assert_eq!(leaving(&mut view), Leaving::No);
    knows(&mut view, "a", container("redis", 4));
    assert_eq!(leaving(&mut view), Leaving::No);
}

#[test]
fn an_answer_from_before_a_death_does_not_bring_back_to_life() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    view.heard(Event::Touched(id("a")));
    view.ask();
    view.heard(Event::Stopped(id("a")));
    assert_eq!(view.ask(), None, "one question at a time");
    view.answered(id("a"), is(container("redis", 2)));
    assert_eq!(running(&mut view), [""; 0]);
    assert_eq!(view.ask(), Some(id("a")), "asked again");
    view.answered(id("a"), is(container("redis", 2)));
    assert_eq!(running(&mut view), ["redis"], "it was started again");
}

#[test]
fn an_answer_does_not_bring_back_the_destroyed() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    view.heard(Event::Touched(id("a")));
    view.ask();
    view.heard(Event::Destroyed(id("a")));
    view.answered(id("a"), is(container("redis", 2)));
    assert!(view.settled());
    assert_eq!(view.snapshot().unwrap().by_id.len(), 0);
}

#[test]
fn a_container_that_cannot_be_found_is_gone_and_a_silent_one_stands() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    knows(&mut view, "b", container("db", 3));
    for (beginning, answer) in [("a", Answer::Gone), ("b", Answer::Silent)] {
        view.heard(Event::Touched(id(beginning)));
        view.ask();
        view.answered(id(beginning), answer);
    }
    assert_eq!(running(&mut view), ["db"]);
}

#[test]
fn leaving_a_network_takes_its_address_at_once() {
    let mut view = View::default();
    let mut redis = container("redis", 2);
    redis.networks.extend([on("back", [10, 0, 0, 2])]);
    knows(&mut view, "a", redis);
    view.heard(Event::Left { container: id("a"), network: "back-id".to_owned() });
    let snapshot = view.snapshot().unwrap();
    assert_eq!(snapshot.by_id[&id("a")].networks.keys().collect::<Vec<_>>(), ["bridge-id"]);
}

#[test]
fn an_address_that_two_claim_is_neithers() {
    let mut view = View::default();
    knows(&mut view, "a", container("before", 2));
    knows(&mut view, "b", container("after", 2));
    knows(&mut view, "c", container("other", 3));
    let snapshot = view.snapshot().unwrap();
    let address = |beginning: &str| snapshot.by_id[&id(beginning)].networks["bridge-id"].ipv4;
    assert_eq!((address("a"), address("b")), (None, None));
    assert!(address("c").is_some());
    view.heard(Event::Stopped(id("a")));
    let snapshot = view.snapshot().unwrap();
    assert!(snapshot.by_id[&id("b")].networks["bridge-id"].ipv4.is_some());
}

#[test]
fn a_list_finds_what_no_event_told() {
    let mut view = View::default();
    knows(&mut view, "a", container("same", 2));
    knows(&mut view, "b", container("stopped", 3));
    knows(&mut view, "c", container("removed", 4));
    knows(&mut view, "d", container("moved", 5));
    let before = view.listing();
    knows(&mut view, "e", container("created-since", 6));
    let list = listed(&json!([
        line("a", "same", "running", "172.17.0.2"),
        line("b", "stopped", "exited", ""),
        line("d", "moved", "running", "172.17.0.9"),
        line("f", "new", "running", "172.17.0.7"),
    ]));
    view.listed(&list.unwrap(), &before);
    let asked: Vec<_> = std::iter::from_fn(|| view.ask()).collect();
    assert_eq!(asked, [id("b"), id("d"), id("f")]);
    let snapshot = view.snapshot().unwrap();
    assert!(!snapshot.by_id.contains_key(&id("c")));
    assert!(snapshot.by_id.contains_key(&id("e")));
}

#[test]
fn our_own_container_is_the_first_candidate_that_is_there() {
    let own = |candidates: &[&str]| {
        let mut view =
            View::new(candidates.iter().map(|candidate| (*candidate).to_owned()).collect(), String::new());
        knows(&mut view, "abcdef012345", container("one", 2));
        knows(&mut view, "abcdef012346", container("two", 3));
        view.snapshot().unwrap().own_id
    };
    assert_eq!(own(&[&id("abcdef012346").0]), Some(id("abcdef012346")));
    assert_eq!(own(&[&id("fff").0, "abcdef012345"]), Some(id("abcdef012345")));
    assert_eq!(own(&["abcdef01234"]), None, "the beginning of two");
    assert_eq!(own(&[]), None);
    assert_eq!(own(&["ffffffffffff"]), None);
}

/// What a list shows of containers that changed after the last event.
fn lists(view: &mut View, lines: &[serde_json::Value]) {
    let before = view.listing();
    view.listed(&listed(&json!(lines)).unwrap(), &before);
}

fn address(view: &mut View, beginning: &str) -> Option<std::net::Ipv4Addr> {
    let snapshot = view.snapshot().or_else(|| view.shown.clone()).unwrap();
    snapshot.by_id[&id(beginning)].networks.values().find_map(|attachment| attachment.ipv4)
}

#[test]
fn a_container_that_a_list_shows_dead_is_so_before_it_is_inspected() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    lists(&mut view, &[line("a", "redis", "exited", "")]);
    assert_eq!(running(&mut view), [""; 0]);
    assert!(view.take_missed() && !view.take_missed());
    assert_eq!(view.ask(), Some(id("a")));
}

#[test]
fn an_address_that_a_list_shows_with_another_container_is_lost_at_once() {
    let mut view = View::default();
    let redis = container("redis", 2);
    let ip = redis.networks.values().find_map(|attachment| attachment.ipv4).unwrap().to_string();
    knows(&mut view, "a", redis);
    assert!(address(&mut view, "a").is_some());
    let gone = json!({ "Id": id("a").0, "Names": ["/redis"], "State": "running", "NetworkSettings": {} });
    let mut thief = line("b", "web", "running", &ip);
    let network = view.known[&id("a")].networks.keys().next().unwrap().clone();
    thief["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] = json!(network);
    lists(&mut view, &[gone, thief]);
    assert_eq!(address(&mut view, "a"), None);
    assert!(view.take_missed());
}

#[test]
fn a_list_takes_nothing_from_a_container_that_was_heard_of_since_it_was_asked_for() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    let before = view.listing();
    view.heard(Event::Touched(id("a")));
    view.listed(&listed(&json!([line("a", "redis", "exited", "")])).unwrap(), &before);
    assert_eq!(running(&mut view), ["redis"]);
    assert!(!view.take_missed());
}

#[test]
fn a_difference_that_an_inspection_does_not_confirm_is_not_a_missed_change() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    // As some engines list them: without addresses.
    let line = json!({ "Id": id("a").0, "Names": ["/redis"], "State": "running" });
    lists(&mut view, &[line]);
    assert_eq!(view.ask(), Some(id("a")));
    view.answered(id("a"), is(container("redis", 2)));
    assert!(!view.take_missed());
    assert!(address(&mut view, "a").is_some());
}

#[test]
fn containers_that_begin_to_contest_an_address_are_inspected_once() {
    let mut view = View::default();
    knows(&mut view, "a", container("redis", 2));
    knows(&mut view, "b", container("web", 2));
    assert_eq!(address(&mut view, "a"), None);
    assert_eq!((view.ask(), view.ask(), view.ask()), (Some(id("a")), Some(id("b")), None));
    view.answered(id("a"), is(container("redis", 2)));
    view.answered(id("b"), is(container("web", 2)));
    assert_eq!((address(&mut view, "a"), address(&mut view, "b")), (None, None));
    assert_eq!(view.ask(), None);
}
