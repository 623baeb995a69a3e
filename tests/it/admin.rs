//! Commands of an operator on a running ambassador, through the CLI and the admin API.

mod api;
mod dashboard;
mod history;
pub(crate) mod http;
mod observability;
mod reachability;
mod scrape;
pub(crate) mod service;
mod sources;
mod steer;
mod waits;
mod watch;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Ambassador, eventually};
use service::{Consumers, echoes, greeting, service};

/// Runs a command that must succeed and returns its JSON.
fn json(ambassador: &Ambassador, words: &str) -> Value {
    let text = done(ambassador, &format!("{words} --json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}: {text}"))
}

/// Runs a command that must succeed and returns its output.
fn done(ambassador: &Ambassador, words: &str) -> String {
    let output = ambassador.verb(words);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}: {}: {stderr}{stdout}\n{}", output.status, ambassador.log());
    stdout.into_owned()
}

/// Runs a command that must fail and returns its exit code and its error.
fn fails(ambassador: &Ambassador, words: &str) -> (Option<i32>, String) {
    let output = ambassador.verb(words);
    assert!(!output.status.success(), "{words}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn status(ambassador: &Ambassador, name: &str) -> Value {
    let status = json(ambassador, "status");
    let route = status["routes"].as_array().unwrap().iter().find(|route| route["name"] == name);
    route.unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

/// Returns the state of an endpoint in the table of `status`.
fn state(table: &str, endpoint: SocketAddr) -> &str {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.first() == Some(&endpoint.to_string().as_str())).expect(table)[1]
}

fn start(target: SocketAddr, options: &str) -> Ambassador {
    Ambassador::with(&format!("127.0.0.1:0={target}?name=r{options}")).start()
}

#[test]
fn pause_holds_new_sessions_and_resume_serves_them() {
    let ambassador = start(service("one"), "&hold=1s");
    let addr = ambassador.addr("r");
    let consumers = Consumers::of(addr, 8);
    let (before, _) = greeting(addr).unwrap();
    consumers.more("one", 20);

    done(&ambassador, "pause r");
    eventually("all held", || match status(&ambassador, "r")["held"].as_u64() {
        Some(8) => Ok(()),
        held => Err(format!("{held:?}")),
    });
    let answered = consumers.answered("one");
    assert!(done(&ambassador, "status").contains("paused by hand"));
    assert!(echoes(&before), "an open session continues");
    let paused = Instant::now();
    eventually("longer than its hold", || {
        if paused.elapsed() > Duration::from_millis(1500) { Ok(()) } else { Err("not yet") }
    });
    assert_eq!(consumers.answered("one"), answered);

    done(&ambassador, "resume r");
    consumers.more("one", 20);
    assert_eq!(consumers.stop().failures, [""; 0]);
    assert_eq!(status(&ambassador, "r")["held"], 0);
}

#[test]
fn switch_applies_to_new_sessions_and_old_ones_finish_or_are_reset() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let addr = ambassador.addr("r");
    let consumers = Consumers::of(addr, 4);
    let (old, name) = greeting(addr).unwrap();
    assert_eq!(name, "one");

    let answer = json(&ambassador, &format!("switch r {two} --drain"));
    assert_eq!(answer["route"]["targets"][0], two.to_string());
    assert_eq!(greeting(addr).unwrap().1, "two");
    assert!(echoes(&old));
    let route = status(&ambassador, "r");
    assert_eq!(route["by_hand"]["instead_of"][0], one.to_string());
    assert_eq!(route["leaving"][0]["address"], one.to_string());
    let table = done(&ambassador, "status");
    assert!(table.contains(&format!("switched by hand to {two}, instead of {one}")), "{table}");
    assert_eq!(state(&table, one), "leaving", "{table}");

    let (other, name) = greeting(addr).unwrap();
    assert_eq!(name, "two");
    done(&ambassador, "switch r --reset --cut");
    assert!(!echoes(&other), "cut");
    assert!(echoes(&old), "what left before is let be");
    assert_eq!(greeting(addr).unwrap().1, "one");
    let route = status(&ambassador, "r");
    assert_eq!(route["by_hand"]["instead_of"], Value::Null);
    // Only a client that was reset before its greeting counts as failed.
    let report = consumers.stop();
    assert!(report.failures.len() <= 4, "{report:?}");
}

