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

    /// Opens a view of the page, such as `/sessions`.
    pub(super) fn show(&self, view: &str) {
        self.browser.script("location.hash = '#' + arguments[0]", &[view.into()]);
    }

    /// Clicks the first button inside this selector whose text begins with these words.
    pub(super) fn click_button(&self, scope: &str, words: &str) {
        let find = "return [...document.querySelectorAll(arguments[0] + ' button')].findIndex(
            (button) => button.textContent.startsWith(arguments[1]) && !button.disabled)";
        let scope = scope.to_owned();
        eventually(&format!("the button `{words}`"), || {
            let index = self.browser.script(find, &[scope.clone().into(), words.into()]);
            let click = "document.querySelectorAll(arguments[0] + ' button')[arguments[1]].click()";
            match index.as_i64() {
                Some(0..) => Ok(self.browser.script(click, &[scope.clone().into(), index])),
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
