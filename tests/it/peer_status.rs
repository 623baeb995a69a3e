//! What is shown of peers: `status`, `sessions`, the access log, events, metrics, `/config`, and `ambassador peer check`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use ambassador::credentials::Reason;
use serde_json::Value;

use crate::support::{Ambassador, Ca, Secret, Service, ask, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ambassador");

/// An ambassador that offers `name`, with these credentials.
fn exporter(credentials: &str, name: &str, target: &str) -> Ambassador {
    exporter_on("127.0.0.1:0", credentials, &format!("peer:{name}={target}"))
}

fn exporter_on(listen: &str, credentials: &str, route: &str) -> Ambassador {
    Ambassador::with(&format!("{credentials} --peer-listen {listen} {route}")).start()
}

/// Returns the flags of a certificate that is valid in these days.
fn certified(ca: &Ca, name: &str, serial: u64, days: [i64; 2]) -> String {
    let flags = ca.flags(name, serial);
    ca.issue(name, serial, days);
    flags
}

/// Returns where peers can dial it.
fn peer_addr(ambassador: &Ambassador) -> String {
    peering(ambassador)["listen"][0].as_str().unwrap().to_owned()
}

fn status(ambassador: &Ambassador) -> Value {
    serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap()
}

fn peering(ambassador: &Ambassador) -> Value {
    status(ambassador)["peering"].clone()
}

fn text(ambassador: &Ambassador, words: &str) -> String {
    String::from_utf8(ambassador.verb(words).stdout).unwrap()
}

fn await_text(ambassador: &Ambassador, words: &str, expected: &str) -> String {
    eventually(expected, || {
        let text = text(ambassador, words);
        if text.contains(expected) { Ok(text) } else { Err(format!("{text}\n{}", ambassador.log())) }
    })
}

fn await_log(ambassador: &Ambassador, expected: &str) -> String {
    eventually(expected, || {
        let log = ambassador.log();
        let line = log.lines().find(|line| line.contains(expected)).map(str::to_owned);
        line.ok_or(log)
    })
}

/// Returns the events of this kind.
fn events(ambassador: &Ambassador, kind: &str) -> Vec<Value> {
    let lines = text(ambassador, "events --json");
    let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

fn await_event(ambassador: &Ambassador, kind: &str) -> Value {
    eventually(kind, || events(ambassador, kind).pop().ok_or_else(|| ambassador.log()))
}

/// Returns the samples of `/metrics` by name and labels.
fn metrics(ambassador: &Ambassador) -> BTreeMap<String, f64> {
    let socket = ambassador.admin();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let lines = answer.lines().filter(|line| line.starts_with("ambassador_"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn await_metric(ambassador: &Ambassador, name: &str, expected: impl Fn(f64) -> bool) {
    eventually(name, || match metrics(ambassador).get(name) {
        Some(value) if expected(*value) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// A client that has received the service's name.
fn client(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    stream
}

/// A service that greets and keeps its connections until the client ends.
fn greeting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                stream.write_all(b"one").ok();
                stream.read_to_string(&mut String::new()).ok();
            });
        }
    });
    addr
}

#[test]
fn both_ends_of_a_tunnel_show_the_peer_and_the_client() {
    let secret = Secret::new();
    let server = exporter(&secret.flags("srv"), "one", &greeting());
    let addr = peer_addr(&server);
    let consumer =
        Ambassador::with(&format!("{} 127.0.0.1:0=peer://{addr}/one?name=r", secret.flags("cli"))).start();
    let before = peering(&consumer);
    assert_eq!((&before["identity"], &before["credentials"]), (&"cli".into(), &"secret".into()));
    assert_eq!(before["peers"][0]["state"], "idle", "dialled when a session needs it: {before}");
    let stream = client(consumer.addr("r"));
    let port = stream.local_addr().unwrap().to_string();
    for (ambassador, peer, direction, address) in
        [(&consumer, "srv", "dialled", addr.as_str()), (&server, "cli", "accepted", "127.0.0.1")]
    {
        let shown = eventually("a round trip", || {
            let shown = peering(ambassador)["peers"].clone();
            if shown[0]["rtt_us"].is_u64() { Ok(shown) } else { Err(shown) }
        });
        assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        let shown = &shown[0];
        assert_eq!((&shown["peer"], &shown["direction"]), (&peer.into(), &direction.into()));
        assert_eq!((&shown["address"], &shown["state"]), (&address.into(), &"ok".into()));
        assert_eq!((&shown["tunnels"], &shown["sessions"]), (&1.into(), &1.into()));
        assert!(shown["bytes_sent"].as_u64() > Some(500) && shown["age_ms"].is_u64(), "{shown}");
        let sessions: Value =
            serde_json::from_str(&text(ambassador, &format!("sessions --json --peer {peer}"))).unwrap();
        assert_eq!(sessions["sessions"][0]["peer"], peer);
        assert_eq!(sessions["sessions"][0]["client"], port, "the real client, on both sides");
        let none: Value = serde_json::from_str(&text(ambassador, "sessions --json --peer x")).unwrap();
        assert_eq!(none["sessions"].as_array().unwrap().len(), 0);
        let opened = await_event(ambassador, "tunnel-opened");
        assert_eq!((&opened["peer"], &opened["direction"]), (&peer.into(), &direction.into()));
        let metrics = metrics(ambassador);
        let of = |name: &str| metrics.get(&name.replace('@', &format!("peer=\"{peer}\""))).copied();
        assert_eq!(of("ambassador_peer_up{@}"), Some(1.0));
        assert_eq!(of(&format!("ambassador_peer_tunnels{{@,direction=\"{direction}\"}}")), Some(1.0));
        assert_eq!(of("ambassador_peer_streams{@}"), Some(1.0));
        assert!(of("ambassador_peer_rtt_seconds{@}").is_some_and(|rtt| rtt > 0.0 && rtt < 10.0));
    }
    let shown = text(&server, "status");
    assert!(
        shown.contains(&format!("peers see this host as srv; they can dial {addr}; they can use one")),
        "{shown}"
    );
    drop(stream);
    for (ambassador, peer) in [(&consumer, "srv"), (&server, "cli")] {
        let line = await_log(ambassador, "INFO session");
        assert!(
            line.contains(&format!("client={port} ")) && line.contains(&format!(" peer={peer} ")),
            "{line}"
        );
    }
}

#[test]
fn peer_that_stops_and_returns_is_reported_once_each_way() {
    let secret = Secret::new();
    let route = format!("peer:one={}", Service::new("one").addr);
    let server = exporter_on("127.0.0.1:0", &secret.flags("srv"), &route);
    let addr = peer_addr(&server);
    let route_to = format!("127.0.0.1:0=peer://{addr}/one?name=r&hold=60s");
    let consumer = Ambassador::with(&format!("{} --workers 1 {route_to}", secret.flags("cli"))).start();
    assert_eq!(ask(consumer.addr("r")), "one");
    await_event(&consumer, "tunnel-opened");
    server.signal(rustix::process::Signal::KILL);
    drop(server);
    await_event(&consumer, "tunnel-closed");
    let held = consumer.addr("r");
    let held = std::thread::spawn(move || ask(held));
    let down = await_event(&consumer, "peer-down");
    assert_eq!((&down["peer"], &down["remote"]), (&"srv".into(), &addr.as_str().into()));
    await_text(&consumer, "status", "connection refused: is the ambassador there started");
    await_metric(&consumer, "ambassador_peer_up{peer=\"srv\"}", |up| up == 0.0);
    // The held session dials again and again.
    eventually("several attempts", || {
        let failing = status(&consumer)["routes"][0]["endpoints"][0]["last_error_ms_ago"].as_u64();
        if failing.is_some() && events(&consumer, "peer-down").len() == 1 { Ok(()) } else { Err("none") }
    });
    let _server = exporter_on(&addr, &secret.flags("srv"), &route);
    assert_eq!(held.join().unwrap(), "one");
    await_event(&consumer, "peer-up");
    assert_eq!([events(&consumer, "peer-down").len(), events(&consumer, "peer-up").len()], [1, 1]);
    assert_eq!(peering(&consumer)["peers"][0]["state"], "ok");
}

#[test]
fn different_secrets_are_named_wherever_the_failure_is_shown() {
    let secrets = [Secret::new(), Secret::new()];
    let [one, other] =
        secrets.each_ref().map(|secret| format!("--peer-secret-file {}", secret.path().display()));
    let server = exporter(&one, "one", &Service::new("one").addr);
    let addr = peer_addr(&server);
    let consumer = Ambassador::with(&format!("{other} 127.0.0.1:0=peer://{addr}/one?name=r&hold=1s")).start();
    TcpStream::connect(consumer.addr("r")).unwrap().read_to_end(&mut Vec::new()).ok();
    let words = "the hosts have different secrets: copy the same --peer-secret-file to both";
    let line = await_log(&consumer, "INFO session");
    assert!(line.contains("ending=tls-failed") && line.contains(words), "{line}");
    let down = await_event(&consumer, "peer-down");
    assert!(down["why"].as_str().unwrap().contains(words), "{down}");
    assert_eq!(events(&consumer, "peer-down").len(), 1);
    let shown = text(&consumer, "status");
    assert!(shown.contains(&format!("unknown CA: {words}")), "{shown}");
    let name = |reason: &str| format!("ambassador_peer_handshake_failures_total{{reason=\"{reason}\"}}");
    await_metric(&consumer, &name("unknown-issuer"), |count| count >= 1.0);
    await_metric(&server, &name("refused-unknown-issuer"), |count| count >= 1.0);
    let all = metrics(&consumer);
    for reason in Reason::ALL {
        assert!(all.contains_key(&name(reason.as_str())), "{reason:?}");
    }
    assert_eq!(all.get(&name("timeout")), Some(&0.0));
}

#[test]
fn certificates_are_shown_and_warned_of_before_they_expire() {
    let ca = Ca::new();
    let server = exporter(&certified(&ca, "srv", 1, [-1, 20]), "one", &Service::new("one").addr);
    let shown = peering(&server);
    let names: Vec<&str> =
        shown["certificates"].as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["peer-cert", "peer-ca"]);
    assert_eq!(shown["certificates"][0]["identity"], "srv");
    let warning = format!(
        "certificate peer-cert (srv, {}) expires in 19d ",
        ca.ca().with_file_name("srv.pem").display()
    );
    await_text(&server, "status", &warning);
    let metrics = metrics(&server);
    let left = metrics["ambassador_certificate_expiry_seconds{name=\"peer-cert\"}"];
    assert!((19.0 * 86400.0..20.0 * 86400.0).contains(&left), "{left}");
    assert!(metrics["ambassador_certificate_expiry_seconds{name=\"peer-ca\"}"] > 365.0 * 86400.0);
    ca.issue("srv", 2, [-1, 6]);
    let reloaded = await_event(&server, "credentials-reloaded");
    assert_eq!(reloaded["identity"], "srv");
    let expiring = await_event(&server, "certificate-expiring");
    assert_eq!((&expiring["certificate"], &expiring["identity"]), (&"peer-cert".into(), &"srv".into()));
    std::fs::write(ca.ca().with_file_name("srv.pem"), "x").unwrap();
    let refused = await_event(&server, "credentials-refused");
    assert!(refused["why"].as_str().unwrap().contains("srv.pem"), "{refused}");
    await_text(&server, "status", "peer credentials not reloaded, the previous ones stay in use: ");
}

#[test]
fn revoked_peer_ends_the_tunnel_with_its_reason() {
    let ca = Ca::new();
    let server = exporter(&ca.flags("srv", 1), "one", &greeting());
    let addr = peer_addr(&server);
    let credentials = ca.flags("cli", 2);
    let consumer =
        Ambassador::with(&format!("{credentials} 127.0.0.1:0=peer://{addr}/one?name=r&hold=1s&identity=srv"))
            .start();
    let mut stream = client(consumer.addr("r"));
    await_event(&server, "tunnel-opened");
    ca.revoke(&[2]);
    let closed = await_event(&server, "tunnel-closed");
    assert_eq!((&closed["peer"], &closed["why"]), (&"cli".into(), &"revoked".into()));
    stream.read_to_end(&mut Vec::new()).ok();
    let line = await_log(&server, "INFO session");
    assert!(line.contains("ending=peer-revoked") && line.contains(" peer=cli "), "{line}");
    // The consumer learns only after the handshake that its certificate is refused.
    TcpStream::connect(consumer.addr("r")).unwrap().read_to_end(&mut Vec::new()).ok();
    await_text(&consumer, "status", "the peer refused our certificate as revoked");
    let name = "ambassador_peer_handshake_failures_total{reason=\"refused-revoked\"}";
    await_metric(&consumer, name, |count| count >= 1.0);
    assert_eq!(events(&consumer, "peer-down").len(), 1, "{}", consumer.log());
}

fn check(words: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(["peer", "check"]).args(words.split_whitespace()).output().unwrap()
}

/// Checks the last step, `step: result`, what to do about it, and the exit code.
fn checked(words: &str, step: &str, result: &str, help: &str) {
    let output = check(&format!("--json {words}"));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = value["steps"].as_array().unwrap().last().unwrap();
    let field = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(field("step"), step, "{value:#}");
    assert!(field("result").contains(result) && field("help").contains(help), "{value:#}");
    assert_eq!(last["ok"], help.is_empty(), "{value:#}");
    assert_eq!(output.status.code(), Some(if help.is_empty() { 0 } else { 1 }));
    let others = value["steps"].as_array().unwrap().iter().rev().skip(1);
    assert!(others.clone().all(|step| step["ok"] == true), "{value:#}");
}

#[test]
fn check_names_the_step_that_fails_and_the_way_out() {
    let secrets = [Secret::new(), Secret::new()];
    let [one, other] =
        secrets.each_ref().map(|secret| format!("--peer-secret-file {}", secret.path().display()));
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = service.local_addr().unwrap();
    let vacant = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let routes = format!("peer:one={target} peer:two={vacant}");
    let server = exporter_on("127.0.0.1:0", &secrets[0].flags("srv"), &routes);
    let addr = peer_addr(&server);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap();
    let talker = Service::new("one").addr;
    for (words, step, result, help) in [
        (format!("{one} {addr}/one"), "endpoint", "the service accepts connections", ""),
        (format!("{one} peer://{addr}/one"), "endpoint", "accepts", ""),
        (format!("{one} {addr}"), "identity", "srv, certificate until", ""),
        (format!("{one} {addr}/three"), "export", "no such export", "lists its exports"),
        (format!("{one} {addr}/two"), "endpoint", "the peer answered 50", "`ambassador status` on the peer"),
        (format!("{other} {addr}/one"), "identity", "unknown CA", "different secrets"),
        (format!("{one} --identity x {addr}/one"), "identity", "that of `srv`", "identity="),
        (format!("{one} {talker}/one"), "tls", "does not speak TLS", "--peer-listen"),
        (format!("{one} {vacant}/one"), "tcp", "connection refused", "is the ambassador there started"),
        (format!("{one} --timeout 1s {mute}/one"), "tls", "did not answer in time", "--peer-listen"),
        (format!("{one} no.such.name.invalid/one"), "dns", "no.such.name.invalid", "check the name"),
        (
            "--peer-secret-file /nonexistent host1".to_owned(),
            "credentials",
            "cannot be read",
            "check the path",
        ),
        ("host1".to_owned(), "credentials", "require a secret or a certificate", "peer secret"),
    ] {
        checked(&words, step, result, help);
    }
    let shown = String::from_utf8(check(&format!("{one} {addr}/three")).stdout).unwrap();
    assert!(
        shown.contains("export       failed  three: the peer answered 404: no such export\n  help: "),
        "{shown}"
    );
    for words in [format!("{one} @laptop/one"), format!("{one} --timeout x host1"), format!("{one} a/b/c")] {
        assert_eq!(check(&words).status.code(), Some(64), "{words}");
    }
    // Nothing is left behind.
    eventually("the end of all tunnels", || {
        let shown = status(&server);
        let is_over = shown["routes"].as_array().unwrap().iter().all(|route| route["active"] == 0)
            && shown["peering"]["peers"].as_array().unwrap().is_empty();
        if is_over { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn check_with_certificates_names_what_is_wrong_with_them() {
    let ca = Ca::new();
    let server = exporter(&ca.flags("srv", 1), "one", &Service::new("one").addr);
    let addr = peer_addr(&server);
    let restricted = exporter_on("127.0.0.1:0", &ca.flags("strict", 3), "peer:one=127.0.0.1:1?peers=web");
    let good = ca.flags("cli", 2);
    let expired = certified(&ca, "old", 4, [-9, -1]);
    let revoked = ca.flags("gone", 5);
    ca.revoke(&[5]);
    let past = exporter(&certified(&ca, "past", 6, [-9, -1]), "one", &Service::new("one").addr);
    for (words, step, result, help) in [
        (format!("{good} --identity srv {addr}/one"), "endpoint", "accepts", ""),
        (format!("{good} {addr}/one"), "identity", "not of `127.0.0.1`", "set `identity=`"),
        (
            format!("{good} --identity strict {}/one", peer_addr(&restricted)),
            "export",
            "may not use",
            "`peers`",
        ),
        (
            format!("{expired} --identity srv {addr}/one"),
            "identity",
            "refused our certificate as not valid now",
            "renew",
        ),
        (
            format!("{good} {}/one", peer_addr(&past)),
            "identity",
            "the certificate expired at",
            "renew the peer's",
        ),
    ] {
        checked(&words, step, result, help);
    }
    eventually("the revocation", || {
        let output = check(&format!("{revoked} --identity srv {addr}/one"));
        let text = String::from_utf8(output.stdout).unwrap();
        if text.contains("the peer refused our certificate as revoked") { Ok(()) } else { Err(text) }
    });
}

#[test]
fn configuration_shows_paths_and_no_secret() {
    let secret = Secret::new();
    let server = exporter(&secret.flags("srv"), "one", "127.0.0.1:1");
    let mut stream = std::os::unix::net::UnixStream::connect(server.admin()).unwrap();
    stream.write_all(b"GET /config HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("\"peer_secret_file\":\"{}\"", secret.path().display())), "{answer}");
    assert!(answer.contains("\"peer_name\":\"srv\""), "{answer}");
    let shown = [answer, text(&server, "status --json"), server.log()].concat();
    assert!(!shown.contains(&secret.line()), "{shown}");
}
