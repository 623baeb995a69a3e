//! Registries that are slow, split their responses, or send too much.

mod server;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Ambassador, Dns, Engine, Etcd, Service, ask, base64, eventually, needs, pause, private_ip, within,
};
use server::{Reply, Request, Server};

const USER: &str = "the-user";
const PASSWORD: &str = "the-s3cret";
const TOKEN: &str = "the-t0ken";

const HEALTH: &str = "GET /v1/health/service/";
const PASS: &str = "PUT /v1/agent/check/pass/";

fn logs(ambassador: &Ambassador, words: &str) {
    eventually(words, || match ambassador.log() {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    });
}

fn endpoints(ambassador: &Ambassador) -> Vec<String> {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    let endpoints = status["routes"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap_or_default().to_owned()).collect()
}

fn has(ambassador: &Ambassador, expected: &[&str]) {
    eventually("these endpoints", || match endpoints(ambassador) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}\n{}", ambassador.log())),
    });
}

fn await_request(server: &Server, words: &str) {
    eventually(
        words,
        || if server.count(words) > 0 { Ok(()) } else { Err(format!("{:?}", server.requests())) },
    );
}

/// The response of a Consul with this instance at index 1; the next request gets no reply.
fn consul_with(address: &str) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (host, port) = address.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let body = json!([{ "Service": { "ID": "a", "Address": host, "Port": port } }]).to_string();
    move |request| {
        if request.line.contains("index=") {
            return Reply::Silence;
        }
        Reply::status("200 OK\r\nX-Consul-Index: 1", &body)
    }
}

// === credentials ===

