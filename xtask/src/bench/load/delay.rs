//! Delays datagrams in both directions, for a link that is slower than the machine.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::Result;

/// At least the size of an IP packet.
const BUFFER_BYTES: usize = 66_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the sockets
    dir: PathBuf,
    #[arg(long)]
    microseconds: u64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let delay = Duration::from_micros(args.microseconds);
    let directions = [("to-far", "from-near"), ("to-near", "from-far")].map(|(from, to)| {
        let from = UnixDatagram::bind(args.dir.join(from))?;
        let (sender, receiver) = channel();
        let to = args.dir.join(to);
        let writer = spawn(move || write(&receiver, &to));
        let reader = spawn(move || read(&from, delay, &sender));
        anyhow::Ok([reader, writer])
    });
    for direction in directions {
        for thread in direction? {
            thread.join().ok();
        }
    }
    Ok(())
}

fn read(from: &UnixDatagram, delay: Duration, sender: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length) = from.recv(&mut buffer) {
        if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// A packet that cannot be delivered is lost, as on a network.
fn write(receiver: &Receiver<(Instant, Vec<u8>)>, to: &Path) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    for (due, packet) in receiver {
        sleep(due.saturating_duration_since(Instant::now()));
        socket.send_to(&packet, to).ok();
    }
}
