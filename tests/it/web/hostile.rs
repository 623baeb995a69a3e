//! Text of others on the page, and what the page may request.

use std::fs;

use crate::admin::service::service;
use crate::support::needs;

use super::page::Page;

const MARKUP: &str = "<img/src=x/onerror=document.title='owned'>";

#[test]
fn page_requests_nothing_of_other_origins_and_keeps_its_policy() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    let browser = &page.browser;
    browser.sees("The route is healthy");
    for view in ["/route/r", "/sessions", "/events", "/"] {
        page.show(view);
    }
    browser.press("?");
    browser.sees("this list");
    let own = page.url();
    let foreign: Vec<String> = browser.requests().into_iter().filter(|url| !url.starts_with(&own)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let console = browser.console();
    assert!(console.is_empty(), "{console:?}");
}

#[test]
fn markup_and_controls_in_a_file_of_endpoints_are_shown_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("endpoints");
    fs::write(&file, format!("{}\n", service("one"))).unwrap();
    let page = needs!(Page::open(&format!("127.0.0.1:0=file:{}?name=r", file.display())));
    let browser = &page.browser;
    browser.sees("The route is healthy");
    fs::write(&file, format!("{MARKUP}\u{202e}\u{200b}x\n")).unwrap();
    for view in ["/", "/events"] {
        page.show(view);
        browser.sees(&format!("{MARKUP}\\u{{202e}}\\u{{200b}}x"));
        assert_eq!(browser.script("return document.images.length", &[]), 0);
        assert_ne!(browser.script("return document.title", &[]), "owned");
    }
}
