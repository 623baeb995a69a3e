//! Containers whose labels request more than their own ports.

#[path = "labels/links.rs"]
mod links;
#[path = "labels/report.rs"]
mod report;

use std::io::Read;
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Ambassador, Engine, Service, ask, eventually, private_ip};

/// Starts an ambassador with routes from arguments and from labels of this engine's containers.
fn ambassador(engine: &Engine, args: &str) -> Ambassador {
    Ambassador::with(&format!("--docker {args}")).var("DOCKER_HOST", &engine.docker_host()).start()
}

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap()
}

/// Waits until `status` shows a problem with this text.
fn await_problem(ambassador: &Ambassador, words: &[&str]) {
    eventually("a mistake", || {
        let status = status(ambassador);
        let mistakes = status["mistakes"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        match mistakes.clone().any(|text| words.iter().all(|word| text.contains(word))) {
            true => Ok(()),
            false => Err(format!("{words:?} are not in {:?}", mistakes.collect::<Vec<_>>())),
        }
    });
}

/// Returns the IDs of the containers behind a route; `None` without such a route.
fn endpoints(ambassador: &Ambassador, route: &str) -> Option<Vec<String>> {
    let status = status(ambassador);
    let route = status["routes"].as_array().unwrap().iter().find(|found| found["name"] == route)?;
    let endpoints = route["endpoints"].as_array().unwrap().iter();
    let shown = endpoints.map(|endpoint| endpoint["description"].as_str().unwrap());
    let mut ids: Vec<String> = shown
        .map(|text| text.trim_end_matches(')').rsplit(' ').next().unwrap_or_default().to_owned())
        .collect();
    ids.sort();
    Some(ids)
}

fn has_endpoints(ambassador: &Ambassador, route: &str, ids: &[&str]) {
    let expected: Vec<String> = ids.iter().map(|id| id[..12].to_owned()).collect();
    eventually("these endpoints", || match endpoints(ambassador, route) {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("{found:?}, not {expected:?}\n{}", ambassador.log())),
    });
}

fn port(service: &Service) -> &str {
    service.addr.rsplit(':').next().unwrap()
}

/// Returns `ambassador.listen.IP:PORT` for an address that no other test uses, and `IP:PORT`.
fn listener() -> (String, String) {
    let listen = format!("{}:7000", private_ip());
    (format!("ambassador.listen.{listen}"), listen)
}

fn label_key(listen: &str) -> String {
    ask(listen.parse().unwrap())
}

#[test]
fn label_can_only_target_its_own_container() {
    let (engine, secret) = (Engine::new(), Service::new("key"));
    let image = engine.image(&[]);
    for (n, backup) in [secret.addr.as_str(), "unix:/var/run/docker.sock", "etcd://x/p", "consul://x/y"]
        .into_iter()
        .enumerate()
    {
        let (label, _) = listener();
        engine.run(&format!("evil-{n}"), &image, &[(&label, &format!("1?backup={backup}&hold=1s"))]);
    }
    let ambassador = ambassador(&engine, "");
    await_problem(&ambassador, &["container evil-0", "`backup`", "label", "docker://"]);
    await_problem(&ambassador, &["container evil-3", "`backup`"]);
    assert_eq!(status(&ambassador)["routes"], Value::Array(Vec::new()), "no half of a label is used");
}

#[test]
fn label_cannot_open_a_unix_listener() {
    let (engine, dir) = (Engine::new(), tempfile::tempdir().unwrap());
    let image = engine.image(&[]);
    let path = dir.path().join("x.sock");
    engine.run("evil", &image, &[(&format!("ambassador.listen.{}", path.display()), "80")]);
    let ambassador = ambassador(&engine, "");
    await_problem(&ambassador, &["container evil", "unix socket"]);
    assert!(!path.exists());
}

