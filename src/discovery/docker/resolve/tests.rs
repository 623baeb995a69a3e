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
fn check_problem(containers: &Containers, name: &str, expected: &[&str]) {
    let resolution = containers.resolve(name, Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.endpoints, [], "{name}");
    let problem = resolution.problems.join("\n");
    for words in expected {
        assert!(problem.contains(words), "{words:?} is not in: {problem}");
    }
}

// Names.

#[test]
fn container_is_found_by_name_id_or_id_prefix() {
    let now = engine([("a1b2c3d4e5f6", container("redis", 2)), ("a1b2c3d4e5f7", container("db", 3))]);
    check(&now, "redis", &["172.17.0.2:80"]);
    check(&now, "/redis", &["172.17.0.2:80"]);
    check(&now, &id("a1b2c3d4e5f7").0, &["172.17.0.3:80"]);
    check(&now, "a1b2c3d4e5f6", &["172.17.0.2:80"]);
    check(&now, "a1b2c3d4e5f60", &["172.17.0.2:80"]);
    check_problem(&now, "a1b2c3d4e5f", &["no container"]);
}

#[test]
fn endpoint_is_identified_by_its_container() {
    let now = engine([("a", container("redis", 2))]);
    let endpoints = now.resolve("redis", Some(80), None, Protocol::Tcp).endpoints;
    assert_eq!(endpoints[0].key.identity, Identity::Container { id: id("a").0, name: "redis".to_owned() });
}

