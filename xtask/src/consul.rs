//! Finds Consul for the tests with a real agent; the last Debian release that has it is bullseye.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::debian;
use crate::image::target_dir;
use crate::process::find;

/// Returns the installed program, or fetches the one of bullseye once.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = find("consul") {
        return Ok(program);
    }
    let dir = std::path::absolute(target_dir().join("consul"))?;
    debian::unpack("bullseye", "consul", &dir).context("install `consul` in a directory of the PATH")?;
    Ok(dir.join("root/usr/bin/consul"))
}
