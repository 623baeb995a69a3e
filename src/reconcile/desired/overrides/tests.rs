//! Precedence of overrides over layers, and the state after they are undone.

use super::*;
use crate::address::{EndpointAddr, Identity};
use crate::config::grammar::parse_route;
use crate::route::merge;

fn route(line: &str, origin: &Place) -> Route {
    parse_route(line, origin).unwrap()
}

fn layers(lines: &[&str]) -> Vec<Layer> {
    vec![Layer { routes: lines.iter().map(|line| route(line, &Place::Argument(1))).collect() }]
}

fn runs(overrides: &Overrides, lines: &[&str]) -> Vec<String> {
    let (table, _) = merge(&overrides.layers(layers(lines)));
    overrides.table(&table).values().map(ToString::to_string).collect()
}

fn targets(line: &str) -> Option<Vec<Target>> {
    Some(route(&format!("80={line}"), &Place::Built).targets)
}

#[test]
fn table_without_overrides_is_that_of_the_sources() {
    assert_eq!(runs(&Overrides::default(), &["80=a", "81=b"]), ["80=a:80", "81=b:81"]);
}

#[test]
fn switch_overrides_the_targets_of_the_sources_until_it_is_reset() {
    let mut overrides = Overrides::default();
    overrides.change("web", |change| change.targets = targets("b:1,c:2")).unwrap();
    assert_eq!(runs(&overrides, &["80=a?name=web", "81=x"]), ["80=b:1,c:2?name=web", "81=x:81"]);
    assert_eq!(runs(&overrides, &["80=other?name=web"]), ["80=b:1,c:2?name=web"]);
    overrides.change("web", |change| change.targets = None).unwrap();
    assert_eq!(overrides, Overrides::default(), "an empty override is removed");
}

#[test]
fn added_route_precedes_all_layers_and_a_removed_one_is_removed_from_all() {
    let mut overrides = Overrides::default();
    overrides.add(route("80=mine?name=web", &Place::Operator)).unwrap();
    assert_eq!(runs(&overrides, &["80=a", "81=b"]), ["80=mine:80?name=web", "81=b:81"]);
    overrides.remove("81").unwrap();
    assert_eq!(runs(&overrides, &["80=a", "81=b"]), ["80=mine:80?name=web"]);
    overrides.remove("web").unwrap();
    assert_eq!(
        runs(&overrides, &["80=a", "81=b"]),
        ["80=a:80"],
        "removing an added route only undoes the addition"
    );
    overrides.add(route("82=b?name=81", &Place::Operator)).unwrap();
    assert_eq!(
        runs(&overrides, &["80=a", "81=b"]),
        ["80=a:80", "82=b:82?name=81"],
        "a removed route can be added"
    );
}

#[test]
fn removed_route_has_no_grace_period() {
    let mut overrides = Overrides::default();
    overrides.remove("80").unwrap();
    let (within_grace, _) = merge(&layers(&["80=a"]));
    assert_eq!(overrides.table(&within_grace), RouteTable::new());
}

#[test]
fn removing_a_route_removes_its_override() {
    let mut overrides = Overrides::default();
    overrides.add(route("80=a?name=web", &Place::Operator)).unwrap();
    overrides.change("web", |change| change.paused = true).unwrap();
    assert!(overrides.is_paused("web"));
    overrides.remove("web").unwrap();
    assert_eq!(overrides, Overrides::default());
}

#[test]
fn restored_route_has_its_override_again() {
    let mut overrides = Overrides::default();
    let before = {
        overrides.change("80", |change| change.paused = true).unwrap();
        overrides.clone()
    };
    overrides.remove("80").unwrap();
    assert_eq!((runs(&overrides, &["80=a"]), overrides.is_paused("80")), (Vec::new(), false));
    overrides.change("80", |change| change.targets = targets("b")).unwrap();
    assert!(overrides.restore("80") && !overrides.restore("80"));
    assert_eq!(runs(&overrides, &["80=a"]), ["80=b:80"], "a switch that was rolled back meanwhile");
    overrides.change("80", |change| change.targets = None).unwrap();
    assert_eq!(overrides, before);
}

#[test]
fn overrides_of_removed_routes_count() {
    let mut overrides = Overrides::default();
    let many = targets("a:80").map(|one| one.into_iter().cycle().take(OVERRIDES_MAX).collect());
    overrides.change("80", |change| change.targets = many).unwrap();
    overrides.remove("80").unwrap();
    assert_eq!(overrides.change("81", |change| change.paused = true), Err(TooMany));
}

#[test]
fn drained_endpoint_has_weight_zero_until_it_is_undrained() {
    let spec =
        |port: u16| EndpointSpec::new(EndpointAddr::Inet(([10, 0, 0, 1], port).into()), Identity::Literal);
    let mut overrides = Overrides::default();
    let weights = |overrides: &Overrides| {
        let mut endpoints = [spec(1), spec(2), spec(3)];
        overrides.weigh("web", &mut endpoints);
        endpoints.map(|endpoint| endpoint.weight)
    };
    overrides
        .change("web", |change| {
            change.weights.insert(spec(1).key, 5);
            change.weights.insert(spec(2).key, 7);
            change.drained.insert(spec(2).key);
        })
        .unwrap();
    assert_eq!(weights(&overrides), [5, 0, 1]);
    overrides.change("web", |change| change.drained.clear()).unwrap();
    assert_eq!(weights(&overrides), [5, 7, 1]);
    overrides.change("other", |change| change.paused = true).unwrap();
    assert_eq!(weights(&overrides), [5, 7, 1]);
}

#[test]
fn number_of_overrides_is_bounded() {
    let mut overrides = Overrides::default();
    for n in 0..OVERRIDES_MAX {
        overrides.change(&n.to_string(), |change| change.paused = true).unwrap();
        overrides.remove(&format!("removed {n}")).unwrap();
    }
    assert_eq!(overrides.change("one more", |change| change.paused = true), Err(TooMany));
    assert_eq!(overrides.remove("one more"), Err(TooMany));
    assert_eq!(overrides.change("7", |change| change.paused = false), Ok(()));
    assert_eq!(overrides.change("one more", |change| change.paused = true), Ok(()));
}
