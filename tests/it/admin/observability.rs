//! Observability: sessions, events, metrics, the configuration.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::http::{get, stream};
use super::scrape::Scrape;
use super::service::{Consumers, greeting, service};
use super::{done, fails, json, start};
use crate::support::{Ambassador, eventually};

fn scrape(ambassador: &Ambassador) -> Scrape {
    let reply = get(&ambassador.admin(), "/metrics");
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    Scrape::read(&reply.body)
}

/// Returns the names of the events in order, without those that have none.
fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
fn open_sessions_are_listed() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={one}?name=a 127.0.0.2:0={two}?name=b")).start();
    let (mut first, _) = greeting(ambassador.addr("a")).unwrap();
    first.write_all(b"12345").unwrap();
    first.read_exact(&mut [0; 5]).unwrap();
    done(&ambassador, "pause b");
    let held = TcpStream::connect(ambassador.addr("b")).unwrap();

    let list = eventually("two sessions", || {
        let list = json(&ambassador, "sessions")["sessions"].as_array().unwrap().clone();
        if list.len() == 2 { Ok(list) } else { Err(format!("{list:?}")) }
    });
    assert_eq!((&list[0]["route"], &list[0]["state"]), (&"a".into(), &"relaying".into()));
    assert_eq!(list[0]["client"], first.local_addr().unwrap().to_string());
    assert_eq!(list[0]["endpoint"], one.to_string());
    assert_eq!((&list[0]["bytes_up"], &list[0]["bytes_down"]), (&5.into(), &8.into()));
    assert_eq!((&list[1]["route"], &list[1]["state"]), (&"b".into(), &"held".into()));
    assert_eq!(list[1]["endpoint"], Value::Null);
    assert!(list.iter().all(|session| session["worker"].is_u64() && session["age_ms"].is_u64()));

    let table = done(&ambassador, "sessions b");
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("held") && table.contains(&held.local_addr().unwrap().to_string()), "{table}");
    assert!(done(&ambassador, "sessions --limit 1").contains("--limit"));
    assert_eq!(fails(&ambassador, "sessions c").0, Some(64));
    drop((first, held));
    eventually("none", || match json(&ambassador, "sessions")["sessions"].as_array().unwrap().len() {
        0 => Ok(()),
        left => Err(left),
    });
}

#[test]
fn udp_flows_are_listed_as_sessions() {
    let service = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = service.local_addr().unwrap();
    let ambassador = Ambassador::with(&format!("127.0.0.1:0/udp={target}?name=dns")).start();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"who?", ambassador.addr("dns")).unwrap();
    service.recv(&mut [0; 4]).unwrap();
    let session = json(&ambassador, "sessions dns")["sessions"][0].clone();
    assert_eq!(session["client"], client.local_addr().unwrap().to_string());
    assert_eq!((&session["endpoint"], &session["bytes_up"]), (&target.to_string().into(), &4.into()));
}

#[test]
fn sessions_of_all_workers_are_listed() {
    let ambassador = start(service("one"), "");
    let addr = ambassador.addr("r");
    let sessions: Vec<_> = (0..1_000).map(|_| greeting(addr).unwrap()).collect();
    let list = json(&ambassador, "sessions r");
    let list = list["sessions"].as_array().unwrap();
    assert_eq!(list.len(), sessions.len());
    let workers: std::collections::BTreeSet<u64> =
        list.iter().map(|s| s["worker"].as_u64().unwrap()).collect();
    assert_eq!(workers.len(), status_workers(&ambassador));
}

fn status_workers(ambassador: &Ambassador) -> usize {
    json(ambassador, "status")["workers"].as_array().unwrap().len()
}

#[test]
fn events_are_listed_and_streamed() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let mut follower = stream(&ambassador.admin(), "/events");
    assert_eq!(follower.next().unwrap()["event"], "route-opened");
    done(&ambassador, "pause r");
    assert_eq!(follower.next().unwrap()["event"], "paused");
    done(&ambassador, "resume r");
    done(&ambassador, &format!("switch r {two}"));
    done(&ambassador, &format!("weight r {two} 2"));
    done(&ambassador, &format!("drain r {two}"));
    done(&ambassador, "switch r --reset");
    done(&ambassador, "routes remove r");

    let text = done(&ambassador, "events --json");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        names(&events),
        [
            "route-opened",
            "paused",
            "resumed",
            "switched",
            "endpoint-removed",
            "endpoint-added",
            "endpoint-weighted",
            "endpoint-drained",
            "switch-reset",
            "endpoint-removed",
            "endpoint-added",
            "route-removed",
            "route-closed",
        ]
    );
    assert!(events.iter().zip(1..).all(|(event, seq)| event["seq"] == seq), "{text}");
    let rest: Vec<Value> = follower.take(events.len() - 2).collect();
    assert_eq!(rest, events[2..], "the stream says the same");

    let table = done(&ambassador, "events --since 3");
    assert!(table.lines().next().unwrap().contains(&format!("switched by hand  route=r  targets={two}")));
    for event in &events {
        let message = event["message"].as_str().unwrap();
        assert!(ambassador.log().contains(message), "the log has it too: {message}");
    }
}

