//! etcd as a source, with a real etcd for each test.

#[path = "etcd/gate.rs"]
mod gate;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Ambassador, Etcd, Service, ask, base64, eventually, needs};
use gate::Gate;

/// Builds an ambassador for `/s` of these members, which may be addresses of a cluster.
fn ambassador(members: &[&str]) -> Ambassador {
    builder(members).start()
}

fn builder(members: &[&str]) -> crate::support::Builder {
    Ambassador::with(&format!("127.0.0.1:0=etcd://{}/s?name=r&hold=30s", members.join(",")))
}

/// Returns the endpoints as `address (key) weight tier`.
fn endpoints(ambassador: &Ambassador) -> Vec<String> {
    let status: serde_json::Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let endpoints = status["routes"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    endpoints.iter().map(|e| format!("{} {} {}", text(&e["description"]), e["weight"], e["tier"])).collect()
}

fn has(ambassador: &Ambassador, expected: &[&str]) {
    eventually("these endpoints", || match endpoints(ambassador) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}\n{}", ambassador.log())),
    });
}

fn logs(ambassador: &Ambassador, words: &str) {
    eventually(words, || match ambassador.log() {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    });
}

#[test]
fn key_changes_are_followed() {
    let etcd = needs!(Etcd::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    let ambassador = ambassador(&[&etcd.address()]);
    has(&ambassador, &[]);
    etcd.put("/s/a", &one.addr);
    assert_eq!(ask(ambassador.addr("r")), "one", "it was held");
    etcd.put("/s/a", &two.addr);
    eventually("the other", || if ask(ambassador.addr("r")) == "two" { Ok(()) } else { Err("not yet") });
    etcd.put("/s/b", &format!("{{\"address\":\"{}\",\"weight\":3,\"tier\":1}}", one.addr));
    etcd.put("/s-2/c", &one.addr);
    let (a, b) = (format!("{} (/s/a) 1 0", two.addr), format!("{} (/s/b) 3 1", one.addr));
    has(&ambassador, &[&a, &b]);
    etcd.delete("/s/a");
    has(&ambassador, &[&b]);
    etcd.delete("/s/b");
    has(&ambassador, &[]);
}

#[test]
fn invalid_value_is_reported_with_its_key_and_affects_no_other() {
    let etcd = needs!(Etcd::start());
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr);
    etcd.put("/s/b", "nonsense");
    let ambassador = ambassador(&[&etcd.address()]);
    let a = format!("{} (/s/a) 1 0", one.addr);
    has(&ambassador, &[&a]);
    logs(&ambassador, "key=/s/b\n");
    etcd.put("/s/c", "{\"address\":\"10.0.0.1:1\",\"weight\":-1}");
    logs(&ambassador, "key=/s/c\n");
    logs(&ambassador, "\"weight\"");
    has(&ambassador, &[&a]);
}

#[test]
fn host_name_in_a_value_is_resolved() {
    let etcd = needs!(Etcd::start());
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr.replace("127.0.0.1", "localhost"));
    assert_eq!(ask(ambassador(&[&etcd.address()]).addr("r")), "one");
}

#[test]
fn endpoints_survive_an_etcd_outage_and_are_listed_again() {
    let mut etcd = needs!(Etcd::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    etcd.put("/s/a", &one.addr);
    let ambassador = ambassador(&[&etcd.address()]);
    assert_eq!(ask(ambassador.addr("r")), "one");
    etcd.kill();
    logs(&ambassador, "source unavailable");
    assert_eq!(ask(ambassador.addr("r")), "one");
    etcd.start_again();
    etcd.put("/s/a", &two.addr);
    eventually(
        "the other",
        || if ask(ambassador.addr("r")) == "two" { Ok(()) } else { Err(ambassador.log()) },
    );
    logs(&ambassador, "source available again");
}

#[test]
fn unavailable_etcd_is_retried() {
    let mut etcd = needs!(Etcd::start());
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr);
    etcd.kill();
    let ambassador = builder(&[&etcd.address()]).start_unready();
    logs(&ambassador, "source unavailable");
    etcd.start_again();
    assert_eq!(ask(ambassador.addr("r")), "one");
}

#[test]
fn dead_member_is_skipped() {
    let etcd = needs!(Etcd::start());
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr);
    let ambassador = ambassador(&["127.0.0.1:1", &etcd.address()]);
    assert_eq!(ask(ambassador.addr("r")), "one");
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
}

#[test]
fn cluster_survives_one_dead_member_and_keeps_endpoints_without_quorum() {
    let [mut first, mut second, third] = needs!(Etcd::cluster());
    let (one, two) = (Service::new("one"), Service::new("two"));
    first.put("/s/a", &one.addr);
    let ambassador = ambassador(&[&first.address(), &second.address(), &third.address()]);
    assert_eq!(ask(ambassador.addr("r")), "one");
    first.kill();
    eventually("a majority", || {
        let put = json!({ "key": base64("/s/a"), "value": base64(&two.addr) });
        third.try_ask("/v3/kv/put", &put)
    });
    eventually(
        "the other",
        || if ask(ambassador.addr("r")) == "two" { Ok(()) } else { Err(ambassador.log()) },
    );
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
    second.kill();
    // A member without quorum ends its watches and does not reply to a list.
    logs(&ambassador, "source unavailable");
    assert_eq!(ask(ambassador.addr("r")), "two");
    first.start_again();
    logs(&ambassador, "source available again");
}

