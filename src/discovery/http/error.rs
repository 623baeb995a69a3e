//! Errors of HTTP requests, and the limits of responses.

use std::fmt::Display;

use hyper::StatusCode;
use serde_json::Value;

/// The size limit of a response, and what to do about a longer one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) mib: usize,
    pub(crate) help: &'static str,
}

/// For responses that are expected to be short.
impl Default for Limit {
    fn default() -> Limit {
        Limit { mib: 4, help: "is this the right server?" }
    }
}

/// Bytes of the body of an error response that are read, and characters of it that are shown in a line of the log.
pub(super) const REASON_MAX: usize = 4096;
pub(super) const REASON_SHOWN_MAX: usize = 300;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot connect to {server}: {why}")]
    Connect { server: String, why: String },
    #[error("{path}: {why}")]
    Exchange { path: String, why: String },
    #[error("{path}: no response")]
    Timeout { path: String },
    #[error("{path}: the response has more than {} MiB: {}", limit.mib, limit.help)]
    TooLong { path: String, limit: Limit },
    /// A status other than success, with the server's message, if it has one.
    #[error("{path}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { path: String, status: StatusCode, message: String },
}

impl HttpError {
    pub(crate) fn exchange(path: &str, why: &dyn Display) -> HttpError {
        HttpError::Exchange { path: without_query(path).to_owned(), why: printable(&why.to_string()) }
    }

    pub(super) fn timeout(path: &str) -> HttpError {
        HttpError::Timeout { path: without_query(path).to_owned() }
    }

    pub(super) fn too_long(path: &str, limit: Limit) -> HttpError {
        HttpError::TooLong { path: without_query(path).to_owned(), limit }
    }

    pub(super) fn status(path: &str, status: StatusCode, body: &[u8]) -> HttpError {
        HttpError::Status { path: without_query(path).to_owned(), status, message: message(body) }
    }

    /// Returns whether other requests may succeed: the server rejected this one, or did not complete it in time.
    pub(crate) fn is_request_specific(&self) -> bool {
        match self {
            HttpError::Status { .. } | HttpError::Timeout { .. } | HttpError::TooLong { .. } => true,
            HttpError::Connect { .. } | HttpError::Exchange { .. } => false,
        }
    }

    /// Returns the status and message of a request that the server refused.
    pub(crate) fn refusal(&self) -> Option<(StatusCode, &str)> {
        match self {
            HttpError::Status { status, message, .. } => Some((*status, message)),
            _ => None,
        }
    }
}

/// Extracts the message of an error response: Docker and etcd send `{"message": ".."}`, Consul sends plain text.
fn message(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).ok();
    let message = match &json {
        Some(json) => json.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    printable(message.trim())
}

/// Limits a text to one line of the log.
fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(REASON_SHOWN_MAX).collect()
}

/// Queries may contain secrets.
pub(super) fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}
