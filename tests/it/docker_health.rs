//! Docker's health checks on a real host: they determine which containers get new sessions, and open sessions continue.
//! The containers are found by label.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{Ambassador, Container, Host, eventually, hosts, http_get, needs};

/// The containers of one test, which have its label.
struct LabelledContainers<'a> {
    host: &'a Host,
    label: String,
}

impl LabelledContainers<'_> {
    fn new<'a>(host: &'a Host, test: &str) -> LabelledContainers<'a> {
        LabelledContainers { host, label: format!("it.health={test}-{}", std::process::id()) }
    }

    /// Starts a web server that returns its name and is healthy while the file `/ok` exists.
    fn start(&self, name: &str, check: &str) -> Container {
        let container = Container::new(self.host, format!("{}-{name}", self.label.replace(['.', '='], "-")));
        let serve =
            format!("mkdir /www; touch /ok; echo {name} >/www/index.html; exec httpd -f -p 80 -h /www");
        self.host.shell(&format!(
            "docker run -d --name {} -l {} --health-interval=200ms --health-retries=1 --health-timeout=1h --health-cmd='{check}' busybox \
             sh -c '{serve}'",
            container.name(),
            self.label
        ));
        container
    }

    fn ambassador(&self) -> Ambassador {
        let route =
            format!("127.0.0.1:0=docker://label:{}:80?name=r&hold=30s&balance=round-robin", self.label);
        let ambassador = Ambassador::with(&route).inside(&self.host.namespace);
        ambassador.var("DOCKER_HOST", self.host.docker_host()).start()
    }
}

const CHECK: &str = "test -e /ok";

fn is(container: &Container, health: &str) {
    eventually(health, || match container.inspect("{{.State.Health.Status}}") {
        now if now == health => Ok(()),
        now => Err(now),
    });
}

fn set(container: &Container, host: &Host, health: &str) {
    let what = if health == "healthy" { "touch" } else { "rm -f" };
    host.docker(&format!("exec {} {what} /ok", container.name()));
    is(container, health);
}

fn route(ambassador: &Ambassador) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    status["routes"][0].clone()
}

/// Waits until the endpoints have these weights and tiers, in any order.
fn shares(ambassador: &Ambassador, expected: &[(u64, u64)]) {
    eventually("these shares", || {
        let route = route(ambassador);
        let endpoints = route["endpoints"].as_array().cloned().unwrap_or_default();
        let number = |e: &Value, key: &str| e[key].as_u64().unwrap();
        let mut found: Vec<_> = endpoints.iter().map(|e| (number(e, "weight"), number(e, "tier"))).collect();
        found.sort_unstable();
        if found == expected { Ok(()) } else { Err(route.to_string()) }
    });
}

/// Returns the names of the servers that reply to six requests, sorted, without duplicates.
fn answers(host: &Host, addr: SocketAddr) -> Vec<String> {
    let ask = || http_get(addr).unwrap();
    let mut names: Vec<String> = host.namespace.run(|| (0..6).map(|_| ask()).collect());
    names.sort();
    names.dedup();
    names
}

#[test]
fn unhealthy_container_gets_no_new_session_and_keeps_open_ones() {
    let host = &needs!(hosts()).a;
    let containers = LabelledContainers::new(host, "open");
    let (one, two) = (containers.start("one", CHECK), containers.start("two", CHECK));
    is(&one, "healthy");
    is(&two, "healthy");
    let ambassador = containers.ambassador();
    let addr = ambassador.addr("r");
    shares(&ambassador, &[(1, 0), (1, 0)]);
    assert_eq!(answers(host, addr), ["one", "two"]);

    // One on each of the two: round robin alternates.
    let open: Vec<TcpStream> =
        host.namespace.run(|| (0..2).map(|_| TcpStream::connect(addr).unwrap()).collect());
    eventually("two sessions", || match route(&ambassador)["active"].as_u64() {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    set(&two, host, "unhealthy");
    shares(&ambassador, &[(0, 0), (1, 0)]);
    assert_eq!(answers(host, addr), ["one"]);
    let mut answered: Vec<String> = open.into_iter().map(finish).collect();
    answered.sort();
    assert_eq!(answered, ["one", "two"]);

    set(&two, host, "healthy");
    shares(&ambassador, &[(1, 0), (1, 0)]);
    assert_eq!(answers(host, addr), ["one", "two"]);
}

/// Sends a request on an existing connection.
fn finish(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned()
}

#[test]
fn sessions_are_held_and_status_reports_it_when_all_containers_are_unhealthy() {
    let host = &needs!(hosts()).a;
    let containers = LabelledContainers::new(host, "all");
    let one = containers.start("one", CHECK);
    is(&one, "healthy");
    let ambassador = containers.ambassador();
    let addr = ambassador.addr("r");
    set(&one, host, "unhealthy");
    shares(&ambassador, &[(0, 0)]);
    let problems = route(&ambassador)["problems"].to_string();
    assert!(problems.contains("is unhealthy: it takes no new sessions"), "{problems}");

    std::thread::scope(|scope| {
        let held = scope.spawn(|| host.namespace.run(|| http_get(addr).unwrap()));
        eventually("a held session", || match route(&ambassador)["held"].as_u64() {
            Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        set(&one, host, "healthy");
        assert_eq!(held.join().unwrap(), "one");
    });
}

#[test]
fn starting_container_is_tried_last() {
    let host = &needs!(hosts()).a;
    let containers = LabelledContainers::new(host, "new");
    let old = containers.start("old", CHECK);
    // Its first check never returns, so it stays `starting`.
    let new = containers.start("new", "sleep 3600");
    is(&old, "healthy");
    is(&new, "starting");
    let ambassador = containers.ambassador();
    let addr = ambassador.addr("r");
    shares(&ambassador, &[(1, 0), (1, 1)]);
    assert_eq!(answers(host, addr), ["old"]);
    old.docker("stop -t 0");
    assert_eq!(answers(host, addr), ["new"]);
}
