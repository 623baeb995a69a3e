//! The sources of changes, each with its own random stream: keys in etcd, scaling of containers, and edits of the
//! configuration.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::config::Config;
use super::rng::Rng;
use crate::support::{Ambassador, Container, Etcd, Host, eventually, pause};

pub(super) const PREFIX: &str = "/soak/";
/// An address that refuses connections.
const REFUSING_ADDR: &str = "127.0.0.1:1";
const MOST_REPLICAS: usize = 4;

/// Shared by all operators.
pub(super) struct SoakEnvironment<'a> {
    pub(super) ambassador: &'a Ambassador,
    pub(super) started: Instant,
    pub(super) until: Instant,
    pub(super) event_log: Mutex<Vec<String>>,
}

impl SoakEnvironment<'_> {
    fn is_running(&self) -> bool {
        Instant::now() < self.until
    }

    fn record(&self, what: &str) {
        let line = format!("{:8.3} s  {what}", self.started.elapsed().as_secs_f64());
        self.event_log.lock().unwrap().push(line);
    }

    /// Runs a command that must succeed.
    fn command(&self, words: &str) {
        self.record(words);
        let output = self.ambassador.verb(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {}: {stderr}\n{}", output.status, self.event_log());
    }

    fn pause(&self, route: &str, rng: &mut Rng) {
        self.command(&format!("pause {route}"));
        pause(rng.millis(50, 800));
        self.command(&format!("resume {route}"));
    }

    /// Drains an endpoint; its sessions continue.
    fn drain(&self, route: &str, endpoint: &str, rng: &mut Rng) {
        self.command(&format!("drain {route} {endpoint}"));
        pause(rng.millis(100, 1_500));
        self.command(&format!("drain {route} {endpoint} --undo"));
    }

    fn switch(&self, route: &str, target: &str, rng: &mut Rng) {
        self.command(&format!("switch {route} {target}"));
        pause(rng.millis(50, 1_000));
        self.command(&format!("switch {route} --reset"));
    }

    pub(super) fn event_log(&self) -> String {
        self.event_log.lock().unwrap().join("\n")
    }
}

/// Changes keys, kills etcd once, and sends commands for the route `keys`.
pub(super) struct KeyOperator<'a> {
    pub(super) environment: &'a SoakEnvironment<'a>,
    pub(super) etcd: Etcd,
    pub(super) backends: &'a [Backend],
    pub(super) rng: Rng,
    /// The backends that have a key.
    pub(super) present: BTreeSet<usize>,
    /// The number of times that health checks detected an unhealthy backend.
    pub(super) found_unhealthy: usize,
}

impl KeyOperator<'_> {
    pub(super) fn run(mut self) -> (Etcd, usize) {
        let length = self.environment.until - self.environment.started;
        let (quarter_time, half_time) =
            (self.environment.started + length / 4, self.environment.started + length / 2);
        let mut etcd_was_killed = false;
        while self.environment.is_running() {
            if !etcd_was_killed && Instant::now() >= half_time {
                self.kill_etcd();
                etcd_was_killed = true;
            }
            if self.found_unhealthy == 0 && Instant::now() >= quarter_time {
                self.fail_health_checks();
            }
            self.step();
            pause(self.rng.millis(20, 400));
        }
        (self.etcd, self.found_unhealthy)
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0 => self.environment.pause("keys", &mut self.rng),
            1 => {
                let backend = self.rng.clone().below(self.backends.len());
                let target = self.backends[backend].addr.to_string();
                self.environment.switch("keys", &target, &mut self.rng);
            }
            2 => self.drain(),
            3 => self.use_refusing_address(),
            4 => self.fail_health_checks(),
            5 => self.fail_health_checks_briefly(),
            _ => self.change_key(),
        }
    }

    fn change_key(&mut self) {
        let backend = self.rng.below(self.backends.len());
        if self.present.contains(&backend) && self.rng.below(3) > 0 {
            self.environment.record(&format!("key {backend} goes"));
            self.etcd.delete(&format!("{PREFIX}{backend}"));
            self.present.remove(&backend);
        } else {
            self.put(backend);
        }
        // Sessions are held, but not indefinitely.
        if self.present.is_empty() {
            pause(self.rng.millis(50, 1_500));
            let backend = self.rng.below(self.backends.len());
            self.put(backend);
        }
    }

    pub(super) fn put(&mut self, backend: usize) {
        let (addr, weight) = (self.backends[backend].addr, 1 + self.rng.below(3));
        self.environment.record(&format!("key {backend} added, weight {weight}"));
        let value = format!("{{\"address\":\"{addr}\",\"weight\":{weight}}}");
        self.etcd.put(&format!("{PREFIX}{backend}"), &value);
        self.present.insert(backend);
    }

    /// A drained endpoint keeps its sessions; here it also keeps its key, so that the drain can be undone.
    fn drain(&mut self) {
        let present: Vec<usize> = self.present.iter().copied().collect();
        let addr = self.backends[*self.rng.choose(&present)].addr.to_string();
        if super::endpoints(self.environment.ambassador, "keys").contains(&addr) {
            self.environment.drain("keys", &addr, &mut self.rng);
        }
    }

    fn use_refusing_address(&mut self) {
        self.environment.record("a key has an address that refuses");
        self.etcd.put(&format!("{PREFIX}refusing"), REFUSING_ADDR);
        pause(self.rng.millis(100, 1_000));
        self.etcd.delete(&format!("{PREFIX}refusing"));
    }

    /// Fails health checks until they detect it. The backend still serves requests, so none is lost.
    fn fail_health_checks(&mut self) {
        let present: Vec<usize> = self.present.iter().copied().collect();
        let backend = &self.backends[*self.rng.choose(&present)];
        self.environment.record(&format!("{} answers no health check", backend.addr));
        backend.healthy.store(false, Ordering::Relaxed);
        self.await_state(backend, "unhealthy");
        self.found_unhealthy += 1;
        pause(self.rng.millis(50, 1_500));
        backend.healthy.store(true, Ordering::Relaxed);
        self.environment.record(&format!("{} answers them again", backend.addr));
        self.await_state(backend, "healthy");
    }

    /// Fails health checks briefly; the detection depends on timing.
    fn fail_health_checks_briefly(&mut self) {
        let backend = self.rng.choose(self.backends);
        self.environment.record(&format!("{} hesitates to answer health checks", backend.addr));
        backend.healthy.store(false, Ordering::Relaxed);
        pause(self.rng.millis(50, 1_000));
        backend.healthy.store(true, Ordering::Relaxed);
    }

    fn await_state(&self, backend: &Backend, state: &str) {
        let addr = backend.addr.to_string();
        eventually(&format!("{addr} is found {state}"), || {
            let route = super::route(self.environment.ambassador, "keys");
            let mut endpoints = route["endpoints"].as_array().into_iter().flatten();
            let await_state = endpoints.any(|one| one["address"] == *addr && one["health"] == state);
            if await_state { Ok(()) } else { Err(route) }
        });
    }

    fn kill_etcd(&mut self) {
        self.environment.record("etcd is killed");
        self.etcd.kill();
        self.environment.pause("keys", &mut self.rng);
        pause(self.rng.millis(500, 1_500));
        self.etcd.start_again();
        self.environment.record("etcd is back");
    }
}