/// An etcd that requires authentication and accepts any user.
fn etcd_that_asks_for_a_user(request: &Request) -> Reply {
    if request.line.contains("authenticate") {
        return Reply::ok(r#"{"token":"t"}"#);
    }
    if !request.head.contains("authorization: t") {
        return Reply::status("400 Bad Request", r#"{"message":"etcdserver: user name is empty"}"#);
    }
    if request.line.contains("watch") { Reply::Silence } else { Reply::ok(r#"{"header":{"revision":"1"}}"#) }
}

#[test]
fn etcd_credentials_are_sent_only_to_members_that_the_operator_configured() {
    let ours = Server::new(etcd_that_asks_for_a_user);
    let other = Server::new(etcd_that_asks_for_a_user);
    let ambassador = Ambassador::with(&format!("127.0.0.1:0=etcd://{}/s?name=r", ours.address))
        .var("AMBASSADOR_ETCD_USER", USER)
        .var("AMBASSADOR_ETCD_PASSWORD", PASSWORD)
        .start_unready();
    await_request(&ours, "authenticate");
    assert!(ours.requests().iter().any(|request| request.body.contains(PASSWORD)));
    // Also beside a member that receives them.
    for members in [other.address.clone(), format!("{},{}", ours.address, other.address)] {
        let before = other.requests().len();
        ambassador.verb(&format!("switch r etcd://{members}/s"));
        eventually("questions to the other", || {
            if other.requests().len() > before { Ok(()) } else { Err(ambassador.log()) }
        });
    }
    for request in other.requests() {
        assert!(!request.head.contains("authorization"), "{request:?}");
        assert!(!request.body.contains(USER) && !request.body.contains(PASSWORD), "{request:?}");
    }
    logs(&ambassador, &format!("no credentials are configured for etcd {}", other.address));
    assert!(!ambassador.log().contains(PASSWORD), "{}", ambassador.log());
}

#[test]
fn credentials_are_sent_to_a_member_once_the_configuration_file_names_it() {
    let [ours, other] = std::array::from_fn(|_| Server::new(etcd_that_asks_for_a_user));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    let route = |ip: &str, name: &str, server: &Server| {
        format!(
            "[[route]]\nlisten = \"{ip}:0\"\nname = \"{name}\"\ntarget = \"etcd://{}/s\"\n",
            server.address
        )
    };
    std::fs::write(&path, route("127.0.0.1", "r", &ours)).unwrap();
    let ambassador = Ambassador::with(&format!("--config {}", path.display()))
        .var("AMBASSADOR_ETCD_USER", USER)
        .var("AMBASSADOR_ETCD_PASSWORD", PASSWORD)
        .start_unready();
    ambassador.verb(&format!("switch r etcd://{}/s", other.address));
    logs(&ambassador, &format!("no credentials are configured for etcd {}", other.address));
    assert_eq!(other.count("authenticate"), 0);
    let both = route("127.0.0.1", "r", &ours) + &route("127.0.0.2", "s", &other);
    std::fs::write(&path, both).unwrap();
    await_request(&other, "authenticate");
}

#[test]
fn a_consul_token_is_sent_only_to_agents_that_the_operator_configured() {
    let service = Service::new("one");
    let [default, named, other] = std::array::from_fn(|_| Server::new(consul_with(&service.addr)));
    let routes = format!("127.0.0.1:0=consul://web?name=d 127.0.0.2:0=consul://{}/web?name=n", named.address);
    let ambassador = Ambassador::with(&routes)
        .var("CONSUL_HTTP_ADDR", &default.address)
        .var("CONSUL_HTTP_TOKEN", TOKEN)
        .start_unready();
    for agent in [&default, &named] {
        await_request(agent, HEALTH);
        assert!(agent.requests()[0].head.contains(TOKEN), "{:?}", agent.requests());
    }
    ambassador.verb(&format!("switch n consul://{}/web", other.address));
    await_request(&other, HEALTH);
    assert!(other.requests().iter().all(|request| !request.head.contains(TOKEN)), "{:?}", other.requests());
    logs(&ambassador, &format!("no credentials are configured for Consul {}", other.address));
    assert!(!ambassador.log().contains(TOKEN), "{}", ambassador.log());
}

#[test]
fn registry_redirect_is_not_followed() {
    let service = Service::new("one");
    let other = Server::new(consul_with(&service.addr));
    let status =
        format!("307 Temporary Redirect\r\nLocation: http://{}/v1/health/service/web", other.address);
    let agent = Server::new(move |_| Reply::status(&status, ""));
    let ambassador = Ambassador::with(&format!("127.0.0.1:0=consul://{}/web?name=r", agent.address))
        .var("CONSUL_HTTP_TOKEN", TOKEN)
        .start_unready();
    logs(&ambassador, "307 Temporary Redirect");
    assert_eq!(other.requests().len(), 0);
}

// === addresses ===

/// A listener with a full backlog, which drops all connects.
fn silent(addr: SocketAddr) -> (Socket, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.set_reuse_address(true).unwrap();
    listener.bind(&addr.into()).unwrap();
    listener.listen(0).unwrap();
    let fill = |_| {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        client.connect(&addr.into()).ok();
        client
    };
    let clients = (0..4).map(fill).collect();
    eventually("a connect that is not answered", || {
        match TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    (listener, clients)
}

#[test]
fn second_address_of_a_registry_is_used_while_the_first_drops_packets() {
    let dns = needs!(Dns::start());
    let (first, second) = (private_ip(), private_ip());
    let service = Service::new("one");
    let agent = Server::at(&format!("{second}:0"), consul_with(&service.addr));
    let port = agent.address.rsplit_once(':').unwrap().1;
    let _silent = silent(format!("{first}:{port}").parse().unwrap());
    dns.has("consul.example.", 60, &[&first, &second]);
    let route = format!("127.0.0.1:0=consul://consul.example:{port}/web?name=r&hold=30s");
    let ambassador = Ambassador::with(&route).resolving_by(&dns.resolv_conf()).start();
    assert_eq!(ask(ambassador.addr("r")), "one", "{}", ambassador.log());
    assert!(!ambassador.log().contains("source unavailable"), "{}", ambassador.log());
}

/// A listener that accepts without a reply, as for a hanging process.
#[test]
fn second_address_of_a_registry_is_used_while_the_first_hangs() {
    let dns = needs!(Dns::start());
    let (first, second) = (private_ip(), private_ip());
    let service = Service::new("one");
    let agent = Server::at(&format!("{second}:0"), |request| etcd_range(request, &[]));
    let port = agent.address.rsplit_once(':').unwrap().1.to_owned();
    let _hangs = std::net::TcpListener::bind(format!("{first}:{port}")).unwrap();
    dns.has("etcd.example.", 60, &[&first, &second]);
    let route = format!("127.0.0.1:0=etcd://etcd.example:{port}/s?name=r&hold=60s&backup={}", service.addr);
    let ambassador = Ambassador::with(&route).resolving_by(&dns.resolv_conf()).start_unready();
    eventually("a watch", || if agent.count("watch") > 0 { Ok(()) } else { Err(ambassador.log()) });
}

fn etcd_range(request: &Request, keys: &[Value]) -> Reply {
    if request.line.contains("watch") {
        return Reply::Silence;
    }
    Reply::ok(json!({ "header": { "revision": "1" }, "kvs": keys }).to_string())
}

// === etcd's revisions ===

/// Forwards the first list and all watches to `to`, and later lists to `lists`.
fn before(to: &Etcd, lists: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    let (to, listed) = (to.address(), AtomicBool::new(false));
    Server::new(move |request| {
        if request.line.contains("/v3/kv/range") && listed.swap(true, SeqCst) {
            return lists();
        }
        Reply::Pass(to.clone())
    })
}

/// Keys of 800 bytes each, so that etcd splits the event for all of them.
fn put_many(etcd: &Etcd, keys: usize) {
    let put = |n: usize| {
        let (key, value) = (format!("/s/{n:0>800}"), format!("10.9.{}.{}:80", n / 250, n % 250));
        json!({ "request_put": { "key": base64(&key), "value": base64(&value) } })
    };
    let puts: Vec<Value> = (0..keys).map(put).collect();
    for batch in puts.chunks(100) {
        etcd.ask("/v3/kv/txn", &json!({ "success": batch }));
    }
}

#[test]
fn deleting_four_thousand_keys_at_once_removes_four_thousand_endpoints() {
    const KEYS: usize = 4_000;
    let etcd = needs!(Etcd::start());
    put_many(&etcd, KEYS);
    let gate = before(&etcd, || Reply::Silence);
    let ambassador = Ambassador::with(&format!("127.0.0.1:0=etcd://{}/s?name=r", gate.address)).start();
    eventually("the watch", || if gate.count("watch") > 0 { Ok(()) } else { Err("none yet") });
    let removed = || ambassador.log().matches("endpoint removed").count();
    etcd.ask("/v3/kv/deleterange", &json!({ "key": base64("/s/"), "range_end": base64("/s0") }));
    within(Duration::from_secs(40), "the removal of all", || match removed() {
        KEYS => Ok(()),
        other => Err(format!("{other} removed")),
    });
    assert_eq!(endpoints(&ambassador), [""; 0]);
}

/// The address now leads to another etcd, while the connection of the watch is half open.
#[test]
fn list_with_a_lower_revision_replaces_all_endpoints() {
    let (old, new) = (needs!(Etcd::start()), needs!(Etcd::start()));
    for n in 0..20 {
        old.put("/s/a", &format!("10.0.0.1:{}", 1000 + n));
    }
    new.put("/s/b", "10.0.0.2:80");
    let to = new.address();
    let gate = before(&old, move || Reply::Pass(to.clone()));
    let ambassador = Ambassador::with(&format!("127.0.0.1:0=etcd://{}/s?name=r", gate.address)).start();
    has(&ambassador, &["10.0.0.1:1019"]);
    has(&ambassador, &["10.0.0.2:80"]);
}

// === registration ===

fn registrar(engine: &Engine, to: &str, ttl: &str) -> Ambassador {
    Ambassador::with(&format!("register --to {to} --advertise 10.0.0.5 --ttl {ttl}"))
        .var("DOCKER_HOST", &engine.docker_host())
        .spawn()
}

fn publish(engine: &Engine, service: &str, port: u16) {
    engine.publish(service, ("ambassador.register", service), port);
}

#[test]
fn service_rejected_by_consul_does_not_block_others() {
    let engine = Engine::new();
    for (n, service) in ["aaa", "bbb", "ccc"].into_iter().enumerate() {
        publish(&engine, service, 4000 + u16::try_from(n).unwrap());
    }
    let agent = Server::new(|request| {
        if request.body.contains("aaa") {
            return Reply::status("403 Forbidden", "Permission denied: service:write on \"aaa\"");
        }
        Reply::ok("{}")
    });
    let registrar = registrar(&engine, &format!("consul://{}", agent.address), "2s");
    eventually("the others, several times", || {
        let renewed = |service: &str| agent.count(&format!("{PASS}service%3A{service}"));
        let tried = agent.requests().iter().filter(|request| request.body.contains("aaa")).count();
        let times = (renewed("bbb"), renewed("ccc"), tried);
        if times.0 >= 3 && times.1 >= 3 && times.2 >= 3 {
            Ok(())
        } else {
            Err(format!("{times:?}\n{}", registrar.log()))
        }
    });
    let log = registrar.log();
    assert_eq!(log.matches("Permission denied").count(), 1, "{log}");
    assert!(!log.contains("registry unavailable"), "{log}");
}

#[test]
fn unanswered_service_registration_does_not_block_others() {
    let engine = Engine::new();
    for (n, service) in ["aaa", "bbb"].into_iter().enumerate() {
        publish(&engine, service, 4000 + u16::try_from(n).unwrap());
    }
    let agent =
        Server::new(|request| if request.body.contains("aaa") { Reply::Silence } else { Reply::ok("{}") });
    let registrar = registrar(&engine, &format!("consul://{}", agent.address), "4s");
    eventually("the other, several times", || match agent.count(&format!("{PASS}service%3Abbb")) {
        3.. => Ok(()),
        times => Err(format!("{times}\n{}", registrar.log())),
    });
}

#[test]
fn concurrent_registrations_are_bounded() {
    const SERVICES: u16 = 122;
    let engine = Engine::new();
    for n in 0..SERVICES {
        publish(&engine, &format!("web-{n}"), 4000 + n);
    }
    let renewals = Arc::<Mutex<BTreeMap<String, Vec<Instant>>>>::default();
    let seen = Arc::clone(&renewals);
    let agent = Server::new(move |request| {
        if request.line.starts_with(PASS) {
            seen.lock().unwrap().entry(request.line.clone()).or_default().push(Instant::now());
        }
        pause(Duration::from_millis(60));
        Reply::ok("{}")
    });
    let registrar = registrar(&engine, &format!("consul://{}", agent.address), "4s");
    eventually("three renewals of each", || {
        let renewals = renewals.lock().unwrap();
        let least = renewals.values().map(Vec::len).min().unwrap_or_default();
        if renewals.len() == usize::from(SERVICES) && least >= 3 {
            return Ok(());
        }
        Err(format!("{} of {least}\n{}", renewals.len(), registrar.log()))
    });
    assert!((8..=16).contains(&agent.peak()), "{}", agent.peak());
    let renewals = renewals.lock().unwrap();
    let gaps = renewals.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
    let worst = gaps.max().unwrap_or_default();
    println!("register: {SERVICES} services of 60 ms each are renewed every {worst:.1?} at worst");
}

#[test]
fn key_rejected_by_etcd_does_not_block_others() {
    let engine = Engine::new();
    for (n, service) in ["aaa", "bbb", "ccc"].into_iter().enumerate() {
        publish(&engine, service, 4000 + u16::try_from(n).unwrap());
    }
    let refused = base64("/services/aaa");
    let refused = refused.trim_end_matches('=').to_owned();
    let refused = refused[..refused.len() - 2].to_owned();
    let agent = Server::new(move |request| match request.line.rsplit('/').next() {
        Some("grant" | "timetolive") => Reply::ok(r#"{"ID":"7","TTL":"2"}"#),
        Some("keepalive") => Reply::ok(r#"{"result":{"ID":"7","TTL":"2"}}"#),
        _ if request.body.contains(&refused) => {
            Reply::status("403 Forbidden", r#"{"message":"etcdserver: permission denied"}"#)
        }
        _ => Reply::ok("{}"),
    });
    let registrar = registrar(&engine, &format!("etcd://{}", agent.address), "2s");
    logs(&registrar, "registered key=/services/bbb/");
    logs(&registrar, "registered key=/services/ccc/");
    eventually("several renewals", || match agent.count("keepalive") {
        3.. => Ok(()),
        times => Err(format!("{times}\n{}", registrar.log())),
    });
    let log = registrar.log();
    assert_eq!(log.matches("permission denied").count(), 1, "{log}");
    assert!(log.contains("entry=\"/services/aaa/"), "{log}");
    assert!(!log.contains("registry unavailable"), "{log}");
}

// === answers that are too long ===

/// Returns the peak memory of the process in bytes.
fn peak_memory(ambassador: &Ambassador) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", ambassador.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap() * 1024
}

/// Returns `[[],[],...]`.
fn brackets(bytes: usize) -> Vec<u8> {
    let mut body = b"[".to_vec();
    body.extend(b"[],".repeat(bytes / 3));
    body.extend(b"[]]");
    body
}

#[test]
fn response_beyond_the_limit_is_an_error_with_the_limit() {
    let body = brackets(60 << 20);
    let agent = Server::new(move |_| Reply::Whole("200 OK\r\nX-Consul-Index: 1".to_owned(), body.clone()));
    let ambassador =
        Ambassador::with(&format!("127.0.0.1:0=consul://{}/web?name=r", agent.address)).start_unready();
    logs(&ambassador, "source unavailable");
    let log = ambassador.log();
    assert!(log.contains("more than 32 MiB") && log.contains("+TAG"), "{log}");
}

#[test]
fn memory_for_a_long_response_is_bounded() {
    const MIB: u64 = 1 << 20;
    let body = brackets(30 << 20);
    let agent = Server::new(move |request| {
        if request.line.contains("index=") {
            return Reply::Silence;
        }
        Reply::Whole("200 OK\r\nX-Consul-Index: 1".to_owned(), body.clone())
    });
    let ambassador =
        Ambassador::with(&format!("127.0.0.1:0=consul://{}/web?name=r", agent.address)).start_unready();
    eventually("the question after it", || {
        if agent.count("index=") > 0 { Ok(()) } else { Err(ambassador.log()) }
    });
    let peak = peak_memory(&ambassador);
    println!("registries: an answer of 30 MiB makes the process {} MiB large", peak / MIB);
    assert!(peak < 200 * MIB, "{} MiB", peak / MIB);
}
