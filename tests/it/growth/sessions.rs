//! The costs of a session among few and among many: memory of an idle one, CPU time of a request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::echo::Echo;
use crate::support::{Ambassador, eventually};

const COUNTS: [usize; 5] = [100, 300, 1_000, 3_000, 9_000];
/// Active sessions, evenly distributed.
const ACTIVE: usize = 50;
/// Requests of all active sessions in one round.
const REQUESTS: u32 = 40_000;
/// The minimum excludes disturbances by other processes.
const ROUNDS: usize = 3;

pub(super) fn measure() -> Value {
    raise_file_limit();
    let server = Echo::start(b'a');
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=growth", server.addr())).start();
    let addr = ambassador.addr("growth");
    // The first session allocates what all sessions share.
    let mut sessions = vec![session(addr)];
    let before = ambassador.memory();
    COUNTS
        .map(|count| {
            sessions.resize_with(count, || session(addr));
            let memory = (ambassador.memory() - before) as f64 / (count - 1) as f64;
            let cpu = (0..ROUNDS).map(|_| round(&ambassador, &sessions)).min().unwrap_or_default();
            let cpu_us = cpu.as_secs_f64() * 1e6 / f64::from(REQUESTS);
            eprintln!("{count} sessions: {memory:.0} bytes each, {cpu_us:.1} us a request");
            json!({"sessions": count, "bytes_each": memory, "cpu_us": cpu_us})
        })
        .into_iter()
        .collect()
}

/// Opens a session and waits for its first reply.
fn session(addr: SocketAddr) -> TcpStream {
    let mut stream = eventually("a connection", || TcpStream::connect(addr));
    stream.set_nodelay(true).unwrap();
    ask(&mut stream);
    stream
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// All active sessions send requests and receive replies, repeatedly. Returns the CPU time of the ambassador.
fn round(ambassador: &Ambassador, sessions: &[TcpStream]) -> Duration {
    let step = sessions.len() / ACTIVE;
    let active: Vec<&TcpStream> = sessions.iter().step_by(step).take(ACTIVE).collect();
    let before = ambassador.cpu();
    for _ in 0..REQUESTS / ACTIVE as u32 {
        active.iter().for_each(|stream| (&mut &**stream).write_all(b"x").unwrap());
        active.iter().for_each(|stream| (&mut &**stream).read_exact(&mut [0]).unwrap());
    }
    ambassador.cpu() - before
}

/// This process has both ends of each session.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}
