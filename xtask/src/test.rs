//! `cargo xtask test`: installs missing programs, starts the hosts, runs all tests, lists what was skipped, and cleans
//! up.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::bench::peers;
use crate::engine::Engine;
use crate::host::{self, Lifetime};
use crate::hosts::{self, Hosts};
use crate::image::{self, Profile};
use crate::process::{cargo, find, status, succeed};
use crate::skips::Skips;
use crate::steps::Steps;
use crate::{compose, consul, images, install, sudo, web};

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
    let mut steps = Steps::default();
    let mut skips = Skips::default();
    let missing = steps.run("install programs", install::missing_after_install)?;
    for program in &missing {
        skips.add("a program that tests use", program);
    }
    steps.run("install packages of the web page", || install_packages_of_the_page(&mut skips));
    // A short path, because it contains sockets, and unique to this run.
    let (parent, prefix) = (Path::new("/tmp"), "amb-test-");
    hosts::remove_stale(parent, prefix);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    // Before the hosts start, so that they do not wait for the compiler.
    let (program, mut environment) = prepare(args.profile, &dir, &mut steps, &mut skips)?;

    let name = "start Docker hosts";
    let engine = args.engine.unwrap_or(Engine::Installed);
    environment.hosts = steps.run(name, || start_hosts(engine, &program, &dir, &missing, &mut skips))?;
    let words = "--workspace";
    let all: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let mut passed = steps.run("tests", || run_tests(words, &all, args, &environment))?;
    if find("cargo-nextest").is_some() {
        // nextest does not run documentation tests.
        let mut doc = tests("test --workspace --doc --quiet", args, &environment);
        passed &= steps.run("documentation tests", || status(&mut doc))?.success();
    }
    skips.read(&environment.skips);
    if args.engine.is_none() && args.filter.is_none() && environment.hosts.take().is_some() {
        environment.hosts = steps.run(name, || start_second_hosts(&program, &dir, &missing, &mut skips));
        if environment.hosts.is_some() {
            let words = "--package ambassador --test it";
            passed &= steps.run("tests again", || run_tests(words, ENGINE_TESTS, args, &environment))?;
            skips.read(&environment.skips);
        }
    }
    steps.run("stop Docker hosts", || drop(environment));
    println!("\ntests, in seconds:\n{}", steps.table());
    Ok(summarize(passed, &skips))
}

/// Installs axe-core, which a test of the page uses.
fn install_packages_of_the_page(skips: &mut Skips) {
    if let Err(why) = web::install_packages() {
        skips.add("the accessibility of the web page", format!("{why:#}"));
    }
}

/// Builds the static binary and the tests, and fetches the programs that no package contains. Returns the binary.
fn prepare(
    profile: Profile,
    dir: &TempDir,
    steps: &mut Steps,
    skips: &mut Skips,
) -> Result<(PathBuf, TestEnvironment)> {
    thread::scope(|scope| {
        // At the same time as the tests: its optimization takes minutes on a single core.
        let building = scope.spawn(|| image::build(profile));
        steps.run("build the tests", || succeed(&mut cargo("test --workspace --no-run --quiet")))?;
        let mut environment = steps.run("fetch programs", || TestEnvironment::fetch(dir, skips));
        let program = steps.run("build the static binary", || building.join());
        let program = program.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        environment.shipped = (profile == Profile::Dist).then(|| program.clone());
        Ok((program, environment))
    })
}

/// Starts the hosts and loads their images; returns `None` and records the reason if that is impossible.
fn start_hosts(
    engine: Engine,
    program: &Path,
    dir: &TempDir,
    missing: &[String],
    skips: &mut Skips,
) -> Result<Option<Hosts>> {
    if let Some(why) = host::unavailable_reason() {
        skips.add("every test with Docker hosts", why);
        return Ok(None);
    }
    let hosts = Hosts::up(dir.path(), Lifetime::Process, engine).context("the Docker hosts did not start")?;
    images::load_all(&hosts, program, missing)?;
    Ok(Some(hosts))
}

/// Starts hosts with the newer engine. If it is unavailable, its tests are skipped.
fn start_second_hosts(program: &Path, dir: &TempDir, missing: &[String], skips: &mut Skips) -> Option<Hosts> {
    let hosts = start_hosts(SECOND_ENGINE, program, dir, missing, skips);
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

impl TestEnvironment {
    /// Fetches the programs. Those that cannot be fetched are skips.
    fn fetch(dir: &TempDir, skips: &mut Skips) -> TestEnvironment {
        let mut fetched = |what: &str, program: Result<PathBuf>| {
            program.inspect_err(|why| skips.add(what, format!("{why:#}"))).ok()
        };
        TestEnvironment {
            hosts: None,
            shipped: None,
            consul: fetched("every test with Consul", consul::program()),
            compose: fetched("every test with Compose v5", compose::program()),
            envoy: fetched("every test with Envoy", peers::envoy()),
            skips: dir.path().join("skips"),
        }
    }
}

/// Runs the tests of `words` whose names contain one of `filters`. Returns whether all passed.
fn run_tests(words: &str, filters: &[&str], args: &Args, environment: &TestEnvironment) -> Result<bool> {
    std::fs::File::create(&environment.skips)?;
    let mut command = if find("cargo-nextest").is_some() {
        tests(&format!("nextest run {words} --no-tests=pass --no-fail-fast"), args, environment)
    } else {
        let mut command = tests(&format!("test {words} --no-fail-fast"), args, environment);
        command.arg("--");
        command
    };
    Ok(status(command.args(filters))?.success())
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
fn summarize(passed: bool, skips: &Skips) -> ExitCode {
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
    println!("tests {word}");
    if passed && !skips_forbidden { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
