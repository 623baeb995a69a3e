//! `cargo xtask lint`: all automatic checks of the sources.

use anyhow::{Result, bail};

use crate::process::{cargo, find, status};
use crate::steps::Steps;

/// Runs all checks, then reports those that failed.
pub(crate) fn run() -> Result<()> {
    let mut checks = vec![
        ("fmt", cargo("fmt --all --check")),
        ("clippy", cargo("clippy --workspace --all-targets -- -D warnings")),
        // The documentation is for contributors, so it includes private items.
        ("rustdoc", cargo("doc --workspace --no-deps --document-private-items")),
        // A workspace of its own, which no other check builds.
        (
            "the lock file of fuzz",
            cargo("update --workspace --locked --offline --manifest-path fuzz/Cargo.toml"),
        ),
    ];
    checks[2].1.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    if find("cargo-deny").is_some() {
        // Advisories are excluded: they need a database that not every build machine can fetch.
        checks.push(("deny", cargo("deny check licenses bans")));
    } else {
        println!("skipped: licences and bans (cargo-deny is not installed)");
    }

    let mut steps = Steps::default();
    let mut failed = Vec::new();
    for (name, mut check) in checks {
        println!("lint: {name}");
        if !steps.run(name, || status(&mut check))?.success() {
            failed.push(name);
        }
    }
    println!("\nlint, in seconds:\n{}", steps.table());
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}
