//! An ambassador, and a browser that has its page open.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::admin::http;
use crate::support::{Ambassador, Browser, eventually};

/// The key Escape, as WebDriver encodes it.
pub(super) const ESCAPE: &str = "\u{e00c}";

pub(super) struct Page {
    pub(super) ambassador: Ambassador,
    pub(super) browser: Browser,
    /// The page's address, such as `127.0.0.1:40321`.
    pub(super) web: SocketAddr,
}

impl Page {
    /// Starts an ambassador with these arguments, and opens its page. Returns why there is no browser here.
    pub(super) fn open(args: &str) -> Result<Page, String> {
        let browser = Browser::start(1600, 1000)?;
        let web = free_addr();
        let page =
            Page { ambassador: Ambassador::with(&format!("--web {web} {args}")).start(), browser, web };
        page.browser.open(&page.url());
        Ok(page)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.web)
    }

    /// Opens a view of the page, such as `/sessions`, and waits for it.
    pub(super) fn show(&self, view: &str) {
        let shown = match view.split('/').nth(1) {
            Some("route") => "#detail-title",
            Some("sessions") => "#sessions-title",
            Some("events") => "#events-title",
            _ => ".routes, .empty",
        };
        let go = "location.hash = '#' + arguments[0]; return document.querySelector(arguments[1]) !== null";
        eventually(view, || match self.browser.script(go, &[view.into(), shown.into()]) {
            Value::Bool(true) => Ok(()),
            _ => Err(self.browser.text()),
        });
    }

    /// Clicks the first button inside this selector whose text begins with these words, as a user does.
    pub(super) fn click_button(&self, scope: &str, words: &str) {
        let find = "const buttons = [...document.querySelectorAll(arguments[0] + ' button')];
            document.querySelectorAll('[data-chosen]').forEach((one) => delete one.dataset.chosen);
            const found = buttons.find((one) => one.textContent.startsWith(arguments[1]) && !one.disabled);
            if (found) found.dataset.chosen = '';
            return Boolean(found)";
        eventually(&format!("the button `{words}`"), || {
            match self.browser.script(find, &[scope.into(), words.into()]) {
                Value::Bool(true) => self.browser.click_now("[data-chosen]"),
                _ => Err(self.browser.text()),
            }
        });
    }

    /// Waits until this script returns true.
    pub(super) fn until(&self, what: &str, script: &str) {
        eventually(what, || match self.browser.script(script, &[]) {
            Value::Bool(true) => Ok(()),
            other => Err(format!("{other}: {}", self.browser.text())),
        });
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Value {
        let reply = http::post(&self.ambassador.admin(), path, &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }

    /// Returns the status of a route.
    pub(super) fn route(&self, name: &str) -> Value {
        http::get(&self.ambassador.admin(), &format!("/routes/{name}")).json()
    }

    /// Returns the bytes of the heap of the page's scripts, after its garbage was collected.
    pub(super) fn heap(&self) -> u64 {
        self.browser.devtools("HeapProfiler.collectGarbage", &json!({}));
        self.browser.devtools("Runtime.getHeapUsage", &json!({}))["usedSize"].as_f64().unwrap() as u64
    }
}

/// Returns a free port on loopback: `--web` shows the port that it was given only in the log.
pub(super) fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
