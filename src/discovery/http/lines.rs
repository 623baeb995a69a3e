//! An answer that goes on for ever, one JSON value a line: Docker's events, etcd's watch.

use std::pin::Pin;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::{Connection, HttpError, drive};

pub(crate) struct Lines {
    path: String,
    connection: Option<Pin<Box<Connection>>>,
    body: Incoming,
    buffer: Vec<u8>,
    /// So many bytes of the buffer hold no end of a line.
    searched: usize,
    line_max: usize,
}

impl Lines {
    pub(super) fn new(
        path: String,
        connection: Option<Pin<Box<Connection>>>,
        body: Incoming,
        line_max: usize,
    ) -> Lines {
        Lines { path, connection, body, buffer: Vec::new(), searched: 0, line_max }
    }

    /// The next value. An answer that ends is an error: it should not. May be dropped and called again without losing
    /// anything.
    pub(crate) async fn next(&mut self) -> Result<Value, HttpError> {
        loop {
            if let Some(line) = self.take_line() {
                return serde_json::from_slice(&line).map_err(|why| HttpError::exchange(&self.path, &why));
            }
            if self.buffer.len() > self.line_max {
                let why = format!("a line of more than {} bytes", self.line_max);
                return Err(HttpError::exchange(&self.path, &why));
            }
            match drive(&mut self.connection, self.body.frame()).await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(why)) => return Err(HttpError::exchange(&self.path, &why)),
                None => return Err(HttpError::exchange(&self.path, &"the server closed the stream")),
            }
        }
    }

    /// The first line that is not empty, taken out of the buffer.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let rest = self.buffer.split_off(self.searched + end + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}
