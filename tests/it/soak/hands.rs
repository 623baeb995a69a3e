//! Those who change things meanwhile, each in an order of its own seed: who keeps the keys in etcd, who scales the
//! containers, who rewrites the configuration.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::config::Config;
use super::dice::Dice;
use crate::support::{Ambassador, Container, Etcd, Host, eventually, pause};

pub(super) const PREFIX: &str = "/soak/";
/// Nobody has ever listened there.
const NOBODY: &str = "127.0.0.1:1";
const MOST_REPLICAS: usize = 4;

/// What all of them share.
pub(super) struct Stage<'a> {
    pub(super) ambassador: &'a Ambassador,
    pub(super) started: Instant,
    pub(super) until: Instant,
    pub(super) diary: Mutex<Vec<String>>,
}

impl Stage<'_> {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn note(&self, what: &str) {
        let line = format!("{:8.3} s  {what}", self.started.elapsed().as_secs_f64());
        self.diary.lock().unwrap().push(line);
    }

    /// An order by hand, which must succeed.
    fn order(&self, words: &str) {
        self.note(words);
        let output = self.ambassador.verb(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {}: {stderr}\n{}", output.status, self.diary());
    }

    fn pause(&self, route: &str, dice: &mut Dice) {
        self.order(&format!("pause {route}"));
        pause(dice.millis(50, 800));
        self.order(&format!("resume {route}"));
    }

    /// Its sessions go on.
    fn drain(&self, route: &str, endpoint: &str, dice: &mut Dice) {
        self.order(&format!("drain {route} {endpoint}"));
        pause(dice.millis(100, 1_500));
        self.order(&format!("drain {route} {endpoint} --undo"));
    }

    fn switch(&self, route: &str, target: &str, dice: &mut Dice) {
        self.order(&format!("switch {route} {target}"));
        pause(dice.millis(50, 1_000));
        self.order(&format!("switch {route} --reset"));
    }

    pub(super) fn diary(&self) -> String {
        self.diary.lock().unwrap().join("\n")
    }
}

/// Keys that come, change and go; an etcd that is killed once; and orders for the route `keys`.
pub(super) struct Keeper<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) etcd: Etcd,
    pub(super) backends: &'a [Backend],
    pub(super) dice: Dice,
    /// Which of the backends have a key.
    pub(super) present: BTreeSet<usize>,
    /// How often health checks found one unhealthy.
    pub(super) found_unhealthy: usize,
}

impl Keeper<'_> {
    pub(super) fn work(mut self) -> (Etcd, usize) {
        let length = self.stage.until - self.stage.started;
        let (quarter_time, half_time) = (self.stage.started + length / 4, self.stage.started + length / 2);
        let mut etcd_was_killed = false;
        while self.stage.goes_on() {
            if !etcd_was_killed && Instant::now() >= half_time {
                self.kill_etcd();
                etcd_was_killed = true;
            }
            if self.found_unhealthy == 0 && Instant::now() >= quarter_time {
                self.fall_silent();
            }
            self.act();
            pause(self.dice.millis(20, 400));
        }
        (self.etcd, self.found_unhealthy)
    }

    fn act(&mut self) {
        match self.dice.below(12) {
            0 => self.stage.pause("keys", &mut self.dice),
            1 => {
                let backend = self.dice.clone().below(self.backends.len());
                let target = self.backends[backend].addr.to_string();
                self.stage.switch("keys", &target, &mut self.dice);
            }
            2 => self.drain(),
            3 => self.name_nobody(),
            4 => self.fall_silent(),
            5 => self.hesitate(),
            _ => self.change_a_key(),
        }
    }

    fn change_a_key(&mut self) {
        let backend = self.dice.below(self.backends.len());
        if self.present.contains(&backend) && self.dice.below(3) > 0 {
            self.stage.note(&format!("key {backend} goes"));
            self.etcd.delete(&format!("{PREFIX}{backend}"));
            self.present.remove(&backend);
        } else {
            self.put(backend);
        }
        // Sessions wait, but not for ever.
        if self.present.is_empty() {
            pause(self.dice.millis(50, 1_500));
            let backend = self.dice.below(self.backends.len());
            self.put(backend);
        }
    }

    pub(super) fn put(&mut self, backend: usize) {
        let (addr, weight) = (self.backends[backend].addr, 1 + self.dice.below(3));
        self.stage.note(&format!("key {backend} comes, weight {weight}"));
        let value = format!("{{\"address\":\"{addr}\",\"weight\":{weight}}}");
        self.etcd.put(&format!("{PREFIX}{backend}"), &value);
        self.present.insert(backend);
    }

    /// A drained endpoint keeps its sessions; here it keeps its key too, so that it can be undone.
    fn drain(&mut self) {
        let present: Vec<usize> = self.present.iter().copied().collect();
        let addr = self.backends[*self.dice.one_of(&present)].addr.to_string();
        if super::endpoints(self.stage.ambassador, "keys").contains(&addr) {
            self.stage.drain("keys", &addr, &mut self.dice);
        }
    }

    fn name_nobody(&mut self) {
        self.stage.note("a key names an address where nobody is");
        self.etcd.put(&format!("{PREFIX}nobody"), NOBODY);
        pause(self.dice.millis(100, 1_000));
        self.etcd.delete(&format!("{PREFIX}nobody"));
    }

    /// As health checks see it, until they have found out. It serves all that it is asked, so that none of it is lost.
    fn fall_silent(&mut self) {
        let present: Vec<usize> = self.present.iter().copied().collect();
        let backend = &self.backends[*self.dice.one_of(&present)];
        self.stage.note(&format!("{} answers no health check", backend.addr));
        backend.well.store(false, Ordering::Relaxed);
        self.is_found(backend, "unhealthy");
        self.found_unhealthy += 1;
        pause(self.dice.millis(50, 1_500));
        backend.well.store(true, Ordering::Relaxed);
        self.stage.note(&format!("{} answers them again", backend.addr));
        self.is_found(backend, "healthy");
    }

    /// For a moment; whether that is found out is chance.
    fn hesitate(&mut self) {
        let backend = self.dice.one_of(self.backends);
        self.stage.note(&format!("{} hesitates to answer health checks", backend.addr));
        backend.well.store(false, Ordering::Relaxed);
        pause(self.dice.millis(50, 1_000));
        backend.well.store(true, Ordering::Relaxed);
    }

    fn is_found(&self, backend: &Backend, state: &str) {
        let addr = backend.addr.to_string();
        eventually(&format!("{addr} is found {state}"), || {
            let route = super::route(self.stage.ambassador, "keys");
            let mut endpoints = route["endpoints"].as_array().into_iter().flatten();
            let is_found = endpoints.any(|one| one["address"] == *addr && one["health"] == state);
            if is_found { Ok(()) } else { Err(route) }
        });
    }

    fn kill_etcd(&mut self) {
        self.stage.note("etcd is killed");
        self.etcd.kill();
        self.stage.pause("keys", &mut self.dice);
        pause(self.dice.millis(500, 1_500));
        self.etcd.start_again();
        self.stage.note("etcd is back");
    }
}

