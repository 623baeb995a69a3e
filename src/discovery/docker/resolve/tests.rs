//! Targets and their endpoints, case by case.

use std::collections::BTreeMap;

use super::*;
use crate::discovery::docker::fixtures::{container, engine, id, labelled, on, service, with_image_labels};
use crate::discovery::docker::model::NetworkMode;

fn shown(resolution: &Resolution) -> Vec<String> {
    resolution.endpoints.iter().map(|endpoint| endpoint.key.addr.to_string()).collect()
}

fn check(containers: &Containers, name: &str, expected: &[&str]) {
    let resolution = containers.resolve(name, Some(80), None, Protocol::Tcp);
    assert_eq!(shown(&resolution), expected, "{name}: {:?}", resolution.problems);
    assert_eq!(
        resolution.endpoints.is_empty(),
        !resolution.problems.is_empty(),
        "{name}: {:?}",
        resolution.problems
    );
}

/// No endpoint, and one problem that says each of these.
fn check_problem(containers: &Containers, name: &str, said: &[&str]) {
    let resolution = containers.resolve(name, Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.endpoints, [], "{name}");
    let problem = resolution.problems.join("\n");
    for words in said {
        assert!(problem.contains(words), "{words:?} is not in: {problem}");
    }
}

// Names.

#[test]
fn a_container_is_found_by_name_id_or_the_beginning_of_its_id() {
    let now = engine([("a1b2c3d4e5f6", container("redis", 2)), ("a1b2c3d4e5f7", container("db", 3))]);
    check(&now, "redis", &["172.17.0.2:80"]);
    check(&now, "/redis", &["172.17.0.2:80"]);
    check(&now, &id("a1b2c3d4e5f7").0, &["172.17.0.3:80"]);
    check(&now, "a1b2c3d4e5f6", &["172.17.0.2:80"]);
    check(&now, "a1b2c3d4e5f60", &["172.17.0.2:80"]);
    check_problem(&now, "a1b2c3d4e5f", &["no container"]);
}

#[test]
fn an_endpoint_is_a_container_and_not_an_address() {
    let now = engine([("a", container("redis", 2))]);
    let endpoints = now.resolve("redis", Some(80), None, Protocol::Tcp).endpoints;
    assert_eq!(endpoints[0].key.identity, Identity::Container { id: id("a").0, name: "redis".to_owned() });
}

#[test]
fn the_beginning_of_two_ids_means_neither() {
    let now = engine([("abcdefabcdef1", container("one", 2)), ("abcdefabcdef2", container("two", 3))]);
    check_problem(&now, "abcdefabcdef", &["one, two", "write more digits"]);
    check(&now, "abcdefabcdef1", &["172.17.0.2:80"]);
}

#[test]
fn every_replica_of_a_service_is_an_endpoint() {
    let once = labelled(service("p-redis-run-1", 4, "p", "redis"), &[("com.docker.compose.oneoff", "True")]);
    let now = engine([
        ("a", service("p-redis-1", 3, "p", "redis")),
        ("b", service("p-redis-2", 2, "p", "redis")),
        ("c", once),
        ("d", service("p-web-1", 5, "p", "web")),
    ]);
    check(&now, "redis", &["172.17.0.2:80", "172.17.0.3:80"]);
}

#[test]
fn a_stopped_replica_is_a_problem_and_no_endpoint() {
    let stopped = Container { running: false, ..service("p-redis-2", 3, "p", "redis") };
    let now = engine([("a", service("p-redis-1", 2, "p", "redis")), ("b", stopped)]);
    let resolution = now.resolve("redis", None, None, Protocol::Tcp);
    assert_eq!(shown(&resolution), ["172.17.0.2:6379"]);
    assert_eq!(resolution.problems, ["container p-redis-2 is not running"]);
}

#[test]
fn a_paused_container_is_a_problem_with_its_way_out() {
    let now = engine([("a", Container { running: false, paused: true, ..container("redis", 2) })]);
    check_problem(&now, "redis", &["container redis is paused: `docker unpause redis`"]);
}

