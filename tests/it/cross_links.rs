//! Two containers that need each other, by the files of the example.

use crate::support::{Host, eventually, hosts, needs};

/// docker-compose 1.x, which reads the files of links' time; or why not.
fn compose_1(host: &Host) -> Result<(), String> {
    let version = host.shell("docker-compose version --short || true");
    if version.starts_with("1.") { Ok(()) } else { Err(format!("docker-compose is not 1.x but {version:?}")) }
}

/// A Compose project, taken down when dropped.
struct Project<'a> {
    host: &'a Host,
    name: &'a str,
    file: &'a str,
    vars: [(&'a str, &'a str); 1],
}

impl Project<'_> {
    fn compose(&self, words: &str) -> String {
        self.host.compose(self.name, self.file, words, &self.vars)
    }

    /// What one of its containers is told by another, under this name.
    fn fetch(&self, from: &str, url: &str) -> String {
        let words = format!("exec {}_{from}_1 wget -qO- {url}", self.name);
        eventually(url, || self.host.try_docker(&words))
    }

    fn both_ways(&self) {
        assert_eq!(self.fetch("nginx", "http://fpm:9000/"), "fpm says hello");
        assert_eq!(self.fetch("fpm", "http://nginx/"), "nginx says hello");
    }

    fn ip(&self, service: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.host.shell(&format!("docker inspect --format '{format}' {}_{service}_1", self.name))
    }

    /// Restarts a container in such a way that another one has its address afterwards.
    fn restart_elsewhere(&self, service: &str, network: &str) {
        let before = self.ip(service);
        self.host.docker(&format!("stop -t 1 {}_{service}_1", self.name));
        let _stranger = self.host.start("stranger", &format!("--network {network} --init busybox sleep 600"));
        self.host.docker(&format!("start {}_{service}_1", self.name));
        assert_ne!(before, self.ip(service), "it came back where it was");
        self.both_ways();
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose("logs --no-color ambassador"));
        }
        self.compose("down -v --rmi local -t 1");
    }
}

#[test]
fn containers_linked_to_a_grand_ambassador_reach_each_other_through_restarts() {
    let hosts = needs!(hosts());
    needs!(compose_1(&hosts.a));
    let project = Project {
        host: &hosts.a,
        name: "testapp",
        file: "cross-links/test3.yml",
        vars: [("AMBASSADOR_IMAGE", "cpuguy83/docker-grand-ambassador")],
    };
    project.compose("up -d");
    project.both_ways();
    project.restart_elsewhere("fpm", "bridge");
    project.restart_elsewhere("nginx", "bridge");
}

#[test]
fn containers_on_two_networks_reach_each_other_by_the_ambassadors_aliases() {
    let hosts = needs!(hosts());
    needs!(compose_1(&hosts.b));
    let project = Project {
        host: &hosts.b,
        name: "testapp2",
        file: "cross-links/compose.yaml",
        vars: [("AMBASSADOR_IMAGE", "ambassador")],
    };
    project.compose("up -d");
    project.both_ways();
    project.restart_elsewhere("fpm", "testapp2_fpm");
}
