//! The program as a process: exit codes, signals, its log, its files, its limits.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Ambassador, Builder, eventually, needs, variable};

const PATIENCE: Duration = Duration::from_secs(30);

/// Greets each connection with its name, then waits for its end. Lives as long as the test's process.
fn service(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
    addr
}

fn greeting(addr: SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut name = [0; 3];
    stream.read_exact(&mut name).unwrap();
    (stream, String::from_utf8_lossy(&name).into_owned())
}

pub(crate) fn run(args: &str) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ambassador"));
    command.args(args.split_whitespace()).env_clear().env("AMBASSADOR_ADMIN", "unix:/nonexistent/admin.sock");
    command.output().unwrap()
}

#[test]
fn exit_codes_tell_usage_from_what_is_not_there() {
    let taken = service("one");
    for (args, code, says) in [
        ("", 64, "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS"),
        ("6379", 64, "6379=redis:6379"),
        ("6379=redis --no-such-flag", 64, "--no-such-flag"),
        ("check 6379=redis?blance=p2c", 64, "balance"),
        ("health", 69, "--admin"),
        ("status", 69, "--admin"),
        ("sessions", 69, "--admin"),
        ("events --follow", 69, "--admin"),
        ("pause r", 69, "--admin"),
        ("switch r x:1 --wait", 69, "--admin"),
        ("routes add 1=x:1", 69, "--admin"),
        ("puase", 64, "did you mean the command `pause`"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
        assert!(stderr.contains(says), "{args}: {stderr}");
    }
    let output =
        run(&format!("--admin unix:/tmp/ambassador-{}.sock {taken}=127.0.0.1:1", std::process::id()));
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another program listens there"));
    for args in [
        "--help",
        "help",
        "help switch",
        "help routes add",
        "--version",
        "check 6379=redis",
        "completions bash",
        "man",
        "switch --help",
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(!output.stdout.is_empty(), "{args}");
    }
}

#[test]
fn every_verb_has_a_man_page() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&format!("man --out {}/pages", dir.path().display())).status.code(), Some(0));
    for page in ["ambassador.1", "ambassador-switch.1", "ambassador-routes-add.1"] {
        let text = std::fs::read_to_string(dir.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    let page =
        |name: &str| std::fs::read_to_string(dir.path().join("pages").join(name)).unwrap().replace('\\', "");
    assert!(
        page("ambassador-switch.1").contains("[--timeout <DURATION>]"),
        "{}",
        page("ambassador-switch.1")
    );
    assert!(page("ambassador.1").contains("[--config <PATH>]"), "{}", page("ambassador.1"));
    assert!(!dir.path().join("pages/ambassador-help.1").exists());
    let printed = String::from_utf8(run("man").stdout).unwrap().replace('\\', "");
    assert!(printed.contains("[--config <PATH>]") && !printed.contains("help(1)"), "{printed}");
    assert_eq!(run("man --out /proc/nowhere").status.code(), Some(1));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let output = run("check 1=a:1 1=b:1 99999=c x=d 2=e?hold=10");
    let stderr = String::from_utf8_lossy(&output.stderr);
    for place in ["argument 2", "argument 3", "argument 4", "argument 5"] {
        assert!(stderr.contains(place), "{place}: {stderr}");
    }
}

#[test]
fn a_source_that_has_never_answered_keeps_the_process_unready_and_is_named() {
    let route = format!("127.0.0.1:0=docker://db?name=r&backup={}", service("one"));
    let mut ambassador = Ambassador::with(&route).var("DOCKER_HOST", "unix:///nowhere/docker.sock").spawn();
    let reason = "Docker has not answered yet: ";
    eventually("the reason", || {
        let health = ambassador.verb("health");
        let text = String::from_utf8_lossy(&health.stderr).into_owned();
        if text.contains(reason) { Ok(()) } else { Err(format!("{text}{}", ambassador.log())) }
    });
    assert_eq!(ambassador.verb("health").status.code(), Some(1));
    ambassador.signal(Signal::TERM);
    assert_eq!(ambassador.ends_within(PATIENCE).code(), Some(0));
}

#[test]
fn sigterm_lets_a_session_finish_and_ends_with_zero() {
    let mut ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start();
    let (stream, name) = greeting(ambassador.addr("r"));
    assert_eq!(name, "one");
    ambassador.signal(Signal::TERM);
    eventually("draining", || if ambassador.log().contains("SIGTERM") { Ok(()) } else { Err("not yet") });
    assert_eq!(ambassador.verb("health").status.code(), Some(1), "it still answers, and is not ready");
    drop(stream);
    assert_eq!(ambassador.ends_within(PATIENCE).code(), Some(0));
    assert!(ambassador.log().contains("ending=finished"), "{}", ambassador.log());
}

#[test]
fn a_second_signal_cuts_at_once() {
    let args = format!("--drain-timeout 10m 127.0.0.1:0={}?name=r", service("one"));
    let mut ambassador = Ambassador::with(&args).start();
    let (mut stream, _) = greeting(ambassador.addr("r"));
    ambassador.signal(Signal::INT);
    eventually("draining", || if ambassador.log().contains("SIGINT") { Ok(()) } else { Err("not yet") });
    ambassador.signal(Signal::INT);
    assert_eq!(ambassador.ends_within(PATIENCE).code(), Some(0));
    assert!(stream.read(&mut [0; 1]).is_err(), "reset");
    eventually("the ending", || {
        if ambassador.log().contains("ending=drained") { Ok(()) } else { Err(ambassador.log()) }
    });
}

#[test]
fn the_json_log_has_one_line_for_each_session_with_all_that_happened() {
    let args = format!("--log-format json 127.0.0.1:0={}?name=r", service("one"));
    let ambassador = Ambassador::with(&args).start();
    drop(greeting(ambassador.addr("r")));
    let line = eventually("the session's line", || {
        let log = ambassador.log();
        let line = log.lines().find(|line| line.contains("\"access\""));
        line.map(str::to_owned).ok_or(log)
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["route"], "r");
    assert_eq!(line["bytes_down"], 3);
    assert_eq!(line["bytes_up"], 0);
    assert_eq!(line["attempts"], 1);
    assert_eq!(line["ending"], "finished");
    assert!(line["duration_ms"].as_f64().unwrap() >= 0.0 && line["held_ms"] == 0.0);
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["endpoint"].as_str().unwrap().starts_with("127.0.0.1:"));
}

/// Sessions run one after the other; SIGTERM follows at once after the last.
#[test]
fn access_log_has_all_sessions_in_the_order_of_their_endings_when_the_process_has_ended() {
    const SESSIONS: usize = 300;
    let one = service("one");
    for (format, before, after) in [("text", " client=", " "), ("json", "\"client\":\"", "\"")] {
        let args = format!("--workers 1 --log-format {format} 127.0.0.1:0={one}?name=r");
        let mut ambassador = Ambassador::with(&args).start();
        let addr = ambassador.addr("r");
        let clients: Vec<String> = (0..SESSIONS).map(|_| finished_session(addr).to_string()).collect();
        ambassador.signal(Signal::TERM);
        assert_eq!(ambassador.ends_within(PATIENCE).code(), Some(0));
        let log = eventually("the last line", || {
            if ambassador.log().contains("drained") { Ok(ambassador.log()) } else { Err(ambassador.log()) }
        });
        let logged = log.lines().filter_map(|line| line.split_once(before)?.1.split_once(after));
        assert_eq!(logged.map(|(client, _)| client).collect::<Vec<_>>(), clients, "{log}");
    }
}

/// Returns the address of its client.
fn finished_session(addr: SocketAddr) -> SocketAddr {
    let (mut stream, _) = greeting(addr);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    stream.local_addr().unwrap()
}

/// The log of a session that finishes and of one that is denied, up to the end of the process.
fn log_of_sessions(builder: impl FnOnce(&str) -> Builder) -> String {
    let one = service("one");
    let routes = format!("127.0.0.1:0={one}?name=r 127.0.0.2:0={one}?name=d&deny=127.0.0.0/8");
    let mut ambassador = builder(&routes).start();
    drop(greeting(ambassador.addr("r")));
    let mut denied = TcpStream::connect(ambassador.addr("d")).unwrap();
    assert_eq!(denied.read(&mut [0; 1]).unwrap_or_default(), 0);
    let ended = |name: &str, ending: &str| {
        eventually(ending, || {
            let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
            let routes = status["routes"].as_array().unwrap();
            let route = routes.iter().find(|route| route["name"] == name).unwrap();
            if route["endings"][ending] == 1 { Ok(()) } else { Err(route.to_string()) }
        });
    };
    ended("r", "finished");
    ended("d", "denied");
    ambassador.signal(Signal::TERM);
    ambassador.ends_within(PATIENCE);
    eventually("the last line", || {
        if ambassador.log().contains("drained") { Ok(ambassador.log()) } else { Err(ambassador.log()) }
    })
}

#[test]
fn access_log_has_all_sessions_or_those_with_an_error_or_none() {
    for (which, finished, denied) in [("all", 1, 1), ("errors", 0, 1), ("off", 0, 0)] {
        let by_flag = log_of_sessions(|routes| Ambassador::with(&format!("--access-log {which} {routes}")));
        let by_variable =
            log_of_sessions(|routes| Ambassador::with(routes).var("AMBASSADOR_ACCESS_LOG", which));
        for log in [by_flag, by_variable] {
            let found = ["ending=finished", "ending=denied"].map(|ending| log.matches(ending).count());
            assert_eq!(found, [finished, denied], "{which}: {log}");
        }
    }
}

#[test]
fn start_is_logged_with_version_routes_and_admin_addresses() {
    let ambassador = Ambassador::with("--admin 127.0.0.1:0 127.0.0.1:0=127.0.0.1:1").spawn();
    let line = format!("INFO ambassador {} started routes=1 admin=127.0.0.1:", env!("CARGO_PKG_VERSION"));
    eventually("the line", || if ambassador.log().contains(&line) { Ok(()) } else { Err(ambassador.log()) });
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1").start();
    let line = format!("routes=1 admin=unix:{}\n", ambassador.admin().display());
    eventually("the line", || if ambassador.log().contains(&line) { Ok(()) } else { Err(ambassador.log()) });
}

#[test]
fn fatal_errors_at_start_are_lines_of_json_in_a_json_log() {
    let taken = service("one");
    for (args, code, lines, says) in [
        ("--log-format json 99999=c x=d", 64, 2, "99999"),
        ("--log-format=json", 64, 1, "nothing to do"),
        ("--log-format json 1=a:1 --no-such-flag", 64, 1, "--no-such-flag"),
        (
            &format!(
                "--log-format json --admin unix:/tmp/ambassador-json-{}.sock {taken}=a:1",
                std::process::id()
            ),
            69,
            1,
            "another program",
        ),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
        let found: Vec<Value> =
            stderr.lines().map(|line| serde_json::from_str(line).expect(&stderr)).collect();
        let errors: Vec<&Value> = found.iter().filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), lines, "{args}: {stderr}");
        assert!(errors[0]["message"].as_str().unwrap().contains(says), "{args}: {stderr}");
    }
    let mistake: Value = serde_json::from_slice(&run("--log-format json 99999=c").stderr).unwrap();
    assert_eq!(mistake["place"], "argument 1");
    assert!(run("--log-format json status --no-such-flag").stderr.starts_with(b"{"), "no verb comes first");
    assert!(run("status --no-such-flag").stderr.starts_with(b"error: "));
}

