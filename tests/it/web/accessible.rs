//! The page for those who do not see it, or use no mouse: axe-core finds nothing serious, in both themes and three sizes.

use std::fs;

use serde_json::Value;

use crate::admin::service::{greeting, service};
use crate::support::{Browser, needs};

use super::page::{ESCAPE, Page};

/// `cargo xtask test` installs it.
const AXE: &str = "web/node_modules/axe-core/axe.min.js";

/// Violations of WCAG 2.2 AA that axe calls serious or critical, and elements that it is not sure about are not among them.
const RUN: &str = "
    const done = arguments[arguments.length - 1];
    axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then(({ violations }) => done(
        violations.filter(({ impact }) => impact === 'serious' || impact === 'critical').map(({ id, nodes }) =>
            `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(' | ')}`)));";

fn has_nothing_serious(browser: &Browser, axe: &str, place: &str) {
    if browser.script("return typeof axe", &[]) == "undefined" {
        browser.script(axe, &[]);
    }
    let found = browser.script_async(RUN, &[]);
    assert_eq!(found, Value::Array(Vec::new()), "{place}");
}

#[test]
fn axe_finds_nothing_serious() {
    let axe = needs!(fs::read_to_string(AXE).map_err(|error| format!("{AXE}: {error}")));
    let args = format!(
        "127.0.0.1:0={}?name=good 127.0.0.2:0={},127.0.0.1:1?name=pg&health=tcp 127.0.0.3:0=127.0.0.1:1?name=dead",
        service("one"),
        service("two")
    );
    let page = needs!(Page::open(&args));
    let browser = &page.browser;
    let _session = greeting(page.ambassador.addr("pg")).unwrap();
    page.post("/routes/good/pause", &serde_json::json!({}));
    browser.sees("need");
    for (scheme, width) in [("light", 1600), ("dark", 1600), ("light", 390)] {
        browser.prefer(scheme);
        browser.resize(width, 900);
        for view in ["/", "/route/pg", "/sessions", "/events"] {
            page.show(view);
            has_nothing_serious(browser, &axe, &format!("{view} {scheme} {width}"));
        }
        page.show("/route/pg");
        for key in ["s", "a", "?"] {
            browser.press(key);
            page.until("a dialog", "return document.querySelector('dialog')?.open === true");
            has_nothing_serious(browser, &axe, &format!("the dialog of {key} {scheme} {width}"));
            browser.press(ESCAPE);
            page.until("no dialog", "return !document.querySelector('dialog')");
        }
        let fits = browser.script("return document.documentElement.scrollWidth <= innerWidth", &[]);
        assert_eq!(fits, true, "{width}");
    }
}
