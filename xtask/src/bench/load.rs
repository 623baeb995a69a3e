//! `cargo xtask bench-load`: the benchmark's client and service, one thread each, without allocations per request.
//!
//! The benchmark runs it as a child process in the release profile and steps it: the client prints a line, waits for a
//! line, and continues. So the proxy's CPU time is read exactly around the load.

mod bulk;
mod client;
mod delay;
mod hold;
mod mirror;
mod pace;
mod poll;
mod receiver;
mod record;
mod serve;
mod udp;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use self::mirror::FAREWELL;

/// Each message starts with its length, so that the service recognises a complete one, as real services do.
const HEADER_BYTES: usize = 4;

#[derive(clap::Subcommand)]
pub(crate) enum Load {
    /// Reply to each message with one of the same length; count datagrams and acknowledge them
    Serve { listen: SocketAddr },
    /// Send requests, one after the other on each connection
    Reply(client::Args),
    /// Keep connections open: silent, after a request, busy; then close them
    Hold(hold::Args),
    /// Send one stream
    Bulk(bulk::Args),
    /// Return what is received
    Mirror { listen: SocketAddr },
    /// Relay connections and record their bytes
    Record(record::Args),
    /// Relay datagrams with a delay
    Delay(delay::Args),
    /// Send datagrams, as many in flight as the window allows
    Udp(udp::Args),
}

/// The measurement of a client.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Requests with a reply, or datagrams that arrived.
    pub(crate) done: u64,
    /// Requests that failed, or datagrams that did not arrive.
    pub(crate) lost: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

pub(crate) fn run(load: &Load) -> Result<()> {
    match load {
        Load::Serve { listen } => serve::run(*listen),
        Load::Reply(args) => client::run(args),
        Load::Hold(args) => hold::run(args),
        Load::Bulk(args) => bulk::run(args),
        Load::Mirror { listen } => mirror::run(*listen),
        Load::Record(args) => record::run(args),
        Load::Delay(args) => delay::run(args),
        Load::Udp(args) => udp::run(args),
    }
}

/// Prints the state and waits for the line to continue.
fn step(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    let mut answer = String::new();
    let length = std::io::stdin().lock().read_line(&mut answer)?;
    ensure!(length > 0, "standard input was closed");
    Ok(())
}

fn report(outcome: &Outcome) -> Result<()> {
    step(&serde_json::to_string(outcome)?)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
