//! The page with 1,000 routes, 20,000 sessions and many events.

use std::fmt::Write as _;

use serde_json::json;

use crate::admin::service::{greeting, service};
use crate::support::needs;

use super::page::Page;

const ROUTES: usize = 1_000;
/// Elements that a view may have, however long its list is.
const ELEMENTS_MAX: u64 = 3_000;
/// Of the page's one thread. A stall is far longer than what a busy machine adds.
const TASK_MAX_MS: f64 = 3_000.0;

const MEASURE: &str = "
    window.longest = 0;
    new PerformanceObserver((list) => {
        for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
    }).observe({ type: 'longtask' });";

/// As many sessions as a response has at most, made of those that there are: the machine may not permit so many files.
const MULTIPLY: &str = "
    const real = window.fetch;
    window.fetch = async (path, init) => {
        const response = await real(path, init);
        if (!String(path).startsWith('/sessions')) return response;
        const { sessions } = await response.json();
        const many = Array.from({ length: 20000 }, (_, i) => ({ ...sessions[i % sessions.length], client: `10.0.${i >> 8}.${i & 255}:${i}` }));
        return new Response(JSON.stringify({ sessions: many, truncated: true }));
    };";

fn is_light(page: &Page, place: &str) {
    let elements = page.browser.script("return document.querySelectorAll('*').length", &[]).as_u64().unwrap();
    assert!(elements < ELEMENTS_MAX, "{place}: {elements} elements");
    let longest = page.browser.script("return window.longest", &[]).as_f64().unwrap();
    eprintln!("{place}: {elements} elements, longest task {longest} ms");
    assert!(longest < TASK_MAX_MS, "{place}: a task of {longest} ms");
}

#[test]
fn page_has_1000_routes_and_20000_sessions_without_a_stall() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.toml");
    let one = service("one");
    let mut text = String::new();
    for n in 0..ROUTES {
        let (host, port) = (1 + n / 250, 20_000 + n % 250);
        writeln!(
            text,
            "[[route]]\nname = \"route-{n:04}\"\nlisten = \"127.0.77.{host}:{port}\"\ntarget = \"{one}\""
        )
        .unwrap();
    }
    std::fs::write(&config, text).unwrap();
    let page = needs!(Page::open(&format!("--config {}", config.display())));
    let browser = &page.browser;
    browser.sees("routes are healthy");
    browser.script(MEASURE, &[]);
    browser.script("scrollTo(0, document.body.scrollHeight / 2)", &[]);
    browser.sees("route-0500");
    is_light(&page, "the routes");
    browser.script("scrollTo(0, 0)", &[]);
    browser.type_into("#search", "0777");
    page.until(
        "the route that was searched for",
        "return document.querySelectorAll('.window .row').length === 1",
    );
    let _sessions: Vec<_> =
        (0..20).map(|n| greeting(page.ambassador.addr(&format!("route-{n:04}"))).unwrap()).collect();
    browser.script(MULTIPLY, &[]);
    page.show("/sessions");
    browser.sees("20\u{2009}000 open");
    page.click_button(".sessions", "Client");
    browser.script("scrollTo(0, document.body.scrollHeight / 2)", &[]);
    page.until("rows of the middle", "return document.querySelectorAll('.sessions [aria-rowindex]').length > 10 &&
        Number(document.querySelector('.sessions .window [aria-rowindex]').getAttribute('aria-rowindex')) > 5000");
    is_light(&page, "the sessions");
}

#[test]
fn events_do_not_fill_the_memory() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    let browser = &page.browser;
    browser.sees("The route is healthy");
    page.show("/events");
    let events = |count: usize| {
        for n in 0..count {
            let verb = if n % 2 == 0 { "pause" } else { "resume" };
            page.post(&format!("/routes/r/{verb}"), &json!({}));
        }
        page.until(
            "as many events as are kept",
            "return document.querySelectorAll('.events li').length === 1000",
        );
    };
    events(1_100);
    let before = page.heap();
    events(1_000);
    let after = page.heap();
    eprintln!("heap: {before} bytes after 1,100 events, {after} after 2,100");
    assert!(after < before + before / 4 + 1_000_000, "{before} bytes, then {after}");
}
