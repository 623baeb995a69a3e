//! Credentials that change while tunnels are in use: no session fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::support::{
    Ambassador, Ca, Load, Namespace, Pair, Service, VALID, eventually, private_ip, random_secret,
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn name_of_service(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut name = String::new();
    stream.read_to_string(&mut name)?;
    Ok(name)
}

/// A session that stays open.
struct Open {
    client: TcpStream,
    service: TcpStream,
}

impl Open {
    fn through(addr: SocketAddr, listener: &TcpListener) -> Open {
        let client = TcpStream::connect(addr).unwrap();
        let (service, _) = listener.accept().unwrap();
        for end in [&client, &service] {
            end.set_read_timeout(Some(TIMEOUT)).unwrap();
        }
        Open { client, service }
    }

    fn works(&mut self) {
        for (from, to) in [(&self.client, &self.service), (&self.service, &self.client)] {
            (&mut &*from).write_all(b"x").unwrap();
            (&mut &*to).read_exact(&mut [0; 1]).unwrap();
        }
    }
}

/// Adds a route to a service of the test over a pair of ambassadors, and opens a session.
fn open_session(exporter: &Ambassador, dialler: &Ambassador, peer: SocketAddr, options: &str) -> Open {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = listener.local_addr().unwrap();
    for (ambassador, route) in [
        (exporter, format!("peer:open={service}?name=open")),
        (dialler, format!("127.0.0.2:0=peer://{peer}/open?name=open{options}")),
    ] {
        let added = ambassador.verb(&format!("routes add {route}"));
        assert!(added.status.success(), "{added:?}");
    }
    Open::through(dialler.addr("open"), &listener)
}

fn reloads(ambassador: &Ambassador) -> usize {
    ambassador.log().matches("peer credentials reloaded").count()
}

fn await_reloads<const N: usize>(ambassadors: [&Ambassador; N], count: usize) {
    for ambassador in ambassadors {
        eventually("a reload", || match reloads(ambassador) {
            now if now >= count => Ok(()),
            _ => Err(ambassador.log()),
        });
    }
}

#[test]
fn secret_is_rotated_without_losing_a_session() {
    let service = Service::new("one");
    let pair = Pair::new(&service.addr, "", "");
    let mut open = open_session(&pair.exporter, &pair.dialler, pair.peer, "");
    open.works();
    let load = Load::start(&Namespace::new("/proc/self/ns/net"), pair.addr, name_of_service);
    let (old, new) = (pair.secret.line(), random_secret());
    let steps: [&[&str]; 3] = [&[&old, &new], &[&new, &old], &[&new]];
    for (n, lines) in steps.into_iter().enumerate() {
        pair.secret.write(lines);
        await_reloads([&pair.exporter, &pair.dialler], n + 1);
        load.more(50);
        open.works();
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{report:?}");
    assert_eq!(report.answers_of("one"), report.answered());
}

#[test]
fn certificates_are_replaced_under_load_without_losing_a_session() {
    let (ca, service) = (Ca::new(), Service::new("one"));
    let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
    let flags = ca.flags("exporter", 1);
    let route = format!("peer:x={}", service.addr);
    let exporter = Ambassador::with(&format!("{flags} --peer-listen {peer} {route}")).start();
    let flags = ca.flags("dialler", 2);
    let route = format!("127.0.0.1:0=peer://{peer}/x?name=r&identity=exporter");
    let dialler = Ambassador::with(&format!("{flags} {route}")).start();
    let mut open = open_session(&exporter, &dialler, peer, "&identity=exporter");
    open.works();
    let load = Load::start(&Namespace::new("/proc/self/ns/net"), dialler.addr("r"), name_of_service);
    for n in 1..=3 {
        ca.issue("exporter", 10 + n, VALID);
        ca.issue("dialler", 20 + n, VALID);
        await_reloads([&exporter, &dialler], usize::try_from(n).unwrap());
        load.more(50);
        open.works();
    }
    // The certificates that are no longer used are revoked.
    ca.revoke(&[1, 2, 11, 21]);
    await_reloads([&exporter, &dialler], 4);
    load.more(50);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{report:?}");
}

#[test]
fn tunnel_takes_no_new_sessions_once_the_certificate_of_the_peer_has_expired() {
    let (ca, service) = (Ca::new(), Service::new("one"));
    let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
    let flags = ca.flags("exporter", 1);
    let route = format!("peer:x={}", service.addr);
    let exporter = Ambassador::with(&format!("{flags} --peer-listen {peer} {route}")).start();
    let flags = ca.flags("dialler", 2);
    ca.issue_for("dialler", 2, Duration::from_secs(15));
    let route = format!("127.0.0.1:0=peer://{peer}/x?name=r&identity=exporter&hold=1ms");
    let dialler = Ambassador::with(&format!("{flags} {route}")).start();
    let mut open = open_session(&exporter, &dialler, peer, "&identity=exporter");
    let named = || name_of_service(dialler.addr("r")).unwrap_or_default();
    assert_eq!(named(), "one");
    eventually("the end of the certificate", || match exporter.verb("status --json").stdout {
        status if String::from_utf8_lossy(&status).contains("\"draining\",") => Ok(()),
        status => Err(String::from_utf8_lossy(&status).into_owned()),
    });
    open.works();
    assert_eq!(named(), "", "another tunnel is needed");
    ca.issue("dialler", 3, VALID);
    await_reloads([&dialler], 1);
    eventually("a tunnel with the new certificate", || match named() {
        name if name == "one" => Ok(()),
        name => Err(name),
    });
    open.works();
    drop(open);
    eventually("the end of the tunnel", || match exporter.log() {
        log if log.contains("drained: the certificate of the peer has expired") => Ok(()),
        log => Err(log),
    });
}

#[test]
fn broken_credentials_change_nothing() {
    let service = Service::new("one");
    let pair = Pair::new(&service.addr, "", "");
    let mut open = open_session(&pair.exporter, &pair.dialler, pair.peer, "");
    pair.secret.write(&["short"]);
    eventually("the error", || match pair.exporter.log() {
        log if log.contains("peer credentials not reloaded") => Ok(()),
        log => Err(log),
    });
    open.works();
    assert_eq!(name_of_service(pair.addr).unwrap(), "one");
    std::fs::remove_file(pair.secret.path()).unwrap();
    assert_eq!(name_of_service(pair.addr).unwrap(), "one");
    pair.secret.write(&[&random_secret()]);
    await_reloads([&pair.exporter, &pair.dialler], 1);
    open.works();
    assert_eq!(name_of_service(pair.addr).unwrap(), "one");
}
