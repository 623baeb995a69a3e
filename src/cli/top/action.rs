//! The commands that keys send, first as a dry run, and their responses. Pure.

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::client::{AdminRequest, escaped};

/// A command to the ambassador.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Action {
    method: String,
    path: String,
    #[serde(default)]
    body: Value,
}

/// What a command does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Outcome {
    pub(super) message: String,
    #[serde(default)]
    pub(super) effects: Vec<String>,
    #[serde(default)]
    pub(super) undo: Option<Action>,
}

impl Action {
    /// Creates a command for a route.
    pub(super) fn new(route: &str, verb: &str, body: Value) -> Action {
        Action { method: "POST".to_owned(), path: format!("/routes/{}/{verb}", escaped(route)), body }
    }

    pub(super) fn weight(route: &str, endpoint: &str, weight: Option<u32>) -> Action {
        let body = match weight {
            Some(weight) => json!({ "endpoint": endpoint, "weight": weight }),
            None => json!({ "endpoint": endpoint, "reset": true }),
        };
        Action::new(route, "weight", body)
    }

    pub(super) fn drain(route: &str, endpoint: &str, undo: bool) -> Action {
        Action::new(route, "drain", json!({ "endpoint": endpoint, "undo": undo }))
    }

    /// Without targets, those of the sources apply again.
    pub(super) fn switch(route: &str, targets: Option<&str>) -> Action {
        let body = match targets {
            Some(targets) => json!({ "targets": targets }),
            None => json!({ "reset": true }),
        };
        Action::new(route, "switch", body)
    }

    /// Returns the request, or that of a dry run.
    pub(super) fn request(&self, dry_run: bool) -> AdminRequest {
        let method = if self.method == "DELETE" { Method::DELETE } else { Method::POST };
        if method == Method::DELETE {
            let query = if dry_run { "?dry_run=true" } else { "" };
            return AdminRequest { method, ..AdminRequest::get(format!("{}{query}", self.path)) };
        }
        let mut body = if self.body.is_object() { self.body.clone() } else { json!({}) };
        if dry_run {
            body["dry_run"] = true.into();
        }
        AdminRequest::post(self.path.clone(), &body)
    }
}

/// Reads the response to a command: its outcome, or why it failed.
pub(super) fn outcome(is_ok: bool, body: &str) -> Result<Outcome, String> {
    if is_ok {
        return serde_json::from_str(body).map_err(|error| format!("unexpected response: {error}"));
    }
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let error = value.get("error").and_then(Value::as_str).unwrap_or("the command failed");
    Err(error.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dry_run_is_a_field_of_the_body_or_a_query() {
        let pause = Action::new("53/udp ?", "pause", Value::Null);
        assert_eq!(pause.request(false).body, "{}");
        let request = pause.request(true);
        assert_eq!(
            (request.path.as_str(), request.body.as_str()),
            ("/routes/53/udp%20%3F/pause", r#"{"dry_run":true}"#)
        );
        let remove: Action = serde_json::from_str(r#"{"method":"DELETE","path":"/routes/r"}"#).unwrap();
        assert_eq!(remove.request(true).path, "/routes/r?dry_run=true");
        assert_eq!(
            (remove.request(false).method, remove.request(false).body),
            (Method::DELETE, String::new())
        );
    }

    #[test]
    fn response_is_an_outcome_or_an_error() {
        let text = r#"{"message":"r is paused","effects":["a"],"undo":{"method":"POST","path":"/routes/r/resume","body":{}}}"#;
        assert_eq!(outcome(true, text).unwrap().undo.unwrap().path, "/routes/r/resume");
        assert_eq!(outcome(true, r#"{"message":"done","undo":null}"#).unwrap().effects, [""; 0]);
        assert_eq!(outcome(false, r#"{"error":"unknown route"}"#), Err("unknown route".to_owned()));
        assert!(outcome(false, "<html>").is_err());
    }
}
