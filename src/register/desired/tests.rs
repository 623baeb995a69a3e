//! Containers, and what is registered of them.

use super::*;
use crate::discovery::docker::Published;
use crate::discovery::docker::fixtures::{container, engine, id, labelled};

const OURS: &str = "10.0.0.5";

fn choice(names: &[&str], all: bool) -> Choice {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Choice { names, all, advertise: OURS.parse().unwrap(), via: Via::Ports }
}

/// `ip:host_port:port[/udp]`, as `docker run -p` has it.
fn publishing(mut container: Container, ports: &[&str]) -> Container {
    container.published = ports
        .iter()
        .map(|text| {
            let (host, port) = text.rsplit_once(':').unwrap();
            let host: SocketAddr = host.parse().unwrap();
            let (port, protocol) = match port.split_once('/') {
                Some((port, _)) => (port, Protocol::Udp),
                None => (port, Protocol::Tcp),
            };
            Published { port: port.parse().unwrap(), protocol, host_ip: host.ip(), host_port: host.port() }
        })
        .collect();
    container
}

fn redis(labels: &[(&str, &str)], ports: &[&str]) -> Container {
    publishing(labelled(container("redis-1", 2), labels), ports)
}

fn shown(desired: &Desired) -> Vec<String> {
    desired.entries.iter().map(|(entry, addr)| format!("{entry} {addr}")).collect()
}

/// Of one container, `a00000000000`.
fn check(container: Container, choice: &Choice, expected: &[&str], problem: &str) {
    let desired = desired(&engine([("a", container)]), choice);
    assert_eq!(shown(&desired), expected, "{:?}", desired.problems);
    let problems: Vec<_> = desired.problems.into_iter().collect();
    assert_eq!(problems.is_empty(), problem.is_empty(), "{problems:?}");
    assert!(problems.join("\n").contains(problem), "{problem}: {problems:?}");
}

const EVERY: (&str, &str) = ("ambassador.register", "redis");

#[test]
fn label_registers_every_published_port_or_one() {
    let labels = choice(&[], false);
    let ports = ["0.0.0.0:49153:6379", "[::]:49153:6379", "0.0.0.0:49154:53/udp"];
    let both = ["redis/53-udp/a00000000000 10.0.0.5:49154", "redis/6379/a00000000000 10.0.0.5:49153"];
    check(redis(&[EVERY], &ports), &labels, &both, "");
    let one = ("ambassador.register.6379", "cache");
    check(redis(&[one], &ports), &labels, &["cache/6379/a00000000000 10.0.0.5:49153"], "");
    let mixed = ["cache/6379/a00000000000 10.0.0.5:49153", "redis/53-udp/a00000000000 10.0.0.5:49154"];
    check(redis(&[EVERY, one], &ports), &labels, &mixed, "");
    let udp = ("ambassador.register.53/udp", "dns");
    check(redis(&[udp], &ports), &labels, &["dns/53-udp/a00000000000 10.0.0.5:49154"], "");
    check(redis(&[], &ports), &labels, &[], "");
}

#[test]
fn names_and_all_register_unlabelled_containers() {
    let ports = ["0.0.0.0:80:6379"];
    check(redis(&[], &ports), &choice(&["redis-1"], false), &["redis-1/6379/a00000000000 10.0.0.5:80"], "");
    check(redis(&[], &ports), &choice(&[], true), &["redis-1/6379/a00000000000 10.0.0.5:80"], "");
    check(redis(&[EVERY], &ports), &choice(&["redis-1"], true), &["redis/6379/a00000000000 10.0.0.5:80"], "");
    let composed = ("com.docker.compose.service", "cache");
    check(redis(&[composed], &ports), &choice(&[], true), &["cache/6379/a00000000000 10.0.0.5:80"], "");
    check(
        redis(&[composed], &ports),
        &choice(&["cache"], false),
        &["cache/6379/a00000000000 10.0.0.5:80"],
        "",
    );
    let oneoff = ("com.docker.compose.oneoff", "True");
    check(redis(&[composed, oneoff], &ports), &choice(&[], true), &[], "");
    check(redis(&[], &[]), &choice(&[], true), &[], "");
    check(redis(&[], &ports), &choice(&["other"], false), &[], "other");
    check(
        redis(&[], &ports),
        &choice(&["a00000000000"], false),
        &["redis-1/6379/a00000000000 10.0.0.5:80"],
        "",
    );
}

