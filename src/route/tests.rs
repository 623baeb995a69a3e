//! The properties of merging and comparing route tables.

use proptest::prelude::*;

use super::index::RouteIndex;
use super::*;
use crate::config::grammar::{Author, parse_listen, parse_route};

fn route(line: &str) -> Route {
    parse_route(line, &Place::Argument(1)).unwrap()
}

fn layer(lines: &[&str]) -> Layer {
    Layer { routes: lines.iter().map(|line| route(line)).collect() }
}

fn table(lines: &[&str]) -> RouteTable {
    merge(&[layer(lines)]).0
}

fn overlap(this: &str, that: &str) -> bool {
    let listen = |text| parse_listen(text, Author::Operator, &Place::Built).unwrap();
    let (this, that) = (listen(this), listen(that));
    assert_eq!(this.overlaps(&that), that.overlaps(&this));
    this.overlaps(&that)
}

#[test]
fn listeners_overlap_where_they_could_not_be_bound_at_once() {
    for (this, that) in [
        ("80", "80"),
        ("80", "127.0.0.1:80"),
        ("80-90", "90-100"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("53/udp", "10.0.0.1:50-60/udp"),
        ("/run/a", "unix:/run/a"),
        ("0", "0"),
        ("peer:redis", "peer:redis"),
    ] {
        assert!(overlap(this, that), "{this} {that}");
    }
}

#[test]
fn listeners_that_can_be_bound_at_once_do_not_overlap() {
    for (this, that) in [
        ("80", "81"),
        ("80", "80/udp"),
        ("80-90", "91"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "[::]:80"),
        ("127.0.0.1:80", "[::1]:80"),
        ("/run/a", "/run/b"),
        ("/run/a", "80"),
        ("0", "127.0.0.1:0"),
        ("peer:80", "80"),
        ("peer:redis", "peer:redis/udp"),
        ("peer:redis", "peer:redis:6379"),
    ] {
        assert!(!overlap(this, that), "{this} {that}");
    }
}

#[test]
fn the_earlier_layer_takes_precedence_and_the_later_route_is_shadowed() {
    let (table, shadowed) = merge(&[layer(&["80=a"]), layer(&["127.0.0.1:80=b", "81=c"])]);
    assert_eq!(table.values().map(ToString::to_string).collect::<Vec<_>>(), ["80=a:80", "81=c:81"]);
    assert_eq!(shadowed.len(), 1);
    assert_eq!(
        (shadowed[0].route.to_string().as_str(), &shadowed[0].by),
        ("127.0.0.1:80=b:80", &Place::Argument(1))
    );
}

#[test]
fn a_name_is_unique() {
    let (table, shadowed) = merge(&[layer(&["80=a?name=web"]), layer(&["81=b?name=web"])]);
    assert_eq!((table.len(), shadowed.len()), (1, 1));
}

#[test]
fn only_changed_routes_are_opened_replaced_or_closed() {
    let old = table(&["80=a", "81=b", "82=c"]);
    let new = table(&["81=b", "82=c?hold=1s", "83=d"]);
    let found = diff(&old, &new);
    assert_eq!(found.open, [route("83=d")]);
    assert_eq!(found.replace, [route("82=c?hold=1s")]);
    assert_eq!(found.close, [route("80=a").listen]);
}

#[test]
fn a_route_with_another_origin_is_unchanged() {
    let old = table(&["80=a"]);
    let mut moved = route("80=a");
    moved.origin = Place::Variable("AMBASSADOR_ROUTES".to_owned());
    let (new, _) = merge(&[Layer { routes: vec![moved] }]);
    assert_eq!(diff(&old, &new), Diff::default());
}

fn some_layers() -> impl Strategy<Value = Vec<Layer>> {
    let listen = prop_oneof![
        "[0-9]",
        "\\[::\\]:[1-5]",
        "\\[::1\\]:[1-5]",
        "/[a-c]",
        "127\\.0\\.0\\.[12]:[1-5]",
        "0\\.0\\.0\\.0:[1-5]",
        "[1-4]-[5-9]",
        "[1-9]/udp",
        "peer:[1-3]"
    ];
    let line = (listen, "[ab]", proptest::option::of("[xyz]")).prop_map(|(listen, target, name)| {
        let name = name.map(|name| format!("?name={name}")).unwrap_or_default();
        route(&format!("{listen}={target}:1{name}"))
    });
    let layer = proptest::collection::vec(line, 0..6).prop_map(|routes| Layer { routes });
    proptest::collection::vec(layer, 0..4)
}

proptest! {
    #[test]
    fn the_index_finds_the_same_conflicts_as_comparing_all_pairs(layers in some_layers(), wanted in some_layers()) {
        let routes: Vec<&Route> = layers.iter().flat_map(|layer| &layer.routes).collect();
        let index = RouteIndex::of(routes.iter().copied());
        for route in wanted.iter().flat_map(|layer| &layer.routes) {
            let by_listen = routes.iter().find(|other| other.listen.overlaps(&route.listen));
            prop_assert_eq!(index.by_listen(&route.listen), by_listen.copied());
            let by_name = routes.iter().find(|other| other.options.name == route.options.name);
            prop_assert_eq!(index.by_name(&route.options.name), by_name.copied());
            let excludes = routes.iter().any(|other| other.excludes(route));
            prop_assert_eq!(index.conflict(route).is_some(), excludes);
        }
    }

    #[test]
    fn no_two_routes_of_a_table_conflict(layers in some_layers()) {
        let (table, _) = merge(&layers);
        for (n, one) in table.values().enumerate() {
            prop_assert!(table.values().skip(n + 1).all(|other| !one.excludes(other)));
        }
    }

    #[test]
    fn every_route_is_active_or_shadowed_by_an_active_one(layers in some_layers()) {
        let (table, shadowed) = merge(&layers);
        let written: usize = layers.iter().map(|layer| layer.routes.len()).sum();
        prop_assert_eq!(table.len() + shadowed.len(), written);
        for Shadowed { route, .. } in &shadowed {
            prop_assert!(table.values().any(|winner| winner.excludes(route)));
        }
    }

    #[test]
    fn a_later_layer_never_changes_the_routes_of_an_earlier_one(layers in some_layers()) {
        let (all, _) = merge(&layers);
        let (fewer, _) = merge(layers.get(..layers.len().saturating_sub(1)).unwrap_or_default());
        prop_assert!(fewer.iter().all(|(listen, route)| all.get(listen) == Some(route)));
    }

    #[test]
    fn applying_a_diff_results_in_the_other_table(old in some_layers(), new in some_layers()) {
        let (old, _) = merge(&old);
        let (new, _) = merge(&new);
        let Diff { open, replace, close } = diff(&old, &new);
        let mut walked = old;
        for listen in &close {
            prop_assert!(walked.remove(listen).is_some());
        }
        for route in replace {
            prop_assert!(walked.insert(route.listen.clone(), route).is_some());
        }
        for route in open {
            prop_assert!(walked.insert(route.listen.clone(), route).is_none());
        }
        prop_assert!(diff(&walked, &new) == Diff::default() && walked.len() == new.len());
    }
}

#[test]
fn a_label_cannot_use_a_port_of_the_operator_on_the_other_address_family() {
    let label = |line: &str| {
        let place = Place::Label { container: "c".to_owned(), label: "l".to_owned() };
        Layer { routes: vec![Route { origin: place, ..route(line) }] }
    };
    let operators = layer(&["127.0.0.1:80=a"]);
    for taken in ["[::1]:80=b", "80=b", "[fd00::1]:79-81=b", "127.0.0.1:80=b"] {
        let (table, shadowed) = merge(&[operators.clone(), label(taken)]);
        assert_eq!((table.len(), shadowed.len()), (1, 1), "{taken}");
    }
    for free in ["[::1]:81=b", "[::1]:80/udp=b", "[::1]:0=b:1", "10.0.0.1:80=b"] {
        let (table, shadowed) = merge(&[operators.clone(), label(free)]);
        assert_eq!((table.len(), shadowed.len()), (2, 0), "{free}");
    }
    let (table, _) = merge(&[operators, layer(&["[::1]:80=b"])]);
    assert_eq!(table.len(), 2, "the operator may");
}

#[test]
fn routes_of_a_port_have_distinct_server_names() {
    for (first, second, overlap) in [
        ("443/a.b=x:1", "443/c.b=x:1", false),
        ("443/a.b=x:1", "443/*.b=x:1", false),
        ("443/a.b=x:1", "443/*=x:1", false),
        ("443/a.b+c.b=x:1", "443/c.b+d.b=x:1", true),
        ("443/a.b=x:1", "443=x:1", true),
        ("443/a.b=x:1", "400-500=x:1", true),
        ("443/a.b=x:1", "443/udp=x:1", false),
        ("443/a.b=x:1", "127.0.0.1:443/c.b=x:1", true),
        ("127.0.0.1:443/a.b=x:1", "127.0.0.2:443/a.b=x:1", false),
        ("127.0.0.1:0/a.b=x:1", "127.0.0.1:0/c.b=x:1", false),
    ] {
        let routes = [route(first), route(second)];
        for (this, that) in [(0, 1), (1, 0)] {
            assert_eq!(routes[this].listen.overlaps(&routes[that].listen), overlap, "{first} {second}");
            let layer = Layer { routes: vec![routes[this].clone(), routes[that].clone()] };
            assert_eq!(merge(&[layer]).1.len(), usize::from(overlap), "{first} {second}");
        }
    }
    // The port is found by each of its names, not only by the first.
    let layer =
        Layer { routes: vec![route("443/a.b=x:1"), route("443/c.b=x:1"), route("443/c.b=y:1?name=n")] };
    assert_eq!(merge(&[layer]).1.len(), 1);
}

#[test]
fn label_does_not_take_over_a_name_that_the_operator_serves() {
    for (operator, is_used) in
        [("443/*=x:1", false), ("443/*.b=x:1", false), ("443/a.b=x:1", false), ("443/*.c=x:1", true)]
    {
        let origin = Place::Label { container: "c".to_owned(), label: "l".to_owned() };
        let label = Route { origin, ..route("443/a.b=x:2") };
        let layers = [Layer { routes: vec![route(operator)] }, Layer { routes: vec![label] }];
        assert_eq!(merge(&layers).1.is_empty(), is_used, "{operator}");
    }
}