fn config(target: SocketAddr) -> String {
    format!("[[route]]\nname = \"r\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\n")
}

/// Until fresh sessions are answered by this service; the listener stays what it was.
fn await_answer(addr: SocketAddr, name: &str) {
    eventually(name, || if greeting(addr).1 == name { Ok(()) } else { Err("still the other") });
}

#[test]
fn a_changed_file_rewires_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    std::fs::write(&path, config(service("one"))).unwrap();
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = ambassador.addr("r");
    let (old, name) = greeting(addr);
    assert_eq!(name, "one");

    std::fs::write(&path, config(service("two"))).unwrap();
    await_answer(addr, "two");
    assert_eq!(ambassador.verb("status --json").status.code(), Some(0));
    old.set_nonblocking(true).unwrap();
    let silent = (&old).read(&mut [0; 1]).unwrap_err();
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock, "the old session goes on");

    std::fs::write(&path, "[[route]]\nlisten = \"127.0.0.1:0\"\ntarget = \"x:1\"\nblance = \"no\"\n")
        .unwrap();
    eventually("the mistake", || {
        let log = ambassador.log();
        if log.contains("blance") && log.contains("ambassador.toml:4:1") { Ok(()) } else { Err(log) }
    });
    assert_eq!(greeting(addr).1, "two");

    // As an editor does that writes beside and renames; and as SIGHUP asks.
    let beside = dir.path().join("beside");
    std::fs::write(&beside, config(service("new"))).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    await_answer(addr, "new");
    ambassador.signal(Signal::HUP);
    eventually("SIGHUP", || if ambassador.log().contains("SIGHUP") { Ok(()) } else { Err("not yet") });
    assert_eq!(greeting(addr).1, "new");
}

