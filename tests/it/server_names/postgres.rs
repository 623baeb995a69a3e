//! A client of PostgreSQL asks for TLS before its ClientHello; so must we, at the server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::Port;
use crate::support::{Ambassador, Postgres, eventually, needs};

/// Writes a certificate and its key.
fn certificate(dir: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["db.example.com".to_owned()]).unwrap();
    fs::write(dir.join("server.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

/// Asks the server at an address, under a host name, whether the connection is encrypted.
fn query(server: &Postgres, addr: SocketAddr, host: &str, sslmode: &str) -> Result<String, String> {
    let mut psql = server.psql(addr);
    psql.env("PGSSLMODE", sslmode).env("PGHOSTADDR", addr.ip().to_string()).arg(format!("--host={host}"));
    psql.args(["--command", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"]);
    let output = psql.output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn psql_reaches_the_server_of_its_host_name_over_tls() {
    let mut server = needs!(Postgres::new());
    server.use_tls(certificate);
    server.start();
    eventually("the server", || query(&server, server.addr(), "db.example.com", "require"));
    let port = Port::new();
    let ambassador =
        Ambassador::with(&format!("{}/db.example.com={}?name=db", port.0, server.addr())).start();
    assert_eq!(query(&server, port.0, "db.example.com", "require").as_deref(), Ok("t"));
    let refused = query(&server, port.0, "other.example.com", "require").unwrap_err();
    assert!(refused.contains("unrecognized name"), "{refused}");
    let plain = query(&server, port.0, "db.example.com", "disable");
    assert!(plain.is_err(), "{plain:?}");
    drop(ambassador);
}

#[test]
fn server_without_tls_is_a_failed_connect() {
    let mut server = needs!(Postgres::new());
    server.start();
    eventually("the server", || query(&server, server.addr(), "db.example.com", "disable"));
    let port = Port::new();
    let route = format!("{}/db.example.com={}?name=db&hold=0s", port.0, server.addr());
    let ambassador = Ambassador::with(&route).start();
    assert!(query(&server, port.0, "db.example.com", "require").is_err());
    eventually("the reason", || match ambassador.log() {
        log if log.contains("does not accept TLS") => Ok(()),
        log => Err(log),
    });
}

#[test]
fn tls_of_a_client_is_terminated_for_a_server_without_it() {
    let mut server = needs!(Postgres::new());
    server.start();
    eventually("the server", || query(&server, server.addr(), "db.example.com", "disable"));
    let (port, dir) = (Port::new(), tempfile::tempdir().unwrap());
    certificate(dir.path());
    let [cert, key] = ["server.crt", "server.key"].map(|file| dir.path().join(file).display().to_string());
    let route = format!("{}/*={}?name=db&tls=web", port.0, server.addr());
    let _ambassador = Ambassador::with(&format!("--certificate web={cert},{key} {route}")).start();
    assert_eq!(query(&server, port.0, "db.example.com", "require").as_deref(), Ok("f"));
}
