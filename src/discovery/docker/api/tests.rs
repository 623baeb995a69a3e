//! Answers as engines give them: 20.10's recorded (and shortened), 29's made up from its API's documentation, since no
//! such engine was at hand, with things in them that no engine says yet.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::cluster::condition::ContainerHealth;

const ID: &str = "080ecd3b75b140e48df0d094f8de34334d2b8c2c979372dc4a00e990eaec4018";
const IMAGE: &str = "sha256:7614ae9453d1d87e740a2056257a6de7135c84037c367e1fffa92ae922784631";
const NETWORK: &str = "0ab38a31f0d2c87d31d33d692bcb5751a2d6f52c32cd17e20cd8b14da1faa557";

fn v1_41() -> Value {
    json!({
        "Id": ID, "Name": "/redis", "Driver": "overlay2", "ExecIDs": null, "Created": "2026-11-20T04:58:42.5Z",
        "Image": IMAGE,
        "State": { "Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
            "Dead": false, "Pid": 26428, "ExitCode": 0, "Error": "", "StartedAt": "2026-11-20T04:58:43.01502Z" },
        "HostConfig": { "Binds": null, "NetworkMode": "back", "Links": ["/db:/redis/pg", "/db:/redis/db"],
            "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "80" }] },
            "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "Isolation": "" },
        "Mounts": [],
        "Config": { "Hostname": "080ecd3b75b1", "Env": null,
            "ExposedPorts": { "53/udp": {}, "6379/tcp": {}, "132/sctp": {} },
            "Labels": { "ambassador.listen.6379": "6379" } },
        "NetworkSettings": { "Bridge": "", "IPAddress": "", "GlobalIPv6Address": "",
            "Ports": { "53/udp": null, "6379/tcp": null, "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "80" }] },
            "Networks": { "back": { "IPAMConfig": null, "Links": ["cache:c", "/db:/redis/db"], "Aliases": ["080ecd3b75b1"],
                "NetworkID": NETWORK, "Gateway": "10.5.0.1", "IPAddress": "10.5.0.2", "IPPrefixLen": 24,
                "GlobalIPv6Address": "fd00:1::2", "GlobalIPv6PrefixLen": 64, "DriverOpts": null } } }
    })
}

/// 29 leaves out the fields of the default network, `Links` and whatever is empty.
fn v29() -> Value {
    json!({
        "Id": ID, "Name": "/redis", "ImageManifestDescriptor": { "platform": { "os": "plan9" } },
        "State": { "Status": "hibernating", "Running": true, "Health": { "Status": "poorly" } },
        "HostConfig": { "NetworkMode": "back", "RestartPolicy": { "Name": "on-full-moon" }, "CgroupnsMode": "mine",
            "PortBindings": {} },
        "Mounts": [{ "Type": "hologram" }],
        "Config": { "ExposedPorts": { "6379/tcp": {} }, "Labels": { "a": "b" } },
        "NetworkSettings": { "SandboxID": "x", "Ports": {},
            "Networks": { "back": { "NetworkID": NETWORK, "GwPriority": 0, "DNSNames": ["redis"],
                "IPAddress": "10.5.0.2", "GlobalIPv6Address": "", "MacAddress": "02:42:0a:05:00:02" } } }
    })
}

#[test]
fn inspection_of_20_10_is_accepted() {
    let (id, container) = inspected(&v1_41()).unwrap();
    assert_eq!(id.0, ID);
    let link = |target: &str, alias: &str| Link { target: target.to_owned(), alias: alias.to_owned() };
    let attachment = Attachment {
        name: "back".to_owned(),
        ipv4: Some("10.5.0.2".parse().unwrap()),
        ipv6: Some("fd00:1::2".parse().unwrap()),
    };
    assert_eq!(
        container,
        Container {
            name: "redis".to_owned(),
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_150_722_500)),
            image: Image { id: IMAGE.to_owned(), is_known: false },
            inherited: BTreeMap::new(),
            running: true,
            paused: false,
            stopping: Stopping::No,
            labels: BTreeMap::from([("ambassador.listen.6379".to_owned(), "6379".to_owned())]),
            health: ContainerHealth::Unchecked,
            network_mode: NetworkMode::Networks,
            networks: BTreeMap::from([(NETWORK.to_owned(), attachment)]),
            exposed: vec![(53, Protocol::Udp), (80, Protocol::Tcp), (6379, Protocol::Tcp)],
            published: vec![published_at("127.0.0.1", 80)],
            links: vec![link("cache", "c"), link("db", "db"), link("db", "pg")],
        }
    );
}

