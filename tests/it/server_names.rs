//! Routes that share a port: the name that a TLS client asks for chooses one, and nothing is decrypted.

mod postgres;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{Ambassador, Service, eventually, private_ip, within};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The alert `unrecognized_name` in a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Returns the ClientHello of a real client. Without a name for an address.
fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Sends bytes, then FIN, and returns what is answered until the end. An error ends it too.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).ok();
    rest(stream)
}

fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

/// Returns the service that a client which asks for this name reaches.
fn ask_for(addr: SocketAddr, name: &str) -> String {
    String::from_utf8(exchange(addr, &hello(name))).unwrap_or_else(|_| "an alert".to_owned())
}

/// A port of an address of its own, which several routes share.
struct Port(SocketAddr);

impl Port {
    fn new() -> Port {
        Port(SocketAddr::new(private_ip().parse().unwrap(), 443))
    }

    fn route(&self, names: &str, service: &Service, options: &str) -> String {
        format!("{}/{names}={}{options}", self.0, service.addr)
    }
}

#[test]
fn name_that_the_client_asks_for_chooses_the_route() {
    let port = Port::new();
    let [one, two, three, four] = ["one", "two", "thr", "fou"].map(Service::new);
    let routes = [
        port.route("a.example.com+b.example.com", &one, ""),
        port.route("*.example.com", &two, ""),
        port.route("db.", &three, ""),
        port.route("*", &four, ""),
    ];
    let ambassador = Ambassador::with(&routes.join(" ")).start();
    for (name, service) in [
        ("a.example.com", "one"),
        ("B.EXAMPLE.com", "one"),
        ("c.example.com", "two"),
        ("d.c.example.com", "two"),
        ("example.com", "fou"),
        ("db", "thr"),
        ("192.0.2.1", "fou"),
    ] {
        assert_eq!(ask_for(port.0, name), service, "{name}");
    }
    drop(ambassador);
}

/// Everything is relayed as the client sent it, the ClientHello too.
#[test]
fn every_byte_is_relayed_unchanged_however_the_hello_is_split() {
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Port::new();
    let _ambassador =
        Ambassador::with(&format!("{}/a.example.com={}", port.0, endpoint.local_addr().unwrap())).start();
    let hello = hello("a.example.com");
    for cuts in [vec![1], vec![5, 6, 9, 50], (1..hello.len()).collect()] {
        let mut client = TcpStream::connect(port.0).unwrap();
        client.set_nodelay(true).unwrap();
        let mut sent = 0;
        for cut in cuts {
            client.write_all(&hello[sent..cut]).unwrap();
            sent = cut;
            thread::yield_now();
        }
        client.write_all(&hello[sent..]).unwrap();
        client.write_all(b"and more").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (server, _) = endpoint.accept().unwrap();
        assert_eq!(rest(server), [&hello, b"and more".as_slice()].concat());
    }
}

#[test]
fn name_without_a_route_is_refused_by_an_alert_counted_and_logged() {
    let (port, service) = (Port::new(), Service::new("one"));
    let ambassador = Ambassador::with(&port.route("a.example.com", &service, "?name=a")).start();
    for name in ["b.example.com", "192.0.2.1"] {
        assert_eq!(exchange(port.0, &hello(name)), UNRECOGNIZED_NAME, "{name}");
    }
    let line = format!("route={} ", port.0);
    within(TIMEOUT, "the line", || match ambassador.log() {
        log if log.lines().any(|text| {
            text.contains(&line)
                && text.contains("ending=unknown-name")
                && text.contains("no route serves the name b.example.com")
        }) =>
        {
            Ok(())
        }
        log => Err(log),
    });
    let mut admin = UnixStream::connect(ambassador.admin()).unwrap();
    admin.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    admin.read_to_string(&mut metrics).unwrap();
    let expected =
        format!("ambassador_unnamed_connections_total{{listener=\"{}\",ending=\"unknown-name\"}} 2", port.0);
    assert!(metrics.contains(&expected), "{metrics}");
}

