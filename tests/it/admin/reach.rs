//! Why an endpoint does not answer, as an operator reads it.

use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use super::service::{greeting, service_on};
use super::{done, json, status};
use crate::support::{Ambassador, eventually, private_ip};

/// On an address that no other test uses, so that it is refused until the test listens there.
fn vacant() -> SocketAddr {
    TcpListener::bind((private_ip().as_str(), 0)).unwrap().local_addr().unwrap()
}

fn in_log(ambassador: &Ambassador, text: &str) -> String {
    eventually(text, || {
        let log = ambassador.log();
        let line = log.lines().find(|line| line.contains(text));
        line.map(str::to_owned).ok_or(log.clone())
    })
}

#[test]
fn refused_connects_are_reported_with_their_cause_and_so_is_the_recovery() {
    let addr = vacant();
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={addr}?name=r&hold=1m")).start();
    let client = TcpStream::connect(ambassador.addr("r")).unwrap();
    let line = in_log(&ambassador, "endpoint unreachable");
    for part in ["WARN", "route=r", &format!("endpoint={addr}"), "connection refused; holding sessions"] {
        assert!(line.contains(part), "{line}");
    }
    let endpoint = status(&ambassador, "r")["endpoints"][0].clone();
    assert_eq!((&endpoint["last_error"], &endpoint["failing"]), (&"connection refused".into(), &true.into()));
    assert!(endpoint["last_error_ms_ago"].is_u64(), "{endpoint}");
    let table = done(&ambassador, "status");
    assert!(table.contains(&format!("{addr}, connection refused ")) && table.contains(" s ago"), "{table}");

    service_on(addr, "one");
    let line = in_log(&ambassador, "endpoint reachable again");
    assert!(line.contains("INFO") && line.contains(&format!("endpoint={addr}")), "{line}");
    assert_eq!(ambassador.log().matches("endpoint unreachable").count(), 1);
    assert_eq!(status(&ambassador, "r")["endpoints"][0]["failing"], false);
    assert!(!done(&ambassador, "status").contains("refused"));
    let events = done(&ambassador, "events --json");
    assert!(events.contains("endpoint-unreachable") && events.contains("endpoint-reachable"), "{events}");
    drop(client);
}

#[test]
fn a_session_that_found_no_endpoint_has_the_cause_in_its_line() {
    let route = format!("127.0.0.1:0={}?name=r&hold=0", vacant());
    let ambassador = Ambassador::with(&format!("--log-format json {route}")).start();
    greeting(ambassador.addr("r")).unwrap_err();
    let line: Value = serde_json::from_str(&in_log(&ambassador, "connect-failed")).unwrap();
    let text = line.to_string();
    assert!(text.contains(r#""why":"connection refused""#), "{text}");
    let why = in_log(&ambassador, "endpoint unreachable");
    assert!(why.contains("connection refused") && !why.contains("holding"), "{why}");
}

#[test]
fn a_failed_health_check_has_its_cause_in_status() {
    let addr = vacant();
    let route = format!("127.0.0.1:0={addr}?name=r&health=tcp&health-interval=50ms&health-rise=1");
    let ambassador = Ambassador::with(&route).start();
    let endpoint = eventually("unhealthy", || {
        let endpoint = status(&ambassador, "r")["endpoints"][0].clone();
        if endpoint["health"] == "unhealthy" { Ok(endpoint) } else { Err(endpoint.to_string()) }
    });
    assert_eq!(endpoint["last_error"], "connection refused");
    let table = done(&ambassador, "status");
    assert!(table.contains(&format!("{addr}, unhealthy, connection refused ")), "{table}");
    service_on(addr, "one");
    in_log(&ambassador, "endpoint returned");
    eventually("healthy", || match json(&ambassador, "status")["routes"][0]["endpoints"][0].clone() {
        endpoint if endpoint["failing"] == false => Ok(()),
        endpoint => Err(endpoint.to_string()),
    });
}

#[test]
fn the_end_of_a_drain_says_how_many_sessions_were_cut() {
    let one = super::service::service("one");
    let mut ambassador = Ambassador::with(&format!("--drain-timeout 50ms 127.0.0.1:0={one}?name=r")).start();
    let _sessions = [greeting(ambassador.addr("r")).unwrap(), greeting(ambassador.addr("r")).unwrap()];
    ambassador.signal(rustix::process::Signal::TERM);
    ambassador.ends_within(super::service::PATIENCE);
    in_log(&ambassador, "drain ended sessions_cut=2");
}
