//! The costs of a request, a connection and an idle process: counts, never times.

#[path = "cost/callgrind.rs"]
mod callgrind;
#[path = "cost/connection.rs"]
mod connection;
#[path = "cost/table.rs"]
mod table;
#[path = "cost/threads.rs"]
mod threads;
#[path = "cost/trace.rs"]
mod trace;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::support::{Ambassador, Secret, needs, pause, private_ip, within};
use callgrind::instructions;
use connection::{Connection, Flow};
use table::{Call, at_most, exactly};
use trace::{CallLog, Trace};

/// Rounds before counting: buffers are allocated and tables have grown by then.
const WARM_UP: usize = 50;
const REQUESTS: usize = 1_000;
const CONNECTIONS: usize = 200;
const BULK_MEGABYTES: usize = 256;

/// The observation time of an idle process. Nothing may happen in it, so a slow machine makes no difference.
const WATCHED: Duration = Duration::from_secs(5);
/// The time for earlier activity to finish.
const SETTLES: Duration = Duration::from_secs(20);
const IDLE_SESSIONS: usize = 100;

const PER_REQUEST: &[Call] = &[
    Call { name: "epoll_wait", times: 2, what_for: "wakes for the request, and for the reply" },
    Call { name: "recvfrom", times: 2, what_for: "the request, the reply" },
    Call { name: "sendto", times: 2, what_for: "the request, the reply" },
];

/// The same on either side of a tunnel: encryption adds no call, and the frames of a request are one write.
const PER_TUNNELLED_REQUEST: &[Call] = &[
    Call { name: "epoll_wait", times: 2, what_for: "wakes for the request, and for the reply" },
    Call { name: "recvfrom", times: 2, what_for: "the request, the reply" },
    Call { name: "sendto", times: 1, what_for: "to the client or the endpoint" },
    Call { name: "sendmsg", times: 1, what_for: "to the peer" },
];

const PER_DATAGRAM: &[Call] = &[
    Call { name: "epoll_wait", times: 2, what_for: "wakes for the request, and for the reply" },
    Call { name: "recvmmsg", times: 2, what_for: "the request, the reply" },
    Call { name: "sendmsg", times: 2, what_for: "the request, the reply" },
];

/// One request, one reply, and the client closes. With one worker there is no handover.
const PER_CONNECTION: &[Call] = &[
    Call { name: "accept4", times: 2, what_for: "the client, and that there is no other" },
    Call { name: "close", times: 2, what_for: "both sockets" },
    Call { name: "connect", times: 1, what_for: "to the endpoint" },
    Call { name: "epoll_ctl", times: 4, what_for: "both sockets are added and taken out" },
    Call { name: "epoll_wait", times: 6, what_for: "client, connected, request, reply, both FINs" },
    Call { name: "epoll_wait", times: 1, what_for: "wakes because it shut down a socket" },
    Call { name: "recvfrom", times: 4, what_for: "request, reply, both FINs" },
    Call { name: "sendto", times: 2, what_for: "request, reply" },
    Call {
        name: "setsockopt",
        times: 6,
        what_for: "upstream: no delay, urgent data in line, keepalive and its two times, user timeout",
    },
    Call { name: "shutdown", times: 1, what_for: "the first FIN; close sends the second" },
    Call { name: "socket", times: 1, what_for: "upstream" },
];

/// In addition, with `accept-proxy` and a header that arrives later than its connection, which a test can arrange. If both arrive
/// together, only the peek and the read of the header remain.
const PER_LATE_HEADER: &[Call] = &[
    Call { name: "recvfrom", times: 1, what_for: "a peek that finds nothing" },
    Call { name: "epoll_wait", times: 2, what_for: "the client can be written to, and the header" },
    Call {
        name: "recvfrom",
        times: 2,
        what_for: "the header: a peek for its length, a read of exactly that",
    },
];

/// In addition, on a port that routes share, for a ClientHello that arrives later than its connection.
const PER_LATE_HELLO: &[Call] = &[
    Call { name: "recvfrom", times: 1, what_for: "a peek that finds nothing" },
    Call { name: "epoll_wait", times: 2, what_for: "the client can be written to, and the ClientHello" },
    Call { name: "recvfrom", times: 1, what_for: "a peek for the name" },
    Call { name: "recvfrom", times: 1, what_for: "the relay reads the ClientHello" },
    Call { name: "sendto", times: 1, what_for: "the ClientHello" },
];

