//! Fetches Consul, which Debian had last in bullseye, for the tests that ask a real one. Nothing is installed, and the
//! machine's own lists of packages stay as they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::image::target_dir;
use crate::process::{find, output};
use crate::sudo;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// `$1` is the directory, `$2` the archive, `$3` its keyring. Needs no root: lists, sources and caches are its own. A
/// release that is kept in the archive is signed until a day that has passed.
const FETCH: &str = r#"
mkdir -p "$1/lists/partial" "$1/cache" && cd "$1"
echo "deb [signed-by=$3] $2 bullseye main" > sources.list
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$1/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Retries=3 -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false $2
}
apt "$1" update
apt "$1" 'download consul'
dpkg -x consul_*.deb root
rm -r lists cache consul_*.deb
"#;

/// The program: the machine's own, the one that was fetched before, or one that is fetched now.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = find("consul") {
        return Ok(program);
    }
    let dir = std::path::absolute(target_dir().join("consul"))?;
    let program = dir.join("root/usr/bin/consul");
    if !program.exists() {
        println!("install: fetching consul of Debian bullseye");
        fetch(&dir)?;
    }
    Ok(program)
}

fn fetch(dir: &Path) -> Result<()> {
    if find("apt-get").is_none() || find("dpkg").is_none() || !Path::new(KEYRING).exists() {
        bail!("no apt-get, dpkg or Debian keyring here: put a `consul` on the PATH");
    }
    let mut failure = anyhow!("apt has no sources here: put a `consul` on the PATH");
    for archive in archives()? {
        let mut script = sudo::as_user("sh");
        match output(script.args(["-ec", FETCH, "fetch"]).arg(dir).args([archive.as_str(), KEYRING])) {
            Ok(_) => return Ok(()),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

/// Where this machine's own packages come from, each once. Not all of them have every release.
fn archives() -> Result<BTreeSet<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    Ok(output(&mut targets)?.lines().map(str::to_owned).collect())
}
