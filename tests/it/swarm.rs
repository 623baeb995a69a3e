//! A service of a swarm with one node, as in the example.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use crate::support::{Load, Secret, SwarmHost, eventually, http_get, needs, swarm_host};

/// Removed when dropped; the swarm must outlive it.
struct Stack<'a>(&'a SwarmHost);

impl<'a> Stack<'a> {
    fn deploy(swarm: &'a SwarmHost) -> Stack<'a> {
        let stack = Stack(swarm);
        stack.update("1");
        stack
    }

    fn update(&self, config: &str) {
        self.run(config, "-c stack.yaml");
    }

    /// Its images are not in a registry.
    fn run(&self, config: &str, files: &str) {
        let line = format!("CONFIG={config} docker stack deploy --resolve-image never {files} shop");
        self.0.shell(&format!("cd {}/examples/swarm-stack && {line}", env!("CARGO_MANIFEST_DIR")));
    }

    fn scale(&self, tasks: usize) {
        self.0.docker(&format!("service scale shop_web={tasks}"));
    }

    /// Returns the names of the tasks.
    fn tasks(&self) -> BTreeSet<String> {
        let line = "docker inspect --format '{{.Config.Hostname}}' \
                    $(docker ps -q --filter label=com.docker.swarm.service.name=shop_web)";
        self.0.shell(line).lines().map(str::to_owned).collect()
    }

    /// Returns the container of the running task.
    fn ambassador(&self) -> String {
        self.0.docker("ps -q --filter label=com.docker.swarm.service.name=shop_ambassador")
    }

    /// Waits until all of this many tasks have replied.
    fn answers_from(&self, load: &Load, tasks: usize) {
        let before = load.report();
        eventually("every task answers", || {
            let (now, names) = (load.report(), self.tasks());
            let silent = |name: &&String| now.answers_of(name) < before.answers_of(name) + 2;
            match names.iter().find(silent) {
                None if names.len() == tasks => Ok(()),
                silent => Err(format!("{names:?}, {silent:?} is silent: {now:?}")),
            }
        });
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = "docker service ps --no-trunc shop_ambassador shop_web;
                        docker service logs shop_ambassador 2>&1 | grep -v 'INFO session' | tail -40";
            eprintln!("{}", self.0.shell(logs));
        }
        self.0.docker("stack rm shop");
        eventually("its containers are gone", || {
            match self.0.docker("ps -aq --filter label=com.docker.stack.namespace=shop").as_str() {
                "" => Ok(()),
                left => Err(left.to_owned()),
            }
        });
    }
}

#[test]
fn scaling_a_swarm_service_fails_no_request() {
    let swarm = needs!(swarm_host());
    let stack = Stack::deploy(&swarm);
    let published = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let load = Load::start(&swarm.namespace, published, http_get);
    stack.answers_from(&load, 1);
    // As in the stack, so that neither uses a task when it stops to listen: requests in its backlog would be reset.
    let _beside = swarm.start(
        "ambassador",
        "--network shop_backend -p 8081:80 ambassador --dns-max-ttl 1s 80=tasks.web?balance=round-robin",
    );
    let beside = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
    let loads = [load, Load::start(&swarm.namespace, beside, http_get)];
    for tasks in [3, 2] {
        stack.scale(tasks);
        loads.iter().for_each(|load| stack.answers_from(load, tasks));
    }
    for (load, of) in loads.into_iter().zip(["the stack's", "another"]) {
        load.more(300);
        let report = load.stop();
        assert_eq!(report.failures, Vec::<String>::new(), "{of}");
        assert_eq!(report.answers.len(), 3, "{of}: {report:?}");
        eprintln!("{of} ambassador: {} answers, the longest after {:?}", report.answered(), report.longest);
    }
}

#[test]
fn updated_swarm_config_is_applied() {
    let swarm = needs!(swarm_host());
    let stack = Stack::deploy(&swarm);
    let before = eventually("a task of the ambassador", || match stack.ambassador() {
        none if none.is_empty() => Err("there is none"),
        task => Ok(task),
    });
    stack.update("2");
    let after = eventually("another task of the ambassador", || match stack.ambassador() {
        task if !task.is_empty() && task != before => Ok(task),
        task => Err(format!("{before}, {task}")),
    });
    let configs = "{{range .Spec.TaskTemplate.ContainerSpec.Configs}}{{.ConfigName}} {{end}}";
    let configs = swarm.shell(&format!("docker service inspect --format '{configs}' shop_ambassador"));
    assert_eq!(configs.trim(), "shop_ambassador_2", "of {after}");
    let published = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let body = swarm.namespace.run(|| eventually("an answer", || http_get(published)));
    assert!(stack.tasks().contains(&body), "{body}");
}

#[test]
fn swarm_service_is_reached_from_outside_through_an_encrypted_tunnel() {
    let swarm = needs!(swarm_host());
    let secret = Secret::new();
    let secret_file = secret.path().display().to_string();
    swarm.docker(&format!("secret create peer {secret_file}"));
    let stack = Stack(&swarm);
    stack.run("1", "-c stack.yaml -c encrypted.yaml");
    // On the node's own network, as an ambassador of another host has its own.
    let _consumer = swarm.start(
        "ambassador",
        &format!(
            "--network host -v {secret_file}:/run/secrets/peer:ro ambassador \
             --peer-secret-file /run/secrets/peer 127.0.0.1:8082=peer://127.0.0.1/web"
        ),
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8082));
    let body = swarm.namespace.run(|| eventually("an answer through the tunnel", || http_get(address)));
    assert!(stack.tasks().contains(&body), "{body}");
}
