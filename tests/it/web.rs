//! The web page in a real browser.

use crate::admin::service::service;
use crate::support::{Ambassador, Browser, needs};

/// A port of its own on loopback: `--web` shows port 0 only in the log.
fn web() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("127.0.0.1:{port}")
}

#[test]
fn page_requests_nothing_of_other_origins() {
    let browser = needs!(Browser::start(1280, 800));
    let web = web();
    let _ambassador = Ambassador::with(&format!("--web {web} 127.0.0.1:0={}?name=r", service("one"))).start();
    browser.open(&format!("http://{web}/"));
    let own = format!("http://{web}/");
    let foreign: Vec<String> = browser.requests().into_iter().filter(|url| !url.starts_with(&own)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let console = browser.console();
    assert!(console.is_empty(), "{console:?}");
}