#[test]
fn a_container_that_is_gone_is_named_by_twelve_digits() {
    let resolution = engine([]).resolve(id("a").0.as_str(), Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.problems, ["container a00000000000 does not exist any more"]);
}

fn in_health(name: &str, last: u8, health: ContainerHealth) -> Container {
    Container { health, ..service(name, last, "p", "redis") }
}

#[test]
fn an_unhealthy_container_takes_no_new_session_and_one_that_starts_is_tried_last() {
    let now = engine([
        ("a", in_health("p-redis-1", 1, ContainerHealth::Healthy)),
        ("b", in_health("p-redis-2", 2, ContainerHealth::Unhealthy)),
        ("c", in_health("p-redis-3", 3, ContainerHealth::Starting)),
        ("d", in_health("p-redis-4", 4, ContainerHealth::Unchecked)),
    ]);
    let resolution = now.resolve("redis", None, None, Protocol::Tcp);
    let shares: Vec<_> = resolution.endpoints.iter().map(|spec| (spec.weight, spec.tier)).collect();
    assert_eq!(shares, [(1, 0), (0, 0), (1, 1), (1, 0)]);
    let unhealthy =
        "container p-redis-2 is unhealthy: it takes no new sessions; `docker inspect p-redis-2` shows why";
    assert_eq!(resolution.problems, [unhealthy]);
}

#[test]
fn health_is_no_part_of_who_an_endpoint_is() {
    let endpoint = |health| {
        let now = engine([("a", in_health("p-redis-1", 1, health))]);
        now.resolve("redis", None, None, Protocol::Tcp).endpoints.remove(0).key
    };
    assert_eq!(endpoint(ContainerHealth::Healthy), endpoint(ContainerHealth::Unhealthy));
}

#[test]
fn a_label_means_every_container_that_has_it_of_whatever_project() {
    let has = |container: Container, value: &str| labelled(container, &[("role", value)]);
    let once = labelled(container("once", 7), &[("role", "cache"), ("com.docker.compose.oneoff", "True")]);
    let now = engine([
        ("0", has(service("p-ambassador-1", 9, "p", "ambassador"), "cache")),
        ("a", has(service("p-redis-1", 2, "p", "redis"), "cache")),
        ("b", has(service("q-redis-1", 3, "q", "redis"), "cache")),
        ("c", has(container("db", 4), "store")),
        ("d", container("other", 5)),
        ("e", once),
    ]);
    let check = |key: &str, value: Option<&str>, expected: &[&str]| {
        let found = now.resolve(Selector::Label { key, value }, None, None, Protocol::Tcp);
        assert_eq!(shown(&found), expected, "{:?}", found.problems);
        found.problems
    };
    check("role", Some("cache"), &["172.17.0.2:6379", "172.17.0.3:6379"]);
    check("role", None, &["172.17.0.2:6379", "172.17.0.3:6379", "172.17.0.4:6379"]);
    assert_eq!(check("role", Some("none"), &[]), ["there is no container with the label role=none"]);
}

#[test]
fn a_replica_that_was_told_to_stop_takes_no_new_sessions_and_where_that_is_not_sure_comes_last() {
    let shares = |stopping| {
        let stopping = Container { stopping, ..service("p_web_1", 2, "p", "web") };
        let containers = engine([("a1", stopping), ("a2", service("p_web_2", 3, "p", "web"))]);
        let found = containers.resolve("web", None, Some(6379), Protocol::Tcp);
        let shares =
            found.endpoints.iter().map(|endpoint| (endpoint.weight, endpoint.tier)).collect::<Vec<_>>();
        (shares, found.problems)
    };
    assert_eq!(shares(Stopping::No), (vec![(1, 0), (1, 0)], vec![]));
    assert_eq!(shares(Stopping::Possibly), (vec![(1, 1), (1, 0)], vec![]));
    let (surely, problems) = shares(Stopping::Certainly);
    assert_eq!(surely, [(0, 0), (1, 0)]);
    assert_eq!(problems, ["container p_web_1 is stopping: it takes no new sessions"]);
}