#[test]
fn connection_that_does_not_begin_with_tls_ends_at_once() {
    let (port, service) = (Port::new(), Service::new("one"));
    let too_long = {
        let message = [&[1, 1, 0, 0], [0; 8_000].as_slice()].concat();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], length.as_slice(), &message].concat()
    };
    let with_nul = {
        let mut hello = hello("a.example.com");
        let at = hello.windows(13).position(|part| part == b"a.example.com").unwrap();
        hello[at] = 0;
        hello
    };
    for (bytes, why) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "the first bytes are not TLS"),
        (too_long, "exceeds 16 KiB"),
        (with_nul, "is not a DNS name"),
        (hello("a.example.com")[..40].to_vec(), "the client left before its ClientHello was complete"),
    ] {
        let ambassador = Ambassador::with(&port.route("*", &service, "?name=a")).start();
        assert_eq!(exchange(port.0, &bytes), b"", "{why}");
        eventually("the line", || match ambassador.log() {
            log if log.contains("ending=tls-failed") && log.contains(why) => Ok(()),
            log => Err(log),
        });
        assert_eq!(ask_for(port.0, "a.example.com"), "one");
    }
}

#[test]
fn silent_clients_of_a_shared_port_do_not_delay_other_clients() {
    let (port, service) = (Port::new(), Service::new("one"));
    let _ambassador = Ambassador::with(&port.route("a.example.com", &service, "")).start();
    let silent: Vec<TcpStream> = (0..500)
        .map(|n| {
            let mut client = TcpStream::connect(port.0).unwrap();
            client.write_all(&hello("a.example.com")[..n % 100]).unwrap();
            client
        })
        .collect();
    assert_eq!(ask_for(port.0, "a.example.com"), "one");
    drop(silent);
}

#[test]
fn routes_join_and_leave_a_shared_port_and_the_last_one_closes_it() {
    let port = Port::new();
    let [one, two, three] = ["one", "two", "thr"].map(Service::new);
    let ambassador = Ambassador::with(&port.route("a.example.com", &one, "?name=a")).start();
    let add = |route: &str| {
        let output = ambassador.verb(&format!("routes add {route}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let remove = |name: &str| assert!(ambassador.verb(&format!("routes remove {name}")).status.success());
    add(&port.route("b.example.com", &two, "?name=b"));
    assert_eq!(
        (ask_for(port.0, "a.example.com"), ask_for(port.0, "b.example.com")),
        ("one".into(), "two".into())
    );
    let refused =
        ambassador.verb(&format!("routes add {}", port.route("b.example.com+c.d", &three, "?name=c")));
    assert!(!refused.status.success(), "a name belongs to one route");
    remove("a");
    assert_eq!(exchange(port.0, &hello("a.example.com")), UNRECOGNIZED_NAME);
    assert_eq!(ask_for(port.0, "b.example.com"), "two");
    remove("b");
    eventually("a closed port", || match TcpStream::connect(port.0) {
        Err(_) => Ok(()),
        Ok(_) => Err("it is still open"),
    });
    add(&format!("{}={}?name=plain", port.0, three.addr));
    assert_eq!(String::from_utf8(exchange(port.0, b"")).unwrap(), "thr");
}

#[test]
fn session_is_held_for_the_service_of_its_name_alone() {
    let (port, one) = (Port::new(), Service::new("one"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let absent = format!("{}/b.example.com={addr}?hold=20s", port.0);
    let _ambassador =
        Ambassador::with(&format!("{} {absent}", port.route("a.example.com", &one, ""))).start();
    let held = thread::spawn({
        let addr = port.0;
        move || ask_for(addr, "b.example.com")
    });
    assert_eq!(ask_for(port.0, "a.example.com"), "one");
    let listener = TcpListener::bind(addr).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"two").unwrap();
    drop(server);
    assert_eq!(held.join().unwrap(), "two");
}

/// A client that asks for the same name again reaches the same route again.
#[test]
fn route_to_its_own_shared_port_is_refused() {
    let (port, one) = (Port::new(), Service::new("one"));
    let routes = format!(
        "{}/a.example.com={}?name=loop {}",
        port.0,
        port.0,
        port.route("b.example.com", &one, "?name=b")
    );
    let ambassador = Ambassador::with(&routes).start_unready();
    eventually("the problem in status", || {
        let status = String::from_utf8(ambassador.verb("status").stdout).unwrap();
        if status.contains("is this route's own listener") { Ok(()) } else { Err(status) }
    });
    assert_eq!(ask_for(port.0, "b.example.com"), "one");
}
