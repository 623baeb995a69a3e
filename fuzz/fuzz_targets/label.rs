//! A container's label: `<LISTEN>` on the first line, `<PORT>[?options]` after it. No text panics, neither here nor in
//! what is made of the whole container.
#![no_main]

use std::collections::BTreeMap;

use ambassador::config::grammar::{Author, parse_listen, parse_options};
use ambassador::diagnostic::Place;
use ambassador::discovery::containers::{Container, ContainerId, Containers};
use ambassador::discovery::label::{Policy, labelled};
use ambassador::route::{Listen, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (key, value) = text.split_once('\n').unwrap_or((text, ""));
    let author = Author::Label;
    if let (Ok(listen), Some((_, options))) =
        (parse_listen(key, author, &Place::Built), value.split_once('?'))
    {
        let _ = parse_options(options, &listen, author, &Place::Built);
    }
    let (routes, mistakes) = labelled(&one(key, value), &Policy::default());
    assert!(routes.len() + mistakes.len() >= 1, "a label is a route or a mistake");
    for route in routes {
        let own = |target: &Target| matches!(target, Target::Docker { name, .. } if *name == "a".repeat(64));
        assert!(route.all_targets().all(own), "a label names its own container alone: {route}");
        assert!(matches!(route.listen, Listen::Inet { .. }), "a label opens ports alone: {route}");
    }
});

fn one(key: &str, value: &str) -> Containers {
    let container = Container {
        name: "c".to_owned(),
        running: true,
        labels: BTreeMap::from([(format!("ambassador.listen.{key}"), value.to_owned())]),
        ..Container::default()
    };
    Containers { own_id: None, by_id: BTreeMap::from([(ContainerId("a".repeat(64)), container)]) }
}