/// In addition, with `send-proxy`.
const PER_HEADER_SENT: &[Call] = &[
    Call { name: "sendto", times: 1, what_for: "the header" },
    Call { name: "getsockname", times: 1, what_for: "the address that the client connected to" },
];

/// With debug assertions the standard library checks a descriptor before it closes it.
const PER_CONNECTION_CHECKED: &[Call] = if cfg!(debug_assertions) {
    &[Call { name: "fcntl", times: 2, what_for: "checks of a debug build" }]
} else {
    &[]
};

/// The additional calls of an access log line if the log's thread sleeps. Under load there is one write every few
/// milliseconds for all lines.
const PER_LINE: &[Call] = &[
    Call { name: "futex", times: 3, what_for: "the log's thread is woken, waits for more lines, and sleeps" },
    Call { name: "write", times: 1, what_for: "the line" },
];

/// Instructions in user space of the released program. A connection has one request.
const PER_REQUEST_INSTRUCTIONS: u64 = 6_950;
const PER_CONNECTION_INSTRUCTIONS: u64 = 36_900;
/// A start differs by up to 300,000 instructions from the next: 1 % of what is counted here. The rest allows for other
/// compilers and processors, for which the C library chooses different copying loops.
const TOLERANCE_PERCENT: u64 = 5;
const TIMES_MORE: usize = 4;

/// Upper bounds: the number of bytes per splice depends on timing. On a quiet machine there are 2 to 3 splices and 1 to
/// 2 waits, on a busy one up to 6. The bounds detect copied bytes (16 reads of a scratch buffer), pipes of the default
/// size (32 splices) and new calls.
const PER_BULK_MEGABYTE: &[Call] = &[
    Call { name: "epoll_wait", times: 12, what_for: "turns, and waiting for either side" },
    Call { name: "recvfrom", times: 2, what_for: "where a splice found nothing or little" },
    Call { name: "sendto", times: 2, what_for: "the same" },
    Call { name: "splice", times: 12, what_for: "a pipe filled and emptied" },
];

fn one_worker(route: &str, log_level: &str) -> Ambassador {
    Ambassador::with(&format!("--workers 1 --log-level {log_level} {route}?name=r")).start()
}

/// Returns the calls of this many rounds, after a warm-up.
fn seen(ambassador: &Ambassador, rounds: usize, mut round: impl FnMut()) -> Result<CallLog, String> {
    (0..WARM_UP).for_each(|_| round());
    let trace = Trace::of(ambassador.pid())?;
    (0..rounds).for_each(|_| round());
    Ok(trace.end())
}

fn requests() -> Result<CallLog, String> {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let ambassador = one_worker(&format!("127.0.0.1:0={}", endpoint.local_addr().unwrap()), "info");
    let mut connection = Connection::connect(ambassador.addr("r"), &endpoint);
    seen(&ambassador, REQUESTS, || connection.exchange())
}

/// Traces the side of a tunnel that dials, or the one that accepts.
fn tunnelled_requests(of_dialling_side: bool) -> Result<CallLog, String> {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let (secret, peer, service) = (Secret::new(), private_ip(), endpoint.local_addr().unwrap());
    let flags = format!("{} --peer-listen {peer}:15008", secret.flags("exporter"));
    let exporter = one_worker(&format!("{flags} peer:echo={service}"), "info");
    let flags = secret.flags("dialling");
    let dialling = one_worker(&format!("{flags} 127.0.0.1:0=peer://{peer}/echo"), "info");
    let mut connection = Connection::connect(dialling.addr("r"), &endpoint);
    let traced = if of_dialling_side { &dialling } else { &exporter };
    seen(traced, REQUESTS, || connection.exchange())
}

fn datagrams() -> Result<CallLog, String> {
    let endpoint = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ambassador = one_worker(&format!("127.0.0.1:0/udp={}", endpoint.local_addr().unwrap()), "info");
    let flow = Flow::open(ambassador.addr("r"), endpoint);
    flow.exchange(|| {});
    let descriptors = threads::at_rest(ambassador.pid());
    seen(&ambassador, REQUESTS, || flow.exchange(|| threads::settled(ambassador.pid(), descriptors)))
}

fn connections(log_level: &str) -> Result<CallLog, String> {
    connections_with("", "", log_level, b"", 0)
}

