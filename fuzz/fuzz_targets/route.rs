//! A route's line: no text panics, and what is read prints as a line that reads the same.
#![no_main]

use ambassador::config::grammar::parse_route;
use ambassador::diagnostic::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_route(text, &Place::Built) {
        Ok(route) => assert_eq!(parse_route(&route.to_string(), &Place::Built), Ok(route)),
        Err(mistakes) => assert!(mistakes.iter().all(|mistake| mistake.help.is_some()), "{mistakes:?}"),
    }
});
