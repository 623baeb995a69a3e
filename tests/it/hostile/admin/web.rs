//! The admin API on TCP, as reachable by a web page in the operator's browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::admin::http::request as over_unix;
use crate::admin::service::service;
use crate::support::{Ambassador, eventually, private_ip};

pub(super) const JSON: &str = "content-type: application/json\n";

/// Starts an ambassador whose admin API is on TCP, and waits for it.
fn start(flags: &str) -> (Ambassador, String) {
    let admin = format!("{}:9600", private_ip());
    let args = format!("--admin {admin} {flags} 127.0.0.1:0={}?name=r", service("one"));
    let ambassador = Ambassador::with(&args).spawn();
    eventually("an answer on TCP", || {
        let output = ambassador.verb(&format!("health --admin {admin}"));
        if output.status.success() { Ok(()) } else { Err(ambassador.log()) }
    });
    (ambassador, admin)
}

/// Returns the status and the rest of a response. Header lines end with a newline.
pub(super) fn ask(admin: &str, line: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let headers = headers.replace('\n', "\r\n");
    // A single write: a server that rejects the request by its head may close before a second one.
    stream.write_all(format!("{line}\r\n{headers}content-length: 0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{line}: {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn dns_rebinding_is_rejected_over_tcp() {
    let (_ambassador, admin) = start("");
    for path in
        ["/config", "/status", "/metrics", "/live", "/ready", "/routes", "/sessions", "/events", "/none"]
    {
        let (status, answer) = ask(&admin, &format!("GET {path} HTTP/1.1"), "host: evil.example:9600\n");
        assert_eq!(status, 403, "{path}: {answer}");
    }
    let paused = ask(&admin, "POST /routes/r/pause HTTP/1.1", &format!("host: evil.example\n{JSON}"));
    assert_eq!(paused.0, 403);
    assert!(paused.1.contains("--admin-host") && paused.1.contains("evil.example"), "{}", paused.1);
}

#[test]
fn host_over_tcp_is_an_address_localhost_or_a_configured_name() {
    let (ambassador, admin) = start("--admin-host amb.internal,ambassador");
    let origin = format!("http://{admin}");
    for (line, headers, expected) in [
        ("GET /live HTTP/1.1", format!("host: {admin}\n"), 200),
        ("GET /live HTTP/1.1", "host: 127.0.0.1\n".to_owned(), 200),
        ("GET /live HTTP/1.1", "host: [::1]:9600\n".to_owned(), 200),
        ("GET /live HTTP/1.1", "host: LocalHost:9600\n".to_owned(), 200),
        ("GET /live HTTP/1.1", "host: localhost.\n".to_owned(), 200),
        ("GET /live HTTP/1.1", "host: AMB.internal:9600\n".to_owned(), 200),
        ("GET /live HTTP/1.1", "host: ambassador\n".to_owned(), 200),
        ("GET /live HTTP/1.0", String::new(), 200),
        ("GET /live HTTP/1.1", String::new(), 403),
        ("GET /live HTTP/1.1", "host:\n".to_owned(), 403),
        ("GET /live HTTP/1.1", "host: amb.internal.evil.example\n".to_owned(), 403),
        ("GET /live HTTP/1.1", "host: 127.0.0.1.evil.example\n".to_owned(), 403),
        ("GET /live HTTP/1.1", "host: localhost\nhost: evil.example\n".to_owned(), 403),
        ("GET /live HTTP/1.1", "host: evil.example@localhost\n".to_owned(), 403),
        ("GET http://evil.example/live HTTP/1.1", "host: localhost\n".to_owned(), 403),
        ("GET http://localhost/live HTTP/1.1", "host: localhost\n".to_owned(), 200),
        ("GET /live HTTP/1.1", format!("host: {admin}\norigin: {origin}\n"), 200),
        ("GET /live HTTP/1.1", format!("host: {admin}\norigin: http://localhost\n"), 403),
        ("GET /live HTTP/1.1", format!("host: {admin}\nsec-fetch-site: none\n"), 200),
        ("GET /live HTTP/1.1", format!("host: {admin}\nsec-fetch-site: same-site\n"), 403),
        ("POST /routes/r/pause HTTP/1.1", format!("host: {admin}\n"), 415),
        ("POST /routes/r/pause HTTP/1.1", format!("host: {admin}\n{JSON}sec-fetch-site: cross-site\n"), 403),
        ("POST /routes/r/pause HTTP/1.1", format!("host: {admin}\n{JSON}origin: http://evil.example\n"), 403),
        (
            "POST /routes/r/pause HTTP/1.1",
            format!("host: {admin}\n{JSON}origin: {origin}\nsec-fetch-site: same-origin\n"),
            200,
        ),
    ] {
        let (status, answer) = ask(&admin, line, &headers);
        assert_eq!(status, expected, "{line} {headers:?}: {answer}");
    }
    drop(ambassador);
}

#[test]
fn host_over_the_unix_socket_may_be_anything() {
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1").start();
    assert_eq!(over_unix(&ambassador.admin(), "GET /config", "", "").status, 200, "its Host is `x`");
    let foreign = over_unix(&ambassador.admin(), "GET /config", "sec-fetch-site: cross-site\n", "");
    assert_eq!(foreign.status, 403);
    // Behind a reverse proxy the headers of the browser count as well.
    assert_eq!(over_unix(&ambassador.admin(), "GET /config", "origin: http://x\n", "").status, 403);
}
