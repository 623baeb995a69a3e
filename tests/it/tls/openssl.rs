//! `openssl s_client` and `openssl s_server`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::app::{PATIENCE, TlsPair};
use crate::support::private_ip;

/// The output of `openssl s_client` that has sent `input` and has read to the end.
pub(super) struct Answer {
    pub(super) stdout: String,
    /// What it says about the connection.
    pub(super) stderr: String,
}

impl Answer {
    pub(super) fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// Runs `openssl s_client`, which ends when the server does.
pub(super) fn s_client(addr: SocketAddr, args: &[&str], input: &str) -> Answer {
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-no_ign_eof"]).args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let [stdout, stderr] = [collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap())];
    let mut stdin = child.stdin.take().unwrap();
    // Ends before it has read its input if the handshake fails.
    stdin.write_all(input.as_bytes()).ok();
    // At the end of its input it closes the connection, whether or not it has an answer.
    let expected = input.lines().last().unwrap_or_default();
    // In the same line as its own messages about tickets.
    let is_answered = || stdout.text.lock().unwrap().lines().any(|line| line.ends_with(expected));
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && !is_answered() && began.elapsed() < PATIENCE {
        thread::park_timeout(Duration::from_millis(2));
    }
    drop(stdin);
    child.wait().unwrap();
    Answer { stdout: stdout.end(), stderr: stderr.end() }
}

/// The output of a process so far.
struct Output {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

fn collect(mut from: impl Read + Send + 'static) -> Output {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    Output { text, reader }
}

impl Output {
    fn end(self) -> String {
        self.reader.join().unwrap();
        self.text.lock().unwrap().clone()
    }
}

/// A server that sends each line back reversed; killed when dropped.
pub(super) struct Server {
    child: Child,
    pub(super) addr: SocketAddr,
}

impl Server {
    pub(super) fn start(cert: &Path, args: &[&str]) -> Server {
        let addr: SocketAddr = format!("{}:7443", private_ip()).parse().unwrap();
        let mut command = Command::new("/usr/bin/openssl");
        command.args(["s_server", "-accept", &addr.to_string(), "-rev", "-cert"]).arg(cert).args(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ACCEPT")), "it listens");
        // It must be able to write on.
        thread::spawn(move || lines.for_each(drop));
        Server { child, addr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_versions_are_served_and_resumed() {
    let service = crate::app::Service::named("").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let (addr, ca) = (pair.server.addr("x"), pair.ca.ca());
    let verified = ["-CAfile", ca.to_str().unwrap(), "-servername", "service", "-verify_return_error"];
    let tickets = tempfile::tempdir().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let file = tickets.path().join(version);
        let file = file.to_str().unwrap();
        let with = |option, file| [&verified[..], &[version, option, file]].concat();
        let first = s_client(addr, &with("-sess_out", file), "hello\n");
        assert!(first.stdout.contains("hello") && first.all().contains("New, TLSv1."), "{}", first.all());
        assert!(first.all().contains("Verify return code: 0 (ok)"), "{}", first.all());
        let second = s_client(addr, &with("-sess_in", file), "hello\n");
        assert!(
            second.stdout.contains("hello") && second.all().contains("Reused, TLSv1."),
            "{}",
            second.all()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_offers_only_http2_is_served() {
    let service = crate::app::Service::named("").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let answer = s_client(pair.server.addr("x"), &["-alpn", "h2"], "hello\n");
    assert!(
        answer.stdout.contains("hello") && answer.all().contains("No ALPN negotiated"),
        "{}",
        answer.all()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_and_renegotiation_are_refused() {
    let service = crate::app::Service::named("").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let addr = pair.server.addr("x");
    for version in ["-tls1", "-tls1_1"] {
        let answer = s_client(addr, &[version, "-cipher", "ALL:@SECLEVEL=0"], "hello\n");
        assert!(!answer.stdout.contains("hello\n"), "{}", answer.all());
        assert!(answer.all().contains("alert"), "{}", answer.all());
    }
    let answer = s_client(addr, &["-tls1_2"], "R\nhello\n");
    assert!(answer.all().contains("RENEGOTIATING") && !answer.stdout.contains("hello\n"), "{}", answer.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_both_versions_are_verified_and_used() {
    let ca = crate::support::Ca::new();
    let cert = ca.issue("service", 1, crate::support::VALID);
    for version in ["-tls1_2", "-tls1_3"] {
        let server = Server::start(&cert, &[version]);
        let route = format!("127.0.0.1:0=tls://{}?name=r&ca={}&sni=service", server.addr, ca.ca().display());
        let app = crate::app::App::start(&[&route]).await;
        for _ in 0..2 {
            let addr = app.addr("r");
            let answer = tokio::task::spawn_blocking(move || {
                let mut stream = std::net::TcpStream::connect(addr).unwrap();
                stream.write_all(b"hello\n").unwrap();
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                line
            });
            assert_eq!(answer.await.unwrap(), "olleh\n");
        }
    }
}