fn published_at(host_ip: &str, host_port: u16) -> Published {
    Published { port: 80, protocol: Protocol::Tcp, host_ip: host_ip.parse().unwrap(), host_port }
}

#[test]
fn published_ports_are_accepted() {
    let bindings = json!({ "80/tcp": [
        { "HostIp": "0.0.0.0", "HostPort": "49153" }, { "HostIp": "::", "HostPort": "49154" },
        { "HostIp": "", "HostPort": "81" }, { "HostPort": "82" }, { "HostIp": "0.0.0.0", "HostPort": "49153" },
        { "HostIp": "x", "HostPort": "1" }, { "HostIp": "::1", "HostPort": "0" }, { "HostIp": "::1", "HostPort": "99999" },
        null, 7, {}
    ], "81/tcp": null, "82/sctp": [{ "HostIp": "::", "HostPort": "1" }], "nonsense": [] });
    let answer = json!({ "Id": ID, "NetworkSettings": { "Ports": bindings } });
    let expected = [("0.0.0.0", 81), ("0.0.0.0", 82), ("0.0.0.0", 49153), ("::", 49154)];
    assert_eq!(inspected(&answer).unwrap().1.published, expected.map(|(ip, port)| published_at(ip, port)));
}

#[test]
fn inspection_of_29_with_unknown_values_is_accepted() {
    let (_, container) = inspected(&v29()).unwrap();
    assert!(container.running);
    assert_eq!(container.exposed, [(6379, Protocol::Tcp)]);
    assert_eq!(container.networks[NETWORK].ipv4, Some("10.5.0.2".parse().unwrap()));
    assert_eq!(container.networks[NETWORK].ipv6, None);
    assert_eq!(container.links, []);
}

#[test]
fn only_the_id_is_required() {
    let (_, container) = inspected(&json!({ "Id": ID })).unwrap();
    assert!(!container.running);
    assert_eq!(inspected(&json!({})), None);
    assert_eq!(inspected(&json!({ "Id": "../../etc" })), None);
    assert_eq!(inspected(&json!({ "Id": null })), None);
    assert_eq!(inspected(&json!([])), None);
}

#[test]
fn nulls_and_other_types_are_absent() {
    for (pointer, instead) in [
        ("/State", json!(null)),
        ("/State", json!("running")),
        ("/Config", json!(null)),
        ("/Config/Labels", json!(null)),
        ("/Config/Labels", json!({ "a": 7, "b": null })),
        ("/Config/ExposedPorts", json!(["80/tcp"])),
        (
            "/Config/ExposedPorts",
            json!({ "": {}, "/": {}, "0/tcp": {}, "99999/tcp": {}, "80/": {}, "x/udp": {} }),
        ),
        ("/HostConfig", json!(null)),
        ("/HostConfig/Links", json!(null)),
        ("/HostConfig/Links", json!([7, "", ":", "/a", "a:", ":/b/"])),
        ("/NetworkSettings", json!(null)),
        ("/NetworkSettings/Networks", json!(null)),
        (
            "/NetworkSettings/Networks",
            json!({ "back": null, "": {}, "x": { "IPAddress": 7, "NetworkID": null } }),
        ),
        (
            "/NetworkSettings/Networks",
            json!({ "x": { "IPAddress": "0.0.0.0", "GlobalIPv6Address": "not one" } }),
        ),
        ("/Name", json!(7)),
    ] {
        let mut answer = v1_41();
        *answer.pointer_mut(pointer).unwrap() = instead;
        let (id, container) = inspected(&answer).unwrap();
        assert_eq!(id.0, ID, "{pointer}");
        assert!(
            container.links.iter().all(|link| !link.target.is_empty() && !link.alias.is_empty()),
            "{pointer}"
        );
        assert!(!container.exposed.iter().any(|(port, _)| *port == 0), "{pointer}");
    }
}

#[test]
fn restarting_or_paused_container_is_not_running() {
    for flag in ["Paused", "Restarting", "Dead"] {
        let mut answer = v1_41();
        answer["State"][flag] = json!(true);
        assert!(!inspected(&answer).unwrap().1.running, "{flag}");
    }
}

