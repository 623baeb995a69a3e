//! Routes with peers as they are written: `check`, the start, labels, files and commands. No tunnel is opened.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Ambassador, Engine, PeerSecret, eventually};

fn run(args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador"));
    command.args(args.split_whitespace()).env_clear().env("AMBASSADOR_ADMIN", "unix:/nonexistent/admin.sock");
    command.output().unwrap()
}

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap()
}

fn route<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["routes"].as_array().unwrap().iter().find(|route| route["name"] == name)
}

fn endpoints(ambassador: &Ambassador, name: &str) -> Vec<String> {
    let status = status(ambassador);
    let endpoints = route(&status, name).and_then(|route| route["endpoints"].as_array().cloned());
    let endpoints = endpoints.unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["description"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn check_shows_routes_with_peers_and_where_credentials_are_without_their_content() {
    let secret = PeerSecret::new();
    let routes = "peer:redis=redis:6379 6379=peer://host1/redis?identity=db 53/udp=peer://@laptop/dns";
    let flags = secret.flags("127.0.0.1:0");
    let output = run(&format!("check --json {flags} --peer-dial hub --peer-dial b:1 {routes}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("0123456789abcdef"), "{text}");
    let table = run(&format!("check {flags} --peer-dial hub {routes}")).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.contains("peers: listening on 127.0.0.1:0, dialling hub:15008, with the secret in /"),
        "{table}"
    );
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["peer_listen"], "127.0.0.1:0");
    assert_eq!(shown["peer_dial"], json!(["hub:15008", "b:1"]));
    assert!(shown["peer_secret_file"].as_str().unwrap().ends_with("/secret"));
    let lines: Vec<&str> =
        shown["routes"].as_array().unwrap().iter().map(|route| route["route"].as_str().unwrap()).collect();
    assert_eq!(
        lines,
        ["6379=peer://host1/redis?identity=db", "53/udp=peer://@laptop/dns", "peer:redis=redis:6379"]
    );
}

#[test]
fn contradictions_are_mistakes_at_check_and_at_the_start() {
    for (args, expected) in [
        (
            "peer:redis=redis:6379",
            "argument 1: `peer:redis` needs credentials for peers\n  help: set `--peer-secret-file",
        ),
        ("6379=a?backup=peer://b/c", "argument 1: `peer://b/c` needs credentials for peers"),
        ("1=a --peer-dial hub", "--peer-dial: `peer-dial` needs credentials"),
        ("1=a --peer-cert c", "--peer-cert: `peer-cert` needs `peer-ca`"),
        (
            "1=a --peer-secret-file s --peer-ca a",
            "--peer-ca: `peer-ca` cannot be combined with `peer-secret-file`",
        ),
        ("peer:a=b:1?peers=c --peer-secret-file s", "`peers` of `peer:a` cannot be checked"),
        (
            "peer:a=b:1 --peer-secret-file s --peer-listen off",
            "no peer can use `peer:a`: `peer-listen` is off",
        ),
        ("peer:a=b --peer-secret-file s", "missing port in `b`"),
        ("1=a --peer-listen host1", "--peer-listen: invalid address to listen for peers on `host1`"),
    ] {
        for verb in ["check ", ""] {
            let output = run(&format!("{verb}{args}"));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{verb}{args}: {stderr}");
            assert!(stderr.contains(expected) && stderr.contains("help: "), "{verb}{args}: {stderr}");
        }
    }
}

#[test]
fn peers_of_files_and_commands_are_endpoints() {
    let secret = PeerSecret::new();
    let list = secret.dir().join("redis.endpoints");
    std::fs::write(&list, "peer://127.0.0.2:1/redis\npeer://@laptop/redis\n").unwrap();
    let args = format!(
        "{} peer:redis=127.0.0.1:1?name=offered 127.0.0.1:0=file:{}?name=r&identity=db \
         127.0.0.1:0/udp=peer://@laptop/redis?name=reverse",
        secret.flags("127.0.0.1:0"),
        list.display()
    );
    let ambassador = Ambassador::with(&args).start();
    assert_eq!(endpoints(&ambassador, "offered"), ["127.0.0.1:1"]);
    assert_eq!(endpoints(&ambassador, "r"), [format!("peer://127.0.0.2:1/redis (file:{})", list.display())]);
    let now = status(&ambassador);
    assert_eq!(route(&now, "offered").unwrap()["listen"], "peer:redis");
    assert_eq!(
        route(&now, "reverse").unwrap()["problems"],
        json!(["peer://@laptop/redis: no peer is connected under this identity"])
    );

    let said = ambassador.verb("switch r peer://127.0.0.3/redis");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    eventually("the peer of the switch", || match endpoints(&ambassador, "r") {
        found if found == ["peer://127.0.0.3:15008/redis"] => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let said = ambassador.verb("drain r peer://127.0.0.3:15008/redis");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = ambassador.verb("routes add peer:redis=127.0.0.1:2?name=second");
    assert!(String::from_utf8_lossy(&said.stderr).contains("already has this listener"), "{said:?}");
    assert!(ambassador.verb("routes add peer:pg=127.0.0.1:2").status.success());
    assert!(ambassador.verb("routes remove peer:pg").status.success());
}

#[test]
fn commands_cannot_add_peers_without_credentials() {
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1?name=r").start();
    for verb in ["routes add peer:a=b:1", "routes add 127.0.0.1:0=peer://b/c", "switch r peer://127.0.0.1/c"]
    {
        let said = ambassador.verb(verb);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && stderr.contains("needs credentials for peers"), "{verb}: {stderr}");
    }
    assert_eq!(status(&ambassador)["routes"].as_array().unwrap().len(), 1);
}

#[test]
fn label_offers_an_export_that_no_other_container_can_take() {
    let (engine, secret) = (Engine::new(), PeerSecret::new());
    let (image, other) = (engine.image(&[]), engine.image(&[]));
    let label = "ambassador.listen.peer:redis";
    engine.run("web", &image, &[(label, "6379?hold=5s")]);
    let start = |flags: &str| {
        let args = format!("--docker {flags}");
        Ambassador::with(&args).var("DOCKER_HOST", &engine.docker_host()).start()
    };
    let has_mistake = |ambassador: &Ambassador, words: [&str; 2]| {
        eventually("a mistake", || {
            let mistakes = status(ambassador)["mistakes"].to_string();
            if words.iter().all(|word| mistakes.contains(word)) { Ok(()) } else { Err(mistakes) }
        });
    };
    let without = start("");
    has_mistake(&without, ["container web", "`peer:redis` needs credentials for peers"]);
    assert_eq!(status(&without)["routes"], json!([]));

    let with = start(&secret.flags("127.0.0.1:0"));
    eventually("the export", || match endpoints(&with, "peer:redis") {
        found if found.len() == 1 => Ok(()),
        found => Err(format!("{found:?}\n{}", with.log())),
    });
    engine.run("aaa", &other, &[(label, "80?hold=5s"), ("ambassador.listen.peer:pg", "80?peers=web")]);
    has_mistake(&with, ["container aaa", "not a replica"]);
    has_mistake(&with, ["container aaa", "self-asserted"]);
    assert!(endpoints(&with, "peer:redis")[0].contains("container web"));
}
