//! A response without an end, one JSON value a line: Docker's events, etcd's watch.

use futures_util::future::{BoxFuture, FutureExt};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::HttpError;
use super::{Response, json};
use crate::discovery::in_flight;

/// A stream of JSON values.
pub(crate) struct Lines<T = Value> {
    path: String,
    response: Response,
    buffer: Buffer,
    line_max: usize,
    /// The line that is being parsed, which outlives a call of [`Lines::next`] that is dropped.
    parsing: Option<BoxFuture<'static, Result<T, String>>>,
}

/// The bytes of the next lines that have arrived.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// The bytes that are known to contain no end of a line.
    searched: usize,
}

impl<T> Lines<T> {
    pub(super) fn new(path: &str, response: Response, line_max: usize) -> Lines<T> {
        Lines { path: path.to_owned(), response, buffer: Buffer::default(), line_max, parsing: None }
    }

    /// Returns the next line that is not blank. Cancel safe.
    async fn line(&mut self) -> Result<Bytes, HttpError> {
        loop {
            if let Some(line) = self.buffer.take_line() {
                return Ok(line.into());
            }
            if self.buffer.bytes.len() > self.line_max {
                let why = format!("a line of more than {} bytes", self.line_max);
                return Err(HttpError::exchange(&self.path, &why));
            }
            match self.response.chunk().await {
                Some(Ok(chunk)) => self.buffer.bytes.extend_from_slice(&chunk),
                Some(Err(why)) => return Err(HttpError::exchange(&self.path, &why)),
                None => return Err(HttpError::exchange(&self.path, &"the server closed the stream")),
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> Lines<T> {
    /// Returns the next value. A response that ends is an error. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<T, HttpError> {
        if self.parsing.is_none() {
            self.parsing = Some(json::parse(self.line().await?).boxed());
        }
        let parsed = in_flight(&mut self.parsing).await;
        self.parsing = None;
        parsed.map_err(|why| HttpError::exchange(&self.path, &why))
    }
}

impl Buffer {
    /// Removes the first line that is not blank.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(length) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let rest = self.bytes.split_off(self.searched + length + 1);
            let line = std::mem::replace(&mut self.bytes, rest);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_returned_when_it_is_complete() {
        let mut buffer = Buffer { bytes: b"\n{}\r\n{\"a\"".to_vec(), searched: 0 };
        assert_eq!(buffer.take_line().as_deref(), Some(&b"{}\r\n"[..]));
        assert_eq!(buffer.take_line(), None);
        buffer.bytes.extend_from_slice(b":1}\n");
        assert_eq!(buffer.take_line().as_deref(), Some(&b"{\"a\":1}\n"[..]));
        assert_eq!(buffer.take_line(), None);
    }
}