/// Replicas that are started and stopped; and orders for the route `containers`.
pub(super) struct Scaler<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) host: &'a Host,
    pub(super) label: &'a str,
    pub(super) dice: Dice,
    pub(super) killed: &'a Mutex<BTreeSet<String>>,
    pub(super) replicas: Vec<Container>,
}

impl Scaler<'_> {
    pub(super) fn work(mut self) -> Vec<Container> {
        while self.stage.goes_on() {
            self.act();
            pause(self.dice.millis(50, 500));
        }
        self.replicas
    }

    fn act(&mut self) {
        match self.dice.below(8) {
            0 => self.stage.pause("containers", &mut self.dice),
            1 | 2 => self.drain(),
            3..6 if self.replicas.len() < MOST_REPLICAS => self.up(),
            _ => self.down(),
        }
        if self.replicas.is_empty() {
            self.up();
        }
    }

    /// It finishes what it was asked for two seconds after SIGTERM, as a service should: a request that is cut midway
    /// is lost through any proxy, for nobody can know how far it went.
    pub(super) fn up(&mut self) {
        let number = self.dice.below(1_000_000);
        let name = format!("{}-{number}", self.label.replace('=', "-"));
        self.stage.note(&format!("{name} is started"));
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
        let replica = self.dice.below(self.replicas.len());
        let container = self.replicas.swap_remove(replica);
        self.stage.note(&format!("{} is stopped", container.name()));
        self.killed.lock().unwrap().insert(container.name().to_owned());
        container.docker("stop -t 30");
        self.stage.note(&format!("{} has ended", container.name()));
    }

    fn drain(&mut self) {
        let name = self.dice.one_of(&self.replicas).name().to_owned();
        eventually("the ambassador knows the container", || {
            let route = super::route(self.stage.ambassador, "containers");
            if route["endpoints"].to_string().contains(&name) { Ok(()) } else { Err(route) }
        });
        self.stage.drain("containers", &name, &mut self.dice);
    }
}

/// The configuration, rewritten in each way that editors know, and with mistakes.
pub(super) struct Editor<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) config: Config,
    pub(super) dice: Dice,
}

impl Editor<'_> {
    pub(super) fn work(mut self) {
        while self.stage.goes_on() {
            pause(self.dice.millis(200, 1_500));
            match self.dice.below(6) {
                0 => {
                    self.stage.note("the file has a mistake");
                    self.config.break_it();
                    pause(Duration::from_millis(300));
                    self.config.write();
                }
                1 => self.stage.pause("fixed", &mut self.dice),
                _ => self.rewrite(),
            }
        }
        self.config.restore();
    }

    fn rewrite(&mut self) {
        self.config.vary(&mut self.dice);
        self.stage.note(&format!("the file is rewritten: {}", self.config.summary()));
        self.config.write();
    }
}
