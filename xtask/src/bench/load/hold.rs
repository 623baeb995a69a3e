//! Many connections, for their cost in memory: opened, after a request, busy, closed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::client::Client;
use super::{report, seconds, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    target: SocketAddr,
    #[arg(long)]
    connections: usize,
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Seconds of the busy phase
    #[arg(long, value_parser = seconds, default_value = "1")]
    seconds: Duration,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut client = Client::new(args.target, args.payload, 1, false)?;
    client.open(1)?;
    client.send_each()?;
    step("one")?;
    client.open(args.connections - 1)?;
    step("opened")?;
    client.send_each()?;
    step("asked")?;
    step("busy")?;
    let outcome = client.run(args.seconds)?;
    report(&outcome)?;
    drop(client);
    step("closed")
}
