//! `cargo xtask latency`: runs the measurement of `tests/it/latency.rs` with optimization on Docker hosts of its own.

use std::path::Path;

use anyhow::{Result, bail};

use crate::engine::Engine;
use crate::host::{self, Lifetime};
use crate::hosts::{self, Hosts};
use crate::process::{cargo, succeed};
use crate::{images, install, sudo};

pub(crate) fn run() -> Result<()> {
    sudo::become_root()?;
    let missing = install::missing_after_install()?;
    if let Some(why) = host::unavailable_reason() {
        bail!("{why}");
    }
    let (parent, prefix) = (Path::new("/tmp"), "amb-latency-");
    hosts::remove_stale(parent, prefix);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    // Built first, so that the hosts do not wait for the compiler.
    succeed(&mut cargo("test --release --test it --no-run --quiet"))?;
    let hosts = Hosts::up(dir.path(), Lifetime::Process, Engine::Installed)?;
    images::load_substitutes(&hosts, &missing)?;
    let mut measure = cargo("test --release --test it --quiet latency:: -- --ignored --nocapture");
    sudo::run_tests_as_root(&mut measure);
    hosts.set_environment(&mut measure);
    succeed(&mut measure)
}
