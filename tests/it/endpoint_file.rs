//! A file of endpoints as a source of the program.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Ambassador, Dns, Service, ask, eventually, needs};

fn write(path: &Path, lines: &[&str]) {
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Returns the endpoints as `address weight tier`.
fn endpoints(ambassador: &Ambassador) -> Vec<String> {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let endpoints = status["routes"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let shown = |e: &Value| format!("{} {} {}", e["address"].as_str().unwrap(), e["weight"], e["tier"]);
    endpoints.iter().map(shown).collect()
}

fn logs(ambassador: &Ambassador, words: &str) {
    eventually(words, || {
        let log = ambassador.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

fn followed(path: &Path) -> Ambassador {
    Ambassador::with(&format!("127.0.0.1:0=file:{}?name=r&hold=30s", path.display())).start_unready()
}

#[test]
fn name_without_an_address_is_reported_with_its_reason() {
    let dns = needs!(Dns::start());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.endpoints");
    let one = Service::new("one");
    let port = one.addr.rsplit(':').next().unwrap();
    write(&path, &[&format!("redsi.test:{port}"), "10.0.0.1:6379"]);
    let route = format!("127.0.0.1:0=file:{}?name=r&hold=30s", path.display());
    let ambassador = Ambassador::with(&route).resolving_by(&dns.resolv_conf()).start();
    let problems = |expected: &Value| {
        eventually("its problems", || {
            let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
            let problems = &status["routes"][0]["problems"];
            if problems == expected { Ok(()) } else { Err(problems.to_string()) }
        });
    };
    problems(&json!([format!("file:{}: redsi.test: no such name (asked {})", path.display(), dns.addr())]));
    dns.has("redsi.test.", 1, &["127.0.0.1"]);
    problems(&json!([]));
    assert_eq!(endpoints(&ambassador).len(), 2);
}

#[test]
fn endpoint_file_is_followed_and_an_invalid_one_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.endpoints");
    let (one, two) = (Service::new("one"), Service::new("two"));
    let ambassador = followed(&path);
    logs(&ambassador, "redis.endpoints: cannot be read");
    write(&path, &["# comes first", &format!("{} weight=2", one.addr), &format!("{} tier=1", two.addr)]);
    assert_eq!(ask(ambassador.addr("r")), "one");
    let both = [format!("{} 2 0", one.addr), format!("{} 1 1", two.addr)];
    assert_eq!(endpoints(&ambassador), both);

    write(&path, &[&two.addr, "", "redis weight=heavy", "10.0.0.1"]);
    logs(&ambassador, "redis.endpoints:3:1: missing port in `redis`");
    logs(&ambassador, "redis.endpoints:4:1: missing port in `10.0.0.1`");
    assert_eq!(endpoints(&ambassador), both);
    let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
    assert!(status.contains("is lost: refused as a whole"), "{status}");

    write(&path, &[&two.addr]);
    eventually("the file's only endpoint", || match endpoints(&ambassador) {
        found if found == [format!("{} 1 0", two.addr)] => Ok(()),
        found => Err(format!("{found:?}")),
    });
    assert_eq!(ask(ambassador.addr("r")), "two");
    // A missing and an invalid file are logged separately.
    let log = ambassador.log();
    assert_eq!(
        (log.matches("source unavailable").count(), log.matches("source available again").count()),
        (2, 2),
        "{log}"
    );
}

#[test]
fn endpoint_file_change_takes_effect_within_300_ms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.endpoints");
    let services = ["one", "two", "six", "ten"].map(|name| (name, Service::new(name)));
    write(&path, &[]);
    let ambassador = followed(&path);
    let addr = ambassador.addr("r");
    let mut times = Vec::new();
    for (name, service) in &services {
        // No endpoint, so that a session is held until the change takes effect.
        write(&path, &[]);
        eventually("no endpoint", || match endpoints(&ambassador) {
            found if found.is_empty() => Ok(()),
            found => Err(format!("{found:?}")),
        });
        let changed = Instant::now();
        write(&path, &[&service.addr]);
        assert_eq!(ask(addr), *name);
        times.push(changed.elapsed());
    }
    times.sort();
    eprintln!("a file of endpoints: from its change to a session on it: {times:?}");
    // The minimum excludes delays by other processes.
    assert!(times[0] < Duration::from_millis(300), "{times:?}");
}
