//! Certificates in files: mistakes that `check` reports, and changes while sessions run.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::openssl::s_client;
use crate::app::{Service, TlsPair};
use crate::support::{Ambassador, Ca, VALID, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// Returns what `ambassador check` prints of mistakes.
fn check(args: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador"));
    let output = command.arg("check").args(args.split_whitespace()).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{args}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn mistakes_are_found_by_check_with_their_place_and_a_help() {
    let ca = Ca::new();
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, serial)| ca.issue(name, serial, VALID));
    let [a, b, file] = [&a, &b, &ca.ca()].map(|path| path.display().to_string());
    for (args, expected, help) in [
        (
            "127.0.0.1:0=h:1?tls=web".to_owned(),
            "unknown certificate `web` of `tls`",
            "--certificate web=CERT",
        ),
        (
            "127.0.0.1:0=tls://h:1?cert=web".to_owned(),
            "unknown certificate `web` of `cert`",
            "[[certificate]]",
        ),
        (
            format!("--certificate web={a},{b} 1=h:1"),
            "private key does not belong",
            "replace certificate and key",
        ),
        (format!("--certificate web={file} 1=h:1"), "has no private key", "append it"),
        ("--certificate web=/nowhere 1=h:1".to_owned(), "/nowhere: cannot be read", "check the path"),
        (
            format!("--certificate web={a} 127.0.0.1:0=h:1?tls=web&tls-peers=b"),
            "`tls-peers` needs `tls-ca`",
            "tls-ca=FILE",
        ),
        (
            format!("--certificate web={a} 127.0.0.1:0=h:1?tls=web&tls-ca=/nowhere"),
            "/nowhere: cannot be read",
            "check the path",
        ),
        ("127.0.0.1:0=tls://h:1?ca=/nowhere".to_owned(), "/nowhere: cannot be read", "check the path"),
        (format!("127.0.0.1:0=tls://a_b..c:1?ca={file}"), "invalid host", "check the dots"),
        ("53/udp=tls://h:1".to_owned(), "a UDP listener cannot have the target `tls://h:1`", "listen on TCP"),
        ("53/udp=h:1?tls=web".to_owned(), "tls", "help"),
    ] {
        let found = check(&args);
        assert!(found.contains(expected) && found.contains(help), "{args}: {found}");
    }
}

/// Returns the serial number of the certificate that clients get.
fn serial(addr: SocketAddr, name: &str) -> String {
    let answer = s_client(addr, &["-servername", name], "");
    let pem = answer.stdout.split_inclusive("-----END CERTIFICATE-----").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pem");
    fs::write(&file, &pem[pem.find("-----BEGIN").unwrap()..]).unwrap();
    let output =
        Command::new("/usr/bin/openssl").args(["x509", "-noout", "-serial", "-in"]).arg(file).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_replaced_while_sessions_run() {
    const SESSIONS: usize = 1_000;
    let service = Service::named("").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(tokio::net::TcpStream::connect(pair.addr()).await.unwrap());
    }
    let exchange = async |sessions: &mut [tokio::net::TcpStream]| {
        for session in sessions {
            let mut reply = [0; 4];
            session.write_all(b"ping").await.unwrap();
            session.read_exact(&mut reply).await.unwrap();
            assert_eq!(&reply, b"ping");
        }
    };
    exchange(&mut sessions).await;
    let addr = pair.server.addr("x");
    assert_eq!(serial(addr, "service"), "serial=01");
    pair.ca.issue("service", 9, VALID);
    crate::app::eventually("the new certificate", || serial(addr, "service") == "serial=09").await;
    exchange(&mut sessions).await;
}

#[test]
fn command_with_an_unknown_certificate_is_refused() {
    let ambassador = Ambassador::with("127.0.0.1:0=127.0.0.1:1?name=r").start();
    for words in [
        "routes add 127.0.0.1:0=127.0.0.1:1?name=x&tls=web".to_owned(),
        "routes add 127.0.0.1:0=tls://127.0.0.1:1?name=x&cert=web&ca=/nowhere".to_owned(),
    ] {
        let output = ambassador.verb(&words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("unknown certificate `web`"), "{words}: {text}");
    }
}

