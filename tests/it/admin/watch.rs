//! `/watch`: the status and its changes as they occur.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::http::{post, send};
use super::service::{greeting, service};
use crate::support::Ambassador;

/// The messages of a stream.
struct Messages(Lines<BufReader<UnixStream>>);

impl Messages {
    fn of(admin: &Path, since: u64) -> Messages {
        let mut lines = BufReader::new(send(admin, &format!("GET /watch?since={since}"), "", "")).lines();
        let head: Vec<String> =
            lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
        Messages(lines)
    }

    /// Returns the next message: its event, its ID, if it has one, and its data.
    fn next(&mut self) -> (String, Option<u64>, Value) {
        let (mut event, mut id) = (String::new(), None);
        loop {
            let line = self.0.next().unwrap().unwrap();
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event),
                Some(("id", number)) => id = Some(number.parse().unwrap()),
                Some(("data", data)) => return (event, id, serde_json::from_str(data).unwrap()),
                _ => {}
            }
        }
    }

    /// Returns the data of the next message of this event that `is_wanted`.
    fn until(&mut self, event: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (seen, _, data) = self.next();
            if seen == event && is_wanted(&data) {
                return data;
            }
        }
    }
}

#[test]
fn stream_begins_with_the_status_and_continues_with_what_changed() {
    let args = format!("127.0.0.1:0={}?name=one 127.0.0.2:0={}?name=two", service("one"), service("two"));
    let ambassador = Ambassador::with(&args).start();
    let admin = ambassador.admin();
    let mut messages = Messages::of(&admin, 0);
    let (event, _, first) = messages.next();
    assert_eq!(event, "status");
    let names: Vec<&str> = first["status"]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert!(first["at_ms"].as_u64().unwrap() > 1_700_000_000_000);
    let opened = messages.until("event", |event| event["event"] == "route-opened");
    assert_eq!(opened["route"], "one");

    assert_eq!(post(&admin, "/routes/one/pause", "{}").status, 200);
    // The event is sent at once, the change when the status is due.
    let (mut change, mut has_event) = (Value::Null, false);
    while change.is_null() || !has_event {
        let (event, _, data) = messages.next();
        has_event |= data["event"] == "paused";
        if event == "change" {
            change = data;
        }
    }
    let routes = change["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 1, "{change}");
    assert_eq!((&routes[0]["name"], &routes[0]["state"]), (&"one".into(), &"paused".into()));

    let _session = greeting(ambassador.addr("two")).unwrap();
    let change = messages.until("change", |change| change["routes"][0]["name"] == "two");
    assert_eq!(change["routes"][0]["active"], 1, "{change}");

    assert!(ambassador.verb("routes remove one").status.success());
    let change = messages.until("change", |change| change["removed"] == serde_json::json!(["one"]));
    assert_eq!(change["rest"]["removed"], serde_json::json!(["one"]), "{change}");
    assert_eq!(change["rest"]["routes"], serde_json::json!([]), "{change}");
}

#[test]
fn events_before_a_number_are_not_sent_again() {
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start();
    let admin = ambassador.admin();
    assert_eq!(post(&admin, "/routes/r/pause", "{}").status, 200);
    let mut messages = Messages::of(&admin, 0);
    let last = loop {
        let (event, id, data) = messages.next();
        if event == "event" && data["event"] == "paused" {
            break id.unwrap();
        }
    };
    let mut later = Messages::of(&admin, last);
    assert_eq!(later.next().0, "status");
    assert_eq!(post(&admin, "/routes/r/resume", "{}").status, 200);
    let resumed = later.until("event", |_| true);
    assert_eq!((&resumed["event"], &resumed["seq"]), (&"resumed".into(), &(last + 1).into()));
    let mut of_an_earlier_run = Messages::of(&admin, last + 100);
    assert_eq!(of_an_earlier_run.until("event", |_| true)["seq"], 1);
}