#[test]
fn network_modes_are_recognized() {
    for (text, expected) in [
        ("default", NetworkMode::Networks),
        ("bridge", NetworkMode::Networks),
        ("my-net", NetworkMode::Networks),
        ("", NetworkMode::Networks),
        ("host", NetworkMode::Host),
        ("none", NetworkMode::None),
        ("container:vpn", NetworkMode::Container("vpn".to_owned())),
    ] {
        assert_eq!(network_mode(text), expected, "{text}");
    }
}

/// Recorded from 20.10: `db` is linked to as `pg` by `web`.
fn list_line() -> Value {
    json!({
        "Id": ID, "Names": ["/redis", "/web/pg"], "Image": "redis", "Created": 1_795_150_723, "State": "running",
        "Ports": [{ "PrivatePort": 6379, "Type": "tcp" }], "Labels": {}, "Status": "Up Less than a second",
        "HostConfig": { "NetworkMode": "default" }, "Mounts": [],
        "NetworkSettings": { "Networks": { "back": { "NetworkID": NETWORK, "IPAddress": "10.5.0.2",
            "GlobalIPv6Address": "fd00:1::2" } } }
    })
}

fn agrees(line: &Value) -> bool {
    let known = inspected(&v1_41()).unwrap().1;
    listed(&json!([line])).unwrap()[0].agrees(&known)
}

#[test]
fn summary_agrees_with_the_known_container_or_does_not() {
    assert!(agrees(&list_line()));
    for (pointer, instead) in [
        ("/Names", json!(["/other", "/web/redis"])),
        ("/State", json!("exited")),
        ("/State", json!("paused")),
        ("/NetworkSettings/Networks", json!({})),
        ("/NetworkSettings/Networks/back/IPAddress", json!("10.5.0.3")),
    ] {
        let mut line = list_line();
        *line.pointer_mut(pointer).unwrap() = instead;
        assert!(!agrees(&line), "{pointer}");
    }
}

#[test]
fn invalid_list_is_not_an_empty_list() {
    assert_eq!(listed(&json!([])), Some(Vec::new()));
    assert_eq!(listed(&json!([null, {}, { "Id": "short" }])), Some(Vec::new()));
    assert_eq!(listed(&json!({ "message": "no" })), None);
}

proptest::proptest! {
    /// Any part of an answer may be anything.
    #[test]
    fn any_response_is_accepted(
        at in 0usize..60,
        instead in "null|0|-1|1e300|true|\"[/:a-f0-9]{0,70}\"|\\[[0-9,]{0,3}\\]|\\{\\}",
    ) {
        let Ok(instead) = serde_json::from_str::<Value>(&instead) else { return Ok(()) };
        let mut answer = v1_41();
        let mut pointers = Vec::new();
        collect(&answer, String::new(), &mut pointers);
        *answer.pointer_mut(&pointers[at % pointers.len()]).unwrap() = instead;
        let (read, event) = (inspected(&answer), crate::discovery::docker::event::event(&answer));
        assert!(read.is_some() || answer["Id"] != ID);
        assert_eq!(event, None);
        assert!(listed(&json!([answer])).is_some());
    }
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        collect(inner, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), pointers);
    }
    pointers.push(at);
}

#[test]
fn health_is_read_from_list_and_inspection() {
    for (status, in_list, health) in [
        ("starting", "Up 2 seconds (health: starting)", ContainerHealth::Starting),
        ("healthy", "Up 5 minutes (healthy)", ContainerHealth::Healthy),
        ("unhealthy", "Up 5 minutes (unhealthy)", ContainerHealth::Unhealthy),
        ("none", "Up 5 minutes", ContainerHealth::Unchecked),
        ("poorly", "Up 5 minutes (poorly)", ContainerHealth::Unchecked),
    ] {
        let mut answer = v1_41();
        answer["State"]["Health"] = json!({ "Status": status, "FailingStreak": 0, "Log": [] });
        let (_, known) = inspected(&answer).unwrap();
        assert_eq!(known.health, health, "{status}");
        let networks = answer["NetworkSettings"]["Networks"].clone();
        let mut line = json!({ "Id": ID, "Names": ["/redis"], "State": "running", "Status": in_list,
            "NetworkSettings": { "Networks": networks } });
        let listed = |line: &Value| summary(line).unwrap();
        assert!(listed(&line).agrees(&known), "{in_list}");
        line["Status"] = json!("Up 5 minutes (unhealthy)");
        assert_eq!(listed(&line).agrees(&known), health == ContainerHealth::Unhealthy, "{status}");
        // Some engines do not report the health in the list.
        line["Status"] = json!("Up 5 minutes");
        assert!(listed(&line).agrees(&known));
    }
}
