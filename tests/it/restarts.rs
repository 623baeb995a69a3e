//! A service that is killed or moved, or whose daemon dies, is a pause for its clients, not a refusal.

use std::time::Duration;

use crate::support::{Ambassador, Container, Host, Load, daemon_host, hosts, needs, redis_ping};

const SOCKET: &str = "-v /var/run/docker.sock:/var/run/docker.sock:ro";

/// Kills a server between two requests and restarts it while requests are held.
fn restart_under(load: &Load, redis: &Container) {
    {
        let _between_questions = load.pause();
        redis.docker("kill");
    }
    redis.docker("start");
    load.more(50);
}

fn has_not_failed(load: Load) {
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.longest < Duration::from_secs(10), "{report:?}");
}

fn killed_three_times(host: &Host, route_to: fn(&str) -> String, options: &str) {
    let network = host.network("restarts", "");
    let redis = host.start("redis", &format!("--network {} crosbymichael/redis", network.name));
    let ambassador = host.start(
        "ambassador",
        &format!("--network {} {options} ambassador 6379={}", network.name, route_to(redis.name())),
    );
    let load = Load::start(&host.namespace, ambassador.address(6379), redis_ping);
    for _ in 0..3 {
        restart_under(&load, &redis);
    }
    has_not_failed(load);
}

#[test]
fn killed_container_is_a_pause_not_a_refusal() {
    let hosts = needs!(hosts());
    killed_three_times(&hosts.a, |name| format!("docker://{name}"), SOCKET);
}

#[test]
fn killed_server_behind_a_host_name_is_a_pause_not_a_refusal() {
    let hosts = needs!(hosts());
    killed_three_times(&hosts.b, str::to_owned, "");
}

/// As a service of the machine, outside of containers.
#[test]
fn ambassador_outside_of_containers_follows_containers() {
    let hosts = needs!(hosts());
    let host = &hosts.b;
    let redis = host.start("redis", "crosbymichael/redis");
    let _ambassador = Ambassador::with(&format!("16379=docker://{}:6379", redis.name()))
        .var("DOCKER_HOST", host.docker_host())
        .inside(&host.namespace)
        .start();
    let load = Load::start(&host.namespace, host.address(16379), redis_ping);
    restart_under(&load, &redis);
    has_not_failed(load);
}

/// Many proxies keep the first resolved address.
#[test]
fn host_name_with_a_new_address_is_followed() {
    let hosts = needs!(hosts());
    let host = &hosts.b;
    let network = host.network("moves", "--subnet 10.92.0.0/24");
    let at = |ip: &str, alias: &str| {
        host.start(
            "redis",
            &format!("--network {} --ip {ip} --network-alias {alias} crosbymichael/redis", network.name),
        )
    };
    let first = at("10.92.0.10", "moving");
    let ambassador = host.start("ambassador", &format!("--network {} ambassador 6379=moving", network.name));
    let load = Load::start(&host.namespace, ambassador.address(6379), redis_ping);
    {
        let _between_questions = load.pause();
        drop(first);
    }
    let _second = at("10.92.0.20", "moving");
    load.more(50);
    has_not_failed(load);
}

/// The other container speaks another protocol at the previous address and port of the service.
#[test]
fn reassigned_address_is_never_connected_to() {
    let hosts = needs!(hosts());
    let host = &hosts.a;
    let network = host.network("strangers", "--subnet 10.91.0.0/24");
    let on = |rest: &str| format!("--network {} {rest}", network.name);
    let redis = host.start("redis", &on("--ip 10.91.0.10 crosbymichael/redis"));
    let ambassador =
        host.start("ambassador", &on(&format!("{SOCKET} ambassador 6379=docker://{}", redis.name())));
    let load = Load::start(&host.namespace, ambassador.address(6379), redis_ping);
    for _ in 0..3 {
        {
            let _between_questions = load.pause();
            redis.docker("kill");
        }
        host.docker(&format!("network disconnect {} {}", network.name, redis.name()));
        let stranger = host.start("stranger", &on("--ip 10.91.0.10 busybox httpd -f -p 6379"));
        assert_eq!(stranger.ip().to_string(), "10.91.0.10");
        host.docker(&format!("network connect --ip 10.91.0.20 {} {}", network.name, redis.name()));
        redis.docker("start");
        load.more(50);
        let _between_questions = load.pause();
        drop(stranger);
        redis.docker("kill");
        host.docker(&format!("network disconnect {} {}", network.name, redis.name()));
        host.docker(&format!("network connect --ip 10.91.0.10 {} {}", network.name, redis.name()));
        redis.docker("start");
    }
    load.more(50);
    has_not_failed(load);
}

#[test]
fn killed_docker_daemon_fails_no_request_and_is_followed_again() {
    let host = needs!(daemon_host());
    let redis = host.start("redis", "crosbymichael/redis");
    // The directory, not the socket: a restarted daemon creates a new socket.
    let socket = format!("-v {}:/engine -e DOCKER_HOST=unix:///engine/docker.sock", host.dir().display());
    let ambassador = host.start("ambassador", &format!("{socket} ambassador 6379=docker://{}", redis.name()));
    let load = Load::start(&host.namespace, ambassador.address(6379), redis_ping);
    host.kill_daemon();
    load.more(300);
    host.start_daemon();
    load.more(300);
    restart_under(&load, &redis);
    has_not_failed(load);
}
