//! Development tasks: `cargo xtask test`, `latency`, `bench`, `growth`, `fuzz`, `lint`, `image` and `hosts`.
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
mod steps;
mod sudo;
mod test;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
enum Task {
    /// Run all tests on temporary Docker hosts; installs missing programs first, and removes the hosts afterwards
    Test(test::Args),
    /// Measure the time from a change (of a container, an etcd key, a file) to the first connection that follows it
    Latency,
    /// Benchmark the ambassador against HAProxy, Envoy, nginx, socat, docker-proxy, stunnel and spiped
    Bench(bench::Args),
    /// Run the benchmark's client or service
    #[command(subcommand, hide = true)]
    BenchLoad(bench::Load),
    /// Measure how costs grow with endpoints, sessions and routes, and write docs/internals/benchmarks/growth.*
    Growth,
    /// Run the fuzz targets in turn; needs a nightly compiler and cargo-fuzz
    Fuzz(fuzz::Args),
    /// Build the web page from web/ into src/web/page/; needs Node
    Web(web::Args),
    /// Take the pictures of the web page in docs/images, which takes ten minutes
    Screenshots,
    /// Check formatting, clippy and rustdoc, and licences if cargo-deny is installed
    Lint,
    /// Build the image and load it into the engine at DOCKER_HOST
    Image(image::Args),
    /// Start or stop two Docker hosts on this machine for manual experiments
    #[command(subcommand)]
    Hosts(HostsTask),
}

#[derive(Subcommand)]
enum HostsTask {
    /// Start the hosts and load the ambassador's image and substitutes for the images of the examples
    Up(hosts::UpArgs),
    /// Stop the hosts and everything that runs in them
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
    // The benchmark starts this task in its own temporary directory and kills it at the end.
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
        Task::Web(args) => web::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Screenshots => web::screenshots().map(|()| ExitCode::SUCCESS),
        Task::Lint => lint::run().map(|()| ExitCode::SUCCESS),
        Task::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Hosts(HostsTask::Up(args)) => hosts::up(&args).map(|()| ExitCode::SUCCESS),
        Task::Hosts(HostsTask::Down(args)) => hosts::down(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// Returns the root of the workspace, independent of the current directory.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
