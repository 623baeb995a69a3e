//! Processes that stop while sessions are open: on either side, no byte is lost, and no end of a stream is invented.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Ambassador, Pair, Service, ask, eventually, pause, private_ip};

const TIMEOUT: Duration = Duration::from_secs(40);
const BYTES: usize = 6_000_000;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n ^ (n >> 8)) % 251).unwrap()).collect()
}

/// A service that sends [`BYTES`] bytes and FIN after it has received one byte. Its other connections are returned by the
/// channel after their first byte.
struct Download {
    addr: SocketAddr,
}

impl Download {
    fn start() -> Download {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    if stream.read_exact(&mut [0; 1]).is_ok() {
                        let _ = stream.write_all(&pattern(BYTES));
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        let _ = stream.read_to_end(&mut Vec::new());
                    }
                });
            }
        });
        Download { addr }
    }
}

/// A service whose connections the test holds.
fn accepting() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, (accepted, streams)) = (listener.local_addr().unwrap(), channel());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            if accepted.send(stream).is_err() {
                return;
            }
        }
    });
    (addr, streams)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Which process of a pair.
#[derive(Clone, Copy, Debug)]
enum Side {
    Exporter,
    Dialler,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Exporter, Side::Dialler];

    fn of(self, pair: &mut Pair) -> &mut Ambassador {
        match self {
            Side::Exporter => &mut pair.exporter,
            Side::Dialler => &mut pair.dialler,
        }
    }
}

#[test]
fn session_that_ends_while_a_side_stops_loses_no_byte() {
    for side in Side::BOTH {
        let service = Download::start();
        let mut pair = Pair::new(&service.addr.to_string(), "", "");
        let mut stream = connect(pair.addr);
        stream.write_all(b"?").unwrap();
        let mut all = vec![0; 1];
        stream.read_exact(&mut all).unwrap();
        side.of(&mut pair).signal(Signal::TERM);
        // Slower than the service, so that the end of the stream waits in the tunnel.
        let mut buffer = vec![0; 500_000];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
            pause(Duration::from_millis(20));
        }
        assert!(all == pattern(BYTES), "{side:?}: {} of {BYTES} bytes", all.len());
        drop(stream);
        let status = side.of(&mut pair).ends_within(TIMEOUT);
        assert!(status.success(), "{side:?}: {status}");
    }
}

/// The service has closed, and all that it sent is in the tunnel or beyond when the process is told to stop.
#[test]
fn end_of_a_stream_is_delivered_by_a_process_that_stops() {
    for round in 0..8 {
        let (service, streams) = accepting();
        let mut pair = Pair::new(&service.to_string(), "", "");
        let mut stream = connect(pair.addr);
        stream.write_all(b"?").unwrap();
        let mut served = streams.recv_timeout(TIMEOUT).unwrap();
        served.read_exact(&mut [0; 1]).unwrap();
        let side = Side::BOTH[round % 2];
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(served.read(&mut [0; 1]).unwrap(), 0);
        let bytes = pattern(300_000 * (round + 1));
        served.write_all(&bytes).unwrap();
        drop(served);
        side.of(&mut pair).signal(Signal::TERM);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == bytes, "{side:?}: {} of {} bytes", all.len(), bytes.len());
        assert!(side.of(&mut pair).ends_within(TIMEOUT).success(), "{side:?}");
    }
}

