//! The web page, as another site in the operator's browser and a stranger on the network can reach it.

use std::io::Write;
use std::net::TcpStream;

use super::web::{JSON, ask};
use crate::admin::service::service;
use crate::support::{Ambassador, eventually, private_ip};

const TOKEN: &str = "0123456789abcdefghij";
/// More than the server keeps.
const STREAMS: usize = 80;

/// An ambassador whose page is served on an address that other hosts can reach.
struct Page {
    ambassador: Ambassador,
    addr: String,
    dir: tempfile::TempDir,
}

impl Page {
    fn start() -> Page {
        let dir = tempfile::tempdir().unwrap();
        let addr = format!("{}:9700", private_ip());
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let args =
            format!("--web {addr} --web-token-file {} 127.0.0.1:0={}?name=r", file.display(), service("one"));
        Page { ambassador: Ambassador::with(&args).start(), addr, dir }
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        ask(&self.addr, &format!("GET {path} HTTP/1.0"), headers)
    }

    fn is_paused(&self) -> bool {
        let output = self.ambassador.verb("status --json");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        status["routes"][0]["by_hand"]["paused"].as_bool().unwrap()
    }
}

#[test]
fn everything_but_the_files_of_the_page_needs_the_token() {
    let page = Page::start();
    for path in ["/", "/app.js", "/app.css", "/icon.svg"] {
        let (status, answer) = page.get(path, "");
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer.contains("default-src 'self'; frame-ancestors 'none'"), "{answer}");
    }
    let good = format!("authorization: Bearer {TOKEN}\n");
    for path in [
        "/status",
        "/metrics",
        "/config",
        "/sessions",
        "/routes",
        "/live",
        "/events?follow=false",
        "/history",
    ] {
        for bad in
            ["", "authorization: Bearer 0123456789abcdefghik\n", "authorization: 0123456789abcdefghij\n"]
        {
            let (status, answer) = page.get(path, bad);
            assert_eq!(status, 401, "{path} {bad}: {answer}");
        }
        let (status, answer) = page.get(path, &good);
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer.to_lowercase().contains("cache-control: no-store"), "{answer}");
    }
    assert_eq!(page.get(&format!("/status?token={TOKEN}"), "").0, 401);
    let pause = |headers: &str| ask(&page.addr, "POST /routes/r/pause HTTP/1.0", headers).0;
    assert_eq!(pause(JSON), 401);
    assert!(!page.is_paused());
    assert_eq!(pause(&format!("{JSON}{good}")), 200);
    assert!(page.is_paused());
    assert!(!page.ambassador.log().contains(TOKEN));
}

#[test]
fn other_sites_cannot_use_the_page_even_with_the_token() {
    let page = Page::start();
    let addr = &page.addr;
    let token = format!("authorization: Bearer {TOKEN}\n");
    for (what, line, headers) in [
        ("DNS rebinding", "GET / HTTP/1.1", "host: evil.example:9700\n".to_owned()),
        ("DNS rebinding", "GET /status HTTP/1.1", "host: evil.example:9700\n".to_owned()),
        ("no host", "GET /status HTTP/1.1", String::new()),
        ("fetch", "GET /watch HTTP/1.1", format!("host: {addr}\norigin: http://evil.example\n")),
        ("fetch", "GET /status HTTP/1.1", format!("host: {addr}\nsec-fetch-site: cross-site\n")),
        ("frame", "GET / HTTP/1.1", format!("host: {addr}\nsec-fetch-site: cross-site\n")),
        (
            "fetch",
            "DELETE /routes/r HTTP/1.1",
            format!("host: {addr}\norigin: http://evil.example\nsec-fetch-site: cross-site\n"),
        ),
        ("fetch", "POST /routes/r/pause HTTP/1.1", format!("host: {addr}\n{JSON}origin: null\n")),
    ] {
        let (status, answer) = ask(addr, line, &format!("{headers}{token}"));
        assert_eq!(status, 403, "{what} {line}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    }
    let form = format!("host: {addr}\ncontent-type: application/x-www-form-urlencoded\n{token}");
    assert_eq!(ask(addr, "POST /routes/r/pause HTTP/1.1", &form).0, 415);
    assert_eq!(ask(addr, "OPTIONS /routes/r HTTP/1.1", &format!("host: {addr}\n{token}")).0, 405);
    assert!(!page.is_paused());
}

#[test]
fn token_that_is_replaced_applies_at_once() {
    let page = Page::start();
    let status = |token: &str| page.get("/status", &format!("authorization: Bearer {token}\n"));
    assert_eq!(status(TOKEN).0, 200);
    let file = page.dir.path().join("token");
    std::fs::write(&file, "abcdefghij0123456789").unwrap();
    assert_eq!(status(TOKEN).0, 401);
    assert_eq!(status("abcdefghij0123456789").0, 200);
    for broken in ["", "short"] {
        std::fs::write(&file, broken).unwrap();
        let (code, answer) = status(broken);
        assert_eq!(code, 503, "{answer}");
        assert!(answer.contains("openssl rand"), "{answer}");
    }
}

#[test]
fn streams_that_are_never_read_do_not_block_others() {
    let page = Page::start();
    let before = page.ambassador.memory();
    let streams: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut stream = TcpStream::connect(&page.addr).unwrap();
            let head = format!(
                "GET /watch HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
                page.addr
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..50 {
        assert!(page.ambassador.verb("pause r").status.success());
        assert!(page.ambassador.verb("resume r").status.success());
    }
    assert_eq!(page.get("/status", &format!("authorization: Bearer {TOKEN}\n")).0, 200);
    let grown = page.ambassador.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    drop(streams);
    eventually("the end of the streams", || {
        let sockets = page.ambassador.descriptors().get("socket").copied().unwrap_or_default();
        if sockets < 20 { Ok(()) } else { Err(sockets.to_string()) }
    });
}

#[test]
fn unusable_token_is_reported_with_its_file_before_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "hunter2").unwrap();
    let args = |more: &str| format!("check {more} 127.0.0.1:0=127.0.0.1:1");
    for (more, expected) in [
        ("--web 0.0.0.0:9700".to_owned(), "--web: other hosts can reach `0.0.0.0:9700`"),
        (format!("--web 0.0.0.0:9700 --web-token-file {}", file.display()), "shorter than 20 characters"),
        ("--web 127.0.0.1:9700 --web-token-file /nowhere".to_owned(), "/nowhere: cannot read the token"),
        ("--web unix:/x".to_owned(), "invalid address for the web page"),
    ] {
        let output = crate::process::run(&args(&more));
        assert_eq!(output.status.code(), Some(64), "{more}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(expected), "{more}: {text}");
    }
}
