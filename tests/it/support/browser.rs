//! A headless Chromium, driven over WebDriver (W3C recommendation) through chromedriver.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::eventually;

/// The key under which WebDriver identifies an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Starting Chromium takes seconds on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A browser with one window. Ends when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The home of both programs, so that they write nothing elsewhere.
    _home: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser whose window has this size in pixels. Returns why that is not possible here.
    pub(crate) fn start(width: u32, height: u32) -> Result<Browser, String> {
        let home = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("chromedriver: {error}"))?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map(Result::unwrap);
        let started = lines.find_map(|line| Some(line.split_once("successfully on port ")?.1.to_owned()));
        let port = started.unwrap().trim_end_matches('.').parse().unwrap();
        // Its further output is not read, but the pipe must stay open.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Browser { driver, port, session: String::new(), _home: home };
        let args = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            format!("--window-size={width},{height}"),
        ]);
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args, "binary": "/usr/bin/chromium" },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let created = browser.request("POST", "/session", &wanted)?;
        browser.session = created["sessionId"].as_str().unwrap().to_owned();
        Ok(browser)
    }

    /// Opens an address, and waits until its page has loaded.
    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Runs the body of a function, whose arguments are in `arguments`, and returns its result.
    pub(crate) fn script(&self, body: &str, arguments: &[Value]) -> Value {
        self.command("execute/sync", &json!({ "script": body, "args": arguments }))
    }

    /// Runs the body of a function that calls the last of its arguments with its result.
    pub(crate) fn script_async(&self, body: &str, arguments: &[Value]) -> Value {
        self.command("execute/async", &json!({ "script": body, "args": arguments }))
    }

    /// Returns the visible text of the page.
    pub(crate) fn text(&self) -> String {
        let text = self.script("return document.body.innerText", &[]);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page has this text.
    pub(crate) fn sees(&self, text: &str) {
        eventually(&format!("`{text}` on the page"), || {
            let shown = self.text();
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        });
    }

    /// Clicks the element of this CSS selector as a user does. Returns why that is not possible at the moment.
    pub(crate) fn click_now(&self, selector: &str) -> Result<(), String> {
        let element = self.find(selector)?;
        self.try_command(&format!("element/{element}/click"), &json!({})).map(drop)
    }

    /// Waits for an element, and types into it.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        eventually(&format!("typing into `{selector}`"), || {
            let element = self.find(selector)?;
            self.try_command(&format!("element/{element}/value"), &json!({ "text": text })).map(drop)
        });
    }

    /// Presses one key in whatever has the focus. WebDriver has a code for each special key: `\u{E007}` is Enter.
    pub(crate) fn press(&self, key: &str) {
        let press = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.command(
            "actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": press }] }),
        );
    }

    /// Opens a tab and makes it the current one. Returns its handle.
    pub(crate) fn new_tab(&self) -> String {
        let handle =
            self.command("window/new", &json!({ "type": "tab" }))["handle"].as_str().unwrap().to_owned();
        self.select_tab(&handle);
        handle
    }

    /// Returns the handles of all tabs, in the order in which they were opened.
    pub(crate) fn tabs(&self) -> Vec<String> {
        let handles = self.request("GET", &format!("/session/{}/window/handles", self.session), &Value::Null);
        serde_json::from_value(handles.unwrap()).unwrap()
    }

    /// Makes a tab the current one.
    pub(crate) fn select_tab(&self, handle: &str) {
        self.command("window", &json!({ "handle": handle }));
    }

    /// Closes the current tab.
    pub(crate) fn close_tab(&self) {
        let path = format!("/session/{}/window", self.session);
        self.request("DELETE", &path, &Value::Null).unwrap();
    }

    /// Returns what the console has shown since the last call: errors, warnings, and violations of the page's policy.
    pub(crate) fn console(&self) -> Vec<String> {
        self.log("browser")
            .iter()
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Returns the addresses that were requested since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        let address = |entry: &Value| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let is_request = message["message"]["method"] == "Network.requestWillBeSent";
            let url = message["message"]["params"]["request"]["url"].as_str()?.to_owned();
            is_request.then_some(url)
        };
        self.log("performance").iter().filter_map(address).collect()
    }

    /// Sets the colour scheme that the page sees: `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    /// Sets the size of the page in pixels.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Sends a command of the Chrome DevTools Protocol, and returns its result.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.command("se/log", &json!({ "type": kind })).as_array().cloned().unwrap_or_default()
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let found = self.try_command("element", &json!({ "using": "css selector", "value": selector }))?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.try_command(path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_command(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.request("POST", &format!("/session/{}/{path}", self.session), body)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (port, length) = (self.port, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all((head + &body).as_bytes()).map_err(|error| error.to_string())?;
        let body = body_of(BufReader::new(stream)).map_err(|error| error.to_string())?;
        let value = serde_json::from_str::<Value>(&body).map_err(|error| format!("{error}: {body}"))?;
        match value["value"].get("error") {
            Some(error) => Err(format!("{error}: {}", value["value"]["message"])),
            None => Ok(value["value"].clone()),
        }
    }
}

/// Reads a response. The driver does not always close its connection.
fn body_of(mut response: impl BufRead) -> io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        response.read_line(&mut line)?;
        match line.to_lowercase().trim_end().split_once("content-length:") {
            Some((_, value)) => length = value.trim().parse().unwrap_or_default(),
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    response.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; chromedriver would leave it running.
        if !self.session.is_empty() {
            let _ = self.request("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