#[test]
fn a_service_is_that_of_our_own_project() {
    let now = engine([
        ("0", service("p-ambassador-1", 9, "p", "ambassador")),
        ("a", service("p-redis-1", 2, "p", "redis")),
        ("b", service("q-redis-1", 3, "q", "redis")),
        ("c", service("q-db-1", 4, "q", "db")),
    ]);
    check(&now, "redis", &["172.17.0.2:80"]);
    check_problem(&now, "db", &["project p has no service db", "q has one"]);
    check(&now, "q-db-1", &["172.17.0.4:80"]);
}

#[test]
fn outside_compose_a_service_of_two_projects_means_neither() {
    let now = engine([
        ("a", service("p-redis-1", 2, "p", "redis")),
        ("b", service("q-redis-1", 3, "q", "redis")),
        ("c", service("q-db-1", 4, "q", "db")),
    ]);
    check_problem(&now, "redis", &["several Compose projects", "p, q", "name a container"]);
    check(&now, "db", &["172.17.0.4:80"]);
}

#[test]
fn a_containers_name_goes_before_a_services() {
    let now = engine([("a", container("redis", 2)), ("b", service("q-redis-1", 3, "q", "redis"))]);
    check(&now, "redis", &["172.17.0.2:80"]);
}

#[test]
fn an_ambassador_does_not_stand_in_for_itself() {
    let now =
        engine([("0", service("p-redis-1", 9, "p", "redis")), ("a", service("p-redis-2", 2, "p", "redis"))]);
    check(&now, "redis", &["172.17.0.2:80"]);
    check_problem(&now, "p-redis-1", &["this ambassador itself"]);
}

#[test]
fn a_name_that_is_not_there_is_compared_with_those_that_are() {
    let now = engine([("a", container("postgres", 2)), ("b", service("shop-redis-1", 3, "shop", "redis"))]);
    check_problem(&now, "postgers", &["called postgers", "did you mean postgres?"]);
    check_problem(&now, "shop_redis_1", &["did you mean", "shop-redis-1"]);
    let problem = now.resolve("kafka", None, None, Protocol::Tcp).problems.join("");
    assert!(!problem.contains("did you mean"), "{problem}");
    check_problem(&now, "", &["no container"]);
}

#[test]
fn a_stopped_container_says_so() {
    let now = engine([("a", Container { running: false, ..container("redis", 2) })]);
    check_problem(&now, "redis", &["container redis is not running"]);
}

// Addresses.

fn own_on(networks: &[(&str, [u8; 4])]) -> (&'static str, Container) {
    let networks = networks.iter().map(|(name, ip)| on(name, *ip)).collect();
    ("0", Container { networks, ..container("ambassador", 0) })
}

fn target_on(networks: &[(&str, [u8; 4])]) -> (&'static str, Container) {
    let networks = networks.iter().map(|(name, ip)| on(name, *ip)).collect();
    ("a", Container { networks, ..container("redis", 0) })
}

fn with_mode(name: &str, network_mode: NetworkMode) -> Container {
    Container { network_mode, networks: BTreeMap::new(), ..container(name, 0) }
}

#[test]
fn the_address_is_one_on_a_network_we_share() {
    let target = target_on(&[("alpha", [10, 1, 0, 2]), ("beta", [10, 2, 0, 2]), ("gamma", [10, 3, 0, 2])]);
    let now = engine([own_on(&[("gamma", [10, 3, 0, 9]), ("beta", [10, 2, 0, 9])]), target]);
    check(&now, "redis", &["10.2.0.2:80"]);
}

#[test]
fn networks_are_the_same_by_id_and_not_by_name() {
    let (other_id, attachment) = ("other-id".to_owned(), on("back", [10, 1, 0, 2]).1);
    let target = Container { networks: BTreeMap::from([(other_id, attachment)]), ..container("redis", 0) };
    let now = engine([own_on(&[("back", [10, 9, 0, 9])]), ("a", target)]);
    check_problem(&now, "redis", &["shares no network"]);
}

