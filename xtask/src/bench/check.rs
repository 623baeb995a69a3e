//! Checks each encrypted connection between two proxies before it is measured: that bytes arrive unchanged, that they are
//! encrypted, and that a stranger is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::scope;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::child::{Process, killed_with_parent};
use super::hello::{AES_128_GCM, Hello, TLS_1_3};
use super::listening::{Protocol, listens};
use super::load::FAREWELL;
use super::measure::Bench;
use super::place::{MIRROR, Place};
use super::results::Results;
use super::rounds::Places;
use super::row::{Proxies, Row, Work};
use super::secrets::{self, STRANGER};
use super::subject::{Encryption, End, Handshake, Kind, Route, Side, Subject};
use crate::process::{command, wait_until};

const LIMIT: Duration = Duration::from_secs(10);
/// The time in which a proxy that does not verify its server would have relayed a reply.
const REPLY: Duration = Duration::from_secs(3);
/// Large enough to fill buffers, and recognizable in every part.
const TEXT: &str = "plain text of the benchmark, ";
const LINES: usize = 10_000;
/// The first of a thread cannot be resumed, and HAProxy has two threads at the other end of one TLS side.
const CONNECTIONS: usize = 4;
/// The beginning of an HTTP/2 connection, which every kind of pair answers: as HTTP/2, or unchanged by the service.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Checks each subject in each arrangement of proxies that the rows need. One that fails is left out.
pub(super) fn encrypted(
    bench: &Bench,
    rows: &[&Row],
    subjects: &[Subject],
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let mut checked: Vec<&Row> = Vec::new();
    for row in rows.iter().filter(|row| row.proxies != Proxies::One) {
        if !checked.iter().any(|other| other.proxies == row.proxies) {
            checked.push(row);
        }
    }
    if !checked.is_empty() {
        secrets::create(&bench.secrets())?;
    }
    for row in checked {
        let Some(place) = places.of(row.layout) else { continue };
        let _inside = place.enter()?;
        for subject in subjects.iter().filter(|subject| row.supports(subject.kind)) {
            let name = row.proxies.checked_name(&subject.name);
            eprintln!("bench: checking the encryption of {name}");
            match check(bench, row.proxies, subject, place) {
                Ok(encryption) => drop(results.pairs.insert(name, encryption)),
                Err(error) => {
                    eprintln!("bench: {name}: {error:#}");
                    results.left_out.push(format!("encryption of {name}: {error:#}"));
                }
            }
        }
    }
    Ok(())
}

/// Returns a description of the encryption.
fn check(bench: &Bench, proxies: Proxies, subject: &Subject, place: &Place) -> Result<String> {
    let _service = service(bench, place)?;
    let route = bench.route(Work::Mixed, place, MIRROR);
    if subject.kind == Kind::Direct {
        return transfer(route.target).map(|_| "no proxy".to_owned());
    }
    let [near, far] = bench.ends(proxies, subject)?;
    let far_proxy = bench.far(&route, &far, place).context("no encrypted pair")?;
    let recorder = Recorder::start(bench, far_proxy.address)?;
    let near_proxy = bench.near(recorder.address, &route, &near)?;
    let mut half_close = true;
    for _ in 0..CONNECTIONS {
        half_close &= transfer(near_proxy.address)?;
    }
    drop(near_proxy);
    let encryption = match subject.kind.encryption() {
        Encryption::Off => return Ok("not encrypted".to_owned()),
        Encryption::Own => "a protocol of its own".to_owned(),
        Encryption::Certificates | Encryption::Secret => negotiated(&recorder.streams("down")?, proxies)?,
    };
    let readable = |stream: &Vec<u8>| stream.windows(TEXT.len()).any(|part| part == TEXT.as_bytes());
    let streams = [recorder.streams("up")?, recorder.streams("down")?].concat();
    ensure!(!streams.iter().any(readable), "the bytes between the two proxies are not encrypted");
    match proxies {
        Proxies::Tls(Side::Accept, _) => {
            ensure!(answers(far_proxy.address, &[])?, "a client without a certificate gets no reply");
        }
        Proxies::Tls(Side::Connect, _) => {
            ensure!(!trusts_stranger(bench, &route, &near)?, "it accepts a server of another CA");
        }
        _ => refuses_strangers(subject, &route, far_proxy.address)?,
    }
    Ok(if half_close { encryption } else { encryption + ", no half-close" })
}

/// Starts the service that returns what it receives.
fn service(bench: &Bench, place: &Place) -> Result<Process> {
    let _there = place.enter_far()?;
    let mut mirror = killed_with_parent(&bench.load);
    mirror.args(["bench-load", "mirror", &SocketAddr::new(place.service, MIRROR).to_string()]);
    let process = Process::start(&mut mirror)?;
    ensure!(wait_until(LIMIT, || listens(MIRROR, Protocol::Tcp))?, "the service did not start");
    Ok(process)
}

/// A relay between the two proxies that keeps their bytes.
struct Recorder {
    _process: Process,
    address: SocketAddr,
    dir: PathBuf,
}

