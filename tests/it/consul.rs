//! Consul as a source, with a real agent for each test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Ambassador, Builder, CONSUL_TOKEN, Consul, Service, ask, eventually, needs};

fn builder(target: &str) -> Builder {
    Ambassador::with(&format!("127.0.0.1:0=consul://{target}?name=r&hold=30s"))
}

fn followed(consul: &Consul, service: &str) -> Ambassador {
    builder(&format!("{}/{service}", consul.address())).start()
}

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap()
}

/// Returns the endpoints as `address (id) weight`, sorted.
fn has(ambassador: &Ambassador, expected: &[String]) {
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    eventually("these endpoints", || {
        let status = status(ambassador);
        let endpoints = status["routes"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        let shown = |e: &Value| format!("{} {}", e["description"].as_str().unwrap(), e["weight"]);
        let found: Vec<String> = endpoints.iter().map(shown).collect();
        if found.iter().map(String::as_str).collect::<BTreeSet<_>>() == expected {
            Ok(())
        } else {
            Err(format!("{found:?}\n{}", ambassador.log()))
        }
    });
}

fn logs(ambassador: &Ambassador, words: &str) {
    eventually(words, || {
        let log = ambassador.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

fn shown(service: &Service, id: &str, weight: u32) -> String {
    format!("{} ({id}) {weight}", service.addr)
}

#[test]
fn service_instances_are_followed() {
    let consul = needs!(Consul::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    let ambassador = followed(&consul, "web");
    has(&ambassador, &[]);

    consul.register("web", "web-1", &one.addr, &json!({}));
    assert_eq!(ask(ambassador.addr("r")), "one");
    consul.register("web", "web-2", &two.addr, &json!({ "Weights": { "Passing": 7, "Warning": 1 } }));
    has(&ambassador, &[shown(&one, "web-1", 1), shown(&two, "web-2", 7)]);
    consul.deregister("web-1");
    has(&ambassador, &[shown(&two, "web-2", 7)]);
    assert_eq!(ask(ambassador.addr("r")), "two");
    consul.deregister("web-2");
    has(&ambassador, &[]);
}

#[test]
fn instance_with_failing_checks_is_not_an_endpoint() {
    let consul = needs!(Consul::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    let check = json!({ "Check": { "TTL": "1h", "Status": "passing" } });
    consul.register("web", "web-1", &one.addr, &check);
    consul.register("web", "web-2", &two.addr, &check);
    let ambassador = followed(&consul, "web");
    has(&ambassador, &[shown(&one, "web-1", 1), shown(&two, "web-2", 1)]);
    consul.check("web-1", "fail");
    has(&ambassador, &[shown(&two, "web-2", 1)]);
    consul.check("web-1", "pass");
    has(&ambassador, &[shown(&one, "web-1", 1), shown(&two, "web-2", 1)]);
    consul.ask("PUT", "/v1/agent/service/maintenance/web-2?enable=true", &Value::Null);
    has(&ambassador, &[shown(&one, "web-1", 1)]);
}

#[test]
fn tags_and_datacenter_filter_a_service() {
    let consul = needs!(Consul::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    consul.register("web", "web-1", &one.addr, &json!({ "Tags": ["primary", "v1.2"] }));
    consul.register("web", "web-2", &two.addr, &json!({ "Tags": ["primary"] }));
    let both = followed(&consul, "web+primary@dc1");
    has(&both, &[shown(&one, "web-1", 1), shown(&two, "web-2", 1)]);
    let only_one = followed(&consul, "web+primary+v1.2");
    has(&only_one, &[shown(&one, "web-1", 1)]);
    let elsewhere = builder(&format!("{}/web@mars", consul.address())).start_unready();
    logs(&elsewhere, "No path to datacenter");
}

#[test]
fn token_is_read_from_the_environment_and_never_logged() {
    let consul = needs!(Consul::guarded());
    let one = Service::new("one");
    consul.register("web", "web-1", &one.addr, &json!({}));
    let known = |token: &str| {
        builder("web").var("CONSUL_HTTP_ADDR", &consul.address()).var("AMBASSADOR_CONSUL_TOKEN", token)
    };
    let ambassador = known(CONSUL_TOKEN).start();
    assert_eq!(ask(ambassador.addr("r")), "one");
    let stranger = known("a-wrong-t0ken").start_unready();
    logs(&stranger, "403 Forbidden");
    // Without a token Consul returns an empty list: services that the client may not read are omitted.
    let unauthorized = builder("web").var("CONSUL_HTTP_ADDR", &consul.address()).start();
    eventually("a list that is empty", || match status(&unauthorized)["routes"][0]["problems"].to_string() {
        problems if problems.contains("has no endpoint") => Ok(()),
        problems => Err(problems),
    });
    for log in [ambassador.log(), stranger.log()] {
        assert!(!log.contains(CONSUL_TOKEN) && !log.contains("a-wrong-t0ken"), "{log}");
    }
}

#[test]
fn endpoints_survive_a_consul_outage_and_follow_the_restarted_agent() {
    let mut consul = needs!(Consul::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    consul.register("web", "web-1", &one.addr, &json!({}));
    // High, so that the index after the restart is lower.
    for n in 0..100 {
        consul.ask("PUT", &format!("/v1/kv/{n}"), &json!({}));
        consul.register("other", "other", &one.addr, &json!({ "Meta": { "n": n.to_string() } }));
    }
    let ambassador = followed(&consul, "web");
    assert_eq!(ask(ambassador.addr("r")), "one");

    consul.kill();
    logs(&ambassador, "source unavailable");
    assert_eq!(ask(ambassador.addr("r")), "one");
    consul.start_again();
    consul.register("web", "web-2", &two.addr, &json!({}));
    has(&ambassador, &[shown(&two, "web-2", 1)]);
    consul.register("web", "web-1", &one.addr, &json!({}));
    has(&ambassador, &[shown(&one, "web-1", 1), shown(&two, "web-2", 1)]);
    let log = ambassador.log();
    assert_eq!(
        (log.matches("source unavailable").count(), log.matches("source available again").count()),
        (1, 1),
        "{log}"
    );
}

#[test]
fn consul_registration_takes_effect_at_once() {
    let consul = needs!(Consul::start());
    let one = Service::new("one");
    let ambassador = followed(&consul, "web");
    has(&ambassador, &[]);
    let mut times: Vec<Duration> = (0..5)
        .map(|n| {
            let id = format!("web-{n}");
            let begun = Instant::now();
            consul.register("web", &id, &one.addr, &json!({}));
            assert_eq!(ask(ambassador.addr("r")), "one");
            let took = begun.elapsed();
            consul.deregister(&id);
            has(&ambassador, &[]);
            took
        })
        .collect();
    times.sort();
    eprintln!("Consul: from a registration to a held session's answer: {times:?}");
    assert!(times[0] < Duration::from_millis(500), "{times:?}");
}
