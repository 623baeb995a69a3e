//! Measures the time from a change to the first reply through a session that was held for it, for `cargo xtask
//! latency`. Not a test, because machines differ.

use std::fmt::Display;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Ambassador, Container, Etcd, Host, Service, ask, eventually, hosts, http_get, needs};

const ROUNDS: usize = 20;

#[test]
#[ignore = "a measurement: `cargo xtask latency`"]
fn latency_of_changes() {
    let host = &needs!(hosts()).a;
    let etcd = needs!(Etcd::start());
    eprintln!("| change | median | fastest to slowest of {ROUNDS} | goal |\n|---|---|---|---|");
    let missed = [
        row("Docker: a container is unpaused", 50, host.namespace.run(|| unpaused(host))),
        row("Docker: a container is started", 50, host.namespace.run(|| started(host))),
        row("an etcd key", 100, key(&etcd)),
        row("a file of endpoints", 300, file_of_endpoints()),
        row("the configuration file", 300, configuration()),
    ];
    let missed: Vec<&str> = missed.into_iter().flatten().collect();
    assert!(missed.is_empty(), "slower than the goal: {missed:?}");
}

/// Prints the measurement, and whether it misses the goal.
fn row(what: &'static str, goal_ms: u64, mut took: Vec<Duration>) -> Option<&'static str> {
    took.sort();
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let (median, fastest, slowest) = (took[took.len() / 2], took[0], took[took.len() - 1]);
    eprintln!("| {what} | {} ms | {} to {} ms | {goal_ms} ms |", ms(median), ms(fastest), ms(slowest));
    (median > Duration::from_millis(goal_ms)).then_some(what)
}

/// Returns the time of the reply to the held session, and the result of `change`.
fn time_of_held_session<T>(
    ambassador: &Ambassador,
    ask: impl Fn(SocketAddr) + Sync,
    change: impl FnOnce() -> T,
) -> (SystemTime, T) {
    let addr = ambassador.addr("r");
    eventually("no endpoint", || is(ambassador, |route| route["endpoints"] == Value::Array(Vec::new())));
    thread::scope(|scope| {
        let answered = scope.spawn(|| {
            ask(addr);
            SystemTime::now()
        });
        eventually("one who waits", || is(ambassador, |route| route["held"] == 1));
        let changed = change();
        (answered.join().expect("an answer"), changed)
    })
}

fn is(ambassador: &Ambassador, so: impl FnOnce(&Value) -> bool) -> Result<(), impl Display> {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    if so(&status["routes"][0]) { Ok(()) } else { Err(status) }
}

fn since(then: SystemTime, answered: SystemTime) -> Duration {
    answered.duration_since(then).expect("an answer after the question")
}

fn unpaused(host: &Host) -> Vec<Duration> {
    let web = host.start("latency", "busybox httpd -f -p 80");
    let ambassador = before(host, &web);
    let round = |_| {
        web.docker("pause");
        let (answered, ()) = time_of_held_session(&ambassador, answer, || drop(web.docker("unpause")));
        since(event(host, &web, "unpause"), answered)
    };
    (0..ROUNDS).map(round).collect()
}

/// Its server starts to listen slightly after the event.
fn started(host: &Host) -> Vec<Duration> {
    let web = host.start("latency", "busybox httpd -f -p 80");
    let ambassador = before(host, &web);
    let round = |_| {
        web.docker("kill");
        let (answered, ()) = time_of_held_session(&ambassador, answer, || drop(web.docker("start")));
        since(event(host, &web, "start"), answered)
    };
    (0..ROUNDS).map(round).collect()
}

fn before(host: &Host, container: &Container) -> Ambassador {
    let route = format!("127.0.0.1:0=docker://{}:80?name=r&hold=30s", container.name());
    Ambassador::with(&route).var("DOCKER_HOST", host.docker_host()).start()
}

/// Any reply is sufficient: the server's directory has no page.
fn answer(addr: SocketAddr) {
    if let Err(why) = http_get(addr) {
        assert!(why.to_string().contains("404"), "{why}");
    }
}

/// Returns the time of the engine's last event of this kind.
fn event(host: &Host, container: &Container, event: &str) -> SystemTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (since, until) = (now - 60, now + 1);
    let name = container.name();
    let lines = host.docker(&format!(
        "events --since {since} --until {until} --filter container={name} --filter event={event} --format {{{{.TimeNano}}}}"
    ));
    let nanos = lines.lines().last().and_then(|line| line.parse().ok()).expect("an event");
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn key(etcd: &Etcd) -> Vec<Duration> {
    let one = Service::new("one");
    let ambassador = follower(&format!("etcd://{}/s", etcd.address()));
    changes(&ambassador, || etcd.delete("/s/a"), || etcd.put("/s/a", &one.addr))
}

fn file_of_endpoints() -> Vec<Duration> {
    let (one, dir) = (Service::new("one"), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.endpoints");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("");
    let ambassador = follower(&format!("file:{}", path.display()));
    changes(&ambassador, || write(""), || write(&one.addr))
}

/// From a file without endpoints to one with an address.
fn configuration() -> Vec<Duration> {
    let (one, dir) = (Service::new("one"), tempfile::tempdir().unwrap());
    let (path, empty) = (dir.path().join("a.toml"), dir.path().join("empty.endpoints"));
    std::fs::write(&empty, "").unwrap();
    let write = |target: &str| {
        let text = format!(
            "[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\nhold = \"30s\"\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    let empty = format!("file:{}", empty.display());
    write(&empty);
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    changes(&ambassador, || write(&empty), || write(&one.addr))
}

fn follower(target: &str) -> Ambassador {
    Ambassador::with(&format!("127.0.0.1:0={target}?name=r&hold=30s")).start()
}

/// Measures from before the change to the reply.
fn changes(ambassador: &Ambassador, leave: impl Fn(), come: impl Fn() + Sync) -> Vec<Duration> {
    let hear_one = |addr| assert_eq!(ask(addr), "one");
    let round = |_| {
        leave();
        let begin = || {
            let began = SystemTime::now();
            come();
            began
        };
        let (answered, began) = time_of_held_session(ambassador, hear_one, begin);
        since(began, answered)
    };
    (0..ROUNDS).map(round).collect()
}
