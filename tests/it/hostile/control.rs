//! Shutdown, reload and operator commands that interrupt each other.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ambassador::ending::Ending;
use rustix::process::Signal;
use serde_json::Value;

use crate::app::{App, eventually as until};
use crate::support::{Ambassador, Clogged, Service, eventually, needs, private_ip};

/// Less than the timeouts that a session must not wait for, and far more than any step takes.
const PROMPT: Duration = Duration::from_secs(20);

/// Returns an address that no other test uses.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(private_ip().parse().unwrap(), port)
}

fn status(ambassador: &Ambassador) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    status["routes"][0].clone()
}

/// Connects a client whose session has a pending connect to its endpoint.
fn dialling_client(ambassador: &Ambassador) -> TcpStream {
    let mut client = TcpStream::connect(ambassador.addr("r")).unwrap();
    client.set_read_timeout(Some(PROMPT)).unwrap();
    client.write_all(b"INSERT").unwrap();
    eventually("a dial", || {
        let route = status(ambassador);
        if route["endpoints"][0]["sessions"] == 1 { Ok(()) } else { Err(route.to_string()) }
    });
    client
}

fn name_of(client: &mut TcpStream) -> String {
    let mut name = [0; 3];
    client.read_exact(&mut name).unwrap();
    String::from_utf8_lossy(&name).into_owned()
}

fn give(ambassador: &Ambassador, command: &str) {
    let output = ambassador.verb(command);
    assert!(output.status.success(), "{command}: {output:?}");
}

fn await_held(ambassador: &Ambassador) {
    eventually("a held session", || {
        let route = status(ambassador);
        if route["held"] == 1 { Ok(()) } else { Err(route.to_string()) }
    });
}

fn slow_route(target: SocketAddr) -> String {
    format!("127.0.0.1:0={target}?name=r&connect-timeout=10m&hold=10m")
}

#[test]
fn pending_connect_at_pause_delivers_nothing_until_resume() {
    let target = Clogged::at(loopback(0));
    let ambassador = Ambassador::with(&slow_route(target.addr)).start();
    let mut client = dialling_client(&ambassador);
    give(&ambassador, "pause r");
    let received = target.unclog("old");
    await_held(&ambassador);
    assert_eq!(received.lock().unwrap().as_slice(), b"");
    give(&ambassador, "resume r");
    assert_eq!(name_of(&mut client), "old");
    eventually("the request", || match received.lock().unwrap().as_slice() {
        b"INSERT" => Ok(()),
        other => Err(other.escape_ascii().to_string()),
    });
}

#[test]
fn pending_connect_at_drain_does_not_reach_the_endpoint() {
    let target = Clogged::at(loopback(0));
    let ambassador = Ambassador::with(&slow_route(target.addr)).start();
    let mut client = dialling_client(&ambassador);
    give(&ambassador, &format!("drain r {}", target.addr));
    let received = target.unclog("old");
    await_held(&ambassador);
    assert_eq!(received.lock().unwrap().as_slice(), b"");
    give(&ambassador, &format!("drain r {} --undo", target.addr));
    assert_eq!(name_of(&mut client), "old");
}

#[test]
fn pending_connect_at_switch_uses_the_new_target() {
    let target = Clogged::at(loopback(0));
    let ambassador = Ambassador::with(&slow_route(target.addr)).start();
    let mut client = dialling_client(&ambassador);
    give(&ambassador, &format!("switch r {}", Service::new("new").addr));
    assert_eq!(name_of(&mut client), "new");
    let received = target.unclog("old");
    assert_eq!(received.lock().unwrap().as_slice(), b"");
}

