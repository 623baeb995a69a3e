//! Fetches Consul, which Debian had last in bullseye, for the tests that ask a real one. Nothing is installed, and the
//! machine's own lists of packages stay as they are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::image::target_dir;
use crate::process::{find, output};
use crate::sudo;

/// Where a release is while it is supported, and afterwards.
const ARCHIVES: [&str; 2] = ["http://deb.debian.org/debian", "http://archive.debian.org/debian"];
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
    let from = |archive: &str| {
        let mut script = sudo::as_user("sh");
        output(script.args(["-ec", FETCH, "fetch"]).arg(dir).args([archive, KEYRING]))
    };
    let [now, afterwards] = ARCHIVES;
    from(now).or_else(|_| from(afterwards)).map(drop)
}