/// Each client sends `header` once it is accepted, and the endpoint receives one of `sent` bytes.
fn connections_with(
    names: &str,
    options: &str,
    log_level: &str,
    header: &[u8],
    sent: usize,
) -> Result<CallLog, String> {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("127.0.0.1:0{names}={}?name=r{options}", endpoint.local_addr().unwrap());
    let ambassador = Ambassador::with(&format!("--workers 1 --log-level {log_level} {route}")).start();
    let (addr, pid) = (ambassador.addr("r"), ambassador.pid());
    let idle = threads::at_rest(pid);
    seen(&ambassador, CONNECTIONS, || {
        let mut client = TcpStream::connect(addr).unwrap();
        if !header.is_empty() {
            threads::settled(pid, idle + 1);
            client.write_all(header).unwrap();
        }
        let (mut server, _) = endpoint.accept().unwrap();
        server.read_exact(&mut vec![0; sent]).unwrap();
        let mut connection = Connection::between(client, server);
        threads::settled(pid, idle + 2);
        connection.exchange();
        threads::settled(pid, idle + 2);
        let server = connection.close();
        threads::settled(pid, idle + 2);
        drop(server);
        threads::settled(pid, idle);
        threads::log_is_quiet(pid);
    })
}

/// Sends in one direction at full speed; the other direction stays open.
fn bulk() -> Result<CallLog, String> {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let ambassador = one_worker(&format!("127.0.0.1:0={}", endpoint.local_addr().unwrap()), "info");
    let Connection { mut client, mut server } = Connection::connect(ambassador.addr("r"), &endpoint);
    let trace = Trace::of(ambassador.pid())?;
    let (zeros, mut buffer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..BULK_MEGABYTES).for_each(|_| client.write_all(&zeros).unwrap()));
        (0..BULK_MEGABYTES).for_each(|_| server.read_exact(&mut buffer).unwrap());
    });
    Ok(trace.end())
}

#[test]
fn system_calls_of_a_request() {
    let seen = needs!(requests());
    check(PER_REQUEST, &seen, REQUESTS);
}

/// PINGs are sent only after a silence.
#[test]
fn system_calls_of_a_request_in_a_tunnel() {
    for of_dialling_side in [true, false] {
        let seen = needs!(tunnelled_requests(of_dialling_side));
        check(PER_TUNNELLED_REQUEST, &seen, REQUESTS);
    }
}

#[test]
fn system_calls_of_a_datagram_request() {
    let seen = needs!(datagrams());
    check(PER_DATAGRAM, &seen, REQUESTS);
}

#[test]
fn system_calls_of_a_connection() {
    let seen = needs!(connections("warn"));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED].concat(), &seen, CONNECTIONS);
}

#[test]
fn system_calls_of_a_connection_with_a_header_from_the_client() {
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let seen = needs!(connections_with("", "&accept-proxy=127.0.0.0/8", "warn", header, 0));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED, PER_LATE_HEADER].concat(), &seen, CONNECTIONS);
}

#[test]
fn system_calls_of_a_connection_with_a_header_to_the_endpoint() {
    let seen = needs!(connections_with("", "&send-proxy=v2", "warn", b"", 28));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED, PER_HEADER_SENT].concat(), &seen, CONNECTIONS);
}

/// The name is peeked at; the ClientHello is relayed as a first request without a reply.
#[test]
fn system_calls_of_a_connection_with_a_server_name() {
    let hello = include_bytes!("../../fuzz/seeds/hello/openssl");
    let seen = needs!(connections_with("/*.example.com", "", "warn", hello, hello.len()));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED, PER_LATE_HELLO].concat(), &seen, CONNECTIONS);
}

#[test]
fn system_calls_of_an_access_log_line() {
    let seen = needs!(connections("info"));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED, PER_LINE].concat(), &seen, CONNECTIONS);
}

#[test]
fn level_info_without_access_log_adds_no_system_calls() {
    let seen = needs!(connections("info --access-log off"));
    check(&[PER_CONNECTION, PER_CONNECTION_CHECKED].concat(), &seen, CONNECTIONS);
}

/// From the kernel's table: the timer of an established connection with keepalive is 2 (proc_net_tcp.rst).
#[test]
fn long_session_has_keepalive() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let ambassador = one_worker(&format!("127.0.0.1:0={}", endpoint.local_addr().unwrap()), "warn");
    let _line = Connection::connect(ambassador.addr("r"), &endpoint);
    within(SETTLES, "a keepalive timer", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |connection: &&str| {
            connection.split_whitespace().nth(2).unwrap().ends_with(&format!(":{port:04X}"))
        };
        let rows: Vec<&str> = table.lines().filter(is_ours).collect();
        let is_kept = |row: &&str| row.split_whitespace().nth(5).unwrap().starts_with("02:");
        if rows.iter().any(is_kept) { Ok(()) } else { Err(rows.join("\n")) }
    });
}