#[test]
fn rejected_file_and_replaced_route_are_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let text =
        |target: &str| format!("[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\n");
    std::fs::write(&path, text("127.0.0.1:1")).unwrap();
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    std::fs::write(&path, "nonsense").unwrap();
    let has = |name: &str| {
        eventually(name, || {
            let events = done(&ambassador, "events --json");
            if events.contains(&format!("\"event\":\"{name}\"")) { Ok(()) } else { Err(events) }
        });
    };
    has("file-refused");
    std::fs::write(&path, text("127.0.0.1:2")).unwrap();
    has("file-read");
    has("route-replaced");
    has("endpoint-removed");
}

#[test]
fn rejected_configuration_is_reported_until_a_valid_one_is_loaded() {
    const SUCCESSFUL: &str = "ambassador_config_last_reload_successful";
    const TIMESTAMP: &str = "ambassador_config_last_reload_success_timestamp_seconds";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let good = "[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0\"\ntarget = \"127.0.0.1:1\"\n";
    std::fs::write(&path, good).unwrap();
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let await_config = |ok: bool, error: &str| {
        eventually(error, || {
            let config = json(&ambassador, "status")["config"].clone();
            let found = config["error"].as_str().unwrap_or_default().contains(error);
            if config["ok"] == ok && found { Ok(config) } else { Err(config.to_string()) }
        })
    };
    let config = await_config(true, "");
    assert_eq!((config["path"].as_str(), &config["error"]), (path.to_str(), &Value::Null));
    assert!(!done(&ambassador, "status").contains("refused"));
    let before = scrape(&ambassador);
    assert_eq!(before.value(SUCCESSFUL), 1.0);
    assert!(before.value(TIMESTAMP) > 1.7e9);

    std::fs::write(&path, format!("{good}blance = \"p2c\"\n")).unwrap();
    let place = format!("{}:5:1: ", path.display());
    let refused = await_config(false, &place);
    assert_eq!(refused["loaded_at"], config["loaded_at"]);
    let table = done(&ambassador, "status");
    let line = table.lines().find(|line| line.starts_with("configuration refused ")).expect(&table);
    assert!(line.contains(&format!("s ago: {place}")), "{table}");
    assert!(line.ends_with("; the routes of the last good one are in use"), "{table}");
    let scraped = scrape(&ambassador);
    assert_eq!((scraped.value(SUCCESSFUL), scraped.value(TIMESTAMP)), (0.0, before.value(TIMESTAMP)));
    let up = format!("ambassador_discovery_up{{source=\"file:{}\"}}", path.display());
    assert_eq!(scraped.value(&up), 0.0);
    // Another iteration of the control loop does not remove it.
    done(&ambassador, "pause r");
    assert_eq!(json(&ambassador, "status")["config"]["ok"], false);

    std::fs::remove_file(&path).unwrap();
    await_config(false, "cannot be read: No such file");
    std::fs::write(&path, good).unwrap();
    assert_eq!(await_config(true, "")["refused_at"], Value::Null);
    let scraped = scrape(&ambassador);
    assert_eq!((scraped.value(SUCCESSFUL), scraped.value(&up)), (1.0, 1.0));
    assert!(!done(&ambassador, "status").contains("refused"));
}

#[test]
fn configuration_from_a_pipe_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}/admin.sock", dir.path().display());
    let command = || std::process::Command::new(env!("CARGO_BIN_EXE_ambassador"));
    let mut ambassador = command();
    ambassador
        .args(["--config", "/dev/stdin", "--admin", &admin])
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut ambassador = ambassador.spawn().unwrap();
    let text = b"[[route]]\nlisten = \"127.0.0.1:0\"\ntarget = \"127.0.0.1:1\"\n";
    ambassador.stdin.take().unwrap().write_all(text).unwrap();
    let status = eventually("an answer", || {
        let output = command().args(["status", "--json", "--admin", &admin]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).map_err(|error| error.to_string())
    });
    ambassador.kill().unwrap();
    ambassador.wait().unwrap();
    assert_eq!((&status["config"]["path"], &status["config"]["ok"]), (&"/dev/stdin".into(), &true.into()));
}

