//! Routes that compete for file descriptors.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{Ambassador, eventually};

/// The timeout of an immediate reply. A busy machine takes longer for a round trip, but not as long as the waits that
/// descriptor shortage used to cause.
const SOON: Duration = Duration::from_secs(8);

/// The timeout of queued operations.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Raises the limit of open files for both ends of many connections.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Starts a server with a thread per connection. Runs until the test's process ends.
fn service(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new().stack_size(64 << 10).spawn(move || serve(stream)).unwrap();
        }
    });
    addr
}

/// Sends a greeting, then waits until the client closes.
fn greet(mut stream: TcpStream) {
    stream.write_all(b"one").ok();
    stream.read_exact(&mut [0; 1]).ok();
}

/// Sends as long as the client reads.
fn send_bulk(mut stream: TcpStream) {
    let bytes = vec![7; 1 << 20];
    while stream.write_all(&bytes).is_ok() {}
}

/// Returns an address that refuses while the socket, which does not listen, exists.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Sends one datagram from each of this many ports, which stay open.
fn send_from(count: usize, addr: SocketAddr) -> Vec<UdpSocket> {
    let send = |_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", addr).unwrap();
        socket
    };
    (0..count).map(send).collect()
}

fn connect(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(addr).unwrap()).collect()
}

/// Opens a session and waits for its greeting.
fn greeted(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut name = [0; 3];
    stream.read_exact(&mut name).expect("a greeting, soon");
    stream
}

fn route(ambassador: &Ambassador, name: &str) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    status["routes"].as_array().unwrap().iter().find(|route| route["name"] == name).unwrap().clone()
}

fn await_route(ambassador: &Ambassador, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(route(ambassador, name)).filter(&is_so).ok_or_else(|| route(ambassador, name)))
}

fn await_pause(ambassador: &Ambassador, name: &str) -> Value {
    await_route(ambassador, name, "a route short of descriptors", |route| {
        route["descriptors"]["accept_paused"] == true
    })
}

#[test]
fn held_clients_of_one_route_leave_descriptors_to_others() {
    raise_file_limit();
    let (_port, dead) = refusing();
    let args = format!("127.0.0.1:0={dead}?name=dead&hold=1m 127.0.0.2:0={}?name=live", service(greet));
    let ambassador = Ambassador::with(&args).limited_to(1_024).start();
    let _waiting = connect(ambassador.addr("dead"), 900);
    await_pause(&ambassador, "dead");
    let sessions: Vec<_> = (0..50).map(|_| greeted(ambassador.addr("live"))).collect();
    let dead = await_pause(&ambassador, "dead");
    assert!(dead["held"].as_u64().unwrap() > 450, "a held session costs one descriptor: {dead}");
    let table = String::from_utf8(ambassador.verb("status").stdout).unwrap();
    assert!(table.contains("route dead: out of file descriptors with "), "{table}");
    let live = route(&ambassador, "live");
    assert_eq!((&live["active"], &live["descriptors"]["accept_paused"]), (&50.into(), &false.into()));
    drop(sessions);
}

#[test]
fn held_clients_with_all_descriptors_are_served_once_the_service_starts() {
    raise_file_limit();
    // A private address, so that no other test takes the port in the meantime.
    let addr = TcpListener::bind("127.0.91.1:0").unwrap().local_addr().unwrap();
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={addr}?name=r&hold=1m")).limited_to(256).start();
    let waiting = connect(ambassador.addr("r"), 200);
    await_pause(&ambassador, "r");
    let listener = TcpListener::bind(addr).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(b"one").ok();
        }
    });
    // All at once: each closes when it is served, which is not in order of arrival.
    thread::scope(|scope| {
        for mut stream in waiting {
            scope.spawn(move || {
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                let mut name = String::new();
                stream.read_to_string(&mut name).unwrap();
                assert_eq!(name, "one");
            });
        }
    });
    await_route(&ambassador, "r", "all returned", |route| route["descriptors"]["used"] == 0);
}

#[test]
fn clients_beyond_max_sessions_wait_within_the_descriptor_share() {
    raise_file_limit();
    let service = service(greet);
    let args =
        format!("127.0.0.1:0={service}?name=limited&max-sessions=5&hold=1m 127.0.0.2:0={service}?name=other");
    let ambassador = Ambassador::with(&args).limited_to(1_024).start();
    let _idle = connect(ambassador.addr("limited"), 500);
    await_route(&ambassador, "limited", "waiting clients", |route| {
        route["held"].as_u64() > Some(400) || route["descriptors"]["accept_paused"] == true
    });
    let sessions: Vec<_> = (0..50).map(|_| greeted(ambassador.addr("other"))).collect();
    drop(sessions);
}

#[test]
fn datagrams_from_many_ports_leave_descriptors_to_streams() {
    raise_file_limit();
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    let args = format!(
        "127.0.0.1:0/udp={}?name=u 127.0.0.1:0={}?name=t",
        sink.local_addr().unwrap(),
        service(greet)
    );
    let ambassador = Ambassador::with(&args).limited_to(1_024).start();
    let addr = ambassador.addr("u");
    let _clients = send_from(1_100, addr);
    await_route(&ambassador, "u", "flows", |route| route["active"].as_u64() > Some(200));
    let sessions: Vec<_> = (0..150).map(|_| greeted(ambassador.addr("t"))).collect();
    let flows = route(&ambassador, "u");
    assert!(flows["active"].as_u64() < Some(600), "{flows}");
    drop(sessions);
}

