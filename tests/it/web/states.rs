//! What the page shows when something changes: a service dies, the ambassador is gone and back.

use std::net::TcpListener;
use std::time::Duration;

use crate::admin::service::service;
use crate::support::{Ambassador, needs};

use super::page::{Page, free_addr};

/// Stores when the headline first has these words.
const WATCH: &str = "
    const words = arguments[0];
    const look = () => {
        if (!window.seenAt && document.querySelector('h1').textContent.includes(words)) window.seenAt = Date.now();
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });";

/// Between the event of the ambassador and the page. Usually a few milliseconds; the machine may be busy.
const LATE: Duration = Duration::from_secs(5);

#[test]
fn service_that_dies_is_on_the_page_within_a_second() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = service.local_addr().unwrap();
    let page = needs!(Page::open(&format!(
        "127.0.0.1:0={addr}?name=pg&health=tcp&health-interval=200ms&health-fall=1&health-rise=1"
    )));
    page.browser.sees("The route is healthy");
    page.browser.script(WATCH, &["needs attention".into()]);
    drop(service);
    page.browser.sees("The route needs attention");
    page.browser.sees("connection refused");
    let event =
        "return fetch('/events?follow=false').then((response) => response.text()).then((text) => Date.parse(
        text.trim().split('\\n').map(JSON.parse).find(({ event }) => event === 'endpoint-ejected').time))";
    let happened = page.browser.script(event, &[]).as_f64().unwrap();
    let seen = page.browser.script("return window.seenAt", &[]).as_f64().unwrap();
    let late = Duration::from_secs_f64((seen - happened).max(0.0) / 1000.0);
    eprintln!("the page shows it {late:?} after the event");
    assert!(late < LATE, "{late:?}");
    let _service = TcpListener::bind(addr).unwrap();
    page.browser.sees("The route is healthy");
}

#[test]
fn page_says_that_the_connection_is_lost_and_comes_back_without_a_reload() {
    let args = format!("127.0.0.1:0={}?name=pg", service("one"));
    let Page { ambassador, browser, web } = needs!(Page::open(&args));
    browser.sees("The route is healthy");
    browser.script("window.isSamePage = true", &[]);
    drop(ambassador);
    browser.sees("Connection lost");
    browser.sees("This is the state as of");
    let _ambassador =
        Ambassador::with(&format!("--web {web} {args} 127.0.0.2:0={}?name=two", service("two"))).start();
    browser.sees("Both routes are healthy");
    assert!(!browser.text().contains("Connection lost"));
    assert_eq!(browser.script("return window.isSamePage", &[]), true);
}

#[test]
fn page_of_an_ambassador_without_routes_shows_how_to_add_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.toml");
    std::fs::write(&config, "drain-timeout = \"1s\"\n").unwrap();
    let page = needs!(Page::open(&format!("--config {}", config.display())));
    page.browser.sees("No routes yet");
    let listen = free_addr();
    page.click_button(".empty", "Add a route");
    page.browser.type_into("#line", &format!("{listen}=127.0.0.1:1?hodl=5s&name=added"));
    page.browser.sees("unknown option hodl");
    page.browser.sees("did you mean hold?");
    page.browser.script("document.querySelector('#line').select()", &[]);
    page.browser.type_into("#line", &format!("{listen}={}?hold=5s&name=added", service("one")));
    page.click_button("dialog", "Add route");
    page.browser.sees("The route is healthy");
    assert_eq!(page.route("added")["state"], "ok");
    page.click_button(".results", "Undo");
    page.browser.sees("No routes yet");
}

#[test]
fn token_is_asked_for_and_does_not_stay_in_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdefghij\n").unwrap();
    let args = format!("--web-token-file {} 127.0.0.1:0={}?name=pg", file.display(), service("one"));
    let page = needs!(Page::open(&args));
    page.browser.sees("This page needs a token");
    page.browser.type_into("#token", "not this token, but long enough");
    page.click_button("form", "Continue");
    page.browser.sees("wrong token");
    page.browser.script("document.querySelector('#token').select()", &[]);
    page.browser.type_into("#token", "0123456789abcdefghij");
    page.click_button("form", "Continue");
    page.browser.sees("The route is healthy");
    page.browser.new_tab();
    page.browser.open(&format!("{}#token=0123456789abcdefghij", page.url()));
    page.browser.sees("The route is healthy");
    assert_eq!(page.browser.script("return location.href", &[]), page.url());
    let stored = "return JSON.stringify(localStorage) + document.cookie";
    assert!(!page.browser.script(stored, &[]).as_str().unwrap().contains("0123456789"));
}
