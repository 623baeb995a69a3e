//! Reports about containers: once, and at an appropriate level.

use super::{Engine, ambassador, await_problem, has_endpoints, listener, port, status};
use crate::support::{Ambassador, Service, eventually};

fn logs(ambassador: &Ambassador, words: &str) {
    eventually("a line of the log", || {
        let log = ambassador.log();
        if log.contains(words) { Ok(()) } else { Err(format!("no {words:?} in:\n{log}")) }
    });
}

fn warnings(ambassador: &Ambassador) -> Vec<String> {
    ambassador.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
}

#[test]
fn scaling_warns_only_without_any_endpoint() {
    let (engine, web) = (Engine::new(), Service::new("web"));
    let image = engine.image(&[]);
    let (label, listen) = listener();
    let run = |n: usize| engine.run(&format!("web-{n}"), &image, &[(&label, port(&web))]);
    let mut ids: Vec<String> = (0..3).map(run).collect();
    let ambassador = ambassador(&engine, "");
    let shows = |ids: &[String]| {
        has_endpoints(&ambassador, &listen, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    };
    shows(&ids);
    ids.extend((3..5).map(run));
    shows(&ids);
    for n in 0..3 {
        engine.remove(&format!("web-{n}"));
    }
    ids.drain(..3);
    shows(&ids);
    for n in 3..5 {
        engine.remove(&format!("web-{n}"));
    }
    logs(&ambassador, "route down");
    let warnings = warnings(&ambassador);
    assert!(warnings.len() == 1 && warnings[0].contains("does not exist any more"), "{warnings:#?}");
    ids = vec![run(4)];
    shows(&ids);
    logs(&ambassador, "route up");
}

#[test]
fn route_of_a_label_is_listed_with_the_name_of_its_container() {
    let (engine, web) = (Engine::new(), Service::new("web"));
    let (label, listen) = listener();
    let id = engine.run("web-1", &engine.image(&[]), &[(&label, port(&web))]);
    let ambassador = ambassador(&engine, "");
    has_endpoints(&ambassador, &listen, &[&id]);
    let list = String::from_utf8(ambassador.verb("routes").stdout).unwrap();
    assert!(list.contains(&format!("docker://{}:{} (web-1)  ", &id[..12], port(&web))), "{list}");
}

#[test]
fn unknown_label_is_reported_with_a_suggestion() {
    let engine = Engine::new();
    engine.run("redis", &engine.image(&[]), &[("ambassador.listem.6383", "6379")]);
    let ambassador = ambassador(&engine, "");
    await_problem(
        &ambassador,
        &["container redis, label ambassador.listem.6383", "`ambassador.listen.6383`"],
    );
}

#[test]
fn a_container_that_a_route_names_needs_no_label() {
    let engine = Engine::new();
    let id = engine.run("redis", &engine.image(&[]), &[]);
    let (_, listen) = listener();
    let route = format!("{listen}=docker://redis:6379");
    let ambassador = Ambassador::with(&route).var("DOCKER_HOST", &engine.docker_host()).start();
    has_endpoints(&ambassador, &listen, &[&id]);
    assert_eq!(status(&ambassador)["notices"], serde_json::json!([]));
}

#[test]
fn missing_targets_are_in_the_log_and_the_status() {
    let engine = Engine::new();
    engine.run("redis", &engine.image(&[]), &[]);
    let idle = ambassador(&engine, "");
    logs(&idle, "Docker 20.10.24, containers: 1");
    logs(&idle, "no container asks for a route");
    assert!(status(&idle)["notices"][0].as_str().unwrap().starts_with("Docker answered"));

    let misspelt = Ambassador::with("-name redsi").var("DOCKER_HOST", &engine.docker_host()).start();
    eventually("the name in the status", || {
        let shown = String::from_utf8(misspelt.verb("status").stdout).unwrap();
        let is_shown =
            shown.contains("-name redsi: there is no container") && shown.contains("did you mean redis?");
        if is_shown { Ok(()) } else { Err(shown) }
    });
}
