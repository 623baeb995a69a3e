//! The sources in `status`: which have answered, and when.

use serde_json::Value;

use super::http::get;
use super::{done, json, start, status};
use crate::admin::service::service;
use crate::support::{Ambassador, eventually};

fn source(ambassador: &Ambassador, name: &str) -> Value {
    let status = json(ambassador, "status");
    let found = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

#[test]
fn each_source_has_a_state_and_the_time_of_its_last_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endpoints");
    std::fs::write(&path, "127.0.0.1:1\n").unwrap();
    let file = format!("file:{}", path.display());
    let docker = "-sock /nonexistent/docker.sock 127.0.0.2:0=docker://redis:6379";
    let ambassador = Ambassador::with(&format!("{docker} 127.0.0.1:0={file}?name=r")).spawn();
    eventually("both are known", || {
        let output = ambassador.verb("status --json");
        let status: Value = serde_json::from_slice(&output.stdout).map_err(|_| ambassador.log())?;
        let states = status["sources"].as_array().unwrap().iter().map(|source| &source["state"]);
        if states.eq(["lost", "ok"]) { Ok(()) } else { Err(status["sources"].to_string()) }
    });
    let lost = source(&ambassador, "docker");
    assert!(lost["why"].as_str().unwrap().contains("No such file"), "{lost}");
    assert_eq!((&lost["answered_at"], &lost["answered_ms_ago"]), (&Value::Null, &Value::Null));
    let first = source(&ambassador, &file);
    assert!(first["answered_ms_ago"].is_u64() && first["why"].is_null(), "{first}");

    std::fs::write(&path, "127.0.0.1:2\n").unwrap();
    eventually("read again", || {
        let now = source(&ambassador, &file);
        if now["answered_at"] == first["answered_at"] { Err(now.to_string()) } else { Ok(()) }
    });
    std::fs::write(&path, "?\n").unwrap();
    eventually("refused", || match source(&ambassador, &file) {
        refused if refused["state"] == "lost" => Ok(()),
        other => Err(other.to_string()),
    });
    let line = format!("{file} is lost: refused as a whole");
    let table = done(&ambassador, "status");
    let line = table.lines().find(|text| text.starts_with(&line)).unwrap_or_else(|| panic!("{table}"));
    assert!(line.contains("; it last answered ") && line.ends_with(" ago"), "{line}");
    let metrics = get(&ambassador.admin(), "/metrics").body;
    let sample = format!("ambassador_source_last_answer_timestamp_seconds{{source=\"{file}\"}} 1");
    assert!(metrics.contains(&sample), "{metrics}");
    assert!(!metrics.contains("last_answer_timestamp_seconds{source=\"docker\"}"), "{metrics}");
}

#[test]
fn configuration_file_is_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    std::fs::write(&path, format!("[[route]]\nlisten = \"127.0.0.1:0\"\ntarget = \"{}\"\n", service("one")))
        .unwrap();
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let file = format!("file:{}", path.display());
    assert_eq!(source(&ambassador, &file)["state"], "ok");
    std::fs::write(&path, "nonsense").unwrap();
    eventually("refused", || match source(&ambassador, &file) {
        refused if refused["state"] == "lost" && refused["why"].is_string() => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn status_has_the_start_and_each_route_as_a_line() {
    let one = service("one");
    let ambassador = start(one, "&hold=5s");
    let line = format!("127.0.0.1:0={one}?name=r&hold=5s");
    let route = status(&ambassador, "r");
    assert_eq!((&route["line"], &route["protocol"]), (&line.into(), &"tcp".into()));
    let started = json(&ambassador, "status")["started_at"].as_str().unwrap().to_owned();
    let age = humantime::parse_rfc3339(&started).unwrap().elapsed().unwrap();
    assert!(age.as_secs() < 120, "{started}");
}