#[test]
fn a_configmap_rewires_by_its_symlink() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, target: SocketAddr| {
        let version = dir.path().join(name);
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("ambassador.toml"), config(target)).unwrap();
        version
    };
    let swap = |version: &Path| {
        symlink(version, dir.path().join("..data_tmp")).unwrap();
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    swap(&version("..1", service("one")));
    symlink("..data/ambassador.toml", dir.path().join("ambassador.toml")).unwrap();
    let path = dir.path().join("ambassador.toml");
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = ambassador.addr("r");
    assert_eq!(greeting(addr).1, "one");
    swap(&version("..2", service("two")));
    await_answer(addr, "two");
}

#[test]
fn out_of_descriptors_connections_wait_and_none_is_lost() {
    let builder = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).limited_to(64);
    let ambassador = builder.start();
    let addr = ambassador.addr("r");
    // 64 files are room for some 15 sessions; the others wait in the backlog, each until one before it leaves.
    let consumers: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(addr).unwrap())
        .map(|mut stream| {
            thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut name = [0; 3];
                stream.read_exact(&mut name).map(|()| name)
            })
        })
        .collect();
    for consumer in consumers {
        assert_eq!(&consumer.join().unwrap().unwrap(), b"one");
    }
    let log = ambassador.log();
    assert_eq!(log.matches("cannot accept").count(), 1, "said once: {log}");
    assert_eq!(greeting(addr).1, "one", "and it has recovered");
}

