//! `cargo xtask image`: builds one static binary and a `FROM scratch` image of it, without a registry or a Dockerfile.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::process::{cargo, output, output_with, succeed};
use crate::rootfs::{self, Rootfs};

/// The image stays small because it is installed on every host.
const SIZE_LIMIT_BYTES: u64 = 10_000_000;

/// The flags of the Dockerfile. Relative relocations, packed, take 5 KB instead of 316.
pub(crate) const FLAGS: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";

/// The instructions of the Dockerfile except HEALTHCHECK.
///
/// The user is root, as in the ancestors' images, because `/var/run/docker.sock` belongs to root. Nothing else needs
/// root, so `--user`, `--read-only` and `--cap-drop ALL` all work. The admin socket, which `health` uses, is in the one
/// directory that every container can write to. `PATH` is Docker's default plus the root directory, so that `docker
/// exec CONTAINER ambassador status` works.
const CHANGES: &[&str] = &[
    r#"ENTRYPOINT ["/ambassador"]"#,
    "ENV XDG_RUNTIME_DIR=/dev/shm",
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/",
];

/// The API version of Docker 25, the first with `--start-interval`. Older engines reject an image that has it.
/// <https://docs.docker.com/reference/api/engine/version-history/>
const START_INTERVAL_API: (u32, u32) = (1, 44);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the image
    #[arg(long, default_value = "ambassador:latest")]
    tag: String,
    /// Build profile; `dist` is the released one, the others build faster
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Also write the image as an archive for `docker load`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Dist,
    Release,
    Dev,
}

/// Builds the image and loads it into the engine at `DOCKER_HOST`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = build(args.profile)?;
    load(|| Command::new("docker"), &binary, &args.tag)?;
    println!("loaded {}", args.tag);
    if let Some(file) = &args.save {
        run_docker_save(&args.tag, file)?;
    }
    Ok(())
}

fn run_docker_save(tag: &str, file: &Path) -> Result<()> {
    succeed(Command::new("docker").args(["save", "--output"]).arg(file).arg(tag))?;
    println!("saved {}", file.display());
    Ok(())
}

/// Builds the binary in this profile and checks that it is static.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    build_in(profile, &target_dir(), &[("RUSTFLAGS", FLAGS)])
}

/// Builds with these environment variables. Flags other than [`FLAGS`] need another target directory, or they rebuild
/// everything.
pub(crate) fn build_in(profile: Profile, target_dir: &Path, environment: &[(&str, &str)]) -> Result<PathBuf> {
    let (name, dir) = match profile {
        Profile::Dist => ("dist", "dist"),
        Profile::Release => ("release", "release"),
        Profile::Dev => ("dev", "debug"),
    };
    // With `--target` the flags apply to the program alone: procedural macros cannot be static.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    eprintln!("image: building the static binary, profile {name}");
    let mut build = cargo(&format!("build --quiet --bin ambassador --target {target} --profile {name}"));
    succeed(build.env("CARGO_TARGET_DIR", target_dir).envs(environment.iter().copied()))?;
    let binary = target_dir.join(target).join(dir).join("ambassador");
    check(&binary, profile)?;
    Ok(binary)
}

fn check(binary: &Path, profile: Profile) -> Result<()> {
    ensure!(rootfs::is_static(binary), "{} is not statically linked", binary.display());
    let size = binary.metadata()?.len();
    eprintln!("image: {}: static, {:.2} MB", binary.display(), size as f64 / 1e6);
    let fits = profile != Profile::Dist || size <= SIZE_LIMIT_BYTES;
    ensure!(fits, "the binary has {size} bytes: the limit is {SIZE_LIMIT_BYTES}");
    Ok(())
}

pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Packs the binary and loads it into the engine of this `docker` command.
pub(crate) fn load(docker: impl Fn() -> Command, binary: &Path, tag: &str) -> Result<()> {
    let api = output(docker().args(["version", "--format", "{{.Server.APIVersion}}"]))?;
    let healthcheck = healthcheck(&api);
    let changes: Vec<&str> = CHANGES.iter().copied().chain([healthcheck.as_str()]).collect();
    let mut rootfs = Rootfs::new();
    rootfs.file(binary, "ambassador")?;
    import(&mut docker(), rootfs.into_tar()?, &changes, tag)
}

/// Returns the check for an engine with this API version. With a start interval a container becomes healthy within a
/// second of being ready, not only after the first interval.
fn healthcheck(api: &str) -> String {
    let start_interval = if version(api) >= Some(START_INTERVAL_API) { " --start-interval=1s" } else { "" };
    format!(
        r#"HEALTHCHECK --interval=5s --timeout=3s --start-period=10s{start_interval} CMD ["/ambassador", "health"]"#
    )
}

fn version(api: &str) -> Option<(u32, u32)> {
    let (major, minor) = api.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Runs `docker import`, which turns a tar into an image with one layer.
pub(crate) fn import(docker: &mut Command, tar: Vec<u8>, changes: &[&str], tag: &str) -> Result<()> {
    docker.arg("import");
    for change in changes {
        docker.args(["--change", change]);
    }
    output_with(docker.args(["-", tag]), tar).with_context(|| format!("cannot load {tag}"))?;
    Ok(())
}

/// Gives an existing image a further name.
pub(crate) fn tag(docker: &mut Command, tag: &str, name: &str) -> Result<()> {
    output(docker.args(["tag", tag, name]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_interval_is_set_only_for_engines_that_support_it() {
        for (api, set) in
            [("1.41", false), ("1.43", false), ("1.44", true), ("1.51", true), ("2.0", true), ("", false)]
        {
            assert_eq!(healthcheck(api).contains("--start-interval=1s"), set, "{api}");
        }
    }
}
