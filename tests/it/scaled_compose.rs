//! One ambassador in front of a scaled Compose service, as in the example.

use std::collections::BTreeSet;

use crate::support::{
    Compose, Host, Load, Project, compose_1, compose_5, eventually, hosts, http_get, needs,
};

/// The `web` of the example.
struct Service<'a>(Project<'a>);

impl Service<'_> {
    fn scale(&self, replicas: usize) {
        self.0.compose(&format!("up -d --no-recreate --scale web={replicas}"));
        assert_eq!(self.replicas().len(), replicas);
    }

    /// Returns the names of the replicas.
    fn replicas(&self) -> BTreeSet<String> {
        let line = format!(
            "docker inspect --format '{{{{.Config.Hostname}}}}' \
             $(docker ps -q --filter label=com.docker.compose.project={} \
             --filter label=com.docker.compose.service=web)",
            self.0.name
        );
        self.0.host.shell(&line).lines().map(str::to_owned).collect()
    }

    /// Waits until each of these has replied more than once.
    fn all_answer(&self, load: &Load) {
        let before = load.report();
        eventually("every replica answers", || {
            let now = load.report();
            match self
                .replicas()
                .iter()
                .filter(|name| now.answers_of(name) < before.answers_of(name) + 2)
                .count()
            {
                0 => Ok(()),
                silent => Err(format!("{silent} are silent; {now:?}")),
            }
        });
    }
}

/// The client is on the other host.
fn scaled_up_and_down(compose: Compose, host: &Host, consumer: &Host) {
    let file = "scaled-compose/compose.yaml";
    let service = Service(Project { compose, host, name: "scaled", file, image: "ambassador" });
    service.scale(3);
    let load = Load::start(&consumer.namespace, host.address(8080), http_get);
    service.all_answer(&load);
    service.scale(5);
    service.all_answer(&load);
    service.scale(2);
    load.more(100);

    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.len(), 5, "{report:?}");
}

#[test]
fn scaling_a_compose_service_fails_no_request() {
    let hosts = needs!(hosts());
    scaled_up_and_down(needs!(compose_1()), &hosts.a, &hosts.b);
}

#[test]
fn scaling_a_compose_v5_service_fails_no_request() {
    let hosts = needs!(hosts());
    scaled_up_and_down(needs!(compose_5()), &hosts.b, &hosts.a);
}
