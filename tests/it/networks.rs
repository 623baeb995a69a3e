//! A service behind an alias of its ambassador on user-defined networks, as in the example.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::{Container, Host, Load, eventually, hosts, needs, redis_ping};

/// The longest time from the start of the service to its reply. DNS is queried once a second and a new container must
/// start its server; the rest is for a busy machine. Far less than `hold`, which is ten seconds.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The example; its script removes it when this is dropped.
struct Example<'a>(&'a Host);

impl<'a> Example<'a> {
    fn up(host: &'a Host, route: &str) -> Example<'a> {
        let example = Example(host);
        example.clean();
        example.run("up.sh", &[route]);
        assert_eq!(example.run("ask.sh", &[]), "PONG");
        example
    }

    fn run(&self, file: &str, args: &[&str]) -> String {
        self.0.example(&format!("networks/{file}"), args).unwrap_or_else(|why| panic!("{why}"))
    }

    fn clean(&self) {
        self.0.example("networks/clean.sh", &["data2"]).ok();
    }

    fn ip(&self, container: &str, network: &str) -> IpAddr {
        let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        let ip = self.0.shell(&format!("docker inspect --format '{format}' {container}"));
        ip.parse().unwrap_or_else(|_| panic!("{container} is not on {network}: {ip:?}"))
    }

    fn load(&self) -> Load {
        let addr = SocketAddr::new(self.ip("app_redis", "app"), 6379);
        Load::start(&self.0.namespace, addr, redis_ping)
    }

    /// Recreates the service and returns another container that has its previous address.
    fn recreate(&self, load: &Load, away: Duration) -> (Duration, Container) {
        let before = self.ip("store", "data");
        let gone = Instant::now();
        {
            let _between_questions = load.pause();
            self.0.docker("rm -f store");
        }
        let stranger = self.0.start("stranger", "--network data --init busybox sleep 600");
        eventually("the time is over", || match gone.elapsed() {
            elapsed if elapsed >= away => Ok(()),
            elapsed => Err(format!("{elapsed:?}")),
        });
        self.run("service.sh", &["data"]);
        let pause = until_it_answers(load);
        assert_ne!(before, self.ip("store", "data"), "it has the same address as before");
        (pause, stranger)
    }

    fn move_to_another_network(&self, load: &Load) -> Duration {
        {
            let _between_questions = load.pause();
            self.run("move.sh", &["data2"]);
        }
        until_it_answers(load)
    }
}

impl Drop for Example<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.shell("docker logs app_redis 2>&1 | grep -v 'INFO session' | tail -40"));
        }
        self.clean();
    }
}

fn until_it_answers(load: &Load) -> Duration {
    let there = Instant::now();
    load.more(1);
    let pause = there.elapsed();
    load.more(50);
    pause
}

fn follows(host: &Host, route: &str) {
    let _names = host.documents_names();
    let example = Example::up(host, route);
    let load = example.load();
    let away = [0, 0, 6].map(Duration::from_secs);
    let (mut pauses, _strangers): (Vec<_>, Vec<_>) =
        away.into_iter().map(|away| example.recreate(&load, away)).unzip();
    pauses.push(example.move_to_another_network(&load));
    assert_eq!(example.run("ask.sh", &[]), "PONG");

    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    eprintln!("{route}: answered {pauses:?} after it was there; longest wait {:?}", report.longest);
    assert!(pauses.iter().all(|pause| *pause < PAUSE_MAX), "{pauses:?}");
    assert!(report.longest < Duration::from_secs(10), "{report:?}");
}

#[test]
fn recreated_and_moved_service_is_followed_by_dns_name() {
    let hosts = needs!(hosts());
    follows(&hosts.b, "6379=store");
}

#[test]
fn recreated_and_moved_service_is_followed_as_a_container() {
    let hosts = needs!(hosts());
    follows(&hosts.a, "6379=docker://store");
}

#[test]
fn recreated_and_moved_service_is_followed_by_label() {
    let hosts = needs!(hosts());
    follows(&hosts.a, "--docker");
}

/// The client starts before the service, so the name has never been resolved.
#[test]
fn service_started_after_its_first_client_is_found_within_seconds() {
    let hosts = needs!(hosts());
    let host = &hosts.b;
    let network = host.network("late", "");
    let ambassador = host.start("ambassador", &format!("--network {} ambassador 6379=late", network.name));
    let (addr, namespace) = (ambassador.address(6379), host.namespace.clone());
    eventually("it listens", || host.try_docker(&format!("exec {} /ambassador health", ambassador.name())));
    let client = std::thread::spawn(move || namespace.run(|| (redis_ping(addr), Instant::now())));
    let _redis =
        host.start("redis", &format!("--network {} --network-alias late crosbymichael/redis", network.name));
    let there = Instant::now();
    let (answer, at) = client.join().expect("a client");
    assert_eq!(answer.expect("an answer"), "PONG");
    let pause = at.saturating_duration_since(there);
    eprintln!("late: answered {pause:?} after it was there");
    assert!(pause < Duration::from_millis(2500), "{pause:?}");
}
