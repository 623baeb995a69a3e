//! Names and their routes.

use super::*;
use crate::discovery::docker::fixtures::{container, engine, exposing, printed};

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_exposed_port_of_a_named_container_is_a_route() {
    let fpm = exposing(container("fpm", 2), &[(9000, Protocol::Tcp), (9000, Protocol::Udp)]);
    let now = engine([("a", fpm), ("b", exposing(container("nginx", 3), &[(80, Protocol::Tcp)]))]);
    let NamedRoutes { routes, mistakes, notices } =
        named_routes(&names(&["fpm", "nginx", "fpm", "not-there-yet"]), &now);
    assert_eq!(mistakes, []);
    assert_eq!(
        notices,
        ["-name not-there-yet: there is no container, and no Compose service, called not-there-yet"]
    );
    let expected = ["80=docker://nginx:80", "9000=docker://fpm:9000", "9000/udp=docker://fpm:9000"];
    assert_eq!(printed(&routes), expected);
    assert_eq!(routes[0].origin, Place::Name("nginx".to_owned()));
}

#[test]
fn second_name_with_a_port_is_a_mistake_and_the_first_is_used() {
    let now = engine([
        ("a", exposing(container("one", 2), &[(80, Protocol::Tcp)])),
        ("b", exposing(container("two", 3), &[(80, Protocol::Tcp), (81, Protocol::Tcp)])),
    ]);
    let NamedRoutes { routes, mistakes, .. } = named_routes(&names(&["two", "one"]), &now);
    assert_eq!(printed(&routes), ["80=docker://two:80", "81=docker://two:81"]);
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].place, Place::Name("one".to_owned()));
    assert!(mistakes[0].help.as_ref().unwrap().ends_with("8080=docker://one:80"), "{}", mistakes[0]);
}

#[test]
fn stopped_container_keeps_its_routes_and_removed_container_does_not() {
    let mut stopped = container("redis", 2);
    stopped.running = false;
    let NamedRoutes { routes, .. } = named_routes(&names(&["redis"]), &engine([("a", stopped)]));
    assert_eq!(printed(&routes), ["6379=docker://redis:6379"]);
    let NamedRoutes { routes, mistakes, notices } = named_routes(&names(&["redis"]), &engine([]));
    assert_eq!((routes.len(), mistakes.len(), notices.len()), (0, 0, 1));
}

#[test]
fn container_that_exposes_no_port_or_too_many_is_a_mistake() {
    let everything: Vec<(u16, Protocol)> = (1..=5000).map(|port| (port, Protocol::Udp)).collect();
    let now = engine([
        ("a", exposing(container("none", 2), &[])),
        ("b", exposing(container("all", 3), &everything)),
    ]);
    let NamedRoutes { routes, mistakes, .. } = named_routes(&names(&["none", "all"]), &now);
    assert_eq!(routes.len(), 1024);
    assert!(mistakes[0].message.contains("exposes no port"), "{}", mistakes[0]);
    assert!(mistakes[1].message.contains("exposes 5000 ports"), "{}", mistakes[1]);
}
