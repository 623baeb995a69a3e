//! A client of the admin API: bytes on a unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::service::TIMEOUT;

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request with these header lines, each ended by a newline, and returns the response.
pub(crate) fn request(admin: &Path, line: &str, headers: &str, body: &str) -> Reply {
    let mut answer = String::new();
    send(admin, line, headers, body).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(crate) fn get(admin: &Path, path: &str) -> Reply {
    request(admin, &format!("GET {path}"), "", "")
}

pub(crate) fn post(admin: &Path, path: &str, body: &str) -> Reply {
    request(admin, &format!("POST {path}"), "content-type: application/json\n", body)
}

/// Sends a request and leaves the response unread.
pub(crate) fn send(admin: &Path, line: &str, headers: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    // HTTP/1.0, so that the response is not chunked and the connection ends with it.
    let headers = headers.replace('\n', "\r\n");
    let length = body.len();
    write!(stream, "{line} HTTP/1.0\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}").unwrap();
    stream
}

/// Returns the lines of JSON of a stream as they arrive.
pub(crate) fn stream(admin: &Path, path: &str) -> impl Iterator<Item = Value> + use<> {
    let mut lines = BufReader::new(send(admin, &format!("GET {path}"), "", "")).lines();
    while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}
