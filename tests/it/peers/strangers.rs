//! Strangers at `--peer-listen`: each is refused, counted and named in the log, and peers are served meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Ambassador, Ca, Service, VALID, ask, eventually, private_ip, skip};

/// An ambassador with a certificate of a CA, which exports a service, and one that uses it.
struct Certified {
    ca: Ca,
    exporter: Ambassador,
    dialler: Ambassador,
    peer: SocketAddr,
    service: Service,
}

impl Certified {
    fn start(options: &str) -> Certified {
        let (ca, service) = (Ca::new(), Service::new("one"));
        let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
        let flags = ca.flags("exporter", 1);
        let route = format!("peer:x={}?name=x{options}", service.addr);
        let exporter = Ambassador::with(&format!("{flags} --peer-listen {peer} {route}")).start();
        let dialler = dialler(&ca, "dialler", 2, peer);
        Certified { ca, exporter, dialler, peer, service }
    }

    fn serves(&self) {
        assert_eq!(ask(self.dialler.addr("r")), "one");
    }

    /// Waits until the log of the exporter contains this text.
    fn logs(&self, text: &str) {
        eventually(text, || match self.exporter.log() {
            log if log.contains(text) => Ok(()),
            log => Err(log),
        });
    }
}

fn dialler(ca: &Ca, name: &str, serial: u64, peer: SocketAddr) -> Ambassador {
    let flags = ca.flags(name, serial);
    let route = format!("127.0.0.1:0=peer://{peer}/x?name=r&hold=0s&identity=exporter");
    Ambassador::with(&format!("{flags} {route}")).start()
}

/// Runs `openssl s_client` against a peer. Returns whether it could exchange HTTP/2 prefaces: the first byte of the SETTINGS
/// frame is sent only to peers.
fn s_client(peer: SocketAddr, arguments: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &peer.to_string(), "-ign_eof", "-brief"]).args(arguments);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok();
    let output = client.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn has_openssl() -> bool {
    Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success())
}

fn cert(path: &Path) -> [String; 4] {
    let path = path.display().to_string();
    ["-cert".to_owned(), path.clone(), "-key".to_owned(), path]
}

#[test]
fn strangers_with_openssl_are_refused_and_named() {
    if !has_openssl() {
        skip!("openssl is not installed");
    }
    let pair = Certified::start("");
    pair.serves();
    let other = Ca::new();
    let expired = pair.ca.issue("expired", 10, [-20, -1]);
    let early = pair.ca.issue("early", 11, [5, 20]);
    let revoked = pair.ca.issue("revoked", 12, VALID);
    let good = pair.ca.issue("good", 13, VALID);
    pair.ca.revoke(&[12]);
    pair.logs("peer credentials reloaded");
    let wrong = other.issue("wrong", 14, VALID);
    let h2 = |extra: &[&str]| [&["-alpn", "h2", "-tls1_3"], extra].concat().join(" ");
    let with = |path: &Path| cert(path).join(" ");
    for (stranger, arguments, logged) in [
        ("no certificate", h2(&[]), "the peer presented no certificate"),
        ("wrong CA", h2(&[&with(&wrong)]), "issued by an unknown CA"),
        ("expired", h2(&[&with(&expired)]), "the certificate expired at"),
        ("not yet valid", h2(&[&with(&early)]), "not valid before"),
        ("revoked", h2(&[&with(&revoked)]), "the certificate is revoked"),
        ("TLS 1.2", format!("-alpn h2 -tls1_2 {}", with(&good)), "no common version of TLS"),
        ("no ALPN", format!("-tls1_3 {}", with(&good)), "no common protocol"),
        ("wrong ALPN", format!("-alpn http/1.1 -tls1_3 {}", with(&good)), "no common protocol"),
    ] {
        let before = pair.exporter.log().len();
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = s_client(pair.peer, &arguments);
        eventually(stranger, || {
            let log = pair.exporter.log()[before..].to_owned();
            let is_throttled = !log.contains("it is not from a peer");
            if log.contains(logged) || is_throttled { Ok(()) } else { Err(format!("{log}\n{output}")) }
        });
        // The pair may open another tunnel after the reload.
        let log = pair.exporter.log()[before..].to_owned();
        let is_of_stranger = |line: &str| line.contains("tunnel opened") && !line.contains("dialler");
        assert!(!log.lines().any(is_of_stranger), "{stranger}: {log}\n{output}");
        pair.serves();
    }
    let metrics = pair.exporter.verb("status --json");
    assert!(metrics.status.success());
}

