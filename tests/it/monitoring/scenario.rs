//! Ambassadors with traffic of each kind, and then with each fault that an alert reports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::PATIENCE;
use super::prometheus::Prometheus;
use crate::support::{Ambassador, Builder, Ca, Service, private_ip, within};

/// Alerts whose fault needs more than a test can do in seconds: a thread that is blocked for a second needs a tracer. The metric of
/// each is queried nevertheless, and tests/it/hostile/control.rs blocks a thread.
pub(super) const IS_HARD_TO_PROVOKE: &[&str] = &["AmbassadorThreadStalled"];

const DAY: Duration = Duration::from_secs(86_400);
/// Enough for a few sessions, and few enough for a test to use up.
const FEW_FILES: u64 = 256;

const TOKEN_FILE: &str = "token";
/// The port of a route of the file that an argument hides, which is a mistake.
const HIDDEN: u16 = 1001;
/// The port of a route that another program has.
const TAKEN: u16 = 1014;

/// An ambassador with an admin API on TCP.
struct Instance {
    ambassador: Ambassador,
    admin: SocketAddr,
}

pub(super) struct Scenario {
    main: Instance,
    /// Out of descriptors.
    small: Instance,
    /// Killed and started again.
    restarting: Option<Instance>,
    /// The peer of `main`, killed in the second part.
    exporter: Option<Ambassador>,
    /// The address of the routes of `main`.
    ip: String,
    dir: tempfile::TempDir,
    certificate: PathBuf,
    _ca: Ca,
    /// Connections that stay open until the end, and listeners that take a port.
    open: Vec<TcpStream>,
    taken: Vec<TcpListener>,
}

impl Instance {
    fn start(builder: impl Fn(&str) -> Builder, admin: SocketAddr) -> Instance {
        let ambassador = builder(&format!("--admin {admin}")).spawn();
        let instance = Instance { ambassador, admin };
        // A source that is lost from the beginning keeps it from being ready.
        within(PATIENCE, "an answer", || match instance.verb("health").status.code() {
            Some(0 | 1) => Ok(()),
            _ => Err(instance.ambassador.log()),
        });
        instance
    }

    fn verb(&self, words: &str) -> std::process::Output {
        self.ambassador.verb(&format!("{words} --admin {}", self.admin))
    }

    fn command(&self, words: &str) {
        let output = self.verb(words);
        assert!(output.status.success(), "{words}: {output:?}");
    }

    /// Requests a switch on trial without waiting for its end.
    fn switch(&self, route: &str, targets: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        let body = format!("{{\"targets\":\"{targets}\",\"timeout\":\"10m\"}}");
        let head = format!("POST /routes/{route}/switch HTTP/1.1\r\nhost: {}", self.admin);
        let length = body.len();
        write!(stream, "{head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        stream
    }
}

/// Writes the configuration file, with a route for each of these ports.
fn write_routes(dir: &tempfile::TempDir, ip: &str, ports: &[u16]) {
    let route = |port: &u16| format!("[[route]]\nlisten = \"{ip}:{port}\"\ntarget = \"a:1\"\n");
    std::fs::write(dir.path().join("a.toml"), ports.iter().map(route).collect::<String>()).unwrap();
}

/// Returns what a service sends.
fn name_of(addr: SocketAddr) -> std::io::Result<String> {
    let mut name = String::new();
    TcpStream::connect(addr)?.read_to_string(&mut name)?;
    Ok(name)
}

fn admin() -> SocketAddr {
    format!("{}:9600", private_ip()).parse().unwrap()
}

/// A UDP service that returns each datagram.
fn udp_echo() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    });
    addr
}