#[test]
fn container_keeps_its_listener_and_name_regardless_of_order() {
    let (engine, web, evil) = (Engine::new(), Service::new("web"), Service::new("bad"));
    let (image, other) = (engine.image(&[]), engine.image(&[]));
    let (label, listen) = listener();
    let id = engine.run("web", &image, &[(&label, port(&web))]);
    let ambassador = ambassador(&engine, "");
    has_endpoints(&ambassador, &listen, &[&id]);

    engine.run("aaa", &other, &[(&label, port(&evil))]);
    let (elsewhere, _) = listener();
    engine.run("aab", &other, &[(&elsewhere, &format!("{}?name={listen}", port(&evil)))]);
    await_problem(&ambassador, &["container aaa", &listen, "web"]);
    await_problem(&ambassador, &["container aab", &listen, "web"]);
    has_endpoints(&ambassador, &listen, &[&id]);
    assert_eq!(label_key(&listen), "web");

    // Its listener waits for a successor, not for a container that was rejected before.
    engine.remove("web");
    has_endpoints(&ambassador, &listen, &[]);
    let next = engine.run("web", &other, &[(&label, port(&web))]);
    has_endpoints(&ambassador, &listen, &[&next]);
    assert_eq!(label_key(&listen), "web");
}

#[test]
fn only_replicas_share_a_listener_unless_configured() {
    let (engine, web) = (Engine::new(), Service::new("web"));
    let (image, other) = (engine.image(&[]), engine.image(&[]));
    let ((alike, of_image), (service, of_service)) = (listener(), listener());
    let project = ("com.docker.compose.project", "p");
    let of = |name| [(service.as_str(), port(&web)), project, ("com.docker.compose.service", name)];
    let ids = [
        engine.run("one", &image, &[(&alike, port(&web))]),
        engine.run("two", &image, &[(&alike, port(&web))]),
        engine.run("three", &other, &[(&alike, port(&web))]),
        engine.run("p-web-1", &image, &of("web")),
        engine.run("p-web-2", &other, &of("web")),
        engine.run("p-db-1", &image, &of("db")),
    ];
    let strict = ambassador(&engine, "");
    has_endpoints(&strict, &of_image, &[&ids[0], &ids[1]]);
    has_endpoints(&strict, &of_service, &[&ids[3], &ids[4]]);
    await_problem(&strict, &["container three", "--share-labels"]);
    await_problem(&strict, &["container p-db-1", "--share-labels"]);
    drop(strict);
    let sharing = ambassador(&engine, "--share-labels");
    has_endpoints(&sharing, &of_image, &[&ids[0], &ids[1], &ids[2]]);
    has_endpoints(&sharing, &of_service, &[&ids[3], &ids[4], &ids[5]]);
}

#[test]
fn image_labels_are_ignored() {
    let (engine, db) = (Engine::new(), Service::new("db!"));
    let (label, listen) = listener();
    let compose = [("com.docker.compose.project", "p"), ("com.docker.compose.service", "db")];
    let role = [("role", "db")];
    // `docker compose build` adds the labels of a service to its images.
    let built = engine.image(&compose);
    let real = engine.run("p-db-1", &built, &[("com.docker.compose.container-number", "1"), role[0]]);
    let evil = engine.image(&[compose[0], compose[1], role[0], (&label, port(&db))]);
    engine.run("evil", &evil, &[]);
    let (by_service, by_label) = (private_ip(), private_ip());
    let routes = format!(
        "{by_service}:0=docker://db:{0}?name=service {by_label}:0=docker://label:role=db:{0}?name=label",
        port(&db)
    );
    let ambassador = ambassador(&engine, &routes);
    has_endpoints(&ambassador, "service", &[&real]);
    has_endpoints(&ambassador, "label", &[&real]);
    await_problem(&ambassador, &["container evil", "image", "--label"]);
    assert_eq!(endpoints(&ambassador, &listen), None);
}

#[test]
fn removal_grace_of_a_label_is_capped() {
    let engine = Engine::new();
    let (label, listen) = listener();
    engine.run("evil", &engine.image(&[]), &[(&label, "80?hold=365days")]);
    let ambassador = ambassador(&engine, "");
    await_problem(&ambassador, &["container evil", "`hold=365days`", "1m"]);
    assert_eq!(endpoints(&ambassador, &listen), None);
}

