//! The causes of unreachable endpoints in logs and status.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use super::service::{Consumers, greeting, service, service_on};
use super::{done, fails, json, start, status};
use crate::support::{Ambassador, eventually, private_ip};

/// Returns an address that no other test uses: it refuses until the test listens there.
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
fn refused_connects_and_the_recovery_are_reported() {
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
    assert!(
        table.contains(&format!("{addr}  unreachable, connection refused ")) && table.contains(" s ago"),
        "{table}"
    );

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
fn without_an_ambassador_the_address_the_cause_and_the_way_out_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = format!("unix:{}/admin.sock", dir.path().display());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ambassador"))
        .args(["status", "--admin", &at])
        .output()
        .unwrap();
    let expected = format!(
        "no ambassador answers at {at} (no such file or directory): is one running? \
         --admin or AMBASSADOR_ADMIN names another admin address\n"
    );
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(69), expected));
}

#[test]
fn switch_without_wait_says_that_its_targets_were_not_asked() {
    let (ambassador, addr) = (start(service("one"), ""), vacant());
    let said = done(&ambassador, &format!("switch r {addr}"));
    assert!(said.contains("not checked whether it answers (`--wait` does)"), "{said}");
    drop(TcpStream::connect(ambassador.addr("r")).unwrap());
    in_log(&ambassador, &format!("endpoint={addr} why=\"connection refused"));
}

#[test]
fn refused_datagrams_are_reported_as_refused_connects_are() {
    let addr = UdpSocket::bind((private_ip().as_str(), 0)).unwrap().local_addr().unwrap();
    let ambassador = Ambassador::with(&format!("127.0.0.1:0/udp={addr}?name=r")).start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(ambassador.addr("r")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // Each opens a flow, which is refused.
    for _ in 0..5 {
        client.send(b"?").unwrap();
        assert!(client.recv(&mut [0; 8]).is_err());
    }
    let line = in_log(&ambassador, "endpoint unreachable");
    assert!(
        line.contains("WARN") && line.contains(&format!("endpoint={addr} why=\"connection refused\"")),
        "{line}"
    );
    let table = done(&ambassador, "status");
    assert!(table.contains(&format!("{addr}  unreachable, connection refused ")), "{table}");

    let service = UdpSocket::bind(addr).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((length, from)) = service.recv_from(&mut buffer) {
            let _ = service.send_to(&buffer[..length], from);
        }
    });
    eventually("an answer", || client.send(b"?").and_then(|_| client.recv(&mut [0; 8])));
    let line = in_log(&ambassador, "endpoint reachable again");
    assert!(line.contains("INFO"), "{line}");
    assert_eq!(ambassador.log().matches("endpoint unreachable").count(), 1);
    assert_eq!(status(&ambassador, "r")["endpoints"][0]["failing"], false);
}

#[test]
fn session_without_an_endpoint_logs_the_cause() {
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
fn failed_health_check_has_its_cause_in_status() {
    let addr = vacant();
    let route = format!("127.0.0.1:0={addr}?name=r&health=tcp&health-interval=50ms&health-rise=1");
    let ambassador = Ambassador::with(&route).start();
    let endpoint = eventually("unhealthy", || {
        let endpoint = status(&ambassador, "r")["endpoints"][0].clone();
        if endpoint["health"] == "unhealthy" { Ok(endpoint) } else { Err(endpoint.to_string()) }
    });
    assert_eq!(endpoint["last_error"], "connection refused");
    let table = done(&ambassador, "status");
    assert!(table.contains(&format!("{addr}  unhealthy, connection refused ")), "{table}");
    service_on(addr, "one");
    in_log(&ambassador, "endpoint returned");
    eventually("healthy", || match json(&ambassador, "status")["routes"][0]["endpoints"][0].clone() {
        endpoint if endpoint["failing"] == false => Ok(()),
        endpoint => Err(endpoint.to_string()),
    });
}

#[test]
fn end_of_a_drain_reports_the_number_of_reset_sessions() {
    let one = service("one");
    let mut ambassador = Ambassador::with(&format!("--drain-timeout 50ms 127.0.0.1:0={one}?name=r")).start();
    let _sessions = [greeting(ambassador.addr("r")).unwrap(), greeting(ambassador.addr("r")).unwrap()];
    ambassador.signal(rustix::process::Signal::TERM);
    ambassador.ends_within(super::service::TIMEOUT);
    in_log(&ambassador, "drain ended sessions_cut=2");
}

#[test]
fn switch_with_wait_to_a_refusing_address_is_rolled_back_with_the_cause() {
    let (ambassador, black_hole) = (start(service("one"), "&hold=0"), vacant());
    let consumers = Consumers::of(ambassador.addr("r"), 4);
    let (code, why) = fails(&ambassador, &format!("switch r {black_hole} --wait --timeout 1s"));
    let expected = format!("the switch was rolled back: {black_hole}: connection refused");
    assert_eq!((code, why.contains(&expected)), (Some(1), true), "{why}");
    consumers.more("one", 20);
    assert_eq!(consumers.stop().failures, [""; 0], "the endpoint before served on");
    let switch = &status(&ambassador, "r")["by_hand"]["switch"];
    assert_eq!(
        (&switch["state"], &switch["why"]),
        (&"rolled-back".into(), &format!("{black_hole}: connection refused").into())
    );
    let line = in_log(&ambassador, "switch rolled back");
    assert!(line.contains(&format!("{black_hole}: connection refused")), "{line}");
}

#[test]
fn switch_with_wait_uses_a_new_endpoint_once_it_accepts() {
    let (ambassador, addr) = (start(service("one"), "&hold=0"), vacant());
    let consumers = Consumers::of(ambassador.addr("r"), 4);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| done(&ambassador, &format!("switch r {addr} --wait")));
        let note = format!("the switch is on trial: {addr}: connection refused");
        eventually("the cause", || {
            let table = done(&ambassador, "status");
            if table.contains(&note) { Ok(()) } else { Err(table) }
        });
        consumers.more("one", 20);
        service_on(addr, "two");
        waits.join().unwrap();
    });
    consumers.more("two", 20);
    assert_eq!(consumers.stop().failures, [""; 0]);
}

#[test]
fn switch_with_wait_runs_the_health_check_of_the_route() {
    let ambassador = start(service("one"), "&hold=0");
    done(&ambassador, "routes remove r");
    let unhealthy = service("bad");
    let route = format!("127.0.0.1:0={}?name=p&health=redis&hold=0", service("one"));
    done(&ambassador, &format!("routes add {route}"));
    let (code, why) = fails(&ambassador, &format!("switch p {unhealthy} --wait --timeout 500ms"));
    let expected = format!("the switch was rolled back: {unhealthy}: answered ");
    assert_eq!((code, why.contains(&expected)), (Some(1), true), "{why}");
}
