//! A test that cannot run here says why; `cargo xtask test` prints the table.

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

/// The value, or a skip that says why it is not to be had: `let hosts = needs!(hosts());`
macro_rules! needs {
    ($thing:expr) => {
        match $thing {
            Ok(thing) => thing,
            Err(why) => $crate::support::skip!(why),
        }
    };
}

pub(crate) use {needs, skip};

/// Writes the skip down. `place` is the name of a function inside the test.
pub(crate) fn record(place: &str, why: &str) {
    let test = place.trim_end_matches("::here").trim_end_matches("::{{closure}}").trim_start_matches("it::");
    assert!(variable("CI").as_deref() != Some("true"), "skipped: {why}; under CI=true that is a failure");
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = variable("AMBASSADOR_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the file of skips");
        // One write: other tests append at the same time.
        file.write_all(format!("{test}\t{}\n", why.replace('\n', " ")).as_bytes()).expect("a line in it");
    }
}

/// What `cargo xtask test` told us.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own settings; the program's are given by each test"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the image that the hosts have is the one that ships.
pub(crate) fn is_dist_image() -> bool {
    variable("AMBASSADOR_TEST_IMAGE_PROFILE").as_deref() == Some("dist")
}