#[test]
fn system_calls_of_a_bulk_transfer_are_bounded() {
    let seen = needs!(bulk());
    if let Err(table) = at_most(PER_BULK_MEGABYTE, &seen.calls, BULK_MEGABYTES) {
        panic!("{table}");
    }
}

fn check(expected: &[Call], seen: &CallLog, rounds: usize) {
    if let Err(table) = exactly(expected, &seen.calls, rounds) {
        let calls_each = expected.iter().map(|call| call.times).sum::<usize>();
        panic!("{table}\nThe last of them:\n{}", seen.tail(2 * calls_each));
    }
}

/// Sources that poll, such as DNS, and health checks are not configured.
#[test]
fn idle_process_never_wakes() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ambassador = with_watched_files(&endpoint, dir.path());
    let (addr, pid) = (ambassador.addr("r"), ambassador.pid());
    let idle = threads::at_rest(pid);
    sleeps(pid, idle, "without a session");
    let sessions: Vec<Connection> =
        (0..IDLE_SESSIONS).map(|_| Connection::connect(addr, &endpoint)).collect();
    sleeps(pid, idle + 2 * sessions.len(), "with idle sessions");
}

fn sleeps(pid: u32, descriptors: usize, with: &str) {
    threads::settled(pid, descriptors);
    within(SETTLES, &format!("no thread waits for a moment, {with}"), || match threads::timers(pid) {
        timers if timers.is_empty() => Ok(()),
        timers => Err(timers.concat()),
    });
    let before = threads::switches(pid);
    pause(WATCHED);
    assert_eq!(threads::switches(pid), before, "a thread woke within {WATCHED:?}, {with}");
}

/// Starts an ambassador with a route of each protocol, watched files and the admin API.
fn with_watched_files(endpoint: &TcpListener, dir: &Path) -> Ambassador {
    let (config, endpoints) = (dir.join("a.toml"), dir.join("a.endpoints"));
    let route = "[[route]]\nlisten = \"127.0.0.2:0\"\ntarget = \"127.0.0.1:1\"\n";
    std::fs::write(&config, route).unwrap();
    std::fs::write(&endpoints, "127.0.0.1:1\n").unwrap();
    let (config, endpoints, addr) = (config.display(), endpoints.display(), endpoint.local_addr().unwrap());
    let routes = format!("127.0.0.1:0={addr}?name=r 127.0.0.1:0/udp={addr} 127.0.0.3:0=file:{endpoints}");
    Ambassador::with(&format!("--config {config} {routes}")).start()
}

/// The difference of two runs cancels out start and end. The expected numbers hold for one architecture.
#[test]
fn instructions_of_a_request_and_a_connection() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let few = needs!(instructions(REQUESTS, CONNECTIONS));
    let more_requests = needs!(instructions((1 + TIMES_MORE) * REQUESTS, CONNECTIONS));
    let more_connections = needs!(instructions(REQUESTS, (1 + TIMES_MORE) * CONNECTIONS));
    let per_request = (more_requests - few) / (TIMES_MORE * REQUESTS) as u64;
    let per_connection = (more_connections - few) / (TIMES_MORE * CONNECTIONS) as u64;
    let wrong: Vec<String> = [
        within_tolerance("request", PER_REQUEST_INSTRUCTIONS, per_request),
        within_tolerance("connection", PER_CONNECTION_INSTRUCTIONS, per_connection),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns an error if the count exceeds the expected one by more than the tolerance. A lower count only prints a hint.
fn within_tolerance(of: &str, guarded: u64, counted: u64) -> Option<String> {
    let tolerance = guarded * TOLERANCE_PERCENT / 100;
    match counted {
        _ if counted > guarded + tolerance => {
            Some(format!("a {of} takes {counted} instructions, more than the guarded {guarded}"))
        }
        _ if counted < guarded - tolerance => {
            eprintln!(
                "hint: a {of} takes {counted} instructions, fewer than the guarded {guarded}: lower the guard"
            );
            None
        }
        _ => None,
    }
}
