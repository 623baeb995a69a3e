//! `GET /history`, and what `status` says of the past.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::http::get;
use super::service::{echoes, greeting, service};
use super::{done, start, status};
use crate::support::{Ambassador, eventually, pause};

/// Longer than a sampler without work stays awake.
const REST: Duration = Duration::from_secs(4);

fn read(ambassador: &Ambassador, query: &str) -> Value {
    let reply = get(&ambassador.admin(), &format!("/history{query}"));
    assert_eq!(reply.status, 200, "{query}: {}", reply.body);
    reply.json()
}

/// Waits until the seconds of a series add up to this.
fn adds_up(ambassador: &Ambassador, series: &str, expected: f64) {
    eventually(series, || {
        let history = read(ambassador, "?span=10m&points=600&route=r");
        let seconds = history["routes"]["r"][series].as_array().cloned().unwrap_or_default();
        let sum: f64 = seconds.iter().filter_map(Value::as_f64).sum();
        if (sum - expected).abs() < 0.5 { Ok(()) } else { Err(history.to_string()) }
    });
}

#[test]
fn history_has_the_sessions_and_bytes_of_each_second() {
    let ambassador = start(service("one"), "");
    assert_eq!(read(&ambassador, "")["routes"], serde_json::json!({}));
    let held_open = greeting(ambassador.addr("r")).unwrap();
    (1..7).for_each(|_| drop(greeting(ambassador.addr("r")).unwrap()));
    adds_up(&ambassador, "sessions", 7.0);
    adds_up(&ambassador, "bytes", 21.0);
    adds_up(&ambassador, "failed", 0.0);
    let history = read(&ambassador, "?points=30");
    let series = &history["routes"]["r"];
    assert_eq!(history["step_ms"], 20_000);
    for name in ["sessions", "failed", "held", "active", "bytes"] {
        assert_eq!(series[name].as_array().unwrap().len(), 30, "{series}");
    }
    assert_eq!(series["active"][0], Value::Null, "before the start");
    assert_eq!(series["active"][29].as_u64().unwrap(), 1);
    let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()
        - u128::from(history["end_ms"].as_u64().unwrap());
    assert!(age < 60_000, "{age}");
    assert!(read(&ambassador, "?span=24h&points=1440")["routes"]["r"]["active"][1439].as_u64().unwrap() > 0);
    assert_eq!(status(&ambassador, "r")["sessions_total"], 7);
    drop(held_open);
}

#[test]
fn session_after_a_rest_is_in_the_history() {
    let ambassador = start(service("one"), "");
    pause(REST);
    let (stream, _) = greeting(ambassador.addr("r")).unwrap();
    pause(REST);
    assert!(echoes(&stream));
    adds_up(&ambassador, "sessions", 1.0);
    adds_up(&ambassador, "bytes", 5.0);
}

#[test]
fn failures_are_counted_and_the_last_one_is_dated() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ambassador = start(closed, "&hold=0");
    assert_eq!(status(&ambassador, "r")["last_failure"], Value::Null);
    for _ in 0..3 {
        assert!(greeting(ambassador.addr("r")).is_err());
    }
    adds_up(&ambassador, "failed", 3.0);
    let route = status(&ambassador, "r");
    assert_eq!((&route["sessions_total"], &route["failed_total"]), (&3.into(), &3.into()));
    assert_eq!(route["last_failure"]["ending"], "connect-failed");
    let at = humantime::parse_rfc3339(route["last_failure"]["at"].as_str().unwrap()).unwrap();
    assert!(at.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!((&route["state"], &route["severity"]), (&"unreachable".into(), &6.into()));
}

#[test]
fn state_is_dated_from_its_last_change() {
    let ambassador = start(service("one"), "");
    let since = || status(&ambassador, "r")["state_since"].as_str().unwrap().to_owned();
    let first = since();
    pause(Duration::from_millis(20));
    assert_eq!(since(), first);
    done(&ambassador, "pause r");
    let paused = since();
    assert!(paused > first, "{paused} {first}");
    assert_eq!(status(&ambassador, "r")["severity"], 3);
    pause(Duration::from_millis(20));
    assert_eq!(since(), paused);
    done(&ambassador, "resume r");
    assert!(since() > paused);
}

/// The state changes while nothing reads it.
#[test]
fn change_of_the_state_is_seen_without_a_reader() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ambassador = start(listener.local_addr().unwrap(), "&health=tcp&health-interval=100ms");
    eventually("checked", || match status(&ambassador, "r")["state"].as_str() {
        Some("ok") => Ok(()),
        state => Err(format!("{state:?}")),
    });
    pause(REST);
    drop(listener);
    eventually("the event", || {
        let log = ambassador.log();
        if log.contains("endpoint ejected") || log.contains("route down") { Ok(()) } else { Err(log) }
    });
    pause(REST);
    let since = humantime::parse_rfc3339(status(&ambassador, "r")["state_since"].as_str().unwrap()).unwrap();
    assert!(since.elapsed().unwrap() > Duration::from_secs(2), "{:?}", since.elapsed());
}

#[test]
fn invalid_query_is_rejected_with_a_help_text() {
    let ambassador = start(service("one"), "");
    for (query, status, says) in [
        ("?points=0", 400, "between 1 and 600"),
        ("?points=601", 400, "between 1 and 600"),
        ("?span=24h&points=1441", 400, "between 1 and 1440"),
        ("?span=1h", 400, "10m"),
        ("?point=5", 400, "points"),
        ("?route=pg", 404, "unknown route `pg`"),
    ] {
        let reply = get(&ambassador.admin(), &format!("/history{query}"));
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(reply.status == status && error.contains(says), "{query}: {}: {error}", reply.status);
    }
}
