//! `cargo xtask test`: installs missing programs, starts the hosts, runs all tests, lists what was skipped, and cleans
//! up.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::bench::peers;
use crate::engine::Engine;
use crate::host::{self, Lifetime};
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

/// The engine of the second run of those tests: that of a stable release, so that its version does not change
/// unexpectedly.
const SECOND_ENGINE: Engine = Engine::Trixie;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Build profile of the image's binary; `dist` is the released one, the others build faster
    #[arg(long, value_enum, default_value_t = Profile::Dist)]
    profile: Profile,
    /// Run only on this engine. Without this option and without a filter, all tests run on the installed engine, and
    /// those that depend on the version of Docker run again on a newer one
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
    // A short path, because it contains sockets, and unique to this run.
    let (parent, prefix) = (Path::new("/tmp"), "amb-test-");
    hosts::remove_stale(parent, prefix);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    // Built before the hosts start, so that they do not wait for the compiler.
    let program = image::build(args.profile)?;
    let consul =
        consul::program().inspect_err(|why| skips.add("every test with Consul", format!("{why:#}"))).ok();
    let compose = compose::program()
        .inspect_err(|why| skips.add("every test with Compose v5", format!("{why:#}")))
        .ok();
    let envoy = peers::envoy().inspect_err(|why| skips.add("every test with Envoy", format!("{why:#}"))).ok();
    let shipped = Some(program).filter(|_| args.profile == Profile::Dist);
    let mut environment =
        TestEnvironment { hosts: None, shipped, consul, compose, envoy, skips: dir.path().join("skips") };

    let all: Vec<&str> = args.filter.as_deref().into_iter().collect();
    environment.hosts =
        start_hosts(args.engine.unwrap_or(Engine::Installed), args, &dir, &missing, &mut skips)?;
    let mut passed = run_tests(&all, args, &environment)?;
    skips.read(&environment.skips);
    if args.engine.is_none() && args.filter.is_none() && environment.hosts.take().is_some() {
        environment.hosts = start_second_hosts(args, &dir, &missing, &mut skips);
        if environment.hosts.is_some() {
            passed &= run_tests(ENGINE_TESTS, args, &environment)?;
            skips.read(&environment.skips);
        }
    }
    drop(environment);
    Ok(summarize(passed, &skips, started))
}

/// Starts the hosts and loads their images; returns `None` and records the reason if that is impossible.
fn start_hosts(
    engine: Engine,
    args: &Args,
    dir: &TempDir,
    missing: &[String],
    skips: &mut Skips,
) -> Result<Option<Hosts>> {
    if let Some(why) = host::unavailable_reason() {
        skips.add("every test with Docker hosts", why);
        return Ok(None);
    }
    let hosts = Hosts::up(dir.path(), Lifetime::Process, engine).context("the Docker hosts did not start")?;
    images::load_all(&hosts, args.profile, missing)?;
    Ok(Some(hosts))
}

/// Starts hosts with the newer engine. If it is unavailable, its tests are skipped.
fn start_second_hosts(args: &Args, dir: &TempDir, missing: &[String], skips: &mut Skips) -> Option<Hosts> {
    let hosts = start_hosts(SECOND_ENGINE, args, dir, missing, skips);
    hosts.unwrap_or_else(|why| {
        skips.add("every test on a second, newer Docker", format!("{why:#}"));
        None
    })
}

/// What tests find through environment variables.
struct TestEnvironment {
    hosts: Option<Hosts>,
    /// The released binary, if it was built.
    shipped: Option<PathBuf>,
    consul: Option<PathBuf>,
    compose: Option<PathBuf>,
    envoy: Option<PathBuf>,
    /// The file to which tests write their skips.
    skips: PathBuf,
}

/// Runs the unit and integration tests whose names contain one of `filters`, then the documentation tests. Returns
/// whether all passed.
fn run_tests(filters: &[&str], args: &Args, environment: &TestEnvironment) -> Result<bool> {
    std::fs::File::create(&environment.skips)?;
    if find("cargo-nextest").is_some() {
        // nextest does not run documentation tests.
        let words = "nextest run --workspace --no-tests=pass --no-fail-fast";
        let nextest = status(tests(words, args, environment).args(filters))?;
        let doc = status(&mut tests("test --workspace --doc --quiet", args, environment))?;
        return Ok(nextest.success() && doc.success());
    }
    // Built first, so that a compiler error is not followed by 200 lines of test output.
    succeed(&mut cargo("test --workspace --no-run --quiet"))?;
    Ok(status(tests("test --workspace --no-fail-fast", args, environment).arg("--").args(filters))?.success())
}

fn tests(words: &str, args: &Args, environment: &TestEnvironment) -> Command {
    let mut command = cargo(words);
    sudo::run_tests_as_root(&mut command);
    command.env("AMBASSADOR_TEST_SKIPS", &environment.skips);
    let programs = [
        ("AMBASSADOR_TEST_SHIPPED", &environment.shipped),
        ("AMBASSADOR_TEST_CONSUL", &environment.consul),
        ("AMBASSADOR_TEST_COMPOSE_V5", &environment.compose),
        ("AMBASSADOR_TEST_ENVOY", &environment.envoy),
    ];
    command.envs(programs.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))));
    if let Some(hosts) = &environment.hosts {
        hosts.set_environment(&mut command);
        command.env(
            "AMBASSADOR_TEST_IMAGE_PROFILE",
            if args.profile == Profile::Dist { "dist" } else { "other" },
        );
    }
    command
}

/// Prints the summary and returns the exit code.
fn summarize(passed: bool, skips: &Skips, started: Instant) -> ExitCode {
    if !skips.is_empty() {
        println!("\n{}", skips.table());
    }
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let skips_forbidden = in_ci && !skips.is_empty();
    let word = match (passed, skips_forbidden) {
        (false, _) => "failed",
        (true, true) => "failed: under CI=true nothing may be skipped",
        (true, false) => "passed",
    };
    println!("tests {word} ({} s)", started.elapsed().as_secs());
    if passed && !skips_forbidden { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
