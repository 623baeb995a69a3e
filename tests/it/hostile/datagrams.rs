//! Floods of UDP datagrams, and UDP listeners whose options change.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Ambassador, eventually, within};

/// The time after which a client sends again, as a resolver does.
const RETRY: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A server that replies to `ask` with `answer`, and to no other datagram.
fn selective_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            if &datagram[..length] == b"ask" {
                let _ = socket.send_to(b"answer", client);
            }
        }
    });
    addr
}

/// Sends from this many ports and closes each at once; the flows remain.
fn flood(route: SocketAddr, flows: usize) {
    for n in 0..flows {
        let source = format!("127.77.{}.{}:0", n / 250, n % 250 + 1);
        UdpSocket::bind(source).unwrap().send_to(b"flood", route).unwrap();
        // The listener's receive buffer is limited.
        if n % 50 == 49 {
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Sends requests until there is a reply.
fn request(route: SocketAddr) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(RETRY)).unwrap();
    client.connect(route).unwrap();
    within(TIMEOUT, "an answer", || {
        client.send(b"ask")?;
        client.recv(&mut [0; 64])
    });
}

fn route_status(ambassador: &Ambassador, route: &str) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let routes = status["routes"].as_array().unwrap();
    routes.iter().find(|status| status["name"] == route).expect("a route of this name").clone()
}

fn ended(ambassador: &Ambassador, route: &str, ending: &str) -> u64 {
    route_status(ambassador, route)["endings"][ending].as_u64().unwrap_or(0)
}

#[test]
fn unanswered_flows_are_evicted_for_a_new_flow() {
    let route = format!("127.0.0.1:0/udp={}?name=r", selective_server());
    let ambassador = Ambassador::with(&route).limited_to(256).start();
    let addr = ambassador.addr("r");
    request(addr);
    flood(addr, 1_000);
    request(addr);
    assert!(ended(&ambassador, "r", "too-many") > 0, "evicted flows end as `too-many`");
    assert_eq!(ended(&ambassador, "r", "local"), 0);
}

#[test]
fn answered_flow_survives_a_flood() {
    let route = format!("127.0.0.1:0/udp={}?name=r", selective_server());
    let ambassador = Ambassador::with(&route).limited_to(256).start();
    let addr = ambassador.addr("r");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(RETRY)).unwrap();
    client.connect(addr).unwrap();
    let exchange = || {
        within(TIMEOUT, "an answer", || {
            client.send(b"ask")?;
            client.recv(&mut [0; 64])
        })
    };
    exchange();
    let own = client.local_addr().unwrap().to_string();
    let bytes_up = || {
        let sessions: Value = serde_json::from_slice(&ambassador.verb("sessions --json").stdout).unwrap();
        let sessions = sessions["sessions"].as_array().unwrap().clone();
        let session = sessions.into_iter().find(|session| session["client"] == own.as_str());
        session.expect("the answered flow")["bytes_up"].as_u64().unwrap()
    };
    let before = bytes_up();
    flood(addr, 1_000);
    exchange();
    assert!(bytes_up() > before, "the same flow as before");
}

fn write_config(path: &Path, target: SocketAddr, idle: &str) {
    let text = format!(
        "[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0/udp\"\ntarget = \"{target}\"\nidle-timeout = \"{idle}\"\n"
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn reload_changes_the_idle_timeout_of_existing_and_new_flows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    let server = selective_server();
    write_config(&path, server, "1h");
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = ambassador.addr("r");
    request(addr);
    write_config(&path, server, "100ms");
    let idle = |count| {
        within(TIMEOUT, "idle flows", || {
            let idle = ended(&ambassador, "r", "idle");
            if idle >= count { Ok(()) } else { Err(format!("{idle} idle")) }
        });
    };
    idle(1);
    request(addr);
    idle(2);
    assert_eq!(ambassador.addr("r"), addr, "the listener stayed open");
}

/// Returns the lines of the log for single sessions with this ending.
fn lines(ambassador: &Ambassador, ending: &str) -> usize {
    let ending = format!("ending={ending}");
    ambassador.log().lines().filter(|line| line.contains(" session ") && line.contains(&ending)).count()
}

#[test]
fn flood_of_denied_datagrams_is_counted_and_rate_limited_in_the_log() {
    let route = format!("127.0.0.1:0/udp={}?name=r&deny=127.0.0.0/8", selective_server());
    let ambassador = Ambassador::with(&route).start();
    flood(ambassador.addr("r"), 2_000);
    let denied = within(TIMEOUT, "denied flows", || {
        let denied = ended(&ambassador, "r", "denied");
        if denied > 1_000 { Ok(denied) } else { Err(format!("{denied} denied")) }
    });
    eventually("a summary", || {
        let is_summary = |line: &&str| line.contains("sessions omitted") && line.contains("ending=denied");
        let counted = ambassador.log().lines().filter(is_summary).any(|line| line.contains("count="));
        if counted { Ok(()) } else { Err(format!("{} lines", lines(&ambassador, "denied"))) }
    });
    let lines = lines(&ambassador, "denied");
    assert!(lines <= 3, "{lines} lines for {denied} denied flows");
}

#[test]
fn flood_of_denied_connections_is_counted_and_rate_limited_in_the_log() {
    let route = format!("127.0.0.1:0={}?name=r&deny=127.0.0.0/8", selective_server());
    let ambassador = Ambassador::with(&route).start();
    let addr = ambassador.addr("r");
    for _ in 0..200 {
        // The reset may arrive before or after the connect returns.
        let _ = std::net::TcpStream::connect(addr);
    }
    within(TIMEOUT, "denied connections", || {
        let denied = ended(&ambassador, "r", "denied");
        if denied == 200 { Ok(()) } else { Err(format!("{denied} denied")) }
    });
    let lines = lines(&ambassador, "denied");
    assert!((1..=3).contains(&lines), "{lines} lines");
}