#[test]
fn prefix_of_two_ids_is_ambiguous() {
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
fn stopped_replica_is_a_problem_and_not_an_endpoint() {
    let stopped = Container { running: false, ..service("p-redis-2", 3, "p", "redis") };
    let now = engine([("a", service("p-redis-1", 2, "p", "redis")), ("b", stopped)]);
    let resolution = now.resolve("redis", None, None, Protocol::Tcp);
    assert_eq!(shown(&resolution), ["172.17.0.2:6379"]);
    assert_eq!(resolution.problems, ["container p-redis-2 is not running"]);
}

#[test]
fn paused_container_is_a_problem_with_a_help() {
    let now = engine([("a", Container { running: false, paused: true, ..container("redis", 2) })]);
    check_problem(&now, "redis", &["container redis is paused: `docker unpause redis`"]);
}

#[test]
fn removed_container_is_named_by_twelve_digits() {
    let resolution = engine([]).resolve(id("a").0.as_str(), Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.problems, ["container a00000000000 does not exist any more"]);
}

fn in_health(name: &str, last: u8, health: ContainerHealth) -> Container {
    Container { health, ..service(name, last, "p", "redis") }
}

#[test]
fn unhealthy_container_takes_no_new_session_and_starting_container_is_tried_last() {
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
fn health_is_not_part_of_the_identity() {
    let endpoint = |health| {
        let now = engine([("a", in_health("p-redis-1", 1, health))]);
        now.resolve("redis", None, None, Protocol::Tcp).endpoints.remove(0).key
    };
    assert_eq!(endpoint(ContainerHealth::Healthy), endpoint(ContainerHealth::Unhealthy));
}

#[test]
fn label_selects_containers_of_every_project() {
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
fn stopping_replica_takes_no_new_sessions_and_possibly_stopping_replica_is_tried_last() {
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
fn service_of_the_own_project_is_selected() {
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
fn outside_compose_a_service_of_two_projects_is_ambiguous() {
    let now = engine([
        ("a", service("p-redis-1", 2, "p", "redis")),
        ("b", service("q-redis-1", 3, "q", "redis")),
        ("c", service("q-db-1", 4, "q", "db")),
    ]);
    check_problem(&now, "redis", &["several Compose projects", "p, q", "name a container"]);
    check(&now, "db", &["172.17.0.4:80"]);
}

#[test]
fn container_name_precedes_service_name() {
    let now = engine([("a", container("redis", 2)), ("b", service("q-redis-1", 3, "q", "redis"))]);
    check(&now, "redis", &["172.17.0.2:80"]);
}

#[test]
fn own_container_is_never_selected() {
    let now =
        engine([("0", service("p-redis-1", 9, "p", "redis")), ("a", service("p-redis-2", 2, "p", "redis"))]);
    check(&now, "redis", &["172.17.0.2:80"]);
    check_problem(&now, "p-redis-1", &["this ambassador itself"]);
}

#[test]
fn unknown_name_is_a_problem_with_similar_names() {
    let now = engine([("a", container("postgres", 2)), ("b", service("shop-redis-1", 3, "shop", "redis"))]);
    check_problem(&now, "postgers", &["called postgers", "did you mean postgres?"]);
    check_problem(&now, "shop_redis_1", &["did you mean", "shop-redis-1"]);
    let problem = now.resolve("kafka", None, None, Protocol::Tcp).problems.join("");
    assert!(!problem.contains("did you mean"), "{problem}");
    check_problem(&now, "", &["no container"]);
}

#[test]
fn stopped_container_is_a_problem() {
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
fn address_is_on_a_shared_network() {
    let target = target_on(&[("alpha", [10, 1, 0, 2]), ("beta", [10, 2, 0, 2]), ("gamma", [10, 3, 0, 2])]);
    let now = engine([own_on(&[("gamma", [10, 3, 0, 9]), ("beta", [10, 2, 0, 9])]), target]);
    check(&now, "redis", &["10.2.0.2:80"]);
}

#[test]
fn networks_are_compared_by_id() {
    let (other_id, attachment) = ("other-id".to_owned(), on("back", [10, 1, 0, 2]).1);
    let target = Container { networks: BTreeMap::from([(other_id, attachment)]), ..container("redis", 0) };
    let now = engine([own_on(&[("back", [10, 9, 0, 9])]), ("a", target)]);
    check_problem(&now, "redis", &["shares no network"]);
}

#[test]
fn missing_shared_network_is_a_problem_with_a_help() {
    let now = engine([own_on(&[("front", [10, 1, 0, 9])]), target_on(&[("back", [10, 2, 0, 2])])]);
    check_problem(&now, "redis", &["is on back", "is on front", "docker network connect back ambassador"]);
}

#[test]
fn host_reaches_every_network() {
    let target = target_on(&[("beta", [10, 2, 0, 2]), ("alpha", [10, 1, 0, 2])]);
    check(&engine([target.clone()]), "redis", &["10.1.0.2:80"]);
    let now = engine([("0", with_mode("ambassador", NetworkMode::Host)), target]);
    check(&now, "redis", &["10.1.0.2:80"]);
}

#[test]
fn ipv6_is_used_only_without_ipv4() {
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
fn container_on_the_network_of_another_has_its_address() {
    let by_name = with_mode("app", NetworkMode::Container("vpn".to_owned()));
    let by_id = with_mode("app2", NetworkMode::Container(id("b").0));
    let now = engine([("a", by_name), ("b", container("vpn", 7)), ("c", by_id)]);
    check(&now, "app", &["172.17.0.7:80"]);
    check(&now, "app2", &["172.17.0.7:80"]);
}

#[test]
fn chain_of_containers_is_limited() {
    let follows = |name: &str, followed: &str| with_mode(name, NetworkMode::Container(followed.to_owned()));
    let now = engine([("a", follows("a", "b")), ("b", follows("b", "a")), ("c", follows("c", "gone"))]);
    check_problem(&now, "a", &["refers to too many"]);
    check_problem(&now, "c", &["network of gone, which does not exist"]);
    let stopped = Container { running: false, ..container("vpn", 7) };
    let now = engine([("a", follows("app", "vpn")), ("b", stopped)]);
    check_problem(&now, "app", &["network of vpn, which is not running"]);
}

#[test]
fn own_network_may_be_that_of_another_container() {
    let own = with_mode("ambassador", NetworkMode::Container("vpn".to_owned()));
    let vpn = Container { networks: BTreeMap::from([on("back", [10, 2, 0, 9])]), ..container("vpn", 0) };
    let now =
        engine([("0", own), ("b", vpn), target_on(&[("back", [10, 2, 0, 2])]), ("c", container("db", 3))]);
    check(&now, "redis", &["10.2.0.2:80"]);
    check(&now, "vpn", &["10.2.0.9:80"]);
    check_problem(&now, "db", &["docker network connect bridge vpn"]);
}

#[test]
fn host_network_and_no_network_are_problems_with_a_help() {
    let host = with_mode("redis", NetworkMode::Host);
    let none = with_mode("batch", NetworkMode::None);
    let now = engine([("a", host), ("b", none), ("0", container("ambassador", 9))]);
    check_problem(&now, "redis", &["network_mode: host", "LISTEN=HOST:PORT"]);
    check_problem(&now, "batch", &["network_mode: none"]);
    let now = engine([("a", container("redis", 2)), ("0", with_mode("ambassador", NetworkMode::None))]);
    check_problem(&now, "redis", &["this ambassador has no network"]);
}

#[test]
fn containers_on_the_host_network_share_the_loopback() {
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
        Err(expected) => {
            assert!(resolution.problems.concat().contains(expected), "{:?}", resolution.problems);
        }
    }
}

#[test]
fn port_is_that_of_the_listener_if_exposed_or_else_the_only_one() {
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
    fn any_name_has_endpoints_or_a_problem(name in "[0-9a-f]{0,70}|\\PC*", project in "\\PC{0,5}") {
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
fn container_belongs_to_a_compose_service_if_compose_created_it() {
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
fn inherited_label_does_not_select_a_container() {
    let evil = with_image_labels(labelled(container("evil", 3), &[("role", "db")]), Some(&[("role", "db")]));
    let selector = Selector::Label { key: "role", value: Some("db") };
    let resolution = engine([("a", evil)]).resolve(selector, Some(80), None, Protocol::Tcp);
    assert_eq!(resolution.endpoints, []);
    assert!(resolution.problems[0].contains("from its image"), "{:?}", resolution.problems);
}

#[test]
fn container_name_does_not_replace_an_id_or_a_service() {
    let own = service("ambassador", 9, "p", "ambassador");
    let evil = [("d", container("db", 3)), ("e", container("a1b2c3d4e5f6", 4))];
    let [one, two] = evil;
    let now = engine([("0", own), ("a1b2c3d4e5f6", service("p-db-1", 2, "p", "db")), one, two]);
    check(&now, "db", &["172.17.0.2:80"]);
    check(&now, "a1b2c3d4e5f6", &["172.17.0.2:80"]);
}