#[test]
fn flows_of_one_route_do_not_fill_max_held_of_others() {
    let (_port, dead) = refusing();
    let args = format!("--max-held 20 127.0.0.1:0/udp=127.0.0.1:9?name=u 127.0.0.1:0={dead}?name=t&hold=1m");
    let ambassador = Ambassador::with(&args).start();
    assert!(ambassador.verb("pause u").status.success());
    let addr = ambassador.addr("u");
    let _clients = send_from(60, addr);
    await_route(&ambassador, "u", "refused flows", |route| {
        route["endings"]["hold-full"].as_u64() >= Some(40)
    });
    let waiting = connect(ambassador.addr("t"), 3);
    await_route(&ambassador, "t", "held sessions", |route| route["held"] == 3);
    drop(waiting);
}

#[test]
fn slow_readers_leave_the_admin_api_its_descriptors() {
    raise_file_limit();
    let args = format!("127.0.0.1:0={}?name=bulk", service(send_bulk));
    let ambassador = Ambassador::with(&args).limited_to(1_024).start();
    // They do not read, so that each downstream direction buffers bytes.
    let _slow = connect(ambassador.addr("bulk"), 350);
    await_route(&ambassador, "bulk", "350 sessions", |route| route["active"] == 350);
    eventually("every reader is slow", || {
        let (before, after) = (route(&ambassador, "bulk"), route(&ambassador, "bulk"));
        if before["bytes_down"] == after["bytes_down"] { Ok(()) } else { Err(after) }
    });
    assert!(ambassador.verb("health").status.success());
    // The admin API admits sixty connections.
    let admin = ambassador.admin();
    let hanging: Vec<_> = (0..60).map(|_| std::os::unix::net::UnixStream::connect(&admin).unwrap()).collect();
    assert_eq!(route(&ambassador, "bulk")["active"], 350);
    let open: usize = ambassador.descriptors().values().sum();
    assert!(open < 1_024, "{open}");
    drop(hanging);
}

#[test]
fn queued_connections_are_served_while_draining_with_few_descriptors() {
    let args = format!("127.0.0.1:0={}?name=r", service(greet));
    let mut ambassador = Ambassador::with(&args).limited_to(64).start();
    let addr = ambassador.addr("r");
    let mut served = Vec::new();
    while route(&ambassador, "r")["descriptors"]["accept_paused"] == false {
        served.push(TcpStream::connect(addr).unwrap());
        await_route(&ambassador, "r", "accepted, or not", |route| {
            route["active"] == served.len() || route["descriptors"]["accept_paused"] == true
        });
    }
    let mut queued = connect(addr, 10);
    ambassador.signal(Signal::TERM);
    eventually("draining", || if ambassador.log().contains("SIGTERM") { Ok(()) } else { Err("not yet") });
    eventually("a closed listener's refusal", || {
        match TcpStream::connect_timeout(&addr, Duration::from_secs(1)) {
            Err(_) => Ok(()),
            // Established before the listener was closed, so it is served like the others.
            Ok(late) => {
                queued.push(late);
                Err("not yet")
            }
        }
    });
    drop(served);
    for stream in &mut queued {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut name = [0; 3];
        stream.read_exact(&mut name).expect("what was queued is served");
    }
    drop(queued);
    assert_eq!(ambassador.ends_within(TIMEOUT).code(), Some(0));
}

#[test]
fn burst_of_connections_is_distributed_over_workers() {
    let args = format!("--workers 2 127.0.0.1:0={}?name=r", service(greet));
    let ambassador = Ambassador::with(&args).start();
    let addr = ambassador.addr("r");
    // They queue in the backlog while the process is stopped, and are then accepted at once.
    ambassador.signal(Signal::STOP);
    let streams = connect(addr, 64);
    ambassador.signal(Signal::CONT);
    await_route(&ambassador, "r", "64 sessions", |route| route["active"] == 64);
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let sessions: Vec<u64> = status["workers"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(sessions.iter().all(|sessions| *sessions >= 20), "{sessions:?}");
    drop(streams);
}

#[test]
fn new_route_gets_its_descriptor_share_as_sessions_end() {
    let service = service(greet);
    let ambassador =
        Ambassador::with(&format!("127.0.0.1:0={service}?name=early&hold=1m")).limited_to(128).start();
    let mut early = connect(ambassador.addr("early"), 60);
    await_pause(&ambassador, "early");
    assert!(ambassador.verb(&format!("routes add 127.0.0.2:0={service}?name=late")).status.success());
    let mut late = TcpStream::connect(ambassador.addr("late")).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let silent = late.read(&mut [0; 1]).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock, "nothing is free yet");
    let began = Instant::now();
    early.drain(..4);
    late.set_read_timeout(Some(SOON)).unwrap();
    late.read_exact(&mut [0; 3]).expect("served, though others of the early route waited for longer");
    assert!(began.elapsed() < SOON);
    assert_eq!(route(&ambassador, "early")["descriptors"]["accept_paused"], true);
}
