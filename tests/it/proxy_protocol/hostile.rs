//! Clients that must send a header and do not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{CLIENT, Endpoint, TIMEOUT, accepting, connect, logged, send, v1, v2};
use crate::support::{Ambassador, pause};

const LIMIT: Duration = Duration::from_secs(5);

fn is_reset(mut client: TcpStream) {
    let error = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Starts an ambassador with this many routes. Each logs one connection that is refused, and then counts.
fn with_routes(count: usize) -> (Ambassador, Vec<SocketAddr>) {
    let route = |n| format!("127.0.1.{n}:0=127.0.0.1:1?name=r{n}&accept-proxy=127.0.0.0/8");
    let routes: Vec<String> = (0..count).map(route).collect();
    let ambassador = Ambassador::with(&routes.join(" ")).start();
    let addrs = (0..count).map(|n| ambassador.addr(&format!("r{n}"))).collect();
    (ambassador, addrs)
}

/// Waits for the reset and the line in the log.
fn is_refused(ambassador: &Ambassador, client: TcpStream, why: &str) {
    let ours = format!("client={} ", client.local_addr().unwrap());
    is_reset(client);
    logged(ambassador, &[&ours, "ending=proxy-header", why, "bytes_up=0 ", "attempts=0"]);
}

#[test]
fn bytes_that_are_no_header_are_refused_at_once() {
    let mut truncated_field = v2(CLIENT, &[(0x02, b"abc")]);
    let at = truncated_field.len() - 4;
    truncated_field[at] = 4;
    let mut lies = v2(CLIENT, &[]);
    lies[15] = 11;
    let mut too_long = v2(CLIENT, &[]);
    too_long[14] = 0xff;
    let mut version = v2(CLIENT, &[]);
    version[12] = 0x31;
    let wrong_checksum = v2(CLIENT, &[(0x03, &[0; 4])]);
    let unended = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat();
    let too_long_v1 = [unended.as_slice(), b"x\r\n"].concat();
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a PROXY header"),
        (b"PROXX".to_vec(), "not a PROXY header"),
        (b"\x16\x03\x01\x02\x00".to_vec(), "not a PROXY header"),
        (unended, "longer than 107 bytes"),
        (too_long_v1, "longer than 107 bytes"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n".to_vec(), "not ended by CRLF"),
        (b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n".to_vec(), "invalid address"),
        (truncated_field, "invalid field"),
        (lies, "too short for its addresses"),
        (too_long, "longer than 4096 bytes"),
        (version, "unknown version"),
        (wrong_checksum, "wrong checksum"),
    ];
    let (ambassador, addrs) = with_routes(cases.len());
    for ((bytes, why), addr) in cases.iter().zip(addrs) {
        let mut client = connect(addr);
        client.write_all(bytes).unwrap();
        is_refused(&ambassador, client, why);
    }
}

#[test]
fn header_that_does_not_become_complete_is_given_up_after_five_seconds() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "");
    let header = v1(CLIENT);
    let began = Instant::now();
    let [silent, mut slow] = [(); 2].map(|()| connect(ambassador.addr("r")));
    for byte in &header[..5] {
        slow.write_all(&[*byte]).unwrap();
        pause(LIMIT / 20);
    }
    is_reset(silent);
    is_reset(slow);
    let took = began.elapsed();
    assert!(took >= LIMIT && took < TIMEOUT, "{took:?}");
    let log = logged(&ambassador, &["ending=proxy-header", "no complete PROXY header within 5 s"]);
    assert!(log.contains("duration_ms=5"), "{log}");
}

#[test]
fn client_that_closes_within_its_header_is_refused() {
    let (first, second) = (v1(CLIENT), v2(CLIENT, &[]));
    let parts =
        [&first[..0], &first[..1], &first[..8], &first[..first.len() - 1], &second[..14], &second[..27]];
    let (ambassador, addrs) = with_routes(parts.len());
    for (part, addr) in parts.into_iter().zip(addrs) {
        is_refused(&ambassador, send(addr, part), "closed before the PROXY header was complete");
    }
}

#[test]
fn client_that_closes_after_its_header_is_a_session() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "");
    for header in [v1(CLIENT), v2(CLIENT, &[])] {
        let mut client = send(ambassador.addr("r"), &header);
        assert_eq!(endpoint.receive(), b"");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
    logged(&ambassador, &[&format!("client={CLIENT}"), "ending=finished"]);
}

#[test]
fn what_follows_the_header_is_relayed_whatever_it_is() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "");
    let garbage: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for follows in [v1(CLIENT), v2(CLIENT, &[]), garbage] {
        let mut client = connect(ambassador.addr("r"));
        let bytes = [v2(CLIENT, &[]).as_slice(), &follows].concat();
        std::thread::scope(|scope| {
            scope.spawn(move || client.write_all(&bytes).unwrap());
            assert!(endpoint.receive() == follows);
        });
    }
}

#[test]
fn silent_clients_of_one_route_do_not_block_another() {
    let endpoint = Endpoint::new();
    let routes = format!(
        "--workers 1 --access-log off 127.0.0.1:0={0}?name=r&accept-proxy=127.0.0.0/8 127.0.0.2:0={0}?name=other",
        endpoint.addr
    );
    let ambassador = Ambassador::with(&routes).limited_to(3_000).start();
    let (addr, other) = (ambassador.addr("r"), ambassador.addr("other"));
    let silent: Vec<TcpStream> = (0..2_000).map(|_| connect(addr)).collect();
    drop(send(other, b"x"));
    assert_eq!(endpoint.receive(), b"x");
    // Those of the route are served when the silent ones have been given up.
    drop(send(addr, &[v1(CLIENT).as_slice(), b"y"].concat()));
    assert_eq!(endpoint.receive(), b"y");
    drop(silent);
}

#[test]
fn stopping_process_does_not_wait_for_headers() {
    let endpoint = Endpoint::new();
    let mut ambassador = Ambassador::with(&format!(
        "--drain-timeout 100ms 127.0.0.1:0={}?name=r&accept-proxy=127.0.0.0/8",
        endpoint.addr
    ))
    .start();
    let _silent = connect(ambassador.addr("r"));
    ambassador.signal(rustix::process::Signal::TERM);
    let began = Instant::now();
    ambassador.ends_within(TIMEOUT);
    assert!(began.elapsed() < LIMIT, "{:?}: {}", began.elapsed(), ambassador.log());
}
