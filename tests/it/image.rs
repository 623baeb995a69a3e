//! The image: required privileges, shutdown, size.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Container, Host, eventually, hosts, needs, redis_ping, skip};

/// Starts an ambassador in front of a server, with these options.
fn answers_and_is_healthy(host: &Host, options: &str) {
    let redis = host.start("redis", "crosbymichael/redis");
    let ambassador = host.start("ambassador", &format!("{options} ambassador 6379={}", redis.ip()));
    let addr = ambassador.address(6379);
    let answer = host.namespace.run(|| eventually("an answer", || redis_ping(addr)));
    assert_eq!(answer, "PONG");
    ambassador.becomes_healthy();
    for program in ["ambassador", "/ambassador"] {
        assert_eq!(host.docker(&format!("exec {} {program} health", ambassador.name())), "ready");
    }
}

#[test]
fn image_serves_and_becomes_healthy() {
    let hosts = needs!(hosts());
    answers_and_is_healthy(&hosts.a, "");
}

#[test]
fn image_runs_read_only_and_without_capabilities() {
    let hosts = needs!(hosts());
    answers_and_is_healthy(&hosts.a, "--read-only --cap-drop ALL");
}

#[test]
fn image_runs_without_root() {
    let hosts = needs!(hosts());
    answers_and_is_healthy(&hosts.b, "--user 12345");
    answers_and_is_healthy(&hosts.b, "--user 12345:12345 --read-only --cap-drop ALL");
}

#[test]
fn image_without_arguments_reads_link_variables() {
    let hosts = needs!(hosts());
    let redis = hosts.a.start("redis", "crosbymichael/redis");
    let options = format!("-e AMBASSADOR_ROUTES=6379={}", redis.ip());
    let ambassador = hosts.a.start("ambassador", &format!("{options} ambassador"));
    let addr = ambassador.address(6379);
    hosts.a.namespace.run(|| eventually("an answer", || redis_ping(addr)));
}

#[test]
fn image_has_at_most_10_megabytes() {
    let hosts = needs!(hosts());
    if !crate::support::is_dist_image() {
        skip!("the image was built with another profile than dist");
    }
    let size: u64 =
        hosts.a.shell("docker image inspect --format '{{.Size}}' ambassador").parse().expect("a number");
    assert!(size <= 10_000_000, "{size} bytes");
}

/// Opens a connection through an ambassador with a drain timeout of two seconds.
fn with_an_open_session(host: &Host) -> (Container, Container, TcpStream) {
    let redis = host.start("redis", "crosbymichael/redis");
    let command = format!("ambassador --drain-timeout 2s 6379={}", redis.ip());
    let ambassador = host.start("ambassador", &command);
    let addr = ambassador.address(6379);
    let session = host.namespace.run(|| {
        eventually("an answer", || redis_ping(addr));
        let mut session = TcpStream::connect(addr).expect("an ambassador that answered");
        session.write_all(b"PING\r\n").expect("a session");
        session.read_exact(&mut [0; 7]).expect("+PONG");
        session
    });
    (redis, ambassador, session)
}

#[test]
fn process_1_drains_on_sigterm_and_exits_with_0() {
    let hosts = needs!(hosts());
    let (_redis, ambassador, _session) = with_an_open_session(&hosts.a);
    let signalled = Instant::now();
    ambassador.docker("kill --signal TERM");
    assert_eq!(ambassador.exit_code(), 0, "{}", ambassador.logs());
    let took = signalled.elapsed();
    assert!(took > Duration::from_millis(1500), "the open session got no time: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn process_1_without_sessions_exits_at_once() {
    let hosts = needs!(hosts());
    let (_redis, ambassador, session) = with_an_open_session(&hosts.b);
    drop(session);
    let signalled = Instant::now();
    ambassador.docker("stop -t 30");
    assert_eq!(ambassador.inspect("{{.State.ExitCode}}"), "0", "{}", ambassador.logs());
    assert!(signalled.elapsed() < Duration::from_secs(8), "{:?}", signalled.elapsed());
}

/// Docker sets no link variables on a user-defined network, and Docker 29 on no network.
#[test]
fn image_without_routes_reports_its_sources_and_exits_with_64() {
    let hosts = needs!(hosts());
    let network = hosts.a.network("nothing", "");
    let redis = hosts.a.start("redis", &format!("--network {} crosbymichael/redis", network.name));
    let link = format!("--network {} --link {}:redis", network.name, redis.name());
    let ambassador = hosts.a.start("ambassador", &format!("{link} svendowideit/ambassador"));
    assert_eq!(ambassador.exit_code(), 64, "{}", ambassador.logs());
    let log = ambassador.logs();
    assert!(log.contains("version 29") && log.contains("_TCP"), "{log}");
}
