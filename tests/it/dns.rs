//! DNS as a source: the program with a name server of the test.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Ambassador, Builder, Dns, Service, ask, eventually, needs};

const REDIS: &str = "_redis._tcp.test.";

fn ambassador(dns: &Dns, target: &str, more: &str) -> Builder {
    let route = format!("127.0.0.1:0={target}?name=r&hold=30s {more}");
    Ambassador::with(&route).resolving_by(&dns.resolv_conf())
}

/// Returns the endpoints as `address (name) weight tier`.
fn endpoints(ambassador: &Ambassador) -> Vec<String> {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let endpoints = status["routes"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let shown = |e: &Value| format!("{} {} {}", e["description"].as_str().unwrap(), e["weight"], e["tier"]);
    endpoints.iter().map(shown).collect()
}

fn has(ambassador: &Ambassador, expected: &[String]) {
    eventually("these endpoints", || match endpoints(ambassador) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}\n{}", ambassador.log())),
    });
}

fn logs(ambassador: &Ambassador, words: &str) {
    eventually(words, || {
        let log = ambassador.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

fn port(service: &Service) -> &str {
    service.addr.rsplit(':').next().unwrap()
}

#[test]
fn srv_records_set_ports_weights_and_tiers() {
    let dns = needs!(Dns::start());
    let (one, two) = (Service::new("one"), Service::new("two"));
    dns.has("a.test.", 1, &["127.0.0.1"]);
    // No service listens there: a host of better priority that refuses is skipped.
    dns.has("b.test.", 1, &["127.0.0.2"]);
    let offer = |priority, weight, port: &str, host| format!("{priority} {weight} {port} {host}");
    dns.offers(REDIS, 1, &[offer(10, 60, port(&one), "a.test."), offer(5, 0, "9", "b.test.")]);
    let ambassador = ambassador(&dns, "srv://_redis._tcp.test", "").start();
    let first = ["127.0.0.2:9 (b.test) 1 5".to_owned(), format!("{} (a.test) 60 10", one.addr)];
    has(&ambassador, &first);
    assert_eq!(ask(ambassador.addr("r")), "one");

    dns.offers(REDIS, 1, &[offer(10, 60, port(&one), "a.test."), offer(5, 2, port(&two), "a.test.")]);
    has(&ambassador, &[format!("{} (a.test) 2 5", two.addr), format!("{} (a.test) 60 10", one.addr)]);
    assert_eq!(ask(ambassador.addr("r")), "two");
}

#[test]
fn ttl_is_capped() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    dns.has("redis.test.", 86400, &["127.0.0.1"]);
    let ambassador = ambassador(&dns, &format!("redis.test:{}", port(&one)), "--dns-max-ttl 1s").start();
    has(&ambassador, &[format!("{} (redis.test) 1 0", one.addr)]);
    dns.has("redis.test.", 86400, &["127.0.0.3"]);
    has(&ambassador, &[format!("127.0.0.3:{} (redis.test) 1 0", port(&one))]);
}

#[test]
fn vanished_name_keeps_its_addresses_briefly_and_each_change_is_logged_once() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    let target = format!("redis.test:{}", port(&one));
    dns.has("redis.test.", 1, &["127.0.0.1"]);
    let builder = ambassador(&dns, &target, "").var("AMBASSADOR_DNS_NX_STALE", "4s");
    let ambassador = builder.start();
    let there = [format!("{} (redis.test) 1 0", one.addr)];
    has(&ambassador, &there);
    dns.forgets("redis.test.");
    logs(&ambassador, "no such name (asked ");
    assert_eq!(endpoints(&ambassador), there);
    assert_eq!(ask(ambassador.addr("r")), "one");

    logs(&ambassador, "source expired; removing its endpoints");
    has(&ambassador, &[]);
    dns.has("redis.test.", 1, &["127.0.0.1"]);
    has(&ambassador, &there);
    logs(&ambassador, "source available again");
    let log = ambassador.log();
    for once in ["source unavailable", "source expired; removing its endpoints", "source available again"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
}

#[test]
fn swarm_service_resolves_to_its_tasks() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    dns.has("tasks.redis.", 600, &["127.0.0.1"]);
    let ambassador = ambassador(&dns, &format!("tasks.redis:{}", port(&one)), "--dns-max-ttl 1s").start();
    has(&ambassador, &[format!("{} (tasks.redis) 1 0", one.addr)]);
    assert_eq!(ask(ambassador.addr("r")), "one");
    dns.has("tasks.redis.", 600, &["127.0.0.1", "127.0.0.4"]);
    let scaled = ["127.0.0.1", "127.0.0.4"].map(|ip| format!("{ip}:{} (tasks.redis) 1 0", port(&one)));
    has(&ambassador, &scaled);
}

#[test]
fn name_that_does_not_exist_is_called_so_in_status_log_and_the_line_of_its_session() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    let target = format!("redsi.test:{}", port(&one));
    let route = format!("127.0.0.1:0={target}?name=r&hold=500ms");
    let ambassador = Ambassador::with(&route).resolving_by(&dns.resolv_conf()).start();
    let problem = format!("{target}: no such name (asked {})", dns.addr());
    eventually("the reason", || {
        let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
        if status["routes"][0]["problems"][0] == problem { Ok(()) } else { Err(status.to_string()) }
    });
    let _client = std::net::TcpStream::connect(ambassador.addr("r")).unwrap();
    logs(&ambassador, &format!("ending=no-endpoint why=\"{problem}\""));
    logs(&ambassador, &format!("WARN route down: no endpoint takes new sessions route=r why=\"{problem}\""));
    dns.has("redsi.test.", 1, &["127.0.0.1"]);
    logs(&ambassador, "INFO route up");
    assert_eq!(ambassador.log().matches("WARN").count(), 1, "{}", ambassador.log());
}

#[test]
fn silent_name_server_is_reported_within_seconds_and_once_as_its_return_is() {
    let dns = needs!(Dns::start());
    let one = Service::new("one");
    dns.has("redis.test.", 1, &["127.0.0.1"]);
    dns.is_silent(true);
    let began = Instant::now();
    let ambassador = ambassador(&dns, &format!("redis.test:{}", port(&one)), "").spawn();
    logs(&ambassador, &format!("why=\"no answer (asked {})\"", dns.addr()));
    // A lookup takes 15 s to fail.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    dns.is_silent(false);
    logs(&ambassador, "INFO source available again");
    assert_eq!(ask(ambassador.addr("r")), "one");
    assert_eq!(ambassador.log().matches("source unavailable").count(), 1, "{}", ambassador.log());
}
