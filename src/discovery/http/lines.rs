//! An answer that goes on for ever, one JSON value a line: Docker's events, etcd's watch.

use serde_json::Value;

use super::client::HttpError;
use super::{Answer, take_line};

pub(crate) struct Lines {
    path: String,
    answer: Answer,
    buffer: Vec<u8>,
    line_max: usize,
}

impl Lines {
    pub(super) fn new(path: &str, answer: Answer, line_max: usize) -> Lines {
        Lines { path: path.to_owned(), answer, buffer: Vec::new(), line_max }
    }

    /// The next value. An answer that ends is an error: it should not. May be dropped and called again without losing
    /// anything.
    pub(crate) async fn next(&mut self) -> Result<Value, HttpError> {
        loop {
            if let Some(line) = take_line(&mut self.buffer) {
                return serde_json::from_slice(&line).map_err(|why| HttpError::exchange(&self.path, &why));
            }
            if self.buffer.len() > self.line_max {
                let why = format!("a line of more than {} bytes", self.line_max);
                return Err(HttpError::exchange(&self.path, &why));
            }
            match self.answer.piece().await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(why)) => return Err(HttpError::exchange(&self.path, &why)),
                None => return Err(HttpError::exchange(&self.path, &"the server closed the stream")),
            }
        }
    }
}