impl Scenario {
    pub(super) fn start() -> Scenario {
        let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
        let (service, ip) = (Service::new("one").addr, private_ip());
        let peer = format!("{}:15008", private_ip());
        let exporter =
            format!("{} --peer-listen {peer} peer:x={service} peer:held={ip}:1005", ca.flags("exporter", 1));
        let exporter = Ambassador::with(&exporter).start();
        let certificate = ca.issue_for("web", 3, 3 * DAY);
        write_routes(&dir, &ip, &[HIDDEN]);
        std::fs::write(dir.path().join(TOKEN_FILE), "a-token-that-is-long-enough\n").unwrap();
        let flags = format!(
            "--config {} --web {ip}:9700 --web-token-file {} {} --certificate web={} -sock /nonexistent/docker.sock",
            dir.path().join("a.toml").display(),
            dir.path().join(TOKEN_FILE).display(),
            ca.flags("main", 2),
            certificate.display()
        );
        let routes = [
            format!("{ip}:1001={service}?name=ok"),
            format!("{ip}:1002/udp={}?name=udp", udp_echo()),
            format!("{ip}:1003=127.0.0.1:1?name=slow&hold=6s"),
            format!("{ip}:1004=127.0.0.1:1?name=short&hold=300ms"),
            format!("{ip}:1005=127.0.0.1:1?name=waiting&hold=10m"),
            format!("{ip}:1006=127.0.0.1:1?name=refused&hold=off"),
            format!("{ip}:1007=127.0.0.1:1?name=down&health=tcp"),
            format!("{ip}:1008=peer://{peer}/x?name=peer&identity=exporter"),
            format!("{ip}:1009={service}?name=tls&tls=web"),
            format!("{ip}:1010=tls://{ip}:1009?name=origin&ca={}&sni=web", ca.ca().display()),
            format!("{ip}:1015=peer://{peer}/held?name=long&identity=exporter"),
            format!("{ip}:1011=docker://redis:6379?name=docker"),
            format!("{ip}:1012={service}?name=paused"),
            format!("{ip}:1013={service}?name=switched"),
        ];
        let main = |admin: &str| Ambassador::with(&format!("{admin} {flags} {}", routes.join(" ")));
        let small = |admin: &str| {
            Ambassador::with(&format!("{admin} 127.0.0.1:0=127.0.0.1:1?name=full&hold=10m"))
                .limited_to(FEW_FILES)
        };
        let mut scenario = Scenario {
            main: Instance::start(main, admin()),
            small: Instance::start(small, admin()),
            restarting: Some(Scenario::restarted(admin())),
            exporter: Some(exporter),
            ip,
            dir,
            certificate,
            _ca: ca,
            open: Vec::new(),
            taken: Vec::new(),
        };
        scenario.use_up_descriptors();
        let [slow, long] = [1003, 1015].map(|port| scenario.at(port));
        // The round trip of a tunnel is measured while it has a session.
        scenario.open.extend([slow, slow, slow, long].map(|addr| TcpStream::connect(addr).unwrap()));
        scenario
    }

    /// Returns the admin addresses.
    pub(super) fn targets(&self) -> Vec<String> {
        let restarting = self.restarting.iter();
        [&self.main, &self.small]
            .into_iter()
            .chain(restarting)
            .map(|instance| instance.admin.to_string())
            .collect()
    }

    /// Returns the page of one, and the file of its token.
    pub(super) fn guarded(&self) -> (String, PathBuf) {
        (format!("{}:9700", self.ip), self.dir.path().join(TOKEN_FILE))
    }

    /// Runs a session of each kind.
    pub(super) fn traffic(&self) {
        let peer = self.exporter.iter().map(|_| 1008);
        for port in [1001, 1010].into_iter().chain(peer) {
            assert_eq!(name_of(self.at(port)).ok().as_deref(), Some("one"), "{}", self.main.ambassador.log());
        }
        for port in [1004, 1006, 1009] {
            // Refused, held in vain, or no TLS: the end is a reset.
            let mut stream = TcpStream::connect(self.at(port)).unwrap();
            stream.write_all(b"hello").ok();
            stream.read_exact(&mut [0]).ok();
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"x", self.at(1002)).unwrap();
        socket.recv(&mut [0]).unwrap();
    }

    /// Makes each fault that an alert reports.
    pub(super) fn break_everything(&mut self, prometheus: &Prometheus) {
        self.open.push(TcpStream::connect(self.at(1005)).unwrap());
        self.main.command("pause paused");
        self.open.push(self.main.switch("switched", "127.0.0.1:1"));
        self.exporter = None;
        std::fs::write(&self.certificate, "no certificate").unwrap();
        self.restart(prometheus);
        self.taken.push(TcpListener::bind((&*self.ip, TAKEN)).unwrap());
        write_routes(&self.dir, &self.ip, &[HIDDEN, TAKEN]);
        within(PATIENCE, "a route that is not open", || {
            let status = self.main.verb("status");
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            if text.contains("not bound") { Ok(()) } else { Err(text) }
        });
        // The routes in use stay, and with them the mistake and the route that is not open.
        std::fs::write(self.dir.path().join("a.toml"), "blance = 1").unwrap();
    }

    fn restarted(admin: SocketAddr) -> Instance {
        Instance::start(|admin| Ambassador::with(&format!("{admin} 127.0.0.1:0=127.0.0.1:1")), admin)
    }

    /// Restarts an ambassador as often as the alert demands, each time after it was scraped, and then stops it.
    fn restart(&mut self, prometheus: &Prometheus) {
        let Some(mut instance) = self.restarting.take() else { return };
        let admin = instance.admin;
        let started = format!("process_start_time_seconds{{instance=\"{admin}\"}}");
        for _ in 0..3 {
            let before = prometheus.value(&started);
            drop(instance);
            instance = Scenario::restarted(admin);
            within(PATIENCE, "a scrape of the new process", || match prometheus.value(&started) {
                Some(now) if before != Some(now) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }

    fn use_up_descriptors(&mut self) {
        let addr = {
            let status: serde_json::Value =
                serde_json::from_slice(&self.small.verb("status --json").stdout).unwrap();
            status["routes"][0]["addresses"][0].as_str().unwrap().to_owned()
        };
        self.open.extend((0..FEW_FILES).map(|_| TcpStream::connect(&addr).unwrap()));
        within(PATIENCE, "a route without descriptors", || {
            let text = String::from_utf8(self.small.verb("status").stdout).unwrap();
            if text.contains("out of file descriptors") { Ok(()) } else { Err(text) }
        });
    }

    fn at(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.ip).parse().unwrap()
    }
}
