//! Finds Consul, which Debian had last in bullseye, for the tests with a real one.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::debian;
use crate::image::target_dir;
use crate::process::find;

/// The machine's own program, or the one of bullseye, fetched once.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = find("consul") {
        return Ok(program);
    }
    let dir = std::path::absolute(target_dir().join("consul"))?;
    debian::unpack("bullseye", "consul", &dir).context("put a `consul` on the PATH")?;
    Ok(dir.join("root/usr/bin/consul"))
}
