//! One ambassador before a scaled Compose service, by the files of the example.

use std::collections::BTreeSet;

use crate::support::{Host, Load, eventually, hosts, http_get, needs};

const PROJECT: &str = "scaled";
const FILE: &str = "scaled-compose/compose.yaml";

/// Taken down when dropped.
struct Service<'a>(&'a Host);

impl Service<'_> {
    fn compose(&self, words: &str) -> String {
        self.0.compose(PROJECT, FILE, words, &[])
    }

    fn scale(&self, replicas: usize) {
        self.compose(&format!("up -d --no-recreate --scale web={replicas}"));
    }

    /// As each calls itself.
    fn replicas(&self) -> BTreeSet<String> {
        let line = format!(
            "docker inspect --format '{{{{.Config.Hostname}}}}' \
             $(docker ps -q --filter label=com.docker.compose.project={PROJECT} \
             --filter label=com.docker.compose.service=web)"
        );
        self.0.shell(&line).lines().map(str::to_owned).collect()
    }

    /// Waits until these have all answered, each more than once.
    fn all_answer(&self, load: &Load) {
        let before = load.report().answers;
        eventually("every replica answers", || {
            let now = load.report().answers;
            let count =
                |name: &String| now.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
            match self.replicas().iter().filter(|name| count(name) < 2).count() {
                0 => Ok(()),
                silent => Err(format!("{silent} are silent; {:?}", load.report())),
            }
        });
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose("logs --no-color --tail 50 ambassador"));
        }
        self.compose("down -v --rmi local -t 5");
    }
}

#[test]
fn a_service_is_scaled_up_and_down_and_no_request_fails() {
    let hosts = needs!(hosts());
    if hosts.a.try_docker("version").is_err() || hosts.a.shell("command -v docker-compose || true").is_empty()
    {
        crate::support::skip!("docker-compose is not installed");
    }
    let service = Service(&hosts.a);
    service.scale(3);
    assert_eq!(service.replicas().len(), 3);

    let load = Load::start(&hosts.b.namespace, hosts.a.address(8080), http_get);
    service.all_answer(&load);
    service.scale(5);
    assert_eq!(service.replicas().len(), 5);
    service.all_answer(&load);
    service.scale(2);
    assert_eq!(service.replicas().len(), 2);
    load.more(100);

    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.len(), 5, "{report:?}");
}