#[test]
fn no_shared_network_is_a_problem_with_a_way_out() {
    let now = engine([own_on(&[("front", [10, 1, 0, 9])]), target_on(&[("back", [10, 2, 0, 2])])]);
    check_problem(&now, "redis", &["is on back", "is on front", "docker network connect back ambassador"]);
}

#[test]
fn from_the_host_every_network_can_be_reached() {
    let target = target_on(&[("beta", [10, 2, 0, 2]), ("alpha", [10, 1, 0, 2])]);
    check(&engine([target.clone()]), "redis", &["10.1.0.2:80"]);
    let now = engine([("0", with_mode("ambassador", NetworkMode::Host)), target]);
    check(&now, "redis", &["10.1.0.2:80"]);
}

#[test]
fn ipv6_is_for_those_who_have_nothing_else() {
    let mut target = container("redis", 2);
    target.networks = BTreeMap::from([on("b", [10, 2, 0, 2]), on("a", [10, 1, 0, 2])]);
    target.networks.get_mut("a-id").unwrap().ipv4 = None;
    target.networks.get_mut("a-id").unwrap().ipv6 = Some("fd00::2".parse().unwrap());
    check(&engine([("a", target.clone())]), "redis", &["10.2.0.2:80"]);
    target.networks.remove("b-id");
    check(&engine([("a", target.clone())]), "redis", &["[fd00::2]:80"]);
    target.networks.get_mut("a-id").unwrap().ipv6 = None;
    check_problem(&engine([("a", target)]), "redis", &["no address on a"]);
}

#[test]
fn a_container_on_anothers_network_has_the_others_address() {
    let by_name = with_mode("app", NetworkMode::Container("vpn".to_owned()));
    let by_id = with_mode("app2", NetworkMode::Container(id("b").0));
    let now = engine([("a", by_name), ("b", container("vpn", 7)), ("c", by_id)]);
    check(&now, "app", &["172.17.0.7:80"]);
    check(&now, "app2", &["172.17.0.7:80"]);
}

#[test]
fn a_chain_of_containers_ends() {
    let follows = |name: &str, followed: &str| with_mode(name, NetworkMode::Container(followed.to_owned()));
    let now = engine([("a", follows("a", "b")), ("b", follows("b", "a")), ("c", follows("c", "gone"))]);
    check_problem(&now, "a", &["refers to too many"]);
    check_problem(&now, "c", &["network of gone, which does not exist"]);
    let stopped = Container { running: false, ..container("vpn", 7) };
    let now = engine([("a", follows("app", "vpn")), ("b", stopped)]);
    check_problem(&now, "app", &["network of vpn, which is not running"]);
}

#[test]
fn our_own_network_may_be_anothers() {
    let own = with_mode("ambassador", NetworkMode::Container("vpn".to_owned()));
    let vpn = Container { networks: BTreeMap::from([on("back", [10, 2, 0, 9])]), ..container("vpn", 0) };
    let now =
        engine([("0", own), ("b", vpn), target_on(&[("back", [10, 2, 0, 2])]), ("c", container("db", 3))]);
    check(&now, "redis", &["10.2.0.2:80"]);
    check(&now, "vpn", &["10.2.0.9:80"]);
    check_problem(&now, "db", &["docker network connect bridge vpn"]);
}

#[test]
fn the_hosts_network_and_none_are_told_with_a_way_out() {
    let host = with_mode("redis", NetworkMode::Host);
    let none = with_mode("batch", NetworkMode::None);
    let now = engine([("a", host), ("b", none), ("0", container("ambassador", 9))]);
    check_problem(&now, "redis", &["network_mode: host", "LISTEN=HOST:PORT"]);
    check_problem(&now, "batch", &["network_mode: none"]);
    let now = engine([("a", container("redis", 2)), ("0", with_mode("ambassador", NetworkMode::None))]);
    check_problem(&now, "redis", &["this ambassador has no network"]);
}

#[test]
fn on_the_hosts_network_together_the_loopback_is_shared() {
    let now =
        engine([("0", with_mode("me", NetworkMode::Host)), ("a", with_mode("redis", NetworkMode::Host))]);
    check(&now, "redis", &["127.0.0.1:80"]);
}

// Ports.

