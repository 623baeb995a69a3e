//! `ambassador dashboard`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::service::{TIMEOUT, service};
use crate::support::Ambassador;

/// A running `ambassador dashboard`; killed when dropped.
struct Dashboard {
    process: Child,
    addr: String,
    token: String,
}

impl Dashboard {
    fn of(ambassador: &Ambassador) -> Dashboard {
        let mut process = Command::new(env!("CARGO_BIN_EXE_ambassador"))
            .arg("dashboard")
            .env("AMBASSADOR_ADMIN", format!("unix:{}", ambassador.admin().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("http://").unwrap_or_else(|| panic!("{line:?}"));
        let (addr, token) = address.split_once("/#token=").unwrap_or_else(|| panic!("{line:?}"));
        assert!(addr.starts_with("127.0.0.1:"), "{line:?}");
        Dashboard { process, addr: addr.to_owned(), token: token.to_owned() }
    }

    /// Sends a request with the token, and returns a connection to read the response from.
    fn send(&self, line: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let Dashboard { addr, token, .. } = self;
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.0\r\nhost: {addr}\r\norigin: http://{addr}\r\nsec-fetch-site: same-origin\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Returns the status and the body of a response.
    fn request(&self, line: &str, body: &str) -> (u16, Vec<u8>) {
        let mut answer = Vec::new();
        self.send(line, body).read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
    }

    fn json(&self, line: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.request(line, body);
        (status, serde_json::from_slice(&body).unwrap())
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn dashboard_serves_the_page_and_the_api_of_the_running_ambassador() {
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start();
    let dashboard = Dashboard::of(&ambassador);
    let (status, page) = dashboard.request("GET /", "");
    assert_eq!((status, &page[..2]), (200, &[0x1f, 0x8b][..]), "gzip");
    assert_eq!(dashboard.json("GET /status", "").1["routes"][0]["name"], "r");
    let (status, done) = dashboard.json("POST /routes/r/pause", "{}");
    assert_eq!((status, &done["route"]["state"]), (200, &"paused".into()));
    let (status, failed) = dashboard.json("POST /routes/nobody/pause", "{}");
    assert_eq!((status, &failed["known"][0]), (404, &"r".into()));

    let mut lines = BufReader::new(dashboard.send("GET /watch", "")).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "event: status"));
    assert!(ambassador.verb("resume r").status.success());
    assert!(lines.any(|line| line.contains("\"event\":\"resumed\"")));

    drop(ambassador);
    assert!(lines.last().is_some(), "the stream ends");
    let (status, failed) = dashboard.json("GET /status", "");
    assert_eq!(status, 502);
    assert!(failed["error"].as_str().unwrap().contains("no ambassador answers"), "{failed}");
}

#[test]
fn dashboard_needs_its_token_and_a_running_ambassador() {
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start();
    let mut dashboard = Dashboard::of(&ambassador);
    dashboard.token = Dashboard::of(&ambassador).token.clone();
    assert_eq!(dashboard.json("GET /status", "").0, 401, "the token of another dashboard");
    let admin = ambassador.admin();
    drop(ambassador);
    let output = Command::new(env!("CARGO_BIN_EXE_ambassador"))
        .args(["dashboard", "--admin", &format!("unix:{}", admin.display())])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no ambassador answers"));
}
