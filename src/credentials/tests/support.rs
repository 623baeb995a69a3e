//! Two ends of a connection, a clock that tests set, and files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::address::PeerName;
use crate::credentials::authority::{Authority, IssueRequest};
use crate::credentials::{CredentialFiles, Credentials, HandshakeFailure, PeerIdentity};
use crate::log::captured::Lines;

pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// Seconds since 1970 that a test sets.
#[derive(Debug)]
pub(super) struct TestClock(AtomicU64);

impl TestClock {
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Relaxed))
    }

    /// Starts at the system's time.
    pub(super) fn new() -> Arc<TestClock> {
        Arc::new(TestClock(AtomicU64::new(UnixTime::now().as_secs())))
    }

    /// Starts an hour later, so that what other programs issue now is valid.
    pub(super) fn late() -> Arc<TestClock> {
        let clock = TestClock::new();
        clock.advance(HOUR);
        clock
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Relaxed);
    }

    pub(super) fn set_back(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Relaxed);
    }
}

impl TimeProvider for TestClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Relaxed))))
    }
}

pub(super) fn loaded(files: CredentialFiles, clock: &Arc<TestClock>) -> Arc<Credentials> {
    Arc::new(Credentials::load_with_clock(files, Arc::clone(clock) as Arc<dyn TimeProvider>).unwrap())
}

/// Writes a file of mode 0600.
pub(super) fn written(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// What both sides of a handshake have at its end: the identity of the other side, or the failure.
#[derive(Debug)]
pub(super) struct Ends {
    /// What the side that dialled sees.
    pub(super) client: Result<PeerIdentity, HandshakeFailure>,
    pub(super) server: Result<PeerIdentity, HandshakeFailure>,
    /// The chain that the server presented.
    pub(super) server_chain: Vec<CertificateDer<'static>>,
}

impl Ends {
    /// The identities that both sides see.
    pub(super) fn identities(&self) -> (&str, &str) {
        match self {
            Ends { client: Ok(server), server: Ok(client), .. } => (&server.identity, &client.identity),
            failed => panic!("{failed:?}"),
        }
    }

    /// The reasons of both sides.
    pub(super) fn reasons(&self) -> (&'static str, &'static str) {
        let reason = |end: &Result<PeerIdentity, HandshakeFailure>| match end {
            Ok(_) => "connected",
            Err(failure) => failure.reason.as_str(),
        };
        (reason(&self.client), reason(&self.server))
    }
}

pub(super) fn host(name: &str) -> PeerName {
    PeerName::Host(name.to_owned())
}

pub(super) fn identity(name: &str) -> PeerName {
    PeerName::Identity(name.to_owned())
}

/// Connects two ends. One byte each way shows the server's opinion of the client, which comes after the client's handshake.
pub(super) async fn handshake(client: &Credentials, name: &PeerName, server: &Credentials) -> Ends {
    let (near, far) = duplex(64 << 10);
    let (client_end, server_end) = tokio::join!(dial(client, name, near), accept(server, far));
    let failure = |error: &io::Error, end: &Credentials| HandshakeFailure::of(error, end.kind());
    let server_chain = client_end.as_ref().ok().cloned().unwrap_or_default();
    Ends {
        client: client_end.map_err(|error| failure(&error, client)).map(|chain| client.peer(&chain).unwrap()),
        server: server_end.map_err(|error| failure(&error, server)).map(|chain| server.peer(&chain).unwrap()),
        server_chain,
    }
}

async fn dial(
    credentials: &Credentials,
    name: &PeerName,
    stream: DuplexStream,
) -> io::Result<Vec<CertificateDer<'static>>> {
    let (config, server_name) = credentials.connector(name, &[b"h2"]).unwrap();
    let mut stream = TlsConnector::from(config).connect(server_name, stream).await?;
    stream.write_all(b"?").await?;
    stream.read_u8().await?;
    let (_, connection) = stream.get_ref();
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    Ok(connection
        .peer_certificates()
        .unwrap()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect())
}

async fn accept(credentials: &Credentials, stream: DuplexStream) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut stream = TlsAcceptor::from(credentials.acceptor(&[b"h2"]).unwrap()).accept(stream).await?;
    stream.read_u8().await?;
    stream.write_all(b"!").await?;
    stream.flush().await?;
    let (_, connection) = stream.get_ref();
    Ok(connection
        .peer_certificates()
        .unwrap()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect())
}

/// A CA in a directory of its own.
pub(super) struct TestCa {
    pub(super) dir: TempDir,
}

impl TestCa {
    pub(super) fn create(clock: &TestClock) -> TestCa {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(&dir.path().join("ca"), "test", clock.now()).unwrap();
        TestCa { dir }
    }

    pub(super) fn open(&self) -> Authority {
        Authority::open(&self.dir.path().join("ca")).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn request(&self, name: &str) -> IssueRequest {
        IssueRequest {
            name: name.to_owned(),
            days: 365,
            csr: None,
            alternative_names: Vec::new(),
            out: Some(self.path(&format!("{name}.pem"))),
        }
    }

    /// Issues a certificate, and returns the files of its host.
    pub(super) fn host(&self, name: &str, clock: &TestClock) -> CredentialFiles {
        self.open().issue(&self.request(name), clock.now()).unwrap();
        self.files(self.path(&format!("{name}.pem")))
    }

    pub(super) fn files(&self, cert: PathBuf) -> CredentialFiles {
        CredentialFiles {
            cert: Some(cert),
            ca: Some(self.path("ca/ca.pem")),
            crl: Some(self.path("ca/crl.pem")),
            ..CredentialFiles::default()
        }
    }
}

/// Runs openssl in a directory, and returns its output.
pub(super) fn openssl(dir: &Path, arguments: &str) -> String {
    let output = std::process::Command::new("openssl")
        .current_dir(dir)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl, which `cargo xtask test` installs");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "openssl {arguments}: {out}{err}");
    out + &err
}

/// Runs `f`, and returns the lines that it logged.
pub(super) fn logged(f: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), f);
    lines.text()
}
