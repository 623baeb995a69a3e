//! What commands will do: dry runs change nothing, effects are true, and each undo brings back what was before.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::http::{Reply, get, post, request};
use super::service::{echoes, greeting, service};
use super::{done, fails, start, status};
use crate::support::{Ambassador, eventually};

/// Sends a request as `undo` has it.
fn send(ambassador: &Ambassador, change: &Value) -> Reply {
    let path = change["path"].as_str().unwrap();
    match change["method"].as_str() {
        Some("POST") => post(&ambassador.admin(), path, &change["body"].to_string()),
        method => request(&ambassador.admin(), &format!("{} {path}", method.unwrap()), "", ""),
    }
}

fn change(path: &str, body: Value) -> Value {
    let mut change = json!({ "method": "POST", "path": path });
    change["body"] = body;
    change
}

fn removal(name: &str) -> Value {
    json!({ "method": "DELETE", "path": format!("/routes/{name}"), "body": null })
}

/// The same request as a dry run.
fn tried(change: &Value) -> Value {
    let mut tried = change.clone();
    if tried["method"] == "DELETE" {
        tried["path"] = format!("{}?dry_run=true", change["path"].as_str().unwrap()).into();
    } else {
        tried["body"]["dry_run"] = true.into();
    }
    tried
}

/// The status without what changes by itself.
fn stable(ambassador: &Ambassador) -> Value {
    let mut status = get(&ambassador.admin(), "/status").json();
    remove_ages(&mut status);
    status
}

fn remove_ages(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !key.ends_with("_ms_ago"));
            fields.values_mut().for_each(remove_ages);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_ages),
        _ => {}
    }
}

/// What an operator can change: the routes with their endpoints and manual changes, except the number of the last switch.
fn steered(ambassador: &Ambassador) -> Value {
    let routes = stable(ambassador)["routes"].clone();
    let fields = ["name", "listen", "targets", "origin", "state", "by_hand"];
    let steered = |route: &Value| {
        let mut kept = json!({});
        fields.iter().for_each(|field| kept[*field] = route[*field].clone());
        kept["by_hand"]["switch"] = Value::Null;
        let endpoints = route["endpoints"].as_array().unwrap().iter();
        kept["endpoints"] = endpoints
            .map(|endpoint| json!([endpoint["address"], endpoint["weight"], endpoint["drained"]]))
            .collect();
        kept
    };
    let removed = get(&ambassador.admin(), "/config").json()["removed_by_hand"].clone();
    json!([routes.as_array().unwrap().iter().map(steered).collect::<Vec<_>>(), removed])
}