#[test]
fn session_beyond_the_drain_timeout_is_reset_on_both_ends() {
    for side in Side::BOTH {
        let (service, streams) = accepting();
        let mut pair = Pair::new(&service.to_string(), "", "");
        let mut stream = connect(pair.addr);
        stream.write_all(b"?").unwrap();
        let mut served = streams.recv_timeout(TIMEOUT).unwrap();
        served.read_exact(&mut [0; 1]).unwrap();
        // The second signal ends the drain.
        side.of(&mut pair).signal(Signal::TERM);
        eventually("the drain", || match side.of(&mut pair).verb("health").status.code() {
            Some(0) => Err("it is ready"),
            _ => Ok(()),
        });
        side.of(&mut pair).signal(Signal::TERM);
        for end in [&mut stream, &mut served] {
            assert_eq!(end.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{side:?}");
        }
        side.of(&mut pair).ends_within(TIMEOUT);
    }
}

#[test]
fn killed_process_resets_the_sessions_of_the_other() {
    for side in Side::BOTH {
        let (service, streams) = accepting();
        let mut pair = Pair::new(&service.to_string(), "", "");
        let mut stream = connect(pair.addr);
        stream.write_all(b"?").unwrap();
        let mut served = streams.recv_timeout(TIMEOUT).unwrap();
        served.read_exact(&mut [0; 1]).unwrap();
        side.of(&mut pair).signal(Signal::KILL);
        let (end, other) = match side {
            Side::Exporter => (&mut stream, &pair.dialler),
            Side::Dialler => (&mut served, &pair.exporter),
        };
        assert_eq!(end.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{side:?}");
        eventually("the ending", || match other.log() {
            log if log.contains("ending=tunnel-lost") => Ok(()),
            log => Err(log),
        });
    }
}

#[test]
fn exporter_that_stops_gets_no_new_sessions() {
    let (near, far) = (Service::new("one"), Service::new("two"));
    let (service, streams) = accepting();
    let mut pair = Pair::new(&service.to_string(), "", "");
    let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
    let flags = pair.secret.flags("second");
    let _second = Ambassador::with(&format!("{flags} --peer-listen {peer} peer:x={}", far.addr)).start();
    let added = pair
        .dialler
        .verb(&format!("routes add 127.0.0.2:0=peer://{}/x?name=both&backup=peer://{peer}/x", pair.peer));
    assert!(added.status.success(), "{added:?}");
    let mut stream = connect(pair.dialler.addr("both"));
    stream.write_all(b"?").unwrap();
    let mut served = streams.recv_timeout(TIMEOUT).unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    pair.exporter.signal(Signal::TERM);
    eventually("the drain", || match pair.exporter.verb("health").status.code() {
        Some(0) => Err("it is ready"),
        _ => Ok(()),
    });
    for _ in 0..10 {
        assert_eq!(ask(pair.dialler.addr("both")), "two");
    }
    served.write_all(b"still").unwrap();
    let mut still = [0; 5];
    stream.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
    drop((stream, served, near));
    assert!(pair.exporter.ends_within(TIMEOUT).success());
}

#[test]
fn exports_follow_the_file_and_open_sessions_stay() {
    let (service, streams) = accepting();
    let other = Service::new("two");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ambassador.toml");
    let write = |export: &str, service: &str| {
        let next = dir.path().join("next");
        let route = format!("[[route]]\nlisten = \"peer:{export}\"\ntarget = \"{service}\"\n");
        std::fs::write(&next, route).unwrap();
        std::fs::rename(next, &file).unwrap();
    };
    write("x", &service.to_string());
    let mut pair = Pair::new(&service.to_string(), "", "");
    pair.exporter.signal(Signal::KILL);
    pair.exporter.ends_within(TIMEOUT);
    let (flags, peer, path) = (pair.secret.flags("exporter"), pair.peer, file.display());
    pair.exporter = Ambassador::with(&format!("{flags} --peer-listen {peer} --config {path}")).start();
    let mut stream = connect(pair.addr);
    stream.write_all(b"?").unwrap();
    let mut served = streams.recv_timeout(TIMEOUT).unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    write("y", &other.addr);
    let added = pair.dialler.verb(&format!("routes add 127.0.0.2:0=peer://{}/y?name=y", pair.peer));
    assert!(added.status.success(), "{added:?}");
    let y = pair.dialler.addr("y");
    eventually("the new export", || {
        let mut name = String::new();
        match connect(y).read_to_string(&mut name) {
            Ok(_) if name == "two" => Ok(()),
            result => Err(format!("{result:?} {name}")),
        }
    });
    let refused = connect(pair.addr).read(&mut [0; 1]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "the export is gone");
    served.write_all(b"still").unwrap();
    let mut still = [0; 5];
    stream.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
}
