//! Measures how costs grow with the numbers of endpoints, sessions and routes, for `cargo xtask growth`. Not a test,
//! because machines differ: tests in `src/balancer/tests.rs` and others count operations instead.

mod echo;
mod reloads;
mod selection;
mod sessions;

use serde_json::json;

use crate::support::variable;

/// Writes one JSON document to the file that the variable names.
#[test]
#[ignore = "a measurement: `cargo xtask growth`"]
fn growth_of_costs() {
    let path = variable("AMBASSADOR_GROWTH").expect("a file to write to");
    let measured = json!({
        "picks": selection::measure(),
        "sessions": sessions::measure(),
        "reloads": reloads::of_routes(),
        "endpoints": reloads::of_endpoints(),
    });
    std::fs::write(path, format!("{measured:#}\n")).unwrap();
}
