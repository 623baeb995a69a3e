//! What `ambassador status` shows in each state that docs/troubleshooting.md explains.
//!
//! Each output is a file beside this one, and the page contains it word for word. `AMBASSADOR_BLESS=1` rewrites both.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::{
    Ambassador, Builder, Ca, Clogged, Dns, Engine, Secret, Service, eventually, needs, variable,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Addresses of this module; nothing listens on the first.
const VACANT: &str = "127.77.0.1:6377";
const SILENT: &str = "127.77.0.2:6379";
const CONTAINER: &str = "127.77.0.3";

/// Replaced in every output by the beginning of an address of Docker's, which has the same width.
const NETWORK: (&str, &str) = ("127.77.0.", "172.17.0.");

fn golden(state: &str) -> PathBuf {
    [ROOT, "tests/it/troubleshooting", &format!("{state}.txt")].iter().collect()
}

fn page() -> PathBuf {
    [ROOT, "docs/troubleshooting.md"].iter().collect()
}

/// Waits until `status` shows this state, with `shown` in place of what differs from one run to the next. `words` are of
/// this state alone.
fn shows(ambassador: &Ambassador, state: &str, words: &str, replaced: &[(&str, &str)]) {
    let status = || {
        let output = ambassador.verb("status");
        let text = String::from_utf8(output.stdout).unwrap();
        let text = replaced.iter().chain([&NETWORK]).fold(text, |text, (from, to)| text.replace(from, to));
        with_one_tunnel(&with_one_age(&text))
    };
    if variable("AMBASSADOR_BLESS").is_some() {
        let is_shown = |text: String| if text.contains(words) { Ok(text) } else { Err(text) };
        return bless(state, &eventually(state, || is_shown(status())));
    }
    let expected = fs::read_to_string(golden(state)).unwrap();
    assert!(expected.contains(words), "{words} is not in {state}.txt");
    eventually(state, || {
        let now = status();
        if now == expected { Ok(()) } else { Err(format!("\n{now}instead of\n{expected}")) }
    });
}

/// Every age of some seconds is one of three. The table keeps its width for ages below ten.
fn with_one_age(text: &str) -> String {
    let part = |part: &str| match part.strip_suffix(" s ago") {
        Some(part) => format!("{}3 s ago", part.trim_end_matches(|c: char| c.is_ascii_digit())),
        None => part.to_owned(),
    };
    text.split_inclusive(" s ago").map(part).collect()
}