#[test]
fn metrics_have_the_documented_names_types_and_units() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "&hold=30s");
    let addr = ambassador.addr("r");
    drop(greeting(addr).unwrap());
    done(&ambassador, "pause r");
    std::thread::scope(|scope| {
        let held = scope.spawn(|| greeting(addr).unwrap());
        // The previous session may not have ended yet.
        let scrape = eventually("one session, held", || {
            let scrape = scrape(&ambassador);
            let of = |name: &str| scrape.value(&format!("ambassador_sessions_{name}{{route=\"r\"}}"));
            if (of("held"), of("active")) == (1.0, 1.0) { Ok(scrape) } else { Err("not yet") }
        });
        assert_eq!(scrape.value("ambassador_route_paused{route=\"r\"}"), 1.0);
        done(&ambassador, "resume r");
        drop(held.join().unwrap());
    });
    let scrape = eventually("both sessions", || {
        let scrape = scrape(&ambassador);
        let ended = scrape.value("ambassador_sessions_total{route=\"r\",ending=\"finished\"}");
        // A session is counted as ended before it releases the endpoint.
        let left = scrape.value(&format!("ambassador_endpoint_sessions{{route=\"r\",endpoint=\"{one}\"}}"));
        if (ended, left) == (2.0, 0.0) { Ok(scrape) } else { Err(ended) }
    });
    for (name, kind) in [
        ("ambassador_build_info", "gauge"),
        ("ambassador_sessions_total", "counter"),
        ("ambassador_sessions_active", "gauge"),
        ("ambassador_sessions_held", "gauge"),
        ("ambassador_bytes_total", "counter"),
        ("ambassador_peer_datagrams_dropped_total", "counter"),
        ("ambassador_connect_seconds", "histogram"),
        ("ambassador_hold_seconds", "histogram"),
        ("ambassador_session_duration_seconds", "histogram"),
        ("ambassador_endpoint_healthy", "gauge"),
        ("ambassador_endpoint_sessions", "gauge"),
        ("ambassador_discovery_up", "gauge"),
        ("ambassador_source_panics_total", "counter"),
        ("ambassador_workers_sessions", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ] {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert_eq!(scrape.value("ambassador_connect_seconds_count{route=\"r\"}"), 2.0);
    assert_eq!(scrape.value("ambassador_hold_seconds_count{route=\"r\"}"), 1.0);
    assert_eq!(scrape.value("ambassador_session_duration_seconds_count{route=\"r\"}"), 2.0);
    assert!(scrape.value("ambassador_hold_seconds_sum{route=\"r\"}") > 0.0);
    assert_eq!(scrape.value("ambassador_bytes_total{route=\"r\",direction=\"down\"}"), 6.0);
    let endpoint = format!("{{route=\"r\",endpoint=\"{one}\"}}");
    assert_eq!(scrape.value(&format!("ambassador_endpoint_sessions{endpoint}")), 0.0);
    assert_eq!(scrape.value(&format!("ambassador_endpoint_healthy{endpoint}")), 1.0);
    done(&ambassador, &format!("switch r {two}"));
    let text = get(&ambassador.admin(), "/metrics").body;
    assert!(!text.contains(&one.to_string()), "an endpoint that left has no series");
}

#[test]
fn discovery_metric_is_down_while_its_source_is_unavailable() {
    let ambassador =
        Ambassador::with("-sock /nonexistent/docker.sock 127.0.0.1:0=docker://redis:6379?name=r").spawn();
    eventually("docker is down", || {
        let output = ambassador.verb("status");
        if !output.status.success() {
            return Err(ambassador.log());
        }
        let down =
            scrape(&ambassador).samples.get("ambassador_discovery_up{source=\"docker\"}") == Some(&0.0);
        if down { Ok(()) } else { Err(ambassador.log()) }
    });
    assert!(done(&ambassador, "events --json").contains("\"event\":\"source-lost\""));
}

#[test]
fn counters_advance_during_a_transfer() {
    let ambassador = start(service("one"), "");
    let (stream, _) = greeting(ambassador.addr("r")).unwrap();
    let up = || scrape(&ambassador).value("ambassador_bytes_total{route=\"r\",direction=\"up\"}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until the socket is shut down below.
            while (&stream).write(&[1; 65_536]).is_ok() {}
        });
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            while let Ok(1..) = (&stream).read(&mut buffer) {}
        });
        let mut last = 0.0;
        for _ in 0..3 {
            last = eventually("more bytes", || if up() > last + 1e6 { Ok(up()) } else { Err(last) });
        }
        let session = json(&ambassador, "sessions")["sessions"][0].clone();
        assert!(session["bytes_up"].as_u64().unwrap() > 1_000_000, "{session}");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
}

#[test]
fn scrape_does_not_delay_sessions() {
    let ambassador = start(service("one"), "");
    let consumers = Consumers::of(ambassador.addr("r"), 4);
    for _ in 0..50 {
        scrape(&ambassador);
        get(&ambassador.admin(), "/sessions");
    }
    consumers.more("one", 20);
    assert_eq!(consumers.stop().failures, [""; 0]);
}

#[test]
fn effective_configuration_is_shown() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "&hold=7s");
    done(&ambassador, &format!("switch r {two}"));
    let config = get(&ambassador.admin(), "/config").json();
    assert_eq!(config["routes"][0]["options"]["hold"], "7s");
    assert_eq!(config["routes"][0]["targets"][0], one.to_string(), "the configured target");
    assert!(config["running"][0].as_str().unwrap().contains(&two.to_string()), "as it runs");
    assert_eq!(config["drain_timeout"], "9s");
}

#[test]
fn followed_events_end_with_the_ambassador() {
    let mut ambassador = start(service("one"), "");
    let admin = format!("unix:{}", ambassador.admin().display());
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_ambassador"))
        .args(["events", "--follow", "--admin", &admin])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(follower.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(line.contains("route opened  route=r"), "{line}");
    ambassador.signal(rustix::process::Signal::TERM);
    ambassador.ends_within(Duration::from_secs(30));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(69));
}