/// Starts and stops replicas, and sends commands for the route `containers`.
pub(super) struct Scaler<'a> {
    pub(super) environment: &'a SoakEnvironment<'a>,
    pub(super) host: &'a Host,
    pub(super) label: &'a str,
    pub(super) rng: Rng,
    pub(super) killed: &'a Mutex<BTreeSet<String>>,
    pub(super) replicas: Vec<Container>,
}

impl Scaler<'_> {
    pub(super) fn run(mut self) -> Vec<Container> {
        while self.environment.is_running() {
            self.step();
            pause(self.rng.millis(50, 500));
        }
        self.replicas
    }

    fn step(&mut self) {
        match self.rng.below(8) {
            0 => self.environment.pause("containers", &mut self.rng),
            1 | 2 => self.drain(),
            3..6 if self.replicas.len() < MOST_REPLICAS => self.up(),
            _ => self.down(),
        }
        if self.replicas.is_empty() {
            self.up();
        }
    }

    /// It completes pending requests within two seconds after SIGTERM, as a service should: a request that is
    /// interrupted is lost through any proxy, because its progress is unknown.
    pub(super) fn up(&mut self) {
        let number = self.rng.below(1_000_000);
        let name = format!("{}-{number}", self.label.replace('=', "-"));
        self.environment.record(&format!("{name} is started"));
        let serve = format!(
            "redis-server --save \"\" --protected-mode no --bind 0.0.0.0 --syslog-ident {name} & p=$!; \
             trap \"sleep 2; kill -9 $p; exit 0\" TERM; wait $p"
        );
        let container = Container::new(self.host, name);
        let (name, label) = (container.name(), self.label);
        self.host.shell(&format!("docker run -d --name {name} -l {label} redis sh -c '{serve}'"));
        self.replicas.push(container);
    }

    fn down(&mut self) {
        let replica = self.rng.below(self.replicas.len());
        let container = self.replicas.swap_remove(replica);
        self.environment.record(&format!("{} is stopped", container.name()));
        self.killed.lock().unwrap().insert(container.name().to_owned());
        container.docker("stop -t 30");
        self.environment.record(&format!("{} has ended", container.name()));
    }

    fn drain(&mut self) {
        let name = self.rng.choose(&self.replicas).name().to_owned();
        eventually("the ambassador knows the container", || {
            let route = super::route(self.environment.ambassador, "containers");
            if route["endpoints"].to_string().contains(&name) { Ok(()) } else { Err(route) }
        });
        self.environment.drain("containers", &name, &mut self.rng);
    }
}

/// Rewrites the configuration in the ways in which editors do, and with errors.
pub(super) struct ConfigEditor<'a> {
    pub(super) environment: &'a SoakEnvironment<'a>,
    pub(super) config: Config,
    pub(super) rng: Rng,
}

impl ConfigEditor<'_> {
    pub(super) fn run(mut self) {
        while self.environment.is_running() {
            pause(self.rng.millis(200, 1_500));
            match self.rng.below(6) {
                0 => {
                    self.environment.record("the file has a mistake");
                    self.config.write_invalid();
                    pause(Duration::from_millis(300));
                    self.config.write();
                }
                1 => self.environment.pause("fixed", &mut self.rng),
                _ => self.rewrite(),
            }
        }
        self.config.restore();
    }

    fn rewrite(&mut self) {
        self.config.vary(&mut self.rng);
        self.environment.record(&format!("the file is rewritten: {}", self.config.summary()));
        self.config.write();
    }
}
