//! A configuration file: no text panics, and every route of it prints as a line that reads the same.
#![no_main]

use std::path::Path;

use ambassador::config::grammar::parse_route;
use ambassador::config::raw::parse_file;
use ambassador::diagnostic::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(file) = parse_file(Path::new("a.toml"), text) else { return };
    for route in file.routes {
        let again = parse_route(&route.to_string(), &Place::Built);
        assert!(again.is_ok_and(|again| again.runs_like(&route)), "{route}");
    }
});