/// Round trip, age and bytes of a tunnel differ from one run to the next.
fn with_one_tunnel(text: &str) -> String {
    const HEAD: &str = "DIRECTION  STATE  TUNNELS  SESSIONS  RTT     AGE  SENT     RECEIVED";
    const ROW: &str = "dialled    ok     1        0         0.4 ms  3s   1.8 KiB  1.6 KiB";
    if !text.contains("  dialled    ok  ") {
        return text.to_owned();
    }
    let part = |line: &str| match (line.find("DIRECTION  "), line.find("dialled    ok  ")) {
        (Some(at), _) => format!("{}{HEAD}\n", &line[..at]),
        (_, Some(at)) => format!("{}{ROW}\n", &line[..at]),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(part).collect()
}

/// Writes the output of a state into its file, and into the page where that has the one before.
fn bless(state: &str, text: &str) {
    let lock = File::open(ROOT).unwrap();
    lock.lock().unwrap();
    let before = fs::read_to_string(golden(state)).unwrap_or_default();
    fs::write(golden(state), text).unwrap();
    if !before.is_empty() {
        let old = fs::read_to_string(page()).unwrap();
        fs::write(page(), old.replace(&indented(&before), &indented(text))).unwrap();
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Every state has its own test below.
#[test]
fn page_has_each_output_word_for_word_and_no_other() {
    let page = fs::read_to_string(page()).unwrap();
    let files = fs::read_dir(golden("").parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let outputs: Vec<String> = files.map(|path| indented(&fs::read_to_string(path).unwrap())).collect();
    let missing = outputs.iter().filter(|output| !page.contains(*output));
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "outputs that the page lacks");
    let known: usize = outputs.iter().map(|output| page.matches(output).count()).sum();
    assert_eq!(page.matches("    ROUTE  ENDPOINT").count(), known, "the page has an output of no test");
}

/// Two clients of the route `redis`.
fn clients(ambassador: &Ambassador) -> [TcpStream; 2] {
    let addr = ambassador.addr("redis");
    [(); 2].map(|()| TcpStream::connect(addr).unwrap())
}

fn redis(target: &str) -> Ambassador {
    Ambassador::with(&format!("127.0.0.1:0={target}")).start()
}

#[test]
fn wrong_port() {
    let ambassador = redis(&format!("{VACANT}?name=redis"));
    let _clients = clients(&ambassador);
    shows(&ambassador, "wrong-port", "connection refused", &[]);
}

#[test]
fn target_that_does_not_answer() {
    let target = Clogged::at(SILENT.parse().unwrap());
    let ambassador = redis(&format!("{}?name=redis&connect-timeout=1s", target.addr));
    let _clients = clients(&ambassador);
    shows(&ambassador, "no-answer", "connection timed out", &[]);
}

#[test]
fn endpoint_that_fails_its_health_check() {
    let ambassador = redis(&format!("{VACANT}?name=redis&health=tcp&health-interval=1s"));
    shows(&ambassador, "unhealthy-endpoint", "unhealthy", &[]);
}

#[test]
fn paused_route() {
    let service = Service::new("one").addr;
    let ambassador = redis(&format!("{service}?name=redis"));
    assert!(ambassador.verb("pause redis").status.success());
    let _clients = clients(&ambassador);
    // As wide, since the kernel's ports have five digits.
    shows(&ambassador, "paused-route", "paused by hand", &[(&service, "172.17.0.3:6379")]);
}

#[test]
fn route_that_was_changed_by_hand() {
    let mut services = [Service::new("one"), Service::new("two")].map(|service| service.addr);
    // The table is sorted by address.
    services.sort();
    let [one, two] = services;
    let ambassador = redis("127.77.0.1:6379?name=redis");
    let order = |words: &str| assert!(ambassador.verb(words).status.success(), "{words}");
    order(&format!("switch redis {one},{two}"));
    order(&format!("weight redis {one} 3"));
    order(&format!("drain redis {two}"));
    let replaced = [(one.as_str(), "172.17.0.3:6379"), (two.as_str(), "172.17.0.4:6379")];
    shows(&ambassador, "changed-by-hand", "weight 3 by hand", &replaced);
    // As it says.
    order(&format!("weight redis {one} --reset"));
    order(&format!("drain redis {two} --undo"));
    order("switch redis --reset");
    let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
    assert!(!status.contains("by hand"), "{status}");
}

#[test]
fn refused_configuration_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambassador.toml");
    let good = format!("[[route]]\nname = \"redis\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{VACANT}\"\n");
    fs::write(&path, &good).unwrap();
    let path = path.display().to_string();
    let ambassador = Ambassador::with(&format!("--config {path}")).start();
    fs::write(&path, format!("{good}blance = \"p2c\"\n")).unwrap();
    shows(&ambassador, "refused-file", "configuration refused", &[(&path, "/etc/ambassador.toml")]);
}

fn with_docker(engine: &str, args: &str) -> Builder {
    Ambassador::with(args).var("DOCKER_HOST", engine)
}

/// A container as `/containers/ID/json` shows it.
fn container(state: &Value) -> Value {
    json!({
        "Id": format!("0123456789ab{:0<52}", ""), "Name": "/redis", "Image": "redis",
        "Created": "2026-01-01T00:00:00.5Z", "State": state, "HostConfig": { "NetworkMode": "default" },
        "Config": { "Labels": {} },
        "NetworkSettings": { "Networks": { "net": { "NetworkID": "net", "IPAddress": CONTAINER } } }
    })
}

/// An engine with one container, `redis`, in this state.
fn engine(state: &Value) -> Engine {
    let engine = Engine::new();
    engine.start("redis", container(state));
    engine
}

const FOLLOWED: &str = "127.0.0.1:0=docker://redis:6379?name=redis";

#[test]
fn docker_socket_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock").display().to_string();
    let ambassador = with_docker(&format!("unix://{path}"), FOLLOWED).start_unready();
    shows(&ambassador, "docker-missing", "is lost", &[(&path, "/var/run/docker.sock")]);
}

#[test]
fn docker_socket_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let engine = Engine::new();
    let host = engine.docker_host();
    let path = host.trim_start_matches("unix://");
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let program = env!("CARGO_BIN_EXE_ambassador");
    // Root may connect to any socket, except without this capability.
    let builder = match rustix::process::geteuid().is_root() {
        false => with_docker(&host, FOLLOWED),
        true => {
            let drop = "--inh-caps=-dac_override --bounding-set=-dac_override";
            with_docker(&host, &format!("{drop} {program} {FOLLOWED}")).of("/usr/bin/setpriv".to_owned())
        }
    };
    shows(&builder.start_unready(), "docker-denied", "is lost", &[(path, "/var/run/docker.sock")]);
}

#[test]
fn container_that_does_not_exist() {
    let engine = Engine::new();
    let ambassador = with_docker(&engine.docker_host(), FOLLOWED).start();
    let _clients = clients(&ambassador);
    shows(&ambassador, "no-container", "there is no container", &[]);
}

#[test]
fn container_that_is_paused() {
    let engine = engine(&json!({ "Running": true, "Paused": true }));
    let ambassador = with_docker(&engine.docker_host(), FOLLOWED).start();
    let _clients = clients(&ambassador);
    shows(&ambassador, "paused-container", "is paused", &[]);
}

#[test]
fn container_that_is_unhealthy() {
    let engine = engine(&json!({ "Running": true, "Health": { "Status": "unhealthy" } }));
    let ambassador = with_docker(&engine.docker_host(), FOLLOWED).start();
    let _clients = clients(&ambassador);
    shows(&ambassador, "unhealthy-container", "is unhealthy", &[]);
}

