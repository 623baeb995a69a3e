//! One minute of concurrent changes: twenty clients with short and long connections while keys change, containers are
//! scaled, the file is rewritten, an operator sends commands, and etcd is killed. No request may fail, and no resource
//! may leak. Hostile clients flood two more routes, and the ambassador has 1,024 descriptors. The targets in the file are
//! exports of another ambassador, so that one of two routes goes through tunnels.

#[path = "soak/attack.rs"]
mod attack;
#[path = "soak/backend.rs"]
mod backend;
#[path = "soak/client.rs"]
mod client;
#[path = "soak/config.rs"]
mod config;
#[path = "soak/operators.rs"]
mod operators;
#[path = "soak/resp.rs"]
mod resp;
#[path = "soak/rng.rs"]
pub(crate) mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{
    Ambassador, Container, Etcd, Host, Secret, eventually, hosts, needs, pause, private_ip, variable,
};
use attack::Attack;
use backend::Backend;
use client::{Client, Observations};
use config::Config;
use operators::{ConfigEditor, KeyOperator, Scaler, SoakEnvironment};
use rng::Rng;

/// The duration; `AMBASSADOR_TEST_SOAK_SECONDS` overrides it.
const LENGTH: Duration = Duration::from_secs(60);
const CLIENTS: usize = 20;
/// The timeout of the setup.
const PREPARATION: Duration = Duration::from_secs(60);
/// Every third client of a route holds long sessions.
const LONG_EVERY: usize = 3;
/// The time of the first measurement of memory: buffers and tables have grown by then.
const WARM: Duration = Duration::from_secs(10);
/// The permitted growth from then on: the allocator keeps a part of a peak.
const MEMORY_MARGIN_BYTES: u64 = 4 << 20;
/// A worker keeps this many idle pipes for bulk transfers (`relay::splice`), each with two ends.
const POOLED_PIPE_ENDS: usize = 16 * 2;
const LOG_TAIL_LINES: usize = 60;

#[test]
fn minute_of_changes_fails_no_request_and_leaks_nothing() {
    let host = &needs!(hosts()).a;
    let etcd = needs!(host.namespace.run(Etcd::start));
    host.namespace.run(|| soak(etcd, Some(host)));
}

/// Skipped if there are Docker hosts, because the other test includes it.
#[test]
fn minute_of_changes_without_docker_fails_no_request() {
    if hosts().is_ok() {
        return;
    }
    soak(needs!(Etcd::start()), None);
}

