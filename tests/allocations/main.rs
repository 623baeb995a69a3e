//! Counts the allocations of a request and a connection. A program of its own, because a counting allocator is global;
//! it counts per thread, so a worker's parts run on the thread of the test.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; the exemption in clippy.toml misses helpers"
)]

mod worker;

use std::time::{Duration, UNIX_EPOCH};

use allocation_counter::{AllocationInfo, measure};
use ambassador::address::{EndpointAddr, EndpointKey, Identity};
use ambassador::ending::Ending;
use ambassador::listener::ClientAddr;
use ambassador::log::access::{Connected, Format, Line, Milliseconds};
use ambassador::proxy_protocol;

use worker::{Exporter, Worker};

/// Rounds before counting: buffers are allocated and tables have grown by then.
const WARM_UP: usize = 20;
const REQUESTS: usize = 1_000;
const CONNECTIONS: usize = 100;

/// The allocations of a connection with one request and one reply that the client closes first.
const PER_CONNECTION: &[(u64, &str)] = &[
    (1, "the session's task"),
    (1, "its record, for `ambassador sessions`"),
    (2, "the runtime's registration of either socket"),
    (1, "the way to an endpoint, boxed so that an idle session does not keep room for it"),
    (1, "the alarm, once the client is done"),
    (1, "the wait for a reset from the client, who is no longer read"),
    (1, "the runtime's list of registrations to let go of"),
];

#[test]
fn request_allocates_nothing() {
    let worker = Worker::relaying_tcp();
    let connection = worker.connect();
    assert_eq!(during(REQUESTS, || connection.exchange()), AllocationInfo::default());
}

/// On the dialling side; the accepting side does the same in reverse. Where they are: the payload of the frame, the encrypted
/// record, the decrypted one.
const PER_TUNNELLED_REQUEST: f64 = 3.0;

#[test]
fn request_in_a_tunnel_allocates_no_more_than_expected() {
    let exporter = Exporter::start();
    let worker = Worker::relaying_to(&exporter);
    let connection = worker.connect();
    let counted = during(REQUESTS, || connection.exchange());
    let each = counted.count_total as f64 / REQUESTS as f64;
    assert!(each <= PER_TUNNELLED_REQUEST + 0.1, "{each} allocations each");
    assert!(counted.bytes_current.abs() < 1 << 20, "{counted:?}");
}

#[test]
fn parsing_a_proxy_header_allocates_nothing() {
    let v1 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4242 443\r\n";
    let recorded = include_bytes!("../../fuzz/seeds/proxy/v2-haproxy");
    for header in [v1.as_slice(), recorded] {
        let complete = || assert!(proxy_protocol::parse(header).unwrap().is_some());
        assert_eq!(during(REQUESTS, complete), AllocationInfo::default());
    }
}

#[test]
fn datagram_allocates_nothing() {
    let worker = Worker::relaying_udp();
    let flow = worker.flow();
    assert_eq!(during(REQUESTS, || flow.exchange()), AllocationInfo::default());
}

/// Formatting only: the queue is shared by the whole process.
#[test]
fn access_log_line_allocates_nothing() {
    let name = "a name\nof \"others\"".to_owned();
    let addr = EndpointAddr::Inet("10.0.0.2:6379".parse().unwrap());
    let key = EndpointKey { addr, identity: Identity::Name(name.clone()) };
    let line = Line {
        route: &name,
        client: ClientAddr::Inet("[2001:db8::1]:41022".parse().unwrap()),
        endpoint: Connected(Some(&key)),
        peer: Some(&name),
        bytes_up: u64::MAX,
        bytes_down: 7,
        duration_ms: Milliseconds(Duration::from_micros(12_345)),
        held_ms: Milliseconds(Duration::ZERO),
        attempts: 1,
        ending: Ending::Finished,
        why: None,
    };
    for format in [Format::Text { color: true, target: true }, Format::Json] {
        let mut bytes = Vec::new();
        let counted = during(REQUESTS, || {
            bytes.clear();
            line.write(format, UNIX_EPOCH, &mut bytes);
        });
        assert_eq!(counted, AllocationInfo::default(), "{format:?}");
    }
}

#[test]
fn connection_allocates_no_more_than_expected() {
    let worker = Worker::relaying_tcp();
    let counted = during(CONNECTIONS, || {
        let connection = worker.connect();
        connection.exchange();
        connection.close();
        worker.sessions_end();
    });
    let expected: u64 = PER_CONNECTION.iter().map(|(times, _)| times).sum();
    let times = counted.count_total as f64 / CONNECTIONS as f64;
    assert!(
        counted.count_total == expected * CONNECTIONS as u64,
        "{times} times each, not {expected}: {PER_CONNECTION:#?}\nWhere: `valgrind --tool=dhat`; if it is less, write it down"
    );
    assert_eq!((counted.count_current, counted.bytes_current), (0, 0), "kept of {CONNECTIONS} sessions");
}

#[test]
fn concurrent_sessions_free_their_memory() {
    let worker = Worker::relaying_tcp();
    let mut connections = Vec::with_capacity(CONNECTIONS);
    let counted = during(1, || {
        connections.extend((0..CONNECTIONS).map(|_| worker.connect()));
        connections.iter().for_each(worker::Connection::exchange);
        connections.drain(..).for_each(worker::Connection::close);
        worker.sessions_end();
    });
    assert!(counted.count_total > 0);
    assert_eq!((counted.count_current, counted.bytes_current), (0, 0));
}

/// Returns the allocations in this many rounds, after a warm-up.
fn during(rounds: usize, mut round: impl FnMut()) -> AllocationInfo {
    (0..WARM_UP).for_each(|_| round());
    measure(|| (0..rounds).for_each(|_| round()))
}