#[test]
fn draining_switch_fails_no_session() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let consumers = Consumers::of(ambassador.addr("r"), 8);
    for (to, name) in [(two, "two"), (one, "one"), (two, "two")] {
        done(&ambassador, &format!("switch r {to} --wait"));
        consumers.more(name, 20);
    }
    assert_eq!(consumers.stop().failures, [""; 0]);
}

#[test]
fn switch_with_wait_returns_when_old_sessions_have_ended() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let addr = ambassador.addr("r");
    let (old, _) = greeting(addr).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| done(&ambassador, &format!("switch r {two} --wait --timeout 1m")));
        eventually("switched", || match greeting(addr).unwrap().1.as_str() {
            "two" => Ok(()),
            other => Err(other.to_owned()),
        });
        assert!(!waits.is_finished());
        assert_eq!(status(&ambassador, "r")["by_hand"]["switch"]["state"], "on-trial");
        drop(old);
        assert!(waits.join().unwrap().contains("the old endpoints have no sessions"));
    });
    assert_eq!(status(&ambassador, "r")["by_hand"]["switch"]["state"], "kept");
}

#[test]
fn switch_that_times_out_is_rolled_back_without_a_waiting_client() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let addr = ambassador.addr("r");
    let (old, _) = greeting(addr).unwrap();

    let (code, why) = fails(&ambassador, &format!("switch r {two} --wait --timeout 300ms"));
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("rolled back"), "{why}");
    assert_eq!(greeting(addr).unwrap().1, "one");
    assert!(echoes(&old));
    let route = status(&ambassador, "r");
    assert_eq!(route["by_hand"]["switch"]["state"], "rolled-back");
    assert_eq!(route["by_hand"]["instead_of"], Value::Null);

    // A target without an endpoint does not settle either, regardless of sessions.
    drop(old);
    let (code, _) = fails(&ambassador, "switch r nowhere.invalid:1 --wait --timeout 300ms");
    assert_eq!(code, Some(1));
    assert_eq!(greeting(addr).unwrap().1, "one");
}

#[test]
fn old_target_serves_until_the_new_one_has_an_endpoint() {
    let one = service("one");
    let ambassador = start(one, "&hold=0");
    let addr = ambassador.addr("r");
    let consumers = Consumers::of(addr, 4);
    let (old, _) = greeting(addr).unwrap();
    done(&ambassador, "switch r nowhere.invalid:1 --cut");
    assert!(echoes(&old), "an unknown name resets no session");
    consumers.more("one", 20);
    let table = done(&ambassador, "status");
    assert!(
        table.contains("nowhere.invalid:1 has no endpoint yet; the previous endpoints remain in use"),
        "{table}"
    );

    // The old session is reset only after localhost is resolved.
    let two = service("two");
    done(&ambassador, &format!("switch r localhost:{} --cut --wait", two.port()));
    assert!(!echoes(&old));
    assert_eq!(greeting(addr).unwrap().1, "two");
    let _ = consumers.stop();
    done(&ambassador, "switch r --reset --wait");
    assert_eq!(greeting(addr).unwrap().1, "one");
    assert_eq!(status(&ambassador, "r")["by_hand"]["waiting"], false);
}

