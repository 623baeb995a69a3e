//! Name servers that fail, deny or flood; a Docker engine that stops replying; files that are not regular.

mod engine;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Ambassador, Dns, Service, ask, eventually, needs, pause, private_ip};
use engine::Engine;

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap_or_default()
}

fn route<'s>(status: &'s Value, name: &str) -> &'s Value {
    let routes = status["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    routes.iter().find(|route| route["name"] == name).unwrap_or(&Value::Null)
}

/// Without ports.
fn addresses(ambassador: &Ambassador, name: &str) -> Vec<String> {
    let status = status(ambassador);
    let endpoints = route(&status, name)["endpoints"].as_array().cloned().unwrap_or_default();
    let address = |endpoint: &Value| {
        let text = endpoint["description"].as_str().unwrap_or_default().to_owned();
        text.split([':', ' ']).next().unwrap_or_default().to_owned()
    };
    endpoints.iter().map(address).collect()
}

fn has(ambassador: &Ambassador, name: &str, expected: &[&str]) {
    eventually(&format!("{name} has {expected:?}"), || match addresses(ambassador, name) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}\n{}", ambassador.log())),
    });
}

fn is_lost(ambassador: &Ambassador, words: &str) {
    eventually(words, || {
        let lost = status(ambassador)["lost"].to_string();
        if lost.contains(words) { Ok(()) } else { Err(lost) }
    });
}

// === name servers ===

#[test]
fn servfail_for_one_search_domain_does_not_resolve_in_another() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    dns.searches("corp.test");
    dns.fails("db.corp.test.");
    dns.has("db.", 1, &["127.0.0.9"]);
    let port = one.addr.rsplit(':').next().unwrap();
    let route = format!("127.0.0.1:0=db:{port}?name=r&hold=30s");
    let ambassador = Ambassador::with(&route).resolving_by(&dns.resolv_conf()).start_unready();
    is_lost(&ambassador, "db.corp.test.: ");
    assert_eq!(addresses(&ambassador, "r"), [""; 0]);

    dns.has("db.corp.test.", 1, &["127.0.0.1"]);
    dns.recovers("db.corp.test.");
    assert_eq!(ask(ambassador.addr("r")), "one");
    dns.fails("db.corp.test.");
    is_lost(&ambassador, "db.corp.test.: ");
    assert_eq!(addresses(&ambassador, "r"), ["127.0.0.1"], "the last answer is kept");
    // A denial is a response, so the next domain is tried.
    dns.forgets("db.corp.test.");
    dns.recovers("db.corp.test.");
    has(&ambassador, "r", &["127.0.0.9"]);
}

#[test]
fn nxdomain_drops_addresses_soon_and_servfail_keeps_them() {
    let dns = needs!(Dns::start());
    dns.has("denied.test.", 1, &["127.0.0.2"]);
    dns.has("failing.test.", 1, &["127.0.0.3"]);
    let (one, two) = (private_ip(), private_ip());
    let routes = format!("--dns-nx-stale 2s {one}:0=denied.test:9?name=d {two}:0=failing.test:9?name=f");
    let ambassador = Ambassador::with(&routes).resolving_by(&dns.resolv_conf()).start();
    has(&ambassador, "d", &["127.0.0.2"]);
    has(&ambassador, "f", &["127.0.0.3"]);
    dns.fails("failing.test.");
    is_lost(&ambassador, "failing.test");
    dns.forgets("denied.test.");
    is_lost(&ambassador, "no such name (asked ");
    has(&ambassador, "d", &[]);
    assert_eq!(addresses(&ambassador, "f"), ["127.0.0.3"]);
}

#[test]
fn addresses_of_srv_records_are_limited() {
    let dns = needs!(Dns::start());
    let ips: Vec<String> = (0..2000).map(|n| format!("127.9.{}.{}", n / 250, n % 250)).collect();
    dns.has("many.test.", 1, &ips.iter().map(String::as_str).collect::<Vec<_>>());
    let offers: Vec<String> = (1..=20).map(|n| format!("{n} 1 {n} many.test.")).collect();
    dns.offers("_s._tcp.test.", 1, &offers);
    let ambassador =
        Ambassador::with("127.0.0.1:0=srv://_s._tcp.test.?name=r").resolving_by(&dns.resolv_conf()).start();
    eventually("a problem that says so", || {
        let status = status(&ambassador);
        let problems = route(&status, "r")["problems"].to_string();
        if problems.contains("only the first 16384 of its endpoints are used") {
            return Ok(());
        }
        Err(format!("{problems} {}", status["lost"]))
    });
    assert_eq!(addresses(&ambassador, "r").len(), 16_384);
}

// === a Docker engine ===

fn follows(engine: &Engine, routes: &str) -> Ambassador {
    Ambassador::with(routes).var("DOCKER_HOST", &engine.docker_host()).start()
}

/// Returns a route for each container, with its name.
fn routes(containers: &[&str]) -> String {
    let route = |name: &&str| format!("{}:0=docker://{name}:9?name={name}", private_ip());
    containers.iter().map(route).collect::<Vec<_>>().join(" ")
}

/// Waits for a list, so that the next one is as late as possible.
fn has_listed(engine: &Engine) {
    let before = engine.request_counts().0;
    eventually("a list", || if engine.request_counts().0 > before { Ok(()) } else { Err("none yet") });
    // Its responses have been processed by then.
    pause(Duration::from_millis(300));
}