#[test]
fn second_signal_ends_a_session_with_a_pending_connect() {
    let target = Clogged::at(loopback(0));
    let args = format!("--drain-timeout 10m {}", slow_route(target.addr));
    let mut ambassador = Ambassador::with(&args).start();
    let mut client = dialling_client(&ambassador);
    ambassador.signal(Signal::TERM);
    eventually("draining", || if ambassador.log().contains("SIGTERM") { Ok(()) } else { Err("not yet") });
    ambassador.signal(Signal::TERM);
    assert_eq!(ambassador.ends_within(PROMPT).code(), Some(0));
    assert!(client.read(&mut [0]).is_err(), "reset");
    eventually("the ending", || {
        if ambassador.log().contains("ending=drained") { Ok(()) } else { Err(ambassador.log()) }
    });
}

#[tokio::test]
async fn client_that_closes_during_a_pending_connect_ends_its_session() {
    let target = Clogged::at(loopback(0));
    let app = App::start(&[&slow_route(target.addr)]).await;
    let dials = |count: usize| {
        let cluster = app.cluster("r");
        move || cluster.members_arc().all().all(|(_, member)| member.endpoint.sessions() == count)
    };
    let connect = || TcpStream::connect(app.addr("r")).unwrap();
    let (silent, silent_reset, mut reset) = (connect(), connect(), connect());
    reset.write_all(b"a request").unwrap();
    until("three dials", dials(3)).await;
    for client in [&silent_reset, &reset] {
        socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop((silent, silent_reset, reset));
    app.await_ended("r", Ending::LeftWhileHeld, 3).await;
    until("no dial", dials(0)).await;
}

// === reload ===

fn route(listen: &str, target: &str) -> String {
    format!("[[route]]\nname = \"r\"\nlisten = \"{listen}\"\ntarget = \"{target}\"\n")
}

/// Replaces a file atomically, as editors do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn sigterm_during_a_reload_that_opens_a_wide_range_ends_the_process() {
    for round in 0..3 {
        let first = loopback(10_000);
        let (ip, last) = (first.ip(), SocketAddr::new(first.ip(), 11_000));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ambassador.toml");
        replace(&path, &route(&format!("{ip}:9999"), "127.0.0.1:1"));
        let mut ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
        let mut text = route(&format!("{ip}:9999"), "127.0.0.1:1");
        write!(text, "[[route]]\nlisten = \"{ip}:10000-11000\"\ntarget = \"127.0.0.1:1\"\n").unwrap();
        replace(&path, &text);
        while TcpStream::connect(last).is_err() {
            thread::yield_now();
        }
        ambassador.signal(Signal::TERM);
        let status = ambassador.ends_within(PROMPT);
        assert_eq!(status.code(), Some(0), "round {round}: {}", ambassador.log());
        assert!(TcpStream::connect(last).is_err());
    }
}

#[test]
fn listener_that_narrows_to_one_address_stays_available() {
    let service = Service::new("one");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    replace(&path, &route(&port.to_string(), &service.addr));
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let stop = stop.clone();
        thread::spawn(move || longest_gap(addr, &stop))
    };
    let listens_on = |ip: &str| {
        eventually(ip, || {
            let addr = status(&ambassador)["addresses"][0].to_string();
            if addr.contains(&format!("{ip}:{port}")) { Ok(()) } else { Err(addr) }
        });
    };
    for _ in 0..3 {
        replace(&path, &route(&addr.to_string(), &service.addr));
        listens_on("127.0.0.1");
        replace(&path, &route(&port.to_string(), &service.addr));
        listens_on("[::]");
    }
    stop.store(true, Relaxed);
    let gap = clients.join().unwrap();
    // Regression: the new listener was delayed by a second if the worker had not closed the old one.
    assert!(gap < Duration::from_millis(700), "refused for {gap:?}");
    assert!(!ambassador.log().contains("another program"), "{}", ambassador.log());
}

