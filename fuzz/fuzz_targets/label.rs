//! A container's label: `<LISTEN>` on the first line, `<PORT>[?options]` after it. No text panics, neither here nor in
//! what is made of the whole container.
#![no_main]

use std::collections::BTreeMap;

use ambassador::config::grammar::{parse_listen, parse_options};
use ambassador::diagnostic::Place;
use ambassador::discovery::containers::{Container, ContainerId, Containers, NetworkMode};
use ambassador::discovery::label::labelled;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (key, value) = text.split_once('\n').unwrap_or((text, ""));
    if let (Ok(listen), Some((_, options))) = (parse_listen(key, &Place::Built), value.split_once('?')) {
        let _ = parse_options(options, &listen, &Place::Built);
    }
    let (routes, mistakes) = labelled(&one(key, value));
    assert!(routes.len() + mistakes.len() >= 1, "a label is a route or a mistake");
});

fn one(key: &str, value: &str) -> Containers {
    let container = Container {
        name: "c".to_owned(),
        running: true,
        labels: BTreeMap::from([(format!("ambassador.listen.{key}"), value.to_owned())]),
        network_mode: NetworkMode::Networks,
        networks: BTreeMap::new(),
        exposed: Vec::new(),
        links: Vec::new(),
    };
    Containers { own_id: None, by_id: BTreeMap::from([(ContainerId("a".repeat(64)), container)]) }
}