fn soak(etcd: Etcd, host: Option<&Host>) {
    let seed = setting("AMBASSADOR_TEST_SOAK_SEED").unwrap_or_else(clock);
    let length = setting("AMBASSADOR_TEST_SOAK_SECONDS").map_or(LENGTH, Duration::from_secs);
    eprintln!("soak: AMBASSADOR_TEST_SOAK_SEED={seed}, {length:?}");
    let backends: Vec<Backend> = (0..5).map(|n| Backend::new(format!("backend-{n}"))).collect();
    let label = format!("it.soak=s{}", std::process::id());

    let dir = tempfile::tempdir().unwrap();
    let mut routes = vec![("keys", format!("etcd://{}{}", etcd.address(), operators::PREFIX))];
    routes.extend(host.map(|_| ("containers", format!("docker://label:{label}:6379"))));
    let attack = is_attacked().then(|| Attack::prepare(Instant::now() + length + PREPARATION));
    let more = attack.as_ref().map(Attack::routes).unwrap_or_default();
    let far = Far::start(&backends);
    let config = Config::new(dir.path(), routes, more, far.targets.clone());
    config.write();
    let flags = far.secret.flags("soak");
    let mut builder = Ambassador::with(&format!("--config {} {flags}", config.path.display()));
    if attack.is_some() {
        builder = builder.limited_to(attack::DESCRIPTORS);
    }
    let ambassador = match host {
        Some(host) => builder.var("DOCKER_HOST", host.docker_host()).start(),
        None => builder.start(),
    };
    let names: Vec<&str> =
        if host.is_some() { vec!["keys", "fixed", "containers"] } else { vec!["keys", "fixed"] };
    let seen: Vec<Mutex<Observations>> = names.iter().map(|_| Mutex::default()).collect();
    let killed = Mutex::<BTreeSet<String>>::default();

    let started = Instant::now();
    let environment = SoakEnvironment {
        ambassador: &ambassador,
        started,
        until: started + length,
        event_log: Mutex::default(),
    };
    let mut key_operator = KeyOperator {
        environment: &environment,
        etcd,
        backends: &backends,
        rng: Rng::new(seed, 1),
        present: BTreeSet::new(),
        found_unhealthy: 0,
    };
    key_operator.put(0);
    key_operator.put(1);
    let scaler = host.map(|host| {
        let (rng, replicas) = (Rng::new(seed, 2), Vec::new());
        let mut scaler =
            Scaler { environment: &environment, host, label: &label, rng, killed: &killed, replicas };
        scaler.up();
        scaler
    });
    let editor = ConfigEditor { environment: &environment, config, rng: Rng::new(seed, 3) };

    // One session through each route, so that what is opened once is not reported as a leak.
    for (name, seen) in names.iter().zip(&seen) {
        seen.lock().unwrap().connects += 1;
        resp::Connection::open(ambassador.addr(name)).unwrap().finish().unwrap();
    }
    let before = ambassador.descriptors();
    let warm = length.min(WARM);
    let ((_etcd, found_unhealthy), _containers, memory_then) = thread::scope(|scope| {
        let key_operator = scope.spawn(|| key_operator.run());
        scope.spawn(|| editor.run());
        if attack.is_some() {
            scope.spawn(|| Attack::run(environment.until, seed, |route| ambassador.addr(route)));
        }
        let scaler = scaler.map(|scaler| scope.spawn(|| scaler.run()));
        for number in 0..CLIENTS {
            let route = number % names.len();
            let client = Client {
                name: format!("client {number} of {}", names[route]),
                addr: ambassador.addr(names[route]),
                rng: Rng::new(seed, 100 + number as u64),
                started,
                until: environment.until,
                seen: &seen[route],
                killed: &killed,
            };
            let holds_long = (number / names.len()).is_multiple_of(LONG_EVERY);
            scope.spawn(
                move || if holds_long { client.run_long_sessions() } else { client.run_short_sessions() },
            );
        }
        pause(warm);
        let memory = ambassador.memory();
        let containers: Option<Vec<Container>> = scaler.map(|scaler| scaler.join().expect("the scaler"));
        (key_operator.join().expect("the keeper"), containers, memory)
    });
    eprintln!("soak: health checks found {found_unhealthy} times that a backend is unhealthy");
    assert!(found_unhealthy > 0, "{}", environment.event_log());
    let longest_max = if attack.is_some() { attack::LONGEST_MAX } else { Duration::MAX };
    Outcome { seed, environment: &environment, names: &names, seen: &seen, longest_max }
        .hold(&before, memory_then);
}

/// The ambassador of another host, which exports the backends. The route `fixed` uses them through tunnels.
struct Far {
    secret: Secret,
    targets: Vec<String>,
    _ambassador: Ambassador,
}

impl Far {
    fn start(backends: &[Backend]) -> Far {
        let (secret, peer) = (Secret::new(), format!("{}:15008", private_ip()));
        let export = |(n, backend): (usize, &Backend)| format!(" peer:backend-{n}={}", backend.addr);
        let exports: String = backends.iter().enumerate().map(export).collect();
        let flags = secret.flags("far");
        let ambassador = Ambassador::with(&format!("{flags} --peer-listen {peer}{exports}")).start();
        let targets = (0..backends.len()).map(|n| format!("peer://{peer}/backend-{n}")).collect();
        Far { secret, targets, _ambassador: ambassador }
    }
}

/// The checks at the end.
struct Outcome<'a> {
    seed: u64,
    environment: &'a SoakEnvironment<'a>,
    names: &'a [&'a str],
    seen: &'a [Mutex<Observations>],
    /// Latencies of all replies.
    longest_max: Duration,
}