#[test]
fn a_thousand_ports_cost_at_most_two_megabytes() {
    let one = Ambassador::with("127.0.0.77:20000=127.0.0.1:1").start();
    let thousand = Ambassador::with("127.0.0.78:20000-20999=127.0.0.1:1").start();
    let more = thousand.memory().saturating_sub(one.memory());
    assert!(more <= 2 << 20, "{} KB more", more / 1024);
}

/// The pages of the program's file are shared with others and can be dropped; these cannot.
#[test]
fn an_idle_ambassador_has_at_most_two_megabytes_of_memory_of_its_own() {
    let shipped = needs!(variable("AMBASSADOR_TEST_SHIPPED").ok_or("the program that ships is not there"));
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1").of(shipped).start();
    let own = ambassador.memory();
    assert!(own <= 2 << 20, "{} KB", own / 1024);
}

#[test]
fn every_session_has_its_line_in_the_log_when_a_second_signal_ended_the_process() {
    const SESSIONS: usize = 300;
    const OPEN: usize = 20;
    let mut ambassador = Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start();
    let route = ambassador.addr("r");
    (0..SESSIONS).for_each(|_| drop(greeting(route)));
    let _open: Vec<_> = (0..OPEN).map(|_| greeting(route)).collect();
    ambassador.signal(Signal::TERM);
    eventually("no new session", || match TcpStream::connect(route) {
        Ok(_) => Err("it was accepted"),
        Err(_) => Ok(()),
    });
    ambassador.signal(Signal::TERM);
    ambassador.ends_within(PATIENCE);
    // The test's own reader may be behind.
    eventually("all lines", || match ambassador.log().matches(" session route=r ").count() {
        count if count >= SESSIONS + OPEN => Ok(()),
        count => Err(format!("{count} lines")),
    });
}

/// What it prints on standard output and error, and how it ends.
fn printed(args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ambassador"));
    let output = command.args(args).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn mistyped_command_is_answered_with_the_nearest_one() {
    for (args, meant) in [
        (&["help", "statsu"][..], "unknown command `statsu`: did you mean `status`?"),
        (&["help", "routes", "ad"], "unknown command `ad`: did you mean `add`?"),
        (&["routes", "remvoe", "x"], "unknown command `remvoe`: did you mean `remove`?"),
        (&["help", "nonsense"], "unknown command `nonsense`: choose one of `ca`, `check`, `dashboard`,"),
        (&["statsu"], "did you mean the command `status`?"),
    ] {
        let (code, text) = printed(args);
        assert!(code == Some(64) && text.contains(meant), "{args:?}: {code:?} {text}");
    }
}

#[test]
fn check_names_what_docker_will_be_asked_for() {
    let (code, text) = printed(&["check", "-name", "redis"]);
    let expected = "no routes are written\n\
        Docker at /var/run/docker.sock, which `check` does not ask, adds every exposed port of container redis\n";
    assert_eq!((code, text.as_str()), (Some(0), expected));
}
