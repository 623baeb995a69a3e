//! Events as 20.10 sends them (recorded, shortened) and as 29 does (without the first three fields).

use serde_json::json;

use super::*;

const ID: &str = "080ecd3b75b140e48df0d094f8de34334d2b8c2c979372dc4a00e990eaec4018";

fn id() -> ContainerId {
    ContainerId(ID.to_owned())
}

fn container(action: &str) -> Value {
    json!({ "status": action, "id": ID, "from": "redis", "Type": "container", "Action": action,
        "Actor": { "ID": ID, "Attributes": { "name": "redis", "exitCode": "137" } }, "scope": "local", "time": 1 })
}

fn network(action: &str) -> Value {
    json!({ "Type": "network", "Action": action, "scope": "local",
        "Actor": { "ID": "net", "Attributes": { "container": ID, "name": "back", "type": "bridge" } } })
}

fn check(line: &Value, expected: Option<&DockerEvent>) {
    assert_eq!(event(line).as_ref(), expected, "{line}");
}

#[test]
fn removals_are_distinguished_from_changes() {
    check(&container("die"), Some(&DockerEvent::Stopped(id())));
    check(&container("pause"), Some(&DockerEvent::Stopped(id())));
    check(&container("destroy"), Some(&DockerEvent::Destroyed(id())));
    for action in
        ["create", "start", "restart", "stop", "unpause", "rename", "something new", "health_status: sick"]
    {
        check(&container(action), Some(&DockerEvent::Changed(id())));
    }
    check(&network("connect"), Some(&DockerEvent::Changed(id())));
    check(
        &network("disconnect"),
        Some(&DockerEvent::Disconnected { container: id(), network: "net".to_owned() }),
    );
}

#[test]
fn ending_signals_are_distinguished_from_others() {
    let kill = |signal: &str| {
        json!({ "Type": "container", "Action": "kill",
            "Actor": { "ID": ID, "Attributes": { "name": "redis", "signal": signal } } })
    };
    for signal in ["15", "9", "2"] {
        check(&kill(signal), Some(&DockerEvent::Stopping(id(), Stopping::Certainly)));
    }
    for signal in ["3", "28"] {
        check(&kill(signal), Some(&DockerEvent::Stopping(id(), Stopping::Possibly)));
    }
    for signal in ["1", "10", "", "SIGTERM?"] {
        check(&kill(signal), None);
    }
}

#[test]
fn newer_and_older_formats_are_accepted() {
    let newer = json!({ "Type": "container", "Action": "die", "Actor": { "ID": ID }, "timeNano": 1 });
    check(&newer, Some(&DockerEvent::Stopped(id())));
    check(&json!({ "status": "die", "id": ID }), Some(&DockerEvent::Stopped(id())));
}

#[test]
fn events_without_a_container_are_ignored() {
    check(&json!({ "Type": "image", "Action": "pull", "Actor": { "ID": "redis" } }), None);
    check(
        &json!({ "Type": "network", "Action": "create", "Actor": { "ID": "net", "Attributes": {} } }),
        None,
    );
    check(&json!({ "Type": "container", "Action": "die", "Actor": { "ID": "../escape" } }), None);
    check(&json!({ "Type": "container", "Actor": { "ID": ID } }), None);
    check(&json!({ "Type": 7, "Action": null, "Actor": [] }), None);
    check(&json!(null), None);
    check(&json!("die"), None);
}
