//! `cargo xtask test`: installs, starts the hosts, runs every test, says what it could not test, cleans up.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::host::{self, Lives};
use crate::hosts::{self, Hosts};
use crate::image::{self, Profile};
use crate::process::{cargo, find, status, succeed};
use crate::skips::Skips;
use crate::{compose, consul, images, install, sudo};

/// Modules of `tests/it` whose behaviour may depend on the version of Docker.
const ENGINE_TESTS: &[&str] = &[
    "cross_links::",
    "docker_health::",
    "docker_source::",
    "hello_world::",
    "networks::",
    "replace::",
    "restarts::",
    "scaled_compose::",
    "two_hosts::",
];

/// The engine for a second run of those tests: of a stable release, so that it changes only when we decide so.
const SECOND_ENGINE: Engine = Engine::Trixie;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Of the image's binary; `dist` is what ships, the others build faster
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Only on this Docker. Without it and without a filter: every test on the installed one, and those that depend on the
    /// version of Docker a second time on a newer one
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    sudo::become_root()?;
    let started = Instant::now();
    let mut skips = Skips::default();
    let missing = install::missing_after_install()?;
    for program in &missing {
        skips.add("a program that tests use", program);
    }
    // Short, for the sockets in it; and ours alone.
    let (parent, prefix) = (Path::new("/tmp"), "amb-test-");
    hosts::sweep(parent, prefix);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    // Before the hosts, so that they wait for nobody.
    let program = image::build(args.profile)?;
    let consul =
        consul::program().inspect_err(|why| skips.add("every test with Consul", format!("{why:#}"))).ok();
    let compose = compose::program()
        .inspect_err(|why| skips.add("every test with Compose v5", format!("{why:#}")))
        .ok();
    let shipped = Some(program).filter(|_| args.profile == Profile::Dist);
    let mut world = World { hosts: None, shipped, consul, compose, skips: dir.path().join("skips") };

    let all: Vec<&str> = args.filter.as_deref().into_iter().collect();
    world.hosts = bring_up(args.engine.unwrap_or(Engine::Installed), args, &dir, &missing, &mut skips)?;
    let mut passed = run_tests(&all, args, &world)?;
    skips.read(&world.skips);
    if args.engine.is_none() && args.filter.is_none() && world.hosts.take().is_some() {
        world.hosts = bring_up_second(args, &dir, &missing, &mut skips);
        if world.hosts.is_some() {
            passed &= run_tests(ENGINE_TESTS, args, &world)?;
            skips.read(&world.skips);
        }
    }
    drop(world);
    Ok(verdict(passed, &skips, started))
}

/// The hosts with their images; `None`, and a line in the table, where they cannot be.
fn bring_up(
    engine: Engine,
    args: &Args,
    dir: &TempDir,
    missing: &[String],
    skips: &mut Skips,
) -> Result<Option<Hosts>> {
    if let Some(why) = host::impossible() {
        skips.add("every test with Docker hosts", why);
        return Ok(None);
    }
    let hosts = Hosts::up(dir.path(), Lives::WithUs, engine).context("the Docker hosts did not start")?;
    images::load_everywhere(&hosts, args.profile, missing)?;
    Ok(Some(hosts))
}

/// Hosts with the newer engine. Where that cannot be had, its tests are skipped.
fn bring_up_second(args: &Args, dir: &TempDir, missing: &[String], skips: &mut Skips) -> Option<Hosts> {
    let hosts = bring_up(SECOND_ENGINE, args, dir, missing, skips);
    hosts.unwrap_or_else(|why| {
        skips.add("every test on a second, newer Docker", format!("{why:#}"));
        None
    })
}

/// What tests are told of.
struct World {
    hosts: Option<Hosts>,
    /// The program that ships, where that was built.
    shipped: Option<PathBuf>,
    consul: Option<PathBuf>,
    compose: Option<PathBuf>,
    /// The file that they write their skips to.
    skips: PathBuf,
}

/// Unit and integration tests whose names contain one of `filters`, then those in the documentation. Whether all passed.
fn run_tests(filters: &[&str], args: &Args, world: &World) -> Result<bool> {
    std::fs::File::create(&world.skips)?;
    if find("cargo-nextest").is_some() {
        // nextest runs no documentation tests.
        let words = "nextest run --workspace --no-tests=pass --no-fail-fast";
        let nextest = status(tests(words, args, world).args(filters))?;
        let doc = status(&mut tests("test --workspace --doc --quiet", args, world))?;
        return Ok(nextest.success() && doc.success());
    }
    // Built first, so that a mistake of the compiler's kind shows without 200 lines of tests after it.
    succeed(&mut cargo("test --workspace --no-run --quiet"))?;
    Ok(status(tests("test --workspace --no-fail-fast", args, world).arg("--").args(filters))?.success())
}

fn tests(words: &str, args: &Args, world: &World) -> Command {
    let mut command = cargo(words);
    sudo::run_tests_as_root(&mut command);
    command.env("AMBASSADOR_TEST_SKIPS", &world.skips);
    let programs = [
        ("AMBASSADOR_TEST_SHIPPED", &world.shipped),
        ("AMBASSADOR_TEST_CONSUL", &world.consul),
        ("AMBASSADOR_TEST_COMPOSE_V5", &world.compose),
    ];
    command.envs(programs.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))));
    if let Some(hosts) = &world.hosts {
        hosts.tell(&mut command);
        command.env(
            "AMBASSADOR_TEST_IMAGE_PROFILE",
            if args.profile == Profile::Dist { "dist" } else { "other" },
        );
    }
    command
}

/// The closing lines, and what to exit with.
fn verdict(passed: bool, skips: &Skips, started: Instant) -> ExitCode {
    if !skips.is_empty() {
        println!("\n{}", skips.table());
    }
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let skipped_too_much = in_ci && !skips.is_empty();
    let word = match (passed, skipped_too_much) {
        (false, _) => "failed",
        (true, true) => "failed: under CI=true nothing may be skipped",
        (true, false) => "passed",
    };
    println!("tests {word} ({} s)", started.elapsed().as_secs());
    if passed && !skipped_too_much { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