#[test]
fn silent_event_stream_does_not_keep_a_reused_address() {
    let engine = Engine::start();
    engine.run("db", "127.0.0.2");
    let ambassador = follows(&engine, &routes(&["db", "thief"]));
    has(&ambassador, "db", &["127.0.0.2"]);
    has_listed(&engine);
    has_listed(&engine);
    engine.hang_inspection_of("db");
    engine.remove("db");
    engine.run("thief", "127.0.0.2");
    let changed = Instant::now();
    has(&ambassador, "db", &[]);
    // A list every 15 s would be too late in half of the runs, and the inspection of `db` never returns.
    assert!(changed.elapsed() < Duration::from_secs(12), "{:?}", changed.elapsed());
    has(&ambassador, "thief", &["127.0.0.2"]);
}

#[test]
fn silent_event_stream_that_missed_a_change_is_reopened() {
    let engine = Engine::start();
    engine.run("db", "127.0.0.2");
    let ambassador = follows(&engine, &routes(&["db"]));
    has(&ambassador, "db", &["127.0.0.2"]);
    has_listed(&engine);
    engine.detach_event_streams();
    engine.run("db", "127.0.0.3");
    has(&ambassador, "db", &["127.0.0.3"]);
    eventually("a second subscription", || match engine.request_counts() {
        (_, 1) => Err(ambassador.log()),
        _ => Ok(()),
    });
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
    // Events are handled again.
    has_listed(&engine);
    let lists = engine.request_counts().0;
    engine.remove("db");
    engine.send_event("db", "die");
    has(&ambassador, "db", &[]);
    assert!(engine.request_counts().0 <= lists + 1, "{} lists after {lists}", engine.request_counts().0);
}

#[test]
fn lost_end_event_does_not_block_reuse_of_the_address() {
    let engine = Engine::start();
    engine.run("before", "127.0.0.2");
    let ambassador = follows(&engine, &routes(&["before", "after"]));
    has(&ambassador, "before", &["127.0.0.2"]);
    has_listed(&engine);
    engine.remove("before");
    engine.run("after", "127.0.0.2");
    let lists = engine.request_counts().0;
    engine.send_event("after", "start");
    has(&ambassador, "after", &["127.0.0.2"]);
    has(&ambassador, "before", &[]);
    assert_eq!(engine.request_counts().0, lists, "before the next list");
}

#[test]
fn failed_connect_finds_the_new_address_without_an_event() {
    let engine = Engine::start();
    let (old, new) = (private_ip(), private_ip());
    let service = TcpListener::bind((new.as_str(), 0)).unwrap();
    let port = service.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in service.incoming().flatten() {
            stream.write_all(b"new").ok();
        }
    });
    engine.run("db", &old);
    let ambassador = follows(&engine, &format!("127.0.0.1:0=docker://db:{port}?name=db&hold=30s"));
    has(&ambassador, "db", &[&old]);
    has_listed(&engine);
    has_listed(&engine);
    engine.run("db", &new);
    let changed = Instant::now();
    assert_eq!(ask(ambassador.addr("db")), "new");
    assert!(changed.elapsed() < Duration::from_secs(4), "{:?}", changed.elapsed());
}

#[test]
fn hanging_engine_is_unavailable_and_its_containers_are_kept() {
    let engine = Engine::start();
    engine.run("db", "127.0.0.2");
    let ambassador = follows(&engine, &routes(&["db"]));
    has(&ambassador, "db", &["127.0.0.2"]);
    has_listed(&engine);
    engine.freeze();
    is_lost(&ambassador, "no response");
    assert_eq!(addresses(&ambassador, "db"), ["127.0.0.2"]);
}

#[test]
fn engine_is_listed_no_more_than_once_a_second_while_sessions_cannot_connect() {
    let engine = Engine::start();
    engine.run("db", &private_ip());
    let ambassador = follows(&engine, &format!("{}&hold=30s", routes(&["db"])));
    has_listed(&engine);
    let sessions: Vec<_> = (0..20).map(|_| TcpStream::connect(ambassador.addr("db")).unwrap()).collect();
    let (begun, lists) = (Instant::now(), engine.request_counts().0);
    eventually(
        "four more lists",
        || if engine.request_counts().0 >= lists + 4 { Ok(()) } else { Err("fewer") },
    );
    assert!(begun.elapsed() > Duration::from_millis(2900), "{:?}", begun.elapsed());
    drop(sessions);
}

// === files ===

#[test]
fn fifo_or_device_in_place_of_a_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.endpoints");
    std::fs::write(&path, "127.0.0.2:9\n").unwrap();
    let route = format!("127.0.0.1:0=file:{}?name=r", path.display());
    let ambassador = Ambassador::with(&route).start();
    has(&ambassador, "r", &["127.0.0.2"]);
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    std::fs::rename(&fifo, &path).unwrap();
    is_lost(&ambassador, "not a regular file but a FIFO");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    has(&ambassador, "r", &["127.0.0.2"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "127.0.0.3:9\n").unwrap();
    has(&ambassador, "r", &["127.0.0.3"]);
}

#[test]
fn fifo_or_device_as_configuration_is_an_error_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for (path, kind) in [(fifo.as_path(), "a FIFO"), ("/dev/zero".as_ref(), "a character device")] {
        let mut ambassador = Ambassador::with(&format!("--config {}", path.display())).spawn();
        let ended = ambassador.ends_within(Duration::from_secs(30));
        assert_eq!(ended.code(), Some(64), "{}", ambassador.log());
        eventually("the reason", || {
            let log = ambassador.log();
            if log.contains(&format!("not a regular file but {kind}")) { Ok(()) } else { Err(log) }
        });
    }
}
