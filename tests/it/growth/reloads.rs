//! The duration of a reload, and the longest wait of a request in the meantime.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::echo::Echo;
use super::sessions::raise_file_limit;
use crate::support::{Ambassador, pause};

const COUNTS: [u16; 3] = [100, 1_000, 10_000];
const ENDPOINTS: [u16; 3] = [100, 1_000, 10_000];
/// An address and ports that no other test uses.
const HOST: [u8; 4] = [127, 0, 77, 1];
const PORT: u16 = 10_000;
/// The minimum duration of a round, so that quiet rounds have as many requests.
const ROUND: Duration = Duration::from_millis(600);
/// Rounds of each kind; reported are the median of the time and the maximum of the waits.
const ROUNDS: usize = 3;
/// A timeout that is reached only by another failure, such as a port in use.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two requests of a measured client.
const PACE: Duration = Duration::from_micros(200);

/// The shortest wait that counts as a stall.
const STALL: Duration = Duration::from_millis(5);

/// The waits of a client that sends requests continuously.
#[derive(Default)]
struct Waits {
    requests: usize,
    long: usize,
    longest: Duration,
}

/// The results of several rounds.
struct Measured {
    took: Duration,
    through: Waits,
    /// Without the ambassador, as a baseline for disturbances of the machine.
    past: Waits,
}

impl Measured {
    fn json(&self) -> Value {
        let Measured { took, through, past } = self;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "ms": ms(*took),
            "requests": through.requests,
            "long_waits": through.long,
            "longest_wait_ms": ms(through.longest),
            "past_it_requests": past.requests,
            "past_it_long_waits": past.long,
            "past_it_longest_wait_ms": ms(past.longest),
        })
    }
}

pub(super) fn of_routes() -> Value {
    raise_file_limit();
    COUNTS.map(routes).into_iter().collect()
}

fn routes(count: u16) -> Value {
    let (old, new) = (Echo::start(b'o'), Echo::start(b'n'));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    let last = SocketAddr::from((HOST, PORT + count - 1));
    // Writes this many routes; the last ones lead to the new server.
    let write = |routes: u16, changed: u16| {
        let mut text = String::new();
        for n in (0..routes - 1).chain([count - 1]) {
            let (listen, target) =
                (SocketAddr::from((HOST, PORT + n)), if n + changed >= count { &new } else { &old });
            writeln!(text, "[[route]]\nlisten = \"{listen}\"\ntarget = \"{}\"", target.addr()).unwrap();
        }
        replace(&path, &text);
    };
    write(count, 0);
    let began = Instant::now();
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).spawn();
    until_answered(last, b'o');
    let start = began.elapsed();
    let watched = (SocketAddr::from((HOST, PORT)), old.addr());
    let reload = |routes: u16, changed: u16| {
        write(routes, changed);
        let began = Instant::now();
        ambassador.signal(Signal::HUP);
        until_answered(last, if changed > 0 { b'n' } else { b'o' });
        began.elapsed()
    };
    let there_and_back = |routes, changed| {
        let measured = rounds(watched, || {
            let took = reload(routes, changed);
            reload(count, 0);
            took
        });
        measured.json()
    };
    let quiet = rounds(watched, || Duration::ZERO).json();
    let (one, hundred, all) =
        (there_and_back(count, 1), there_and_back(count, 100.min(count)), there_and_back(count, count));
    let half = there_and_back(count / 2, 1);
    let bytes_each = ambassador.memory() / u64::from(count);
    eprintln!(
        "{count} routes: start {start:?}; one {one}; 100 {hundred}; all {all}; half {half}; quiet {quiet}"
    );
    json!({"routes": count, "start_ms": start.as_secs_f64() * 1e3, "bytes_each": bytes_each, "quiet": quiet,
           "one": one, "hundred": hundred, "all": all, "half": half})
}

/// Adds one endpoint in front of many in a file, and removes it again.
pub(super) fn of_endpoints() -> Value {
    ENDPOINTS.map(endpoints).into_iter().collect()
}

fn endpoints(count: u16) -> Value {
    let (old, new) = (Echo::start(b'o'), Echo::start(b'n'));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endpoints");
    // The server listens on all loopback addresses.
    let mut others = String::new();
    for n in 1..count {
        let [high, low] = n.to_be_bytes();
        writeln!(others, "127.2.{high}.{low}:{} tier=1", old.port).unwrap();
    }
    let write = |first: String| replace(&path, &(first + &others));
    write(String::new());
    let line = format!("{}=file:{}?name=growth", SocketAddr::from((HOST, PORT)), path.display());
    let ambassador = Ambassador::with(&line).start();
    let addr = SocketAddr::from((HOST, PORT));
    until_answered(addr, b'o');
    let change = |first: String, letter| {
        write(first);
        let began = Instant::now();
        ambassador.signal(Signal::HUP);
        until_answered(addr, letter);
        began.elapsed()
    };
    let quiet = rounds((addr, old.addr()), || Duration::ZERO).json();
    let one = rounds((addr, old.addr()), || {
        let took = change(format!("{}\n", new.addr()), b'n');
        change(String::new(), b'o');
        took
    });
    let one = one.json();
    eprintln!("{count} endpoints: one {one}; quiet {quiet}");
    json!({"endpoints": count, "quiet": quiet, "one": one})
}

/// Runs several rounds, with one client through the ambassador and one that connects to the server directly.
fn rounds((through, past): (SocketAddr, SocketAddr), mut work: impl FnMut() -> Duration) -> Measured {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let watchers = [through, past].map(|addr| scope.spawn(move || request_until(addr, stop)));
        let mut took: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let began = Instant::now();
                let took = work();
                pause(ROUND.saturating_sub(began.elapsed()));
                took
            })
            .collect();
        took.sort();
        stop.store(true, Relaxed);
        let [through, past] = watchers.map(|watcher| watcher.join().unwrap());
        Measured { took: took[ROUNDS / 2], through, past }
    })
}

fn request_until(addr: SocketAddr, stop: &AtomicBool) -> Waits {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut waits = Waits::default();
    while !stop.load(Relaxed) {
        let began = Instant::now();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let waited = began.elapsed();
        waits.requests += 1;
        waits.long += usize::from(waited > STALL);
        waits.longest = waits.longest.max(waited);
        pause(PACE);
    }
    waits
}

fn until_answered(addr: SocketAddr, letter: u8) {
    let began = Instant::now();
    while ask(addr).ok() != Some(letter) {
        assert!(began.elapsed() < TIMEOUT, "no {:?} from {addr}", char::from(letter));
        pause(Duration::from_millis(1));
    }
}

fn ask(addr: SocketAddr) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(b"x")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// Replaces a file atomically, as editors do.
fn replace(path: &Path, text: &str) {
    let beside: PathBuf = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
