//! What a developer types: `cargo xtask test`, `latency`, `growth`, `fuzz`, `lint`, `image`, `hosts`.
#![expect(
    clippy::disallowed_methods,
    reason = "no runtime to block here, and the environment is a developer's"
)]

mod bench;
mod cgroups;
mod compose;
mod consul;
mod debian;
mod engine;
mod fuzz;
mod growth;
mod host;
mod hosts;
mod image;
mod images;
mod install;
mod interrupt;
mod latency;
mod lint;
mod plot;
mod process;
mod rootfs;
mod skips;
mod sudo;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
enum Task {
    /// Run every test, with Docker hosts of its own; installs what is missing, leaves nothing running
    Test(test::Args),
    /// Measure how long a change takes to be followed: of containers, of a key in etcd, of a file
    Latency,
    /// Measure the ambassador beside HAProxy, Envoy, nginx, socat and docker-proxy
    Bench(bench::Args),
    /// The benchmark's client and service
    #[command(subcommand, hide = true)]
    BenchLoad(bench::Load),
    /// Measure what grows with endpoints, sessions and routes, and write docs/internals/benchmarks/growth.*
    Growth,
    /// Give each fuzz target some time; needs a nightly compiler and cargo-fuzz
    Fuzz(fuzz::Args),
    /// Check format, clippy, rustdoc, and licences where cargo-deny is installed
    Lint,
    /// Build the image and load it into the engine that DOCKER_HOST names
    Image(image::Args),
    /// Two Docker hosts on this machine, to play with
    #[command(subcommand)]
    Hosts(HostsTask),
}

#[derive(Subcommand)]
enum HostsTask {
    /// Start them, with the ambassador's image and stand-ins for those of the examples
    Up(hosts::UpArgs),
    /// End them, and all that runs in them
    Down(hosts::Args),
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    // It runs in a temporary directory of the benchmark, and is ended by it.
    if let Task::BenchLoad(load) = &task {
        return bench::load(load).map(|()| ExitCode::SUCCESS);
    }
    std::env::set_current_dir(root())?;
    interrupt::watch()?;
    match task {
        Task::Test(args) => test::run(&args),
        Task::Latency => latency::run().map(|()| ExitCode::SUCCESS),
        Task::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Task::BenchLoad(load) => bench::load(&load).map(|()| ExitCode::SUCCESS),
        Task::Growth => growth::run().map(|()| ExitCode::SUCCESS),
        Task::Fuzz(args) => fuzz::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Lint => lint::run().map(|()| ExitCode::SUCCESS),
        Task::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Hosts(HostsTask::Up(args)) => hosts::play(&args).map(|()| ExitCode::SUCCESS),
        Task::Hosts(HostsTask::Down(args)) => hosts::stop_playing(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// The workspace, wherever it was called from.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
