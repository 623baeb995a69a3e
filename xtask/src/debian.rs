//! Unpacks packages of another Debian release into a directory. Nothing is installed, and the machine's own package
//! lists are not changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::process::{find, output};
use crate::sudo;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// `$1` is the directory, `$2` the archive, `$3` its keyring, `$4` the release, `$5` the packages. Runs without root:
/// lists, sources and caches are private to the directory. The signature of an archived release has expired, so its
/// date is not checked.
const FETCH: &str = r#"
rm -rf "$1" && mkdir -p "$1/lists/partial" "$1/cache" && cd "$1"
echo "deb [signed-by=$3] $2 $4 main" > sources.list
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$1/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Retries=3 -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false $2
}
apt "$1" update
apt "$1" "download $5"
for package in *.deb; do dpkg -x "$package" unpacking; done
rm -r lists cache ./*.deb
mv unpacking root
"#;

/// Unpacks `packages` of `release` below `dir/root` unless they are present.
pub(crate) fn unpack(release: &str, packages: &str, dir: &Path) -> Result<()> {
    if dir.join("root").exists() {
        return Ok(());
    }
    if find("apt-get").is_none() || find("dpkg").is_none() || !Path::new(KEYRING).exists() {
        bail!("apt-get, dpkg or Debian's keyring is missing");
    }
    println!("install: fetching {packages} of Debian {release}");
    let mut failure = anyhow!("apt has no sources on this machine");
    for archive in archives()? {
        let mut script = sudo::as_user("sh");
        script.args(["-ec", FETCH, "fetch"]).arg(dir).args([archive.as_str(), KEYRING, release, packages]);
        match output(&mut script) {
            Ok(_) => return Ok(()),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

/// Returns the archives of this machine's own packages. Not every archive has every release.
fn archives() -> Result<BTreeSet<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    Ok(output(&mut targets)?.lines().map(str::to_owned).collect())
}
