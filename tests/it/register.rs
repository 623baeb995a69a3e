//! `ambassador register` with a real etcd or Consul: failures of the host, etcd, Docker and the lease.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Ambassador, CONSUL_TOKEN, Consul, Engine, Etcd, Host, PeerSecret, Service, ask, eventually, hosts, needs,
    private_ip, redis_ping, within,
};

const LABEL: (&str, &str) = ("ambassador.register", "redis");

/// Starts the registrar of a host with this address.
fn registrar(etcd: &Etcd, engine: &Engine, advertise: &str, more: &str) -> Ambassador {
    let to = etcd.address();
    Ambassador::with(&format!("register --to etcd://{to} --advertise {advertise} {more}"))
        .var("DOCKER_HOST", &engine.docker_host())
        .spawn()
}

/// Waits until etcd has these below `/services/`, as `NAME/PORT/ID=ADDRESS`.
fn has(etcd: &Etcd, expected: &[String], registrar: &Ambassador) {
    within(Duration::from_secs(30), "these entries", || match entries(etcd) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}, not {expected:?}\n{}", registrar.log())),
    });
}

fn logs(registrar: &Ambassador, words: &str) {
    eventually(words, || match registrar.log() {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    });
}

fn entries(etcd: &Etcd) -> Vec<String> {
    let keys = etcd.keys("/services/").into_iter();
    keys.map(|(key, value)| format!("{}={value}", key.trim_start_matches("/services/"))).collect()
}

fn entry(id: &str, address: &str) -> String {
    format!("redis/6379/{id}={address}")
}