impl Recorder {
    fn start(bench: &Bench, target: SocketAddr) -> Result<Recorder> {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bench.port());
        let dir = bench.dir.join(format!("record-{}", address.port()));
        fs::create_dir_all(&dir)?;
        let mut record = killed_with_parent(&bench.load);
        record.args(["bench-load", "record", &target.to_string(), "--listen", &address.to_string(), "--dir"]);
        let process = Process::start(record.arg(&dir))?;
        ensure!(wait_until(LIMIT, || listens(address.port(), Protocol::Tcp))?, "the recorder did not start");
        Ok(Recorder { _process: process, address, dir })
    }

    /// Returns the bytes of each connection in one direction.
    fn streams(&self, direction: &str) -> Result<Vec<Vec<u8>>> {
        let paths = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path());
        let streams = paths.filter(|path| path.extension().is_some_and(|is| is == direction)).map(fs::read);
        Ok(streams.collect::<Result<_, _>>()?)
    }
}

/// Sends text, expects it back, and returns whether the service can still send after the client's end of stream.
fn transfer(address: SocketAddr) -> Result<bool> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let text: String = (0..LINES).map(|line| format!("{TEXT}{line}\n")).collect();
    let mut returned = vec![0; text.len()];
    scope(|scope| {
        let sender = scope.spawn(|| (&stream).write_all(text.as_bytes()));
        (&stream).read_exact(&mut returned).context("the bytes did not return")?;
        sender.join().ok().context("cannot send")??;
        anyhow::Ok(())
    })?;
    ensure!(returned == text.as_bytes(), "the bytes were changed");
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    (&stream).read_to_end(&mut rest).ok();
    Ok(rest == FAREWELL)
}

/// Returns what the far proxy has chosen. All connections must have TLS 1.3; those with one fixed end also the same cipher,
/// and full handshakes where the row has them.
fn negotiated(streams: &[Vec<u8>], proxies: Proxies) -> Result<String> {
    let hellos = streams.iter().map(|stream| Hello::of(stream).context("the far proxy does not speak TLS"));
    let hellos = hellos.collect::<Result<Vec<_>>>()?;
    let first = hellos.first().context("no connection between the two proxies")?;
    ensure!(hellos.iter().all(|hello| hello.version == TLS_1_3), "the connection is not TLS 1.3");
    if let Proxies::Tls(_, handshake) = proxies {
        ensure!(hellos.iter().all(|hello| hello.cipher == AES_128_GCM), "the cipher is not AES-128-GCM");
        let full = hellos.iter().all(|hello| !hello.resumed);
        ensure!(full || handshake == Handshake::Resumed, "a session was resumed");
    }
    let connections = match hellos.as_slice() {
        [_] => "one connection for all sessions",
        hellos if hellos.iter().any(|hello| hello.resumed) => "one connection for each session, resumed",
        _ => "one connection for each session",
    };
    Ok(format!("{}, {connections}", first.in_words()))
}

fn refuses_strangers(subject: &Subject, route: &Route, far: SocketAddr) -> Result<()> {
    let with = |name: &str| ["-cert".to_owned(), route.secrets.join(name).display().to_string()];
    for (who, options) in
        [("a client without a certificate", &[][..]), ("a certificate of another CA", &with(STRANGER))]
    {
        ensure!(!answers(far, options)?, "the far proxy accepts {who}");
    }
    // A route that terminates TLS accepts 1.2 as well; what the two ends use is checked by its records.
    if subject.kind != Kind::TlsPair {
        let old = [vec!["-tls1_2".to_owned()], with("near.pem").to_vec()].concat();
        ensure!(!answers(far, &old)?, "the far proxy accepts TLS 1.2");
    }
    if subject.kind.encryption() == Encryption::Certificates {
        ensure!(answers(far, &with("near.pem"))?, "the far proxy refuses the near proxy's certificate");
    }
    Ok(())
}

/// Returns whether the proxy relays the reply of a server with a certificate of another CA.
fn trusts_stranger(bench: &Bench, route: &Route, near: &(Subject, End)) -> Result<bool> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bench.port());
    let mut openssl = killed_with_parent(Path::new("openssl"));
    openssl.args(["s_server", "-quiet", "-rev", "-accept", &address.to_string(), "-cert"]);
    openssl.arg(route.secrets.join(STRANGER)).stdout(Stdio::null()).stderr(Stdio::null());
    let _stranger = Process::start(&mut openssl)?;
    ensure!(wait_until(LIMIT, || listens(address.port(), Protocol::Tcp))?, "openssl did not start");
    let proxy = bench.near(address, route, near)?;
    let mut stream = TcpStream::connect(proxy.address)?;
    stream.set_read_timeout(Some(REPLY))?;
    stream.write_all(b"text\n").ok();
    Ok(stream.read(&mut [0]).is_ok_and(|length| length > 0))
}

/// Returns whether any byte comes back in a TLS connection.
fn answers(far: SocketAddr, options: &[String]) -> Result<bool> {
    let mut openssl = command("timeout 5 openssl s_client -quiet -alpn h2 -connect");
    openssl.arg(far.to_string()).args(options).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process::start_piped(&mut openssl)?;
    let mut stdin = process.0.stdin.take().context("no standard input")?;
    stdin.write_all(PREFACE).ok();
    let mut stdout = process.0.stdout.take().context("no standard output")?;
    Ok(stdout.read(&mut [0])? > 0)
}
