//! Skipped tests record the reason; `cargo xtask test` prints the table.

use std::fs::OpenOptions;
use std::io::Write;

/// Ends this test as skipped: `skip!("no docker-compose here")`. Under `CI=true` that is a failure.
macro_rules! skip {
    ($why:expr) => {{
        fn here() {}
        $crate::support::record(std::any::type_name_of_val(&here), &$why.to_string());
        return;
    }};
}

/// Returns the value, or skips the test with the reason: `let hosts = needs!(hosts());`
macro_rules! needs {
    ($thing:expr) => {
        match $thing {
            Ok(thing) => thing,
            Err(why) => $crate::support::skip!(why),
        }
    };
}

pub(crate) use {needs, skip};

/// Records the skip. `place` is the name of a function inside the test.
pub(crate) fn record(place: &str, why: &str) {
    let test = place.trim_end_matches("::here").trim_end_matches("::{{closure}}").trim_start_matches("it::");
    assert!(variable("CI").as_deref() != Some("true"), "skipped: {why}; under CI=true that is a failure");
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = variable("AMBASSADOR_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file of skips");
        // A single write, because other tests append at the same time.
        file.write_all(format!("{test}\t{}\n", why.replace('\n', " ")).as_bytes()).expect("a line in it");
    }
}

/// Returns a variable set by `cargo xtask test`.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own settings; the program's are given by each test"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns whether the hosts have the released image.
pub(crate) fn is_dist_image() -> bool {
    variable("AMBASSADOR_TEST_IMAGE_PROFILE").as_deref() == Some("dist")
}
