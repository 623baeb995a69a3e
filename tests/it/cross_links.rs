//! Two containers with links to each other, as in the example.

use crate::support::{Compose, Container, Host, Project, compose_1, compose_5, eventually, hosts, needs};

/// Fetches a page from one container by this name in another.
fn fetch(project: &Project<'_>, from: &str, url: &str) -> String {
    let words = format!("exec {} wget -qO- {url}", project.container(from));
    eventually(url, || project.host.try_docker(&words))
}

fn both_ways(project: &Project<'_>) {
    assert_eq!(fetch(project, "nginx", "http://fpm:9000/"), "fpm says hello");
    assert_eq!(fetch(project, "fpm", "http://nginx/"), "nginx says hello");
}

fn ip(project: &Project<'_>, service: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    project.host.shell(&format!("docker inspect --format '{format}' {}", project.container(service)))
}

/// Restarts a container and ensures that another one gets its address. On a network shared with other tests, the first
/// new containers may get addresses that those tests released.
fn restart_elsewhere(project: &Project<'_>, service: &str, network: &str) {
    const STRANGERS_MAX: usize = 8;
    let (host, container, before) = (project.host, project.container(service), ip(project, service));
    host.docker(&format!("stop -t 1 {container}"));
    let mut strangers = Vec::new();
    let has_it = |stranger: &Container| stranger.ip().to_string() == before;
    while strangers.len() < STRANGERS_MAX && !strangers.last().is_some_and(has_it) {
        strangers.push(host.start("stranger", &format!("--network {network} --init busybox sleep 600")));
    }
    host.docker(&format!("start {container}"));
    assert_ne!(before, ip(project, service), "it has the same address as before");
    both_ways(project);
}

#[test]
fn containers_linked_to_one_ambassador_reach_each_other_across_restarts() {
    let hosts = needs!(hosts());
    let project = Project {
        compose: needs!(compose_1()),
        host: &hosts.a,
        name: "testapp",
        file: "cross-links/test3.yml",
        image: "cpuguy83/docker-grand-ambassador",
    };
    project.compose("up -d");
    both_ways(&project);
    restart_elsewhere(&project, "fpm", "bridge");
    restart_elsewhere(&project, "nginx", "bridge");
}

fn on_two_networks(compose: Compose, host: &Host) {
    let file = "cross-links/compose.yaml";
    let project = Project { compose, host, name: "testapp2", file, image: "ambassador" };
    project.compose("up -d");
    both_ways(&project);
    restart_elsewhere(&project, "fpm", "testapp2_fpm");
}

#[test]
fn containers_on_two_networks_reach_each_other_by_aliases() {
    let hosts = needs!(hosts());
    on_two_networks(needs!(compose_1()), &hosts.b);
}

#[test]
fn containers_of_compose_v5_reach_each_other() {
    let hosts = needs!(hosts());
    on_two_networks(needs!(compose_5()), &hosts.a);
}
