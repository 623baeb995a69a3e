//! One stream from the client to the service, as fast as it goes.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Instant;

use anyhow::Result;

use super::serve::ENDLESS;
use super::{Outcome, report, step};

const CHUNK_BYTES: usize = 128 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    target: SocketAddr,
}

/// Sends between two steps. Bytes that the kernel still has to send are counted.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut stream = TcpStream::connect(args.target)?;
    stream.write_all(&ENDLESS.to_be_bytes())?;
    step("ready")?;
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let done = scope(|scope| {
        let sender = scope.spawn(|| send(&mut stream, &stop));
        let stepped = step("started");
        stop.store(true, Ordering::Relaxed);
        let done = sender.join().unwrap_or(0);
        stepped.map(|()| done)
    })?;
    report(&Outcome { seconds: start.elapsed().as_secs_f64(), done, ..Outcome::default() })
}

fn send(stream: &mut TcpStream, stop: &AtomicBool) -> u64 {
    let chunk = vec![b'x'; CHUNK_BYTES];
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) && stream.write_all(&chunk).is_ok() {
        done += chunk.len() as u64;
    }
    done
}
