//! Endpoints that cannot be trusted, or do not speak TLS: the next one is tried, and `status` says why.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::openssl::Server;
use crate::support::{Ambassador, Ca, Service, VALID, ask, private_ip, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a route to `addr` with `backup`, and waits until `status` shows the reason why `addr` is not used.
fn refused(addr: SocketAddr, options: &str, expected: &str) {
    let backup = Service::new("abc");
    let ambassador = Ambassador::with(&format!(
        "127.0.0.1:0=tls://{addr}?name=r&connect-timeout=1s&backup={}{options}",
        backup.addr
    ))
    .start();
    assert_eq!(ask(ambassador.addr("r")), "abc", "the backup is used");
    within(PATIENCE, expected, || {
        let status = String::from_utf8(ambassador.verb("status --json").stdout).unwrap();
        if status.contains(expected) { Ok(()) } else { Err(status) }
    });
}

fn with_ca(ca: &Path, sni: &str) -> String {
    format!("&ca={}&sni={sni}", ca.display())
}

#[test]
fn certificates_are_verified_and_the_reason_is_shown() {
    let (ca, other) = (Ca::new(), Ca::new());
    for (what, cert, trusted, sni, expected) in [
        ("expired", ca.issue("a", 1, [-9, -2]), ca.ca(), "a", "certificate has expired"),
        ("not valid yet", ca.issue("b", 2, [2, 9]), ca.ca(), "b", "certificate is not valid yet"),
        ("unknown issuer", ca.issue("c", 3, VALID), other.ca(), "c", "issued by an unknown CA"),
        ("other name", ca.issue("d", 4, VALID), ca.ca(), "e", "certificate is for another name"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let server = Server::start(&cert, &[version]);
            eprintln!("{what} {version}");
            refused(server.addr, &with_ca(&trusted, sni), expected);
        }
    }
}

#[test]
fn client_certificate_that_the_endpoint_requires_is_named() {
    let ca = Ca::new();
    let cert = ca.issue("a", 1, VALID);
    let file = ca.ca();
    let server = Server::start(&cert, &["-tls1_2", "-Verify", "1", "-CAfile", file.to_str().unwrap()]);
    refused(server.addr, &with_ca(&file, "a"), "TLS: the endpoint");
}

#[test]
fn endpoint_without_tls_or_with_an_old_version_is_refused() {
    let ca = Ca::new();
    let plain = Service::new("220 smtp.example.com ESMTP\r\n");
    refused(plain.addr.parse().unwrap(), &with_ca(&ca.ca(), "a"), "endpoint does not speak TLS");
    let old = Server::start(&ca.issue("a", 1, VALID), &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    refused(old.addr, &with_ca(&ca.ca(), "a"), "TLS: the endpoint");
}

#[test]
fn silent_endpoint_is_given_up_after_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    refused(addr, &with_ca(&Ca::new().ca(), "a"), "did not complete the handshake in time");
}

#[test]
fn health_checks_go_through_tls() {
    let ca = Ca::new();
    let plain = Service::new("abc");
    let good = Server::start(&ca.issue("a", 1, VALID), &[]);
    let route = |addr: &str, name: &str| {
        format!(
            "{}:0=tls://{addr}?name={name}&health=tcp&health-interval=100ms&ca={}&sni=a",
            private_ip(),
            ca.ca().display()
        )
    };
    let [first, second] = [route(&plain.addr, "plain"), route(&good.addr.to_string(), "good")];
    let ambassador = Ambassador::with(&format!("{first} {second}")).start();
    within(PATIENCE, "one endpoint is unhealthy", || {
        let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
        let is_unhealthy = status.contains("unhealthy") && status.contains("does not speak TLS");
        if is_unhealthy { Ok(()) } else { Err(status) }
    });
    let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
    let of_good = status.lines().find(|line| line.contains(&good.addr.to_string())).unwrap();
    assert!(of_good.contains(" ok "), "{status}");
}
