//! Client certificates: who may connect, and what is shown of them.

use std::path::Path;

use ambassador::ending::Ending;

use super::openssl::{Answer, s_client};
use crate::app::{Service, TlsPair};
use crate::support::{Ambassador, Ca, VALID, within};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

fn ask_with(addr: std::net::SocketAddr, version: &str, cert: Option<&Path>) -> Answer {
    let cert = cert.map(|cert| cert.to_str().unwrap().to_owned());
    let cert = cert.iter().flat_map(|cert| ["-cert", cert, "-key", cert]);
    s_client(addr, &[version].into_iter().chain(cert).collect::<Vec<_>>(), "hello\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_the_ca_with_an_allowed_identity_are_accepted() {
    let (ca, other) = (Ca::new(), Ca::new());
    let service = Service::named("").await;
    let options = format!("&tls-ca={}&tls-peers=web,api", ca.ca().display());
    let pair = TlsPair::new(&service.addr.to_string(), "", &options).await;
    let web = ca.issue("web", 1, VALID);
    for (what, cert, expected) in [
        ("allowed", Some(web), true),
        ("none", None, false),
        ("of another CA", Some(other.issue("web", 1, VALID)), false),
        ("of another identity", Some(ca.issue("guest", 2, VALID)), false),
        ("expired", Some(ca.issue("api", 3, [-9, -2])), false),
        ("not valid yet", Some(ca.issue("api", 4, [2, 9])), false),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let answer = ask_with(pair.server.addr("x"), version, cert.as_deref());
            let is_served = answer.stdout.lines().any(|line| line.ends_with("hello"));
            assert_eq!(is_served, expected, "{what} {version}: {}", answer.all());
            assert!(expected || answer.all().contains("alert"), "{what} {version}: {}", answer.all());
        }
    }
    pair.server.await_ended("x", Ending::TlsFailed, 10).await;
}

#[test]
fn identity_of_a_client_is_in_the_access_log_and_the_reason_of_a_refusal_too() {
    let ca = Ca::new();
    let [service, web] = [("service", 1), ("web", 2)].map(|(name, serial)| ca.issue(name, serial, VALID));
    let echo = crate::support::Service::new("abc");
    let ambassador = Ambassador::with(&format!(
        "--certificate service={} 127.0.0.1:0={}?name=x&tls=service&tls-ca={}",
        service.display(),
        echo.addr,
        ca.ca().display()
    ))
    .start();
    let addr = ambassador.addr("x");
    assert!(ask_with(addr, "-tls1_3", Some(&web)).stdout.contains("abc"));
    ask_with(addr, "-tls1_3", None);
    let logged = |expected: &str| {
        within(PATIENCE, expected, || match ambassador.log() {
            log if log.contains(expected) => Ok(()),
            log => Err(log),
        });
    };
    logged("peer=web ");
    logged("ending=tls-failed why=\"TLS: the client presented no certificate\"");
}
