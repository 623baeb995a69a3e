//! Routes whose targets lead back to their own listeners.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Ambassador, Service, ask, private_ip, within};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns an address that no other test uses, free for TCP and UDP.
fn free() -> SocketAddr {
    let ip = private_ip();
    let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
    listener.local_addr().unwrap()
}

fn route(ambassador: &Ambassador, name: &str) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let routes = status["routes"].as_array().unwrap();
    routes.iter().find(|route| route["name"] == name).expect("a route of this name").clone()
}

fn ended(ambassador: &Ambassador, name: &str) -> u64 {
    let route = route(ambassador, name);
    route["endings"].as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

/// Opens a connection and waits until the ambassador closes it.
fn is_refused(addr: SocketAddr) {
    let Ok(mut client) = TcpStream::connect(addr) else { return };
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let read = client.read(&mut [0; 1]);
    assert!(matches!(&read, Ok(0) | Err(_)), "{read:?}");
}

fn has_problem(ambassador: &Ambassador, name: &str, problem: &str) {
    let route = route(ambassador, name);
    let problems = route["problems"].as_array().unwrap();
    assert!(problems.iter().any(|found| found == problem), "{problems:?}, not {problem}");
}

#[test]
fn route_to_itself_refuses_one_session_and_is_reported() {
    let own = free();
    let line = format!("{own}={own}?name=r&hold=off&idle-timeout=5s");
    let ambassador = Ambassador::with(&line).limited_to(256).start();
    is_refused(own);
    within(TIMEOUT, "the session's end", || if ended(&ambassador, "r") > 0 { Ok(()) } else { Err("none") });
    let route = route(&ambassador, "r");
    assert_eq!(route["endings"], serde_json::json!({ "no-endpoint": 1 }));
    has_problem(&ambassador, "r", &format!("endpoint {own} is this route's own listener"));
    within(TIMEOUT, "the problem in the log", || {
        let log = ambassador.log();
        if log.contains("own listener") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn wildcard_listener_is_recognised_by_every_local_address() {
    let port = free().port();
    // The address by which this host reaches others, if it has one; not loopback.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = probe.connect("192.0.2.1:9").ok().and_then(|()| probe.local_addr().ok()).map(|addr| addr.ip());
    let other =
        own.filter(|ip| !ip.is_unspecified()).map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
    for host in ["127.3.2.1", "0.0.0.0", &other] {
        let line = format!("0.0.0.0:{port}={host}:{port}?name=r&hold=off&idle-timeout=5s");
        let ambassador = Ambassador::with(&line).limited_to(256).start();
        is_refused(SocketAddr::from(([127, 0, 0, 1], port)));
        has_problem(&ambassador, "r", &format!("endpoint {host}:{port} is this route's own listener"));
    }
}

#[test]
fn routes_in_a_cycle_are_refused_and_a_chain_of_routes_is_not() {
    let (first, second, entry, service) = (free(), free(), free(), Service::new("one"));
    let routes = [
        format!("{first}={second}?name=a&hold=off&idle-timeout=5s"),
        format!("{second}={first},{}?name=b&hold=off&idle-timeout=5s", service.addr),
        format!("{entry}={second}?name=c"),
    ];
    let ambassador = Ambassador::with(&routes.join(" ")).limited_to(256).start();
    is_refused(first);
    has_problem(
        &ambassador,
        "a",
        &format!("endpoint {second} is the listener of route `b`, which leads back to this route"),
    );
    has_problem(
        &ambassador,
        "b",
        &format!("endpoint {first} is the listener of route `a`, which leads back to this route"),
    );
    assert_eq!(ask(entry), "one", "by way of another route");
    assert_eq!(route(&ambassador, "c")["problems"], serde_json::json!([]));
}

#[test]
fn udp_route_to_itself_refuses_one_flow_and_is_reported() {
    let own = free();
    let line = format!("{own}/udp={own}?name=r&hold=off&idle-timeout=5s");
    let ambassador = Ambassador::with(&line).limited_to(256).start();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"?", own).unwrap();
    within(TIMEOUT, "the flow's end", || if ended(&ambassador, "r") > 0 { Ok(()) } else { Err("none") });
    assert_eq!(route(&ambassador, "r")["endings"], serde_json::json!({ "no-endpoint": 1 }));
    has_problem(&ambassador, "r", &format!("endpoint {own} is this route's own listener"));
}

#[test]
fn target_that_becomes_the_route_itself_is_removed_and_its_sessions_end() {
    let (own, service) = (free(), Service::new("one"));
    let ambassador = Ambassador::with(&format!("{own}={}?name=r&hold=1h", service.addr)).start();
    assert_eq!(ask(own), "one");
    let switched = ambassador.verb(&format!("switch r {own}"));
    assert!(switched.status.success(), "{switched:?}");
    has_problem(&ambassador, "r", &format!("endpoint {own} is this route's own listener"));
    assert_eq!(ask(own), "one", "what served before serves on");
}