#[test]
fn override_survives_a_reload_and_ends_with_reset() {
    let (one, two, six) = (service("one"), service("two"), service("six"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    let write = |target: SocketAddr| {
        let text = format!("[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\n");
        std::fs::write(&path, text).unwrap();
    };
    write(one);
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = ambassador.addr("r");
    done(&ambassador, &format!("switch r {two}"));
    write(six);
    eventually("the file is read", || {
        let instead_of = status(&ambassador, "r")["by_hand"]["instead_of"][0].clone();
        if instead_of == six.to_string() { Ok(()) } else { Err(instead_of.to_string()) }
    });
    assert_eq!(greeting(addr).unwrap().1, "two");
    done(&ambassador, "switch r --reset");
    assert_eq!(greeting(addr).unwrap().1, "six");
}

#[test]
fn drained_endpoint_gets_no_new_session_and_keeps_old_ones() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={one},{two}?name=r")).start();
    let addr = ambassador.addr("r");
    let sessions: Vec<(TcpStream, String)> = (0..4).map(|_| greeting(addr).unwrap()).collect();
    assert_eq!(sessions.iter().filter(|(_, name)| name == "two").count(), 2);

    done(&ambassador, &format!("drain r {two}"));
    assert_eq!(state(&done(&ambassador, "status"), two), "drained");
    assert!((0..8).all(|_| greeting(addr).unwrap().1 == "one"));
    assert!(sessions.iter().all(|(stream, _)| echoes(stream)));

    done(&ambassador, &format!("drain r {two} --undo"));
    assert!((0..8).any(|_| greeting(addr).unwrap().1 == "two"));

    done(&ambassador, &format!("weight r {one} 0"));
    assert!((0..8).all(|_| greeting(addr).unwrap().1 == "two"));
    let weights = &status(&ambassador, "r")["by_hand"]["weights"];
    assert_eq!(weights[one.to_string()], 0);
    done(&ambassador, &format!("weight r {one} 7"));
    assert_eq!(status(&ambassador, "r")["endpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn routes_are_added_and_removed_by_command() {
    let ambassador = start(service("one"), "");
    let two = service("two");
    let added = json(&ambassador, &format!("routes add 127.0.0.2:0={two}?name=53/udp"));
    assert_eq!(added["route"]["origin"], "operator");
    assert_eq!(greeting(ambassador.addr("53/udp")).unwrap().1, "two");
    let list = done(&ambassador, "routes");
    assert!(list.starts_with("ROUTE   LISTEN"), "{list}");
    assert!(list.contains(&format!("{two}")) && list.contains("operator"), "{list}");
    assert_eq!(json(&ambassador, "routes")["routes"].as_array().unwrap().len(), 2);

    let addr = ambassador.addr("r");
    done(&ambassador, "routes remove r");
    eventually("refused", || if TcpStream::connect(addr).is_err() { Ok(()) } else { Err("still open") });
    let way_back = "removed by hand: r; `ambassador routes restore r` restores it";
    assert!(done(&ambassador, "status").contains(way_back), "{}", done(&ambassador, "status"));
    done(&ambassador, &format!("routes add 127.0.0.1:0={two}?name=r"));
    assert!(!done(&ambassador, "status").contains("removed by hand"), "{}", done(&ambassador, "status"));
    done(&ambassador, "routes remove r");
    done(&ambassador, "routes remove 53/udp");
    assert_eq!(json(&ambassador, "status")["routes"].as_array().unwrap().len(), 0);
}

#[test]
fn impossible_commands_return_a_help_text() {
    let taken = service("one");
    let ambassador = start(taken, "");
    for (words, code, says) in [
        ("pause pg".to_owned(), 64, "\n  r"),
        ("switch pg x:1".to_owned(), 64, "unknown route `pg`"),
        ("switch r".to_owned(), 64, "TARGET"),
        ("switch r x:1 --reset".to_owned(), 64, "--reset"),
        ("switch r x:1 --timeout 5s".to_owned(), 64, "--wait"),
        ("switch r x:1 --cut --drain".to_owned(), 64, "--drain"),
        ("switch r x:1 --wait --timeout soon".to_owned(), 64, "invalid duration"),
        ("switch r 8080".to_owned(), 64, "missing port"),
        ("drain r 10.0.0.1:1".to_owned(), 64, "127.0.0.1"),
        ("weight r 10.0.0.1:1 5".to_owned(), 64, "unknown endpoint"),
        ("weight r 10.0.0.1:1 many".to_owned(), 64, "many"),
        ("routes add 6379".to_owned(), 64, "6379=redis:6379"),
        ("routes add 1=x:1?name=r".to_owned(), 64, "has this listener or this name"),
        (format!("routes add {taken}=x:1"), 69, "another program listens there"),
        ("routes remove pg".to_owned(), 64, "unknown route"),
        ("routes ad".to_owned(), 64, "add"),
    ] {
        let (found, why) = fails(&ambassador, &words);
        assert_eq!(found, Some(code), "{words}: {why}");
        assert!(why.contains(says), "{words}: {why}");
    }
    let known = ambassador.verb("pause pg --json");
    assert_eq!(serde_json::from_slice::<Value>(&known.stdout).unwrap()["known"][0], "r");
    assert_eq!(json(&ambassador, "status")["routes"].as_array().unwrap().len(), 1, "nothing was done");
}
