//! `cargo xtask latency`: the measurement of `tests/it/latency.rs`, on Docker hosts of its own, optimized.

use std::path::Path;

use anyhow::{Result, bail};

use crate::engine::Engine;
use crate::host::{self, Lives};
use crate::hosts::{self, Hosts};
use crate::process::{cargo, succeed};
use crate::{images, install, sudo};

pub(crate) fn run() -> Result<()> {
    sudo::become_root()?;
    let missing = install::missing_after_install()?;
    if let Some(why) = host::impossible() {
        bail!("{why}");
    }
    let (parent, prefix) = (Path::new("/tmp"), "amb-latency-");
    hosts::sweep(parent, prefix);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    // Built before, so that the hosts wait for nobody.
    succeed(&mut cargo("test --release --test it --no-run --quiet"))?;
    let hosts = Hosts::up(dir.path(), Lives::WithUs, Engine::Installed)?;
    images::load_stand_ins(&hosts, &missing)?;
    let mut measure = cargo("test --release --test it --quiet latency:: -- --ignored --nocapture");
    sudo::run_tests_as_root(&mut measure);
    hosts.tell(&mut measure);
    succeed(&mut measure)
}
