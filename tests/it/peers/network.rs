//! A network between two hosts that loses packets, and many sessions with one reader that stalls.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Ambassador, Cable, Namespace, Pair, Secret, eventually, needs};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Starts a service in a namespace, which sends its name and keeps each connection open.
fn service(host: &Namespace, name: &'static str) -> SocketAddr {
    let listener = host.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(name.as_bytes());
            open.push(stream);
        }
    });
    addr
}

/// Connects in a namespace, and reads the name.
fn session(host: &Namespace, addr: SocketAddr) -> (TcpStream, String) {
    host.run(|| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut name = [0; 3];
        stream.read_exact(&mut name).unwrap();
        (stream, String::from_utf8(name.to_vec()).unwrap())
    })
}

#[test]
fn host_that_vanishes_is_noticed_and_used_again_when_it_is_back() {
    let cable = needs!(Cable::new());
    let secret = Secret::new();
    let [near, far] = &cable.hosts;
    let [_, far_ip] = cable.ips;
    let (one, two) = (service(far, "one"), service(near, "two"));
    let exporter = |name: &str, host: &Namespace, listen: String, service: SocketAddr| {
        let flags = secret.flags(name);
        Ambassador::with(&format!("{flags} --peer-listen {listen} peer:x={service}")).inside(host).start()
    };
    let _far = exporter("far", far, format!("{far_ip}:15008"), one);
    let _second = exporter("second", near, "127.0.0.1:15008".to_owned(), two);
    let flags = secret.flags("dialler");
    let routes = format!(
        "127.0.0.1:0=peer://{far_ip}/x?name=r&connect-timeout=500ms \
         127.0.0.2:0=peer://{far_ip}/x?name=both&connect-timeout=500ms&backup=peer://127.0.0.1/x"
    );
    let dialler = Ambassador::with(&format!("{flags} {routes}")).inside(near).start();
    let (mut open, name) = session(near, dialler.addr("r"));
    assert_eq!(name, "one");
    // So that each worker has a tunnel to the host.
    let both: Vec<_> = (0..8).map(|_| session(near, dialler.addr("both"))).collect();
    assert!(both.iter().all(|(_, name)| name == "one"));

    cable.cut();
    let cut = Instant::now();
    // A session that begins now uses the other peer after its connect timeout.
    let (_, name) = session(near, dialler.addr("both"));
    assert_eq!(name, "two");
    let elsewhere = cut.elapsed();
    assert!(elsewhere < Duration::from_secs(4), "{elsewhere:?} for a connect timeout of 0.5 s");
    assert_eq!(open.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let noticed = cut.elapsed();
    // The limit is six seconds; a loaded machine gets four more.
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    eventually("the ending", || match dialler.log() {
        log if log.contains("ending=tunnel-lost") => Ok(()),
        log => Err(log),
    });

    cable.mend();
    eventually("the host is used again", || match session(near, dialler.addr("both")).1 {
        name if name == "one" => Ok(()),
        name => Err(name),
    });
    assert_eq!(session(near, dialler.addr("r")).1, "one");
}

#[test]
fn session_without_sessions_before_it_is_not_lost_with_an_idle_tunnel() {
    let cable = needs!(Cable::new());
    let secret = Secret::new();
    let [near, far] = &cable.hosts;
    let [_, far_ip] = cable.ips;
    let one = service(far, "one");
    let flags = secret.flags("far");
    let _far =
        Ambassador::with(&format!("{flags} --peer-listen {far_ip}:15008 peer:x={one}")).inside(far).start();
    let flags = secret.flags("dialler");
    let route = format!("127.0.0.1:0=peer://{far_ip}/x?name=r&connect-timeout=500ms&hold=30s");
    let dialler = Ambassador::with(&format!("{flags} {route}")).inside(near).start();
    drop(session(near, dialler.addr("r")));
    cable.cut();
    let addr = dialler.addr("r");
    let waiting = thread::spawn({
        let near = near.clone();
        move || session(&near, addr).1
    });
    eventually("a held session", || {
        let status = String::from_utf8(dialler.verb("status --json").stdout).unwrap();
        if status.contains("\"held\":1") || status.contains("\"held\": 1") { Ok(()) } else { Err(status) }
    });
    cable.mend();
    assert_eq!(waiting.join().unwrap(), "one");
}

/// The hard limit of descriptors is 20,000 on the machine of the authors. The test needs two for each session, and each
/// ambassador one. A worker has 8 tunnels to a peer, each with 1,024 sessions.
const SESSIONS: usize = 8_000;

#[test]
fn sessions_flow_beside_a_reader_that_stalls() {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let sessions = limit.map_or(SESSIONS, |limit| SESSIONS.min(usize::try_from(limit).unwrap() / 2 - 200));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = Pair::new(&listener.local_addr().unwrap().to_string(), "", "");
    let open = || {
        let client = TcpStream::connect(pair.addr).unwrap();
        let (service, _) = listener.accept().unwrap();
        for end in [&client, &service] {
            end.set_read_timeout(Some(TIMEOUT)).unwrap();
        }
        (client, service)
    };
    // Its client reads nothing: the windows and buffers on the way fill.
    let (stalled, mut flooding) = open();
    flooding.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    while let Ok(length) = flooding.write(&[7; 65_536]) {
        sent += length;
    }
    assert!(sent < 40 << 20, "{sent} bytes were taken for a reader that stalls");
    let all: Vec<_> = (0..sessions).map(|_| open()).collect();
    for round in 0..2 {
        for (client, service) in &all {
            for (from, to) in [(client, service), (service, client)] {
                let mut byte = [0; 1];
                (&mut &*from).write_all(&[round]).unwrap();
                (&mut &*to).read_exact(&mut byte).unwrap();
                assert_eq!(byte, [round]);
            }
        }
    }
    drop(flooding);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = (&stalled).read(&mut buffer) {
        received += length;
    }
    assert_eq!(received, sent, "what was taken is delivered");
}
