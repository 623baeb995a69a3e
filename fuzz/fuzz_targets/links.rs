//! Link variables, one `NAME=VALUE` a line: no text panics, and every route prints as a line that reads the same.
#![no_main]

use ambassador::config::grammar::parse_route;
use ambassador::config::vars::Vars;
use ambassador::diagnostic::Place;
use ambassador::discovery::env::links;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let vars: Vars = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for route in links(&vars).0 {
        let again = parse_route(&route.to_string(), &Place::Built);
        assert!(again.is_ok_and(|again| again.runs_like(&route)), "{route}");
    }
});