#[test]
fn exports_of_labels_are_registered_via_the_peer() {
    let peer = Choice { via: Via::Peer { port: 15008 }, ..choice(&[], false) };
    let labels = [
        ("ambassador.listen.peer:redis", "6379?hold=5s"),
        ("ambassador.listen.peer:dns/udp", "53"),
        ("ambassador.listen.80", "80"),
        ("ambassador.register", "other"),
    ];
    let both = [
        "dns/53-udp/a00000000000 peer://10.0.0.5:15008/dns",
        "redis/6379/a00000000000 peer://10.0.0.5:15008/redis",
    ];
    check(redis(&labels, &["0.0.0.0:49153:6379"]), &peer, &both, "");
    let good = ("ambassador.listen.peer:redis", "6379");
    let expected = ["redis/6379/a00000000000 peer://10.0.0.5:15008/redis"];
    for bad in [
        ("ambassador.listen.peer:pg:5432", "5432"),
        ("ambassador.listen.peer:a b", "1"),
        ("ambassador.listen.peer:pg", "0"),
        ("ambassador.listen.peer:pg/sctp", "1"),
    ] {
        check(redis(&[good, bad], &[]), &peer, &expected, bad.0);
    }
    check(redis(&[good, ("com.docker.compose.oneoff", "True")], &[]), &peer, &[], "");
    let ill = Container { health: ContainerHealth::Unhealthy, ..redis(&[good], &[]) };
    check(ill, &peer, &[], "unhealthy");
}

#[test]
fn stopped_and_unhealthy_containers_are_not_registered() {
    let dead = Container { running: false, ..redis(&[EVERY], &["0.0.0.0:80:6379"]) };
    check(dead, &choice(&[], true), &[], "");
    let ill = Container { health: ContainerHealth::Unhealthy, ..redis(&[EVERY], &["0.0.0.0:80:6379"]) };
    check(ill, &choice(&[], false), &[], "unhealthy");
    let starting = Container { health: ContainerHealth::Starting, ..redis(&[EVERY], &["0.0.0.0:80:6379"]) };
    check(starting, &choice(&[], false), &["redis/6379/a00000000000 10.0.0.5:80"], "");
}

#[test]
fn only_reachable_ports_are_registered() {
    let labels = choice(&[], false);
    check(redis(&[EVERY], &["10.0.0.5:80:6379"]), &labels, &["redis/6379/a00000000000 10.0.0.5:80"], "");
    for elsewhere in ["127.0.0.1:80:6379", "10.0.0.6:80:6379", "[::]:80:6379"] {
        check(redis(&[EVERY], &[elsewhere]), &labels, &[], "is not reached at");
    }
    check(redis(&[EVERY], &[]), &labels, &[], "publishes no port");
    check(redis(&[("ambassador.register.80", "x")], &["0.0.0.0:1:6379"]), &labels, &[], "-p 80");
}

#[test]
fn container_on_the_host_network_is_registered_with_the_port_of_its_label() {
    let host =
        Container { network_mode: NetworkMode::Host, ..redis(&[("ambassador.register.80", "x")], &[]) };
    check(host, &choice(&[], true), &["x/80/a00000000000 10.0.0.5:80"], "");
}

#[test]
fn invalid_label_is_a_problem_and_affects_no_other() {
    let good = ("ambassador.register.6379", "redis");
    for bad in [
        ("ambassador.register.x", "a"),
        ("ambassador.register.0", "a"),
        ("ambassador.register.80/sctp", "a"),
        ("ambassador.register", "a/b"),
        ("ambassador.register.81", ""),
    ] {
        let container = redis(&[good, bad], &["0.0.0.0:80:6379"]);
        check(container, &choice(&[], false), &["redis/6379/a00000000000 10.0.0.5:80"], bad.0);
    }
    check(redis(&[("ambassador.registered", "yes")], &["0.0.0.0:80:6379"]), &choice(&[], false), &[], "");
}

#[test]
fn replicas_are_separate_entries_and_the_own_container_is_not_registered() {
    let of = |last| publishing(labelled(container("web", last), &[EVERY]), &[&format!("0.0.0.0:{last}:80")]);
    let containers = engine([("0", of(1)), ("a", of(2)), ("b", of(3))]);
    let desired = desired(&containers, &choice(&[], true));
    assert_eq!(shown(&desired), ["redis/80/a00000000000 10.0.0.5:2", "redis/80/b00000000000 10.0.0.5:3"]);
}

#[test]
fn entries_are_limited() {
    let published: Vec<_> = (1..=2000u16).map(|port| format!("0.0.0.0:{port}:{port}")).collect();
    let ports: Vec<&str> = published.iter().map(String::as_str).collect();
    let desired = desired(&engine([("a", redis(&[EVERY], &ports))]), &choice(&[], false));
    assert_eq!((desired.entries.len(), desired.problems.len()), (ENTRIES_MAX, 1));
    assert!(id("a").0.starts_with("a00000000000"));
}