/// Returns the longest time from a refused connect to a successful one.
fn longest_gap(addr: SocketAddr, stop: &AtomicBool) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None);
    while !stop.load(Relaxed) {
        match TcpStream::connect(addr) {
            Ok(mut stream) => {
                // A connection between the last accept and the close may be reset, but must not be left waiting.
                let started = Instant::now();
                let _ = stream.read(&mut [0; 3]);
                assert!(started.elapsed() < Duration::from_secs(5), "accepted, and not served");
                if let Some(since) = since.take() {
                    longest = longest.max(Instant::elapsed(&since));
                }
            }
            Err(_) => {
                since.get_or_insert_with(Instant::now);
            }
        }
    }
    longest.max(since.map_or(Duration::ZERO, |since| since.elapsed()))
}

// === stalls ===

/// strace that delays the first call of this name in each thread of a process. Ended when dropped.
struct DelayedCalls {
    strace: Child,
    _stderr: BufReader<ChildStderr>,
}

impl DelayedCalls {
    fn first(call: &str, delay: Duration, pid: u32) -> Result<DelayedCalls, String> {
        let inject = format!("inject={call}:delay_enter={}:when=1", delay.as_micros());
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, "-p"]);
        let strace = command.arg(pid.to_string()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = strace.map_err(|why| format!("strace: {why}"))?;
        let mut said = String::new();
        let mut stderr = BufReader::new(strace.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        let slowed = DelayedCalls { strace, _stderr: stderr };
        if said.contains(" attached") { Ok(slowed) } else { Err(said.trim().to_owned()) }
    }
}

impl Drop for DelayedCalls {
    fn drop(&mut self) {
        self.strace.kill().ok();
        self.strace.wait().ok();
    }
}

fn metrics(ambassador: &Ambassador) -> String {
    let mut stream = UnixStream::connect(ambassador.admin()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ambassador\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn blocked_thread_and_its_recovery_are_logged_and_counted() {
    let service = Service::new("one");
    let ambassador = Ambassador::with(&format!("--workers 1 127.0.0.1:0={}?name=r", service.addr)).start();
    let addr = ambassador.addr("r");
    for thread in ["control", "worker-0"] {
        assert!(metrics(&ambassador).contains(&format!("ambassador_stalls_total{{thread=\"{thread}\"}} 0")));
    }
    let _slowed = needs!(DelayedCalls::first("accept4", Duration::from_secs(3), ambassador.pid()));
    let _client = TcpStream::connect(addr).unwrap();
    give(&ambassador, "status");
    for line in ["thread stalled", "thread recovered"] {
        for thread in ["control", "worker-0"] {
            eventually(line, || {
                let log = ambassador.log();
                let is_it = |text: &str| text.contains(line) && text.contains(thread);
                if log.lines().any(is_it) { Ok(()) } else { Err(log) }
            });
        }
    }
    for thread in ["control", "worker-0"] {
        assert!(metrics(&ambassador).contains(&format!("ambassador_stalls_total{{thread=\"{thread}\"}} 1")));
    }
}

#[test]
fn blocked_worker_does_not_prevent_exit() {
    let mut ambassador = Ambassador::with("--workers 1 127.0.0.1:0=127.0.0.1:1?name=r").start();
    let addr = ambassador.addr("r");
    let slowed = needs!(DelayedCalls::first("accept4", 10 * PROMPT, ambassador.pid()));
    let _client = TcpStream::connect(addr).unwrap();
    eventually("a stall", || {
        let log = ambassador.log();
        if log.contains("thread stalled") { Ok(()) } else { Err(log) }
    });
    ambassador.signal(Signal::TERM);
    eventually("draining", || if ambassador.log().contains("SIGTERM") { Ok(()) } else { Err("not yet") });
    ambassador.signal(Signal::TERM);
    eventually("the end of the main thread", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", ambassador.pid())).unwrap();
        if stat.contains(") Z ") { Ok(()) } else { Err(ambassador.log()) }
    });
    // It keeps the thread even after the process has ended.
    drop(slowed);
    assert_eq!(ambassador.ends_within(PROMPT).code(), Some(0), "{}", ambassador.log());
}