fn effects(reply: &Value) -> Vec<String> {
    reply["effects"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

struct World {
    ambassador: Ambassador,
    endpoints: [SocketAddr; 2],
    other: SocketAddr,
}

fn world() -> World {
    let (endpoints, other) = ([service("one"), service("two")], service("six"));
    let [one, two] = endpoints;
    World {
        ambassador: Ambassador::with(&format!("127.0.0.1:0={one},{two}?name=r")).start(),
        endpoints,
        other,
    }
}

impl World {
    /// Each verb, in an order in which each changes something.
    fn changes(&self) -> Vec<Value> {
        let World { endpoints: [one, two], other, .. } = self;
        let (one, two) = (one.to_string(), two.to_string());
        vec![
            change("/routes/r/pause", json!({})),
            change("/routes/r/weight", json!({ "endpoint": one, "weight": 3 })),
            change("/routes/r/weight", json!({ "endpoint": one, "weight": 0 })),
            change("/routes/r/drain", json!({ "endpoint": two })),
            change("/routes/r/switch", json!({ "targets": other.to_string() })),
            change("/routes/r/switch", json!({ "targets": format!("{one},{other}"), "old": "cut" })),
            change("/routes/r/weight", json!({ "endpoint": one, "reset": true })),
            change("/routes/r/switch", json!({ "reset": true })),
            change("/routes/r/drain", json!({ "endpoint": two, "undo": true })),
            change("/routes", json!({ "route": format!("127.0.0.2:0={other}?name=53/udp") })),
            change("/routes/53/udp/pause", json!({})),
            change("/routes/53/udp/resume", json!({})),
            removal("53/udp"),
            removal("r"),
            change("/routes/r/restore", json!({})),
            change("/routes/r/resume", json!({})),
        ]
    }
}

#[test]
fn dry_run_of_each_command_changes_nothing_and_says_what_the_command_then_says() {
    let world = world();
    let ambassador = &world.ambassador;
    for change in world.changes() {
        let before = stable(ambassador);
        let seq = get(&ambassador.admin(), "/events?since=0&follow=false").body;
        let dry = send(ambassador, &tried(&change));
        assert_eq!(dry.status, 200, "{change}: {}", dry.body);
        assert_eq!(stable(ambassador), before, "{change}");
        assert_eq!(get(&ambassador.admin(), "/events?since=0&follow=false").body, seq, "{change}");
        let (dry, wet) = (dry.json(), send(ambassador, &change).json());
        assert_eq!((&dry["dry_run"], &wet["dry_run"]), (&true.into(), &false.into()));
        assert_eq!(dry["effects"], wet["effects"], "{change}");
        assert_eq!(dry["undo"], wet["undo"], "{change}");
        assert_ne!(effects(&wet), ["nothing changes"], "{change}");
        assert_ne!(stable(ambassador), before, "{change}");
    }
}

#[test]
fn undo_of_each_command_brings_back_what_was_before() {
    let world = world();
    let ambassador = &world.ambassador;
    for change in world.changes() {
        let before = steered(ambassador);
        let undo = send(ambassador, &change).json()["undo"].clone();
        let undone = send(ambassador, &undo);
        assert_eq!(undone.status, 200, "{change}: {undo}: {}", undone.body);
        assert_eq!(steered(ambassador), before, "{change}: {undo}");
        let again = send(ambassador, &undone.json()["undo"]);
        assert_eq!(again.status, 200, "{change}: {}", again.body);
    }
}

#[test]
fn command_that_changes_nothing_has_no_undo() {
    let ambassador = start(service("one"), "");
    for change in
        [change("/routes/r/resume", json!({})), change("/routes/r/switch", json!({ "reset": true }))]
    {
        let reply = send(&ambassador, &change).json();
        assert_eq!((effects(&reply), &reply["undo"]), (vec!["nothing changes".to_owned()], &Value::Null));
    }
}

#[test]
fn effects_count_the_sessions() {
    let world = world();
    let World { ambassador, endpoints: [one, two], other } = &world;
    let addr = ambassador.addr("r");
    let sessions: Vec<TcpStream> = (0..4).map(|_| greeting(addr).unwrap().0).collect();
    let removed = tried(&removal("r"));
    let tried = |path: &str, body: Value| effects(&send(ambassador, &tried(&change(path, body))).json());

    assert_eq!(tried("/routes/r/pause", json!({}))[0], "4 open sessions continue");
    assert_eq!(
        tried("/routes/r/drain", json!({ "endpoint": two.to_string() })),
        [
            format!("{two} takes no new sessions"),
            format!("2 open sessions on {two} continue"),
            format!("new sessions use {one}"),
        ]
    );
    let body = json!({ "targets": format!("{one},{other}"), "old": "cut", "timeout": "30s" });
    let effects_of_switch = tried("/routes/r/switch", body.clone());
    assert!(
        effects_of_switch.contains(&format!("2 open sessions on {two} are reset")),
        "{effects_of_switch:?}"
    );
    assert!(effects_of_switch.iter().any(|text| text.contains("if after 30s")), "{effects_of_switch:?}");
    let reply = send(ambassador, &change("/routes/r/switch", body)).json();
    assert_eq!(effects(&reply), effects_of_switch);
    eventually("the sessions on the second endpoint are reset", || {
        match sessions.iter().filter(|stream| echoes(stream)).count() {
            2 => Ok(()),
            open => Err(open.to_string()),
        }
    });
    assert!(tried("/routes/r/pause", json!({}))[0].starts_with("2 open"));
    assert_eq!(effects(&send(ambassador, &removed).json())[1], "2 open sessions continue");
}

#[test]
fn held_sessions_are_counted_and_connected_first() {
    let ambassador = start(service("one"), "");
    let addr = ambassador.addr("r");
    done(&ambassador, "pause r");
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
    eventually("held", || match status(&ambassador, "r")["held"].as_u64() {
        Some(3) => Ok(()),
        held => Err(format!("{held:?}")),
    });
    let resumed = effects(&send(&ambassador, &change("/routes/r/resume", json!({}))).json());
    assert_eq!(resumed[0], "3 held sessions are connected first");
    assert!(clients.iter().all(echoes));
}

#[test]
fn added_route_names_its_listener_and_the_names_that_are_looked_up() {
    let ambassador = start(service("one"), "");
    let line = "127.0.0.2:0=nowhere.invalid:1?name=new&hold=0s";
    let tried = effects(&send(&ambassador, &tried(&change("/routes", json!({ "route": line })))).json());
    assert_eq!(
        tried,
        [
            "the listener 127.0.0.2:0 opens on a free port",
            "the endpoints of nowhere.invalid:1 are looked up first",
            "no endpoint takes sessions: new sessions are reset (no-endpoint)",
        ]
    );
}

#[test]
fn removed_route_is_restored_as_its_source_has_it() {
    let world = world();
    let World { ambassador, endpoints: [one, _], other } = &world;
    done(ambassador, &format!("switch r {other}"));
    done(ambassador, "routes remove r");
    assert!(done(ambassador, "routes restore r").contains("is restored"));
    let route = status(ambassador, "r");
    assert_eq!(route["origin"], "argument 1");
    assert_eq!(route["by_hand"]["instead_of"][0], one.to_string());
    assert_eq!(greeting(ambassador.addr("r")).unwrap().1, "six");
    let (code, why) = fails(ambassador, "routes restore r");
    assert!(code == Some(64) && why.contains("unknown removed route `r`"), "{code:?} {why}");

    done(ambassador, "routes remove r");
    done(ambassador, &format!("routes add 127.0.0.2:0={other}?name=r"));
    let (code, why) = fails(ambassador, "routes restore r");
    assert!(code == Some(64) && why.contains("remove it first"), "{code:?} {why}");
}

#[test]
fn mistakes_of_the_grammar_have_diagnostics() {
    let ambassador = start(service("one"), "");
    let admin = ambassador.admin();
    for (path, body, message) in [
        (
            "/routes",
            json!({ "route": "6379=redis:6379?holdd=5s", "dry_run": true }),
            "unknown option `holdd`",
        ),
        ("/routes", json!({ "route": "6379" }), "6379"),
        ("/routes/r/switch", json!({ "targets": "8080", "dry_run": true }), "8080"),
        ("/routes/r/switch", json!({ "targets": "a:1", "timeout": "30" }), "30"),
    ] {
        let reply = post(&admin, path, &body.to_string());
        assert_eq!(reply.status, 400, "{body}");
        let mistake = reply.json()["diagnostics"][0].clone();
        assert!(mistake["message"].as_str().unwrap().contains(message), "{mistake}");
        assert!(mistake["help"].is_string(), "{mistake}");
        assert!(reply.json()["error"].is_string());
    }
    assert_eq!(post(&admin, "/routes/x/pause", "{\"dry_run\":true}").status, 404);
    let taken = json!({ "route": "127.0.0.1:0=a:1?name=r", "dry_run": true });
    assert_eq!(post(&admin, "/routes", &taken.to_string()).status, 409);
}

#[test]
fn command_line_prints_the_effects_of_a_dry_run() {
    let world = world();
    let World { ambassador, endpoints: [one, _], other } = &world;
    let before = stable(ambassador);
    for (words, says) in [
        ("pause r".to_owned(), "new sessions are held until"),
        (format!("switch r {other} --wait --timeout 5s"), "each new endpoint must accept a connection first"),
        (format!("weight r {one} 3"), "takes about 75 % of the new sessions instead of about 50 %"),
        (format!("drain r {one} --wait"), "takes no new sessions"),
        (format!("routes add 127.0.0.2:0={other}"), "the listener 127.0.0.2:0 opens on a free port"),
        ("routes remove r".to_owned(), "until it is restored"),
    ] {
        let text = done(ambassador, &format!("{words} --dry-run"));
        assert!(text.contains(says) && text.ends_with("dry run: nothing was changed\n"), "{words}: {text}");
        assert_eq!(stable(ambassador), before, "{words}");
        let json = super::json(ambassador, &format!("{words} --dry-run"));
        assert!(effects(&json).iter().any(|effect| effect.contains(says)), "{json}");
    }
}