fn check_port(
    exposed: &[(u16, Protocol)],
    listen_port: Option<u16>,
    protocol: Protocol,
    expected: Result<u16, &str>,
) {
    let now = engine([("a", Container { exposed: exposed.to_vec(), ..container("redis", 2) })]);
    let resolution = now.resolve("redis", None, listen_port, protocol);
    match expected {
        Ok(port) => assert_eq!(shown(&resolution), [format!("172.17.0.2:{port}")]),
        Err(said) => assert!(resolution.problems.concat().contains(said), "{:?}", resolution.problems),
    }
}

#[test]
fn the_port_is_the_listeners_if_exposed_else_the_only_one() {
    use Protocol::{Tcp, Udp};
    check_port(&[(80, Tcp), (443, Tcp)], Some(443), Tcp, Ok(443));
    check_port(&[(80, Tcp)], Some(8080), Tcp, Ok(80));
    check_port(&[(80, Tcp)], None, Tcp, Ok(80));
    check_port(&[(53, Udp), (53, Tcp), (80, Tcp)], Some(1053), Udp, Ok(53));
    check_port(&[(80, Tcp), (443, Tcp)], Some(8080), Tcp, Err("(80, 443)"));
    check_port(&[(80, Tcp), (443, Tcp)], None, Tcp, Err("docker://redis:80"));
    check_port(&[(80, Tcp)], Some(80), Udp, Err("exposes no udp port"));
    check_port(&[], Some(80), Tcp, Err("docker://redis:PORT"));
    let many: Vec<(u16, Protocol)> = (1000..2000).map(|port| (port, Tcp)).collect();
    check_port(&many, Some(80), Tcp, Err("1007, ...)"));
}

proptest::proptest! {
    #[test]
    fn any_name_means_something_or_nothing(name in "[0-9a-f]{0,70}|\\PC*", project in "\\PC{0,5}") {
        let now = engine([
            ("0", service("p-ambassador-1", 9, "p", "ambassador")),
            ("a", service("p-redis-1", 2, &project, "redis")),
            ("b", container("\u{1F600}-db", 3)),
        ]);
        let Resolution { endpoints, problems } = now.resolve(name.as_str(), None, Some(6379), Protocol::Tcp);
        assert!(endpoints.is_empty() != problems.is_empty());
    }
}

// Labels of images.

const COMPOSE: [(&str, &str); 2] =
    [("com.docker.compose.project", "p"), ("com.docker.compose.service", "db")];

#[test]
fn a_container_is_of_a_compose_service_where_compose_created_it() {
    let built = Some(&COMPOSE[..]);
    let made =
        labelled(labelled(container("p-db-1", 2), &COMPOSE), &[("com.docker.compose.container-number", "1")]);
    let copied = labelled(container("evil", 3), &COMPOSE);
    let now = engine([("a", with_image_labels(made, built)), ("b", with_image_labels(copied, built))]);
    check(&now, "db", &["172.17.0.2:80"]);
    let now = engine([("b", now.by_id[&id("b")].clone())]);
    check_problem(&now, "db", &["container evil has it from its image"]);
}

#[test]
fn a_label_that_is_looked_for_is_the_containers_own() {
    let evil = with_image_labels(labelled(container("evil", 3), &[("role", "db")]), Some(&[("role", "db")]));
    let selector = Selector::Label { key: "role", value: Some("db") };
    let resolution = engine([("a", evil)]).resolve(selector, Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.endpoints, []);
    assert!(resolution.problems[0].contains("from its image"), "{:?}", resolution.problems);
}

#[test]
fn no_container_takes_anothers_place_by_its_name() {
    let own = service("ambassador", 9, "p", "ambassador");
    let evil = [("d", container("db", 3)), ("e", container("a1b2c3d4e5f6", 4))];
    let [one, two] = evil;
    let now = engine([("0", own), ("a1b2c3d4e5f6", service("p-db-1", 2, "p", "db")), one, two]);
    check(&now, "db", &["172.17.0.2:80"]);
    check(&now, "a1b2c3d4e5f6", &["172.17.0.2:80"]);
}
