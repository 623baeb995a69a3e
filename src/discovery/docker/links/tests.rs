//! Links and their routes.

use super::*;
use crate::discovery::docker::fixtures::{container, engine, exposing, printed};
use crate::discovery::docker::model::Container;

fn linking(links: &[(&str, &str)]) -> Container {
    let link =
        |(target, alias): &(&str, &str)| Link { target: (*target).to_owned(), alias: (*alias).to_owned() };
    Container { links: links.iter().map(link).collect(), ..container("ambassador", 9) }
}

fn own_links(now: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut links = OwnLinks::default();
    links.update(now);
    links.routes()
}

#[test]
fn link_outlives_its_container_and_leads_to_the_next_of_that_name() {
    let mut links = OwnLinks::default();
    links.update(&engine([("0", linking(&[("redis", "db")])), ("a", container("redis", 2))]));
    let (before, _) = links.routes();
    assert_eq!(printed(&before), ["6379=docker://redis:6379"]);
    // Docker deletes the link together with its target; the snapshot of an expired engine is empty.
    for now in [engine([("0", linking(&[]))]), engine([])] {
        links.update(&now);
        assert_eq!(links.routes(), (before.clone(), Vec::new()));
    }
    let next = exposing(container("redis", 3), &[(6380, Protocol::Tcp)]);
    links.update(&engine([("0", linking(&[])), ("b", next)]));
    assert_eq!(printed(&links.routes().0), ["6380=docker://redis:6380"]);
}

#[test]
fn several_aliases_of_a_target_are_one_link() {
    let own =
        linking(&[("app_redis_1", "redis_1"), ("app_redis_1", "app_redis_1"), ("app_redis_1", "redis")]);
    let (routes, mistakes) = own_links(&engine([("0", own), ("a", container("app_redis_1", 2))]));
    assert_eq!(mistakes, []);
    assert_eq!(printed(&routes), ["6379=docker://app_redis_1:6379"]);
    assert_eq!(routes[0].origin, Place::Link("app_redis_1:app_redis_1".to_owned()));
}

#[test]
fn two_links_that_expose_one_port_are_endpoints_of_one_route() {
    let own = linking(&[("two", "b"), ("one", "a"), ("gone", "c")]);
    let two = exposing(container("two", 3), &[(53, Protocol::Udp), (6379, Protocol::Tcp)]);
    let (routes, mistakes) = own_links(&engine([("0", own), ("a", container("one", 2)), ("b", two)]));
    assert_eq!(mistakes, []);
    assert_eq!(printed(&routes), ["6379=docker://one:6379,docker://two:6379", "53/udp=docker://two:53"]);
}

#[test]
fn without_an_own_container_there_are_no_links() {
    assert_eq!(own_links(&engine([("a", container("redis", 2))])), (Vec::new(), Vec::new()));
}