#[test]
fn change_between_list_and_watch_is_not_lost() {
    let etcd = needs!(Etcd::start());
    let gate = Gate::new(&etcd.address());
    let one = Service::new("one");
    let ambassador = ambassador(&[&gate.address]);
    gate.await_watch();
    etcd.put("/s/a", &one.addr);
    gate.open();
    assert_eq!(ask(ambassador.addr("r")), "one");
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
}

#[test]
fn compacted_revision_causes_a_new_list() {
    let etcd = needs!(Etcd::start());
    let gate = Gate::new(&etcd.address());
    let one = Service::new("one");
    let ambassador = ambassador(&[&gate.address]);
    gate.await_watch();
    etcd.put("/s/a", &one.addr);
    etcd.put("/s/b", &one.addr);
    etcd.delete("/s/b");
    etcd.compact();
    gate.open();
    has(&ambassador, &[&format!("{} (/s/a) 1 0", one.addr)]);
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
}

#[test]
fn etcd_credentials_are_read_from_the_environment_and_never_shown() {
    let mut etcd = needs!(Etcd::start());
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr);
    etcd.ask("/v3/auth/user/add", &json!({ "name": "root", "password": "hush-hush" }));
    etcd.ask("/v3/auth/user/grant", &json!({ "user": "root", "role": "root" }));
    etcd.ask("/v3/auth/enable", &json!({}));

    let unauthorized = builder(&[&etcd.address()]).start_unready();
    logs(&unauthorized, "AMBASSADOR_ETCD_USER");
    let with = |password: &str| {
        let vars = [("AMBASSADOR_ETCD_USER", "root"), ("AMBASSADOR_ETCD_PASSWORD", password)];
        vars.iter()
            .fold(builder(&[&etcd.address()]), |builder, (name, value)| builder.var(name, value))
            .start_unready()
    };
    let wrong = with("wrong");
    logs(&wrong, "authentication failed");
    let ambassador = with("hush-hush");
    assert_eq!(ask(ambassador.addr("r")), "one");
    // Its tokens are lost when it ends.
    etcd.kill();
    logs(&ambassador, "source unavailable");
    etcd.start_again_unasked();
    logs(&ambassador, "source available again");
    assert!(!ambassador.log().contains("hush-hush"));
}

/// The client's certificate is not verified here: with `--client-cert-auth`, etcd's own gateway would have to present
/// the server's certificate, which is for servers only. The tests of `http::tls` verify it.
#[test]
fn tls_member_with_a_trusted_certificate_is_accepted() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/src/discovery/http/tls/testdata");
    let port = free_port();
    let etcd = needs!(Etcd::with(&[
        &format!("--cert-file={files}/server.pem"),
        &format!("--key-file={files}/server.key"),
        &format!("+client=https://127.0.0.1:{port}"),
    ]));
    let one = Service::new("one");
    etcd.put("/s/a", &one.addr);
    let builder = || Ambassador::with(&format!("127.0.0.1:0=etcds://127.0.0.1:{port}/s?name=r"));
    let trusting = builder()
        .var("AMBASSADOR_ETCD_CA", &format!("{files}/ca.pem"))
        .var("AMBASSADOR_ETCD_CERT", &format!("{files}/client.pem"))
        .var("AMBASSADOR_ETCD_KEY", &format!("{files}/client.key"))
        .start();
    eventually("an answer over TLS", || match endpoints(&trusting) {
        found if found.len() == 1 => Ok(()),
        _ => Err(trusting.log()),
    });
    let suspicious = builder().var("AMBASSADOR_ETCD_CA", &format!("{files}/other-ca.pem")).start_unready();
    logs(&suspicious, "certificate");
}

/// Measures and prints; the asserted limit is generous, for busy machines.
#[test]
fn changed_key_takes_effect_at_once() {
    let etcd = needs!(Etcd::start());
    let services = [Service::new("one"), Service::new("two")];
    etcd.put("/s/a", &services[0].addr);
    let ambassador = ambassador(&[&etcd.address()]);
    let addr = ambassador.addr("r");
    assert_eq!(ask(addr), "one");
    let mut took: Vec<Duration> = Vec::new();
    for (service, name) in services.iter().zip(["one", "two"]).cycle().skip(1).take(50) {
        let started = Instant::now();
        etcd.put("/s/a", &service.addr);
        while ask(addr) != name {
            assert!(started.elapsed() < Duration::from_secs(10), "{}", ambassador.log());
        }
        took.push(started.elapsed());
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "etcd: from the put to the first session on the new endpoint: median {median:.1?}, worst {worst:.1?} of 50"
    );
    assert!(median < Duration::from_secs(1), "{took:?}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