#[test]
fn containers_are_registered_on_start_and_deregistered_on_end() {
    let etcd = needs!(Etcd::start());
    let engine = Engine::new();
    let one = engine.publish("redis-1", LABEL, 4001);
    let mut registrar = registrar(&etcd, &engine, "10.0.0.5", "--ttl 60s");
    has(&etcd, &[entry(&one, "10.0.0.5:4001")], &registrar);
    let two = engine.publish("redis-2", LABEL, 4002);
    engine.publish("other", ("a", "b"), 4003);
    has(&etcd, &[entry(&one, "10.0.0.5:4001"), entry(&two, "10.0.0.5:4002")], &registrar);
    let killed = Instant::now();
    engine.kill(&one);
    has(&etcd, &[entry(&two, "10.0.0.5:4002")], &registrar);
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}: long before the lease ends", killed.elapsed());
    println!("register: from a container's end to its key's: {:.1?} (asked every 25 ms)", killed.elapsed());

    registrar.signal(Signal::TERM);
    assert_eq!(registrar.ends_within(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(entries(&etcd), [""; 0], "the lease is revoked");
}

#[test]
fn exports_of_labels_are_registered_and_reached_through_the_peer() {
    let etcd = needs!(Etcd::start());
    let (engine, secret, service) = (Engine::new(), PeerSecret::new(), Service::new("key"));
    let (_, port) = service.addr.rsplit_once(':').unwrap();
    let image = engine.image(&[]);
    let id = engine.run("redis", &image, &[("ambassador.listen.peer:redis", port)]);
    let (host, value) = (private_ip(), |host: &str| format!("peer://{host}:15008/redis"));
    let offers = format!("--docker {}", secret.flags(&format!("{host}:15008")));
    let offers = Ambassador::with(&offers).var("DOCKER_HOST", &engine.docker_host()).start();
    let registrar = registrar(&etcd, &engine, &host, "--via peer --ttl 60s");
    has(&etcd, &[format!("redis/{port}/{}={}", &id[..12], value(&host))], &registrar);

    let route = format!("127.0.0.1:0=etcd://{}/services/redis/{port}?name=r", etcd.address());
    let uses = Ambassador::with(&format!("{route} {}", secret.flags("off"))).start();
    let status: Value = serde_json::from_slice(&uses.verb("status --json").stdout).unwrap();
    assert_eq!(status["routes"][0]["endpoints"][0]["address"], value(&host), "{}", offers.log());
    assert_eq!(ask(uses.addr("r")), "key", "{}\n{}", uses.log(), offers.log());
    engine.remove("redis");
    has(&etcd, &[], &registrar);
}

#[test]
fn entries_of_a_dead_host_expire_with_its_lease() {
    let etcd = needs!(Etcd::start());
    let (host_a, host_b) = (Engine::new(), Engine::new());
    let (one, two) = (host_a.publish("redis", LABEL, 4001), host_b.publish("other", LABEL, 4001));
    // A container ID cannot be on two hosts.
    host_b.kill(&two);
    let two = host_b.publish("redis", LABEL, 4002);
    let a = registrar(&etcd, &host_a, "10.0.0.5", "--ttl 2s");
    let b = registrar(&etcd, &host_b, "10.0.0.6", "--ttl 2s");
    has(&etcd, &[entry(&one, "10.0.0.5:4001"), entry(&two, "10.0.0.6:4002")], &a);
    a.signal(Signal::KILL);
    let killed = Instant::now();
    has(&etcd, &[entry(&two, "10.0.0.6:4002")], &b);
    println!("register: a lease of 2 s ended {:.1?} after its registrar was killed", killed.elapsed());
}

#[test]
fn lost_lease_or_key_is_replaced() {
    let etcd = needs!(Etcd::start());
    let engine = Engine::new();
    let one = entry(&engine.publish("redis", LABEL, 4001), "10.0.0.5:4001");
    let registrar = registrar(&etcd, &engine, "10.0.0.5", "--ttl 3s");
    has(&etcd, std::slice::from_ref(&one), &registrar);
    let (key, _) = etcd.keys("/services/").remove(0);
    etcd.delete(&key);
    has(&etcd, std::slice::from_ref(&one), &registrar);
    // A put without a lease detaches the key from the registrar's lease.
    etcd.put(&key, "10.6.6.6:6");
    has(&etcd, std::slice::from_ref(&one), &registrar);
    let leases = etcd.ask("/v3/lease/leases", &json!({}));
    for lease in leases["leases"].as_array().unwrap() {
        etcd.ask("/v3/lease/revoke", &json!({ "ID": lease["ID"] }));
    }
    assert_eq!(entries(&etcd), [""; 0]);
    has(&etcd, &[one], &registrar);
}

#[test]
fn registrations_catch_up_after_an_etcd_outage() {
    let mut etcd = needs!(Etcd::start());
    let engine = Engine::new();
    let one = engine.publish("redis-1", LABEL, 4001);
    let registrar = registrar(&etcd, &engine, "10.0.0.5", "--ttl 60s");
    has(&etcd, &[entry(&one, "10.0.0.5:4001")], &registrar);
    etcd.kill();
    engine.kill(&one);
    eventually("the loss", || {
        if registrar.log().contains("registry unavailable") { Ok(()) } else { Err(registrar.log()) }
    });
    let two = engine.publish("redis-2", LABEL, 4002);
    etcd.start_again();
    has(&etcd, &[entry(&two, "10.0.0.5:4002")], &registrar);
}

#[test]
fn more_entries_than_fit_one_transaction_are_registered_and_deregistered() {
    let etcd = needs!(Etcd::start());
    let engine = Engine::new();
    for n in 0..250u16 {
        engine.publish(&format!("redis-{n}"), LABEL, 4000 + n);
    }
    let mut registrar = registrar(&etcd, &engine, "10.0.0.5", "--ttl 60s");
    within(Duration::from_secs(60), "all of them", || match entries(&etcd).len() {
        250 => Ok(()),
        count => Err(format!("{count}\n{}", registrar.log())),
    });
    registrar.signal(Signal::TERM);
    assert_eq!(registrar.ends_within(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(entries(&etcd), [""; 0]);
}

#[test]
fn hanging_etcd_member_does_not_lose_the_lease() {
    let etcd = needs!(Etcd::start());
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Engine::new();
    let one = entry(&engine.publish("redis", LABEL, 4001), "10.0.0.5:4001");
    let members = format!("{},{}", hangs.local_addr().unwrap(), etcd.address());
    let registrar =
        Ambassador::with(&format!("register --to etcd://{members} --advertise 10.0.0.5 --ttl 3s"))
            .var("DOCKER_HOST", &engine.docker_host())
            .spawn();
    has(&etcd, &[one], &registrar);
}

#[test]
fn registrations_catch_up_after_a_docker_restart() {
    let etcd = needs!(Etcd::start());
    let engine = Engine::new();
    let one = engine.publish("redis-1", LABEL, 4001);
    let registrar = registrar(&etcd, &engine, "10.0.0.5", "--all --ttl 60s");
    has(&etcd, &[entry(&one, "10.0.0.5:4001")], &registrar);
    engine.restart();
    engine.kill(&one);
    let two = engine.publish("redis-2", ("a", "b"), 4002);
    has(&etcd, &[format!("redis-2/6379/{two}=10.0.0.5:4002")], &registrar);
}

#[test]
fn registrar_waits_for_an_unavailable_registry() {
    let mut etcd = needs!(Etcd::start());
    etcd.kill();
    let engine = Engine::new();
    let one = engine.publish("redis", LABEL, 4001);
    let registrar = registrar(&etcd, &engine, "10.0.0.5", "--ttl 5s");
    eventually("the loss", || {
        if registrar.log().contains("registry unavailable") { Ok(()) } else { Err(registrar.log()) }
    });
    etcd.start_again();
    has(&etcd, &[entry(&one, "10.0.0.5:4001")], &registrar);
}

#[test]
fn consul_entries_expire_with_the_container_or_its_registrar() {
    let consul = needs!(Consul::guarded());
    let engine = Engine::new();
    let one = engine.publish("redis-1", LABEL, 4001);
    let start = || {
        Ambassador::with(&format!(
            "register --to consul://{} --advertise 10.0.0.5 --ttl 2s",
            consul.address()
        ))
        .var("DOCKER_HOST", &engine.docker_host())
        .var("AMBASSADOR_CONSUL_TOKEN", CONSUL_TOKEN)
        .spawn()
    };
    let passing = |expected: &[&str], registrar: &Ambassador| {
        within(Duration::from_secs(30), "these services", || match passing_instances(&consul) {
            found if found == expected => Ok(()),
            found => Err(format!("{found:?}, not {expected:?}\n{}", registrar.log())),
        });
    };
    let registrar = start();
    passing(&["10.0.0.5:4001"], &registrar);
    engine.publish("redis-2", LABEL, 4002);
    passing(&["10.0.0.5:4001", "10.0.0.5:4002"], &registrar);
    engine.kill(&one);
    passing(&["10.0.0.5:4002"], &registrar);
    let services = consul.ask("GET", "/v1/agent/services", &Value::Null);
    consul.deregister(&services.as_object().unwrap().keys().next().unwrap().replace(':', "%3A"));
    logs(&registrar, "registering it again");
    passing(&["10.0.0.5:4002"], &registrar);

    registrar.signal(Signal::KILL);
    passing(&[], &registrar);
    let mut registrar = start();
    passing(&["10.0.0.5:4002"], &registrar);
    registrar.signal(Signal::TERM);
    assert_eq!(registrar.ends_within(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(consul.ask("GET", "/v1/agent/services", &Value::Null), json!({}), "{}", registrar.log());
}

/// Returns `ADDRESS:PORT` of each instance of `redis` with passing checks, sorted.
fn passing_instances(consul: &Consul) -> Vec<String> {
    let answer = consul.ask("GET", "/v1/health/service/redis?passing", &Value::Null);
    let instances = answer.as_array().into_iter().flatten().map(|instance| &instance["Service"]);
    let shown = |s: &Value| format!("{}:{}", s["Address"].as_str().unwrap_or_default(), s["Port"]);
    let mut shown: Vec<String> = instances.map(shown).collect();
    shown.sort();
    shown
}

#[test]
fn invalid_usage_is_reported_at_start() {
    for (args, says) in [
        ("register", "--to"),
        ("register --to etcd://h", "--advertise"),
        ("register --to zk://h --advertise here --ttl 1s", "etcd://HOST:2379"),
        ("register --to zk://h --advertise here --ttl 1s", "10.0.0.5"),
    ] {
        let mut process = Ambassador::with(args).spawn();
        assert_eq!(process.ends_within(Duration::from_secs(20)).code(), Some(64), "{args}");
        logs(&process, says);
    }
}

/// Two hosts, two registrars, one ambassador.
#[test]
fn ambassador_follows_registrations_of_two_docker_hosts_as_one_dies() {
    let hosts = needs!(hosts());
    let etcd = needs!(Etcd::reached_from_both(&hosts));
    let redis =
        |host: &Host| host.start("redis", "-p 6379 --label ambassador.register=e2e crosbymichael/redis");
    let (one, two) = (redis(&hosts.a), redis(&hosts.b));
    let start = |host: &Host| {
        let (to, ip) = (etcd.address(), host.ip.expect("a host on the cable"));
        Ambassador::with(&format!("register --to etcd://{to} --advertise {ip} --ttl 3s"))
            .var("DOCKER_HOST", host.docker_host())
            .inside(&host.namespace)
            .spawn()
    };
    let (a, b) = (start(&hosts.a), start(&hosts.b));
    let target = format!("etcd://{}/services/e2e/6379", etcd.address());
    let ambassador =
        Ambassador::with(&format!("127.0.0.1:0={target}?name=r")).inside(&hosts.b.namespace).start();
    let endpoints = |count: usize| {
        eventually("these endpoints", || {
            let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
            let found = status["routes"][0]["endpoints"].as_array().unwrap().len();
            if found == count {
                Ok(())
            } else {
                Err(format!("{found}\n{}\n{}\n{}", ambassador.log(), a.log(), b.log()))
            }
        });
    };
    let addr = ambassador.addr("r");
    let pong = || hosts.b.namespace.run(|| assert_eq!(redis_ping(addr).unwrap(), "PONG"));
    endpoints(2);
    pong();
    two.docker("restart -t 0");
    endpoints(2);
    pong();
    a.signal(Signal::KILL);
    endpoints(1);
    pong();
    two.docker("kill");
    endpoints(0);
    drop(one);
}