impl Outcome<'_> {
    fn hold(&self, descriptors_before: &BTreeMap<String, usize>, memory_then: u64) {
        let failures: Vec<String> =
            self.seen.iter().flat_map(|seen| seen.lock().unwrap().failures.clone()).collect();
        assert!(
            failures.is_empty(),
            "{} failed:\n{}\n{}",
            failures.len(),
            failures.join("\n"),
            self.summary()
        );
        for (name, seen) in self.names.iter().zip(self.seen) {
            let seen = seen.lock().unwrap();
            eprintln!(
                "soak: {name}: {} connects, {} answers from {} servers, the slowest after {:.2?}; {} long sessions finished \
                 with {} MB each way, {} ended with their server",
                seen.connects,
                seen.answered,
                seen.servers.len(),
                seen.longest,
                seen.long_finished,
                seen.streamed >> 20,
                seen.ended_with_their_server
            );
            assert!(
                seen.answered > 0 && seen.long_finished > 0 && seen.servers.len() > 1,
                "{}",
                self.summary()
            );
            assert!(
                seen.longest < self.longest_max,
                "{name} waited for {:?}: {}",
                seen.longest,
                self.summary()
            );
            self.every_session_has_ended(name, &seen);
        }
        self.descriptors_are_closed(descriptors_before);
        let memory_now = self.environment.ambassador.memory();
        eprintln!("soak: anonymous memory {} KB, then {} KB", memory_then >> 10, memory_now >> 10);
        assert!(memory_now < memory_then + MEMORY_MARGIN_BYTES, "{}", self.summary());
    }

    fn every_session_has_ended(&self, name: &str, seen: &Observations) {
        eventually("every session has ended", || {
            let route = route(self.environment.ambassador, name);
            let endings = route["endings"].as_object().cloned().unwrap_or_default();
            let ended: u64 = endings.values().filter_map(Value::as_u64).sum();
            let now = (route["active"].as_u64(), route["held"].as_u64(), ended);
            if now == (Some(0), Some(0), seen.connects) {
                Ok(())
            } else {
                Err(format!("{} connects: {route}", seen.connects))
            }
        });
        let route = route(self.environment.ambassador, name);
        eprintln!("soak: {name}: endings {}", route["endings"]);
        let unfinished = seen.connects - route["endings"]["finished"].as_u64().unwrap_or_default();
        assert!(unfinished <= seen.ended_with_their_server, "{route}\n{}", self.summary());
    }

    fn descriptors_are_closed(&self, before: &BTreeMap<String, usize>) {
        let workers = status(self.environment.ambassador)["workers"].as_array().map_or(0, Vec::len);
        eventually("the descriptors it had", || {
            let now = self.environment.ambassador.descriptors();
            let more = |kind: &String| now[kind].saturating_sub(before.get(kind).copied().unwrap_or(0));
            let within = |kind: &&String| {
                more(kind)
                    <= match kind.as_str() {
                        "pipe" => workers * POOLED_PIPE_ENDS,
                        // A tunnel of each worker, and one for health checks.
                        "socket" => workers + 1,
                        _ => 0,
                    }
            };
            if now.keys().all(|kind| within(&kind)) {
                Ok(())
            } else {
                Err(format!("{before:?}, and now {now:?}"))
            }
        });
        eprintln!("soak: descriptors {before:?}, then {:?}", self.environment.ambassador.descriptors());
    }

    /// Prints details for debugging.
    fn summary(&self) -> String {
        let log = self.environment.ambassador.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("ending=finished")).collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        let (seed, event_log) = (self.seed, self.environment.event_log());
        format!("AMBASSADOR_TEST_SOAK_SEED={seed}\nwhat was done:\n{event_log}\nthe end of its log:\n{tail}")
    }
}

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).expect("a status")
}

fn route(ambassador: &Ambassador, name: &str) -> Value {
    let status = status(ambassador);
    let route = status["routes"].as_array().unwrap().iter().find(|route| route["name"] == name);
    route.unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

/// Returns the addresses of a route's endpoints.
fn endpoints(ambassador: &Ambassador, name: &str) -> Vec<String> {
    let route = route(ambassador, name);
    let addresses = route["endpoints"].as_array().into_iter().flatten();
    addresses.filter_map(|endpoint| endpoint["address"].as_str().map(str::to_owned)).collect()
}

fn setting(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

/// Returns whether the attack is enabled; `AMBASSADOR_TEST_SOAK_ATTACK=0` disables it.
fn is_attacked() -> bool {
    setting("AMBASSADOR_TEST_SOAK_ATTACK") != Some(0)
}

fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_secs() ^ u64::from(now.subsec_nanos())
}
