//! An answer that goes on for ever, one JSON value a line: Docker's events, etcd's watch.

use futures_util::future::{BoxFuture, FutureExt};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::HttpError;
use super::{Answer, json};

pub(crate) struct Lines<T = Value> {
    path: String,
    answer: Answer,
    buffer: Buffer,
    line_max: usize,
    /// The line that is being parsed. Kept here, so that it outlives a call of [`Lines::next`] that is dropped.
    parsing: Option<BoxFuture<'static, Result<T, String>>>,
}

/// What has come of the next lines.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// No line ends before here.
    searched: usize,
}

impl<T> Lines<T> {
    pub(super) fn new(path: &str, answer: Answer, line_max: usize) -> Lines<T> {
        Lines { path: path.to_owned(), answer, buffer: Buffer::default(), line_max, parsing: None }
    }

    /// The next line that is not blank. May be dropped and called again without losing anything.
    async fn line(&mut self) -> Result<Bytes, HttpError> {
        loop {
            if let Some(line) = self.buffer.take_line() {
                return Ok(line.into());
            }
            if self.buffer.bytes.len() > self.line_max {
                let why = format!("a line of more than {} bytes", self.line_max);
                return Err(HttpError::exchange(&self.path, &why));
            }
            match self.answer.piece().await {
                Some(Ok(piece)) => self.buffer.bytes.extend_from_slice(&piece),
                Some(Err(why)) => return Err(HttpError::exchange(&self.path, &why)),
                None => return Err(HttpError::exchange(&self.path, &"the server closed the stream")),
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> Lines<T> {
    /// The next value. An answer that ends is an error: it should not. May be dropped and called again without losing
    /// anything.
    pub(crate) async fn next(&mut self) -> Result<T, HttpError> {
        if self.parsing.is_none() {
            self.parsing = Some(json::parse(self.line().await?).boxed());
        }
        let parsed = match &mut self.parsing {
            Some(parsing) => parsing.await,
            None => std::future::pending().await,
        };
        self.parsing = None;
        parsed.map_err(|why| HttpError::exchange(&self.path, &why))
    }
}

impl Buffer {
    /// The first line that is not blank, without its end, taken out.
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
    fn a_line_is_taken_when_it_is_whole() {
        let mut buffer = Buffer { bytes: b"\n{}\r\n{\"a\"".to_vec(), searched: 0 };
        assert_eq!(buffer.take_line().as_deref(), Some(&b"{}\r\n"[..]));
        assert_eq!(buffer.take_line(), None);
        buffer.bytes.extend_from_slice(b":1}\n");
        assert_eq!(buffer.take_line().as_deref(), Some(&b"{\"a\":1}\n"[..]));
        assert_eq!(buffer.take_line(), None);
    }
}
