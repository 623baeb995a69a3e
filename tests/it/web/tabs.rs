//! Several tabs share one event stream.

use std::fs;
use std::net::SocketAddr;

use serde_json::json;

use crate::admin::service::service;
use crate::support::{eventually, needs};

use super::page::Page;

const TABS: usize = 10;

/// Returns the number of connections that the page's server has, from proc_net_tcp(5).
fn connections(web: SocketAddr) -> usize {
    const ESTABLISHED: &str = "01";
    let local = format!("0100007F:{:04X}", web.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&ESTABLISHED))
        .count()
}

fn has_one_stream(web: SocketAddr) {
    eventually("one connection", || match connections(web) {
        1 => Ok(()),
        other => Err(format!("{other} connections")),
    });
}

#[test]
fn ten_tabs_share_one_stream_and_the_next_takes_over() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    page.browser.sees("The route is healthy");
    for _ in 1..TABS {
        page.browser.new_tab();
        page.browser.open(&page.url());
        page.browser.sees("The route is healthy");
    }
    has_one_stream(page.web);
    page.post("/routes/r/pause", &json!({}));
    let tabs = page.browser.tabs();
    assert_eq!(tabs.len(), TABS);
    for tab in &tabs {
        page.browser.select_tab(tab);
        page.browser.sees("changed by hand");
    }
    // The first tab reads the stream.
    page.browser.select_tab(&tabs[0]);
    page.browser.close_tab();
    page.browser.select_tab(&tabs[TABS - 1]);
    page.post("/routes/r/resume", &json!({}));
    page.until(
        "the resumed route",
        "return document.querySelector('h1').textContent === 'The route is healthy'",
    );
    has_one_stream(page.web);
}

#[test]
fn tab_without_the_token_receives_nothing_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "0123456789abcdefghij\n").unwrap();
    let args = format!("--web-token-file {} 127.0.0.1:0={}?name=secret-name", file.display(), service("one"));
    let page = needs!(Page::open(&args));
    page.browser.open(&format!("{}?#token=0123456789abcdefghij", page.url()));
    page.browser.sees("secret-name");
    page.browser.new_tab();
    page.browser.open(&page.url());
    page.browser.sees("This page needs a token");
    page.post("/routes/secret-name/pause", &json!({}));
    page.browser.select_tab(&page.browser.tabs()[0]);
    page.browser.sees("paused");
    page.browser.select_tab(&page.browser.tabs()[1]);
    assert!(!page.browser.text().contains("secret-name"));
}