#[test]
fn bytes_that_are_not_tls_are_refused_and_named() {
    let pair = Certified::start("");
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 10_000],
        &[0x16, 3, 1, 0xff, 0xff],
        b"",
    ] {
        let mut stream = TcpStream::connect(pair.peer).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Closed or reset, perhaps after a TLS alert.
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert!(answer.len() < 10, "{}", answer.escape_ascii());
    }
    pair.logs("the other side does not speak TLS");
    pair.serves();
}

#[test]
fn wrong_identity_of_the_exporter_fails_tls() {
    let pair = Certified::start("");
    let flags = pair.ca.flags("third", 20);
    let route = format!("127.0.0.1:0=peer://{}/x?name=r&hold=0s&identity=somebody", pair.peer);
    let stranger = Ambassador::with(&format!("{flags} {route}")).start();
    let mut stream = TcpStream::connect(stranger.addr("r")).unwrap();
    stream.read(&mut [0; 1]).unwrap_err();
    eventually("the ending", || match stranger.log() {
        log if log.contains("ending=tls-failed") => Ok(()),
        log => Err(log),
    });
    pair.serves();
}

#[test]
fn identity_that_is_not_in_peers_is_refused() {
    let pair = Certified::start("&peers=dialler");
    pair.serves();
    let other = dialler(&pair.ca, "other", 21, pair.peer);
    let mut stream = TcpStream::connect(other.addr("r")).unwrap();
    stream.read(&mut [0; 1]).unwrap_err();
    eventually("the ending", || match other.log() {
        log if log.contains("ending=peer-refused") => Ok(()),
        log => Err(log),
    });
    pair.serves();
}

#[test]
fn silent_strangers_do_not_keep_peers_out() {
    const STRANGERS: usize = 200;
    let pair = Certified::start("");
    let mut silent = Vec::new();
    for _ in 0..STRANGERS {
        silent.push(TcpStream::connect(pair.peer).unwrap());
    }
    // A new peer while all of them are silent, and the established one.
    let second = dialler(&pair.ca, "second", 22, pair.peer);
    for n in 0..40 {
        if n % 4 == 0 {
            silent.push(TcpStream::connect(pair.peer).unwrap());
        }
        assert_eq!(ask(second.addr("r")), "one");
        pair.serves();
    }
    // Each is closed after five seconds at most.
    for mut stranger in silent {
        stranger.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let end = stranger.read(&mut [0; 1]);
        assert!(
            matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        );
    }
    assert_eq!(pair.service.addr.split(':').count(), 2);
}

#[test]
fn revoked_peer_is_cut_within_a_second_and_refused() {
    let pair = Certified::start("");
    let hold = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let added = pair.exporter.verb(&format!("routes add peer:held={}?name=held", hold.local_addr().unwrap()));
    assert!(added.status.success(), "{added:?}");
    let added = pair.dialler.verb(&format!(
        "routes add 127.0.0.2:0=peer://{}/held?name=held&hold=0s&identity=exporter",
        pair.peer
    ));
    assert!(added.status.success(), "{added:?}");
    let mut stream = TcpStream::connect(pair.dialler.addr("held")).unwrap();
    let (mut served, _) = hold.accept().unwrap();
    for (from, to) in [(&mut stream, &mut served)] {
        from.write_all(b"x").unwrap();
        to.read_exact(&mut [0; 1]).unwrap();
        for end in [from, to] {
            end.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        }
    }
    let began = std::time::Instant::now();
    pair.ca.revoke(&[2]);
    for end in [&mut served, &mut stream] {
        assert_eq!(end.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let took = began.elapsed();
    // The limit is a second; a loaded machine gets four.
    assert!(took < Duration::from_secs(4), "{took:?}");
    pair.logs("ending=peer-revoked");
    let mut stream = TcpStream::connect(pair.dialler.addr("r")).unwrap();
    stream.read(&mut [0; 1]).unwrap_err();
    pair.logs("the certificate is revoked");
}