#[test]
fn name_of_no_container() {
    let engine = engine(&json!({ "Running": true }));
    let ambassador = with_docker(&engine.docker_host(), "-name redsi").start();
    shows(&ambassador, "unmatched-name", "did you mean redis?", &[]);
}

#[test]
fn label_that_is_misspelt() {
    let engine = Engine::new();
    let image = engine.image(&[]);
    engine.run("redis", &image, &[("ambassador.listem.6379", "6379")]);
    let ambassador = with_docker(&engine.docker_host(), "--docker").start();
    shows(&ambassador, "unknown-label", "unknown label", &[]);
}

#[test]
fn nothing_asked_for() {
    let engine = engine(&json!({ "Running": true }));
    let ambassador = with_docker(&engine.docker_host(), "--docker").start();
    shows(&ambassador, "nothing-asked-for", "no container asks for a route", &[]);
}

#[test]
fn name_that_does_not_exist() {
    let dns = needs!(Dns::start());
    let route = "127.0.0.1:0=redsi:6379?name=redis";
    let ambassador = Ambassador::with(route).resolving_by(&dns.resolv_conf()).start();
    let _clients = clients(&ambassador);
    shows(&ambassador, "no-such-name", "no such name", &[(&dns.addr(), "127.0.0.11:53")]);
}

#[test]
fn name_server_that_does_not_answer() {
    let dns = needs!(Dns::start());
    dns.is_silent(true);
    let route = "127.0.0.1:0=redis:6379?name=redis";
    let ambassador = Ambassador::with(route).resolving_by(&dns.resolv_conf()).start();
    let _clients = clients(&ambassador);
    shows(&ambassador, "silent-dns", "no answer", &[(&dns.addr(), "127.0.0.11:53")]);
}

/// A peer that offers `redis`, and an ambassador that uses `export` of it, with a client.
fn peers(addr: &str, [server, consumer]: [&str; 2], export: &str, options: &str) -> [Ambassador; 2] {
    let service = Service::new("one").addr;
    let server =
        Ambassador::with(&format!("{server} --peer-listen {addr} peer:redis={service}{options}")).start();
    [server, consumer_of(addr, consumer, export)]
}

fn consumer_of(addr: &str, credentials: &str, export: &str) -> Ambassador {
    // Without certificates the identity is not compared.
    let route = format!("127.0.0.1:0=peer://{addr}/{export}?name=redis&hold=1s&identity=host1");
    let consumer = Ambassador::with(&format!("{credentials} {route}")).start();
    let mut client = TcpStream::connect(consumer.addr("redis")).unwrap();
    client.read_to_end(&mut Vec::new()).ok();
    consumer
}

/// Two hosts with certificates that `status` does not warn of.
fn certified(ca: &Ca) -> [String; 2] {
    [("host1", 1), ("host2", 2)].map(|(name, serial)| {
        let flags = ca.flags(name, serial);
        ca.issue(name, serial, [-1, 300]);
        flags
    })
}

#[test]
fn peers_with_different_secrets() {
    let secrets = [Secret::new(), Secret::new()];
    let [server, consumer] = [secrets[0].flags("host1"), secrets[1].flags("host2")];
    let [_server, consumer] = peers("127.77.0.5:15008", [&server, &consumer], "redis", "");
    shows(&consumer, "peer-secret", "different secrets", &[]);
}

#[test]
fn peer_that_does_not_listen() {
    let consumer = consumer_of("127.77.0.1:15008", &Secret::new().flags("host2"), "redis");
    shows(&consumer, "peer-down", "is the ambassador there started", &[]);
}

#[test]
fn export_that_does_not_exist() {
    let secret = Secret::new();
    let [server, consumer] = ["host1", "host2"].map(|name| secret.flags(name));
    let [_server, consumer] = peers("127.77.0.6:15008", [&server, &consumer], "redsi", "");
    shows(&consumer, "peer-export", "no such export", &[]);
}

#[test]
fn export_that_is_for_others() {
    let ca = Ca::new();
    let [server, consumer] = certified(&ca);
    let options = "?peers=host3";
    let [_server, consumer] = peers("127.77.0.7:15008", [&server, &consumer], "redis", options);
    shows(&consumer, "peer-denied", "may not use the export", &[]);
}

#[test]
fn peer_that_has_revoked_us() {
    let ca = Ca::new();
    let [server, consumer] = certified(&ca);
    ca.revoke(&[2]);
    let consumer = consumer.split(" --peer-crl").next().unwrap().to_owned();
    let [_server, consumer] = peers("127.77.0.8:15008", [&server, &consumer], "redis", "");
    shows(&consumer, "peer-revoked", "as revoked", &[]);
}

#[test]
fn peer_whose_certificate_has_expired() {
    let ca = Ca::new();
    let [server, consumer] = certified(&ca);
    // On a day that the output can have: the first of 2026.
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let new_year = 20_454 - i64::try_from(since_1970.as_secs() / 86_400).unwrap();
    ca.issue("host1", 3, [new_year - 30, new_year]);
    let [_server, consumer] = peers("127.77.0.9:15008", [&server, &consumer], "redis", "");
    shows(&consumer, "peer-expired", "expired at", &[]);
}