#[test]
fn invalid_file_keeps_the_certificate_and_is_reported() {
    let ca = Ca::new();
    let cert = ca.issue("service", 1, VALID);
    let echo = crate::support::Service::new("abc");
    let ambassador = Ambassador::with(&format!(
        "--certificate service={} 127.0.0.1:0={}?name=x&tls=service",
        cert.display(),
        echo.addr
    ))
    .start();
    let addr = ambassador.addr("x");
    fs::write(&cert, "nonsense").unwrap();
    within(PATIENCE, "a report in the log and in status", || {
        let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
        let is_reported = ambassador.log().contains("not reloaded, the previous one stays in use")
            && status.contains("has no certificate");
        if is_reported { Ok(()) } else { Err(format!("{status}\n{}", ambassador.log())) }
    });
    let events = String::from_utf8(ambassador.verb("events").stdout).unwrap();
    assert!(events.contains("certificate or CA not reloaded"), "{events}");
    assert_eq!(serial(addr, "service"), "serial=01");
    ca.issue("service", 2, VALID);
    within(PATIENCE, "the new certificate", || match serial(addr, "service") {
        new if new == "serial=02" => Ok(()),
        other => Err(other),
    });
    within(PATIENCE, "no report in status", || {
        let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
        if status.contains("has no certificate") { Err(status) } else { Ok(()) }
    });
}

/// Returns a sample of `/metrics`.
fn metric(ambassador: &Ambassador, name: &str) -> f64 {
    let mut stream = std::os::unix::net::UnixStream::connect(ambassador.admin()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("a sample");
    value.trim().parse().unwrap()
}

#[test]
fn certificate_of_a_route_is_reported_before_it_expires() {
    const DAY: f64 = 86_400.0;
    let ca = Ca::new();
    let cert = ca.issue("service", 1, [-1, 20]);
    let path = cert.display().to_string();
    let route = "127.0.0.1:0=127.0.0.1:1?name=x&tls=service";
    let ambassador = Ambassador::with(&format!("--certificate service={path} {route}")).start();
    let shows = |words: &str, expected: &str| {
        within(PATIENCE, expected, || match String::from_utf8(ambassador.verb(words).stdout).unwrap() {
            text if text.contains(expected) => Ok(()),
            text => Err(text),
        });
    };
    let expiry = || metric(&ambassador, "ambassador_certificate_expiry_seconds{name=\"service\"}");
    shows("status", &format!("certificate service (service, {path}) expires in 19d "));
    assert!((19.0 * DAY..20.0 * DAY).contains(&expiry()), "{}", expiry());
    // Log and events warn from a week before, also of a certificate that has just been replaced.
    assert!(!ambassador.log().contains("certificate expires"), "{}", ambassador.log());
    ca.issue("service", 2, [-1, 6]);
    shows("status", &format!("certificate service (service, {path}) expires in 5d "));
    shows("events", "certificate expires soon or has expired");
    assert!(ambassador.log().contains("certificate expires in 5days"), "{}", ambassador.log());
    assert!((5.0 * DAY..6.0 * DAY).contains(&expiry()), "{}", expiry());
    assert_eq!(metric(&ambassador, "ambassador_credentials_last_reload_successful"), 1.0);
    fs::write(&cert, "nonsense").unwrap();
    within(PATIENCE, "the refusal", || {
        match metric(&ambassador, "ambassador_credentials_last_reload_successful") {
            0.0 => Ok(()),
            other => Err(other),
        }
    });
}

fn config(path: &Path, certificates: &[(&str, &Path)], service: &str) {
    let table =
        |(name, cert): &(&str, &Path)| format!("[[certificate]]\nname = \"{name}\"\ncert = {cert:?}\n");
    let tables: String = certificates.iter().map(table).collect();
    let route =
        format!("[[route]]\nlisten = \"127.0.0.1:0\"\ntarget = \"{service}\"\nname = \"x\"\ntls = \"web\"\n");
    fs::write(path, tables + &route).unwrap();
}

#[test]
fn certificates_of_a_name_are_chosen_by_sni_and_follow_the_configuration_file() {
    let ca = Ca::new();
    let names = ["first.example", "second.example", "*.wild.example"];
    let files = [1, 2, 3].map(|serial| ca.issue(names[serial - 1], serial as u64, VALID));
    let echo = crate::support::Service::new("abc");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let tables: Vec<(&str, &Path)> = files.iter().map(|file| ("web", file.as_path())).collect();
    config(&path, &tables[..2], &echo.addr);
    let ambassador = Ambassador::with(&format!("--config {}", path.display())).start();
    let addr = ambassador.addr("x");
    for (name, expected) in
        [("first.example", "01"), ("SECOND.example", "02"), ("other.example", "01"), ("a.wild.example", "01")]
    {
        assert_eq!(serial(addr, name), format!("serial={expected}"), "{name}");
    }
    config(&path, &tables, &echo.addr);
    within(PATIENCE, "the certificate that was added", || match serial(addr, "a.wild.example") {
        found if found == "serial=03" => Ok(()),
        other => Err(other),
    });
    assert_eq!(serial(addr, "a.b.wild.example"), "serial=01", "a wildcard is one label");
    assert_eq!(serial(addr, "wild.example"), "serial=01");
}