#[test]
fn untrusted_text_is_escaped_in_output() {
    let engine = Engine::new();
    let forged =
        "ambassador.listen.80\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{9b}31m\u{202e}\u{2028}";
    engine.run("evil", &engine.image(&[]), &[(forged, "80")]);
    let ambassador = ambassador(&engine, "");
    await_problem(&ambassador, &["container evil"]);
    let shown = |verb: &str| String::from_utf8(ambassador.verb(verb).stdout).unwrap();
    for text in [ambassador.log(), shown("status"), shown("events")] {
        assert!(text.contains("forged"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("2026-01-01")), "{text}");
        assert!(!text.contains(['\r', '\u{1b}', '\u{9b}', '\u{202e}', '\u{2028}']), "{text:?}");
    }
}

#[test]
fn port_range_is_bounded_by_65535() {
    let (engine, dir) = (Engine::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("db.endpoints");
    std::fs::write(&file, "127.0.0.1:65535\n127.0.0.1:60000\n").unwrap();
    let label = format!("ambassador.listen.{}:8000-8010", private_ip());
    engine.run("evil", &engine.image(&[]), &[(&label, "65530")]);
    let route = format!("{}:8000-8010=file:{}?name=files", private_ip(), file.display());
    let ambassador = ambassador(&engine, &route);
    await_problem(&ambassador, &["container evil", "11 ports from 65530 exceed 65535"]);
    let files = eventually("endpoints of the file", || {
        let status = status(&ambassador);
        let route = status["routes"].as_array().unwrap().iter().find(|r| r["name"] == "files").cloned();
        route.filter(|route| route["endpoints"].as_array().is_some_and(|all| !all.is_empty())).ok_or(status)
    });
    assert_eq!(files["endpoints"].as_array().unwrap().len(), 1, "{files}");
    assert_eq!(files["endpoints"][0]["address"], "127.0.0.1:60000");
    assert!(files["problems"].to_string().contains("65535"), "{files}");
}

#[test]
fn ipv4_mapped_network_equals_its_ipv4_network() {
    let (service, [denied, allowed]) = (Service::new("yes"), [private_ip(), private_ip()]);
    let addr = &service.addr;
    let routes = format!(
        "{denied}:0={addr}?name=denied&deny=::ffff:127.0.0.0/104 {allowed}:0={addr}?name=allowed&allow=::ffff:127.0.0.1"
    );
    let ambassador = Ambassador::with(&routes).start();
    let answer = |route: &str| {
        let mut stream = TcpStream::connect(ambassador.addr(route)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    assert!(answer("denied").is_err(), "denied clients are reset");
    assert_eq!(answer("allowed").unwrap(), "yes");
}

#[test]
fn unhealthy_container_is_shown_in_status_and_its_recovery_is_reported() {
    let (engine, web) = (Engine::new(), Service::new("web"));
    let (label, listen) = listener();
    let id = engine.run("web", &engine.image(&[]), &[(&label, port(&web))]);
    let ambassador = ambassador(&engine, "");
    has_endpoints(&ambassador, &listen, &[&id]);
    let shows = |text: &str, is_shown: bool| {
        eventually(text, || {
            let table = String::from_utf8_lossy(&ambassador.verb("status").stdout).into_owned();
            if table.contains(text) == is_shown { Ok(()) } else { Err(table) }
        });
    };
    let row = format!("(container web {})  unhealthy", &id[..12]);
    engine.set_health("web", "unhealthy");
    shows(&row, true);
    engine.set_health("web", "healthy");
    shows(&row, false);
    eventually("the recovery", || {
        let log = ambassador.log();
        if log.contains("endpoint healthy again") { Ok(()) } else { Err(log) }
    });
    assert_eq!(label_key(&listen), "web");
}
