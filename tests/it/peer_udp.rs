//! UDP flows through tunnels: between two real ambassadors, and to a peer that violates the protocol.

mod raw;

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rustix::process::Signal;
use serde_json::Value;

use crate::admin::http::get;
use crate::support::{Ambassador, Builder, Dns, Secret, eventually, needs, private_ip, within};
use raw::RawPeer;

const TIMEOUT: Duration = Duration::from_secs(20);
/// The time after which a client sends again.
const RETRY: Duration = Duration::from_millis(500);

/// A host that exports `dns`, and one that uses it.
struct Pair {
    exporter: Option<Ambassador>,
    consumer: Ambassador,
    exporter_args: String,
    secret: Secret,
    listen: String,
}

impl Pair {
    /// `options` begin with `&`.
    fn start(service: SocketAddr, export_options: &str, consume_options: &str) -> Pair {
        Pair::with(service, export_options, consume_options, |builder| builder)
    }

    fn with(
        service: SocketAddr,
        export_options: &str,
        consume_options: &str,
        exporter: impl FnOnce(Builder) -> Builder,
    ) -> Pair {
        let secret = Secret::new();
        let listen = format!("{}:15008", private_ip());
        let (exports, consumes) = (secret.flags("exporter"), secret.flags("consumer"));
        let exporter_args = format!(
            "--workers 1 {exports} --peer-listen {listen} peer:dns/udp={service}?name=r{export_options}"
        );
        let consumer_args =
            format!("--workers 1 {consumes} 127.0.0.1:0/udp=peer://{listen}/dns?name=r{consume_options}");
        let exporter = exporter(Ambassador::with(&exporter_args)).start();
        let consumer = Ambassador::with(&consumer_args).start();
        Pair { exporter: Some(exporter), consumer, exporter_args, secret, listen }
    }

    fn addr(&self) -> SocketAddr {
        self.consumer.addr("r")
    }

    fn exporter(&self) -> &Ambassador {
        self.exporter.as_ref().unwrap()
    }

    /// Returns a peer that speaks HTTP/2 by itself.
    fn raw(&self) -> RawPeer {
        RawPeer::dial(&self.secret, self.listen.parse().unwrap())
    }

    fn restart_exporter(&mut self) {
        self.exporter = Some(Ambassador::with(&self.exporter_args).start());
    }
}

/// Echoes datagrams until the test ends.
fn echo() -> SocketAddr {
    echo_on("127.0.0.1:0")
}

fn echo_on(addr: &str) -> SocketAddr {
    let socket = UdpSocket::bind(addr).unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // Refused by the host of a client that has left.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    });
    addr
}

fn client(route: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(RETRY)).unwrap();
    client.connect(route).unwrap();
    client
}

/// Sends a datagram until it is echoed.
#[track_caller]
fn exchange(client: &UdpSocket, bytes: &[u8]) {
    let mut buffer = vec![0; 65_536];
    within(TIMEOUT, "an echo", || {
        client.send(bytes)?;
        loop {
            // Those of earlier attempts may still arrive.
            let length = client.recv(&mut buffer)?;
            if buffer[..length] == *bytes {
                return Ok::<_, std::io::Error>(());
            }
        }
    });
}

fn route_status(ambassador: &Ambassador) -> Value {
    let status: Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    status["routes"][0].clone()
}

fn ended(ambassador: &Ambassador, ending: &str) -> u64 {
    route_status(ambassador)["endings"][ending].as_u64().unwrap_or(0)
}

#[track_caller]
fn await_ending(ambassador: &Ambassador, ending: &str) {
    within(TIMEOUT, ending, || match ended(ambassador, ending) {
        0 => Err(route_status(ambassador)["endings"].to_string()),
        _ => Ok(()),
    });
}

fn sessions(ambassador: &Ambassador) -> Vec<Value> {
    let sessions: Value = serde_json::from_slice(&ambassador.verb("sessions --json").stdout).unwrap();
    sessions["sessions"].as_array().unwrap().clone()
}

#[test]
fn datagrams_of_every_size_are_echoed_through_a_tunnel() {
    let pair = Pair::start(echo(), "", "");
    let client = client(pair.addr());
    for size in [1, 0, 2, 61, 62, 63, 64, 1200, 1472, 9000, 16_381, 16_382, 16_383, 40_000, 65_506, 65_507] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[usize::from(n % 2 == 1)]).collect();
        exchange(&client, &bytes);
    }
}

#[test]
fn exporter_that_dials_serves_flows() {
    let secret = Secret::new();
    let listen = format!("{}:15008", private_ip());
    let (exports, consumes) = (secret.flags("inside"), secret.flags("consumer"));
    let consumer = Ambassador::with(&format!(
        "--workers 1 {consumes} --peer-listen {listen} 127.0.0.1:0/udp=peer://@inside/dns?name=r"
    ))
    .start_unready();
    let _exporter = Ambassador::with(&format!(
        "--workers 1 {exports} --peer-listen off --peer-dial {listen} peer:dns/udp={}",
        echo()
    ))
    .start();
    eventually("a route", || {
        let status = String::from_utf8(consumer.verb("status --json").stdout).unwrap();
        if status.contains("\"addresses\"") { Ok(()) } else { Err(status) }
    });
    exchange(&client(consumer.addr("r")), b"through the tunnel that the exporter dialled");
}

#[test]
fn both_sides_record_the_address_of_the_client() {
    let pair = Pair::start(echo(), "", "");
    let client = client(pair.addr());
    exchange(&client, b"hello");
    let own = client.local_addr().unwrap().to_string();
    for ambassador in [pair.exporter(), &pair.consumer] {
        let sessions = sessions(ambassador);
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        assert_eq!(sessions[0]["client"], own.as_str());
    }
}

#[test]
fn flows_of_many_clients_share_a_tunnel_and_are_not_mixed() {
    let pair = Pair::start(echo(), "", "");
    let route = pair.addr();
    let clients: Vec<UdpSocket> = (0..300).map(|_| client(route)).collect();
    for round in 0..3 {
        for (n, client) in clients.iter().enumerate() {
            exchange(client, format!("{round} {n}").as_bytes());
        }
    }
    assert_eq!(sessions(pair.exporter()).len(), clients.len());
}

#[test]
fn bursts_arrive_in_order() {
    const BURST: usize = 40;
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    service.set_read_timeout(Some(TIMEOUT)).unwrap();
    let pair = Pair::start(service.local_addr().unwrap(), "", "");
    let client = client(pair.addr());
    let mut buffer = [0; 2048];
    client.send(b"first").unwrap();
    service.recv(&mut buffer).unwrap();
    for burst in 0..20_u8 {
        for n in 0..BURST {
            let size = 1000 - n / 10;
            client.send(&vec![burst.wrapping_add(u8::try_from(n).unwrap()); size]).unwrap();
        }
        for n in 0..BURST {
            let length = service.recv(&mut buffer).unwrap();
            assert_eq!(length, 1000 - n / 10);
            assert!(
                buffer[..length].iter().all(|byte| *byte == burst.wrapping_add(u8::try_from(n).unwrap()))
            );
        }
    }
}

#[test]
fn idle_flow_ends_on_both_sides_and_the_next_datagram_opens_another() {
    let pair = Pair::start(echo(), "&idle-timeout=300ms", "");
    let client = client(pair.addr());
    exchange(&client, b"first");
    await_ending(pair.exporter(), "idle");
    await_ending(&pair.consumer, "finished");
    exchange(&client, b"second");

    let pair = Pair::start(echo(), "", "&idle-timeout=300ms");
    exchange(&self::client(pair.addr()), b"first");
    await_ending(&pair.consumer, "idle");
    await_ending(pair.exporter(), "finished");
}

#[test]
fn flow_is_held_by_the_exporter_until_the_service_has_an_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let endpoints = dir.path().join("dns.endpoints");
    std::fs::write(&endpoints, "").unwrap();
    let secret = Secret::new();
    let listen = format!("{}:15008", private_ip());
    let (exports, consumes) = (secret.flags("exporter"), secret.flags("consumer"));
    let exporter = Ambassador::with(&format!(
        "--workers 1 {exports} --peer-listen {listen} peer:dns/udp=file:{}?name=r",
        endpoints.display()
    ))
    .start_unready();
    let consumer = Ambassador::with(&format!(
        "--workers 1 {consumes} 127.0.0.1:0/udp=peer://{listen}/dns?name=r&hold=60s"
    ))
    .start();
    let client = client(consumer.addr("r"));
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.send(b"held").unwrap();
    eventually("a held flow", || match route_status(&exporter)["held"].as_u64() {
        Some(1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    std::fs::write(&endpoints, echo().to_string()).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(client.recv(&mut buffer).unwrap(), 4, "the datagram that was sent before");
}

#[test]
fn flow_ends_with_the_exporter_and_continues_with_its_successor() {
    let mut pair = Pair::start(echo(), "", "&hold=60s");
    let client = client(pair.addr());
    exchange(&client, b"before");
    drop(pair.exporter.take());
    await_ending(&pair.consumer, "tunnel-lost");
    client.send(b"while it is away").unwrap();
    pair.restart_exporter();
    exchange(&client, b"after");
}

#[test]
fn stopping_exporter_ends_its_idle_flows_and_exits() {
    let mut pair = Pair::start(echo(), "", "");
    let client = client(pair.addr());
    exchange(&client, b"before");
    pair.exporter().signal(Signal::TERM);
    let status = pair.exporter.as_mut().unwrap().ends_within(TIMEOUT);
    assert!(status.success(), "{status}");
    let log = pair.exporter().log();
    assert!(log.contains("drained"), "{log}");
    pair.restart_exporter();
    exchange(&client, b"after");
}

#[test]
fn flow_to_a_service_that_refuses_ends_on_both_sides() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pair = Pair::start(closed, "", "");
    let client = client(pair.addr());
    within(TIMEOUT, "an end", || {
        let _ = client.send(b"hello");
        match (ended(pair.exporter(), "upstream-reset"), ended(&pair.consumer, "upstream-reset")) {
            (1.., 1..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn unknown_export_is_refused() {
    let secret = Secret::new();
    let listen = format!("{}:15008", private_ip());
    let (exports, consumes) = (secret.flags("exporter"), secret.flags("consumer"));
    let export = format!("{exports} --peer-listen {listen} peer:dns={}?name=r", echo());
    let _exporter = Ambassador::with(&export).start();
    let consume = format!("{consumes} 127.0.0.1:0/udp=peer://{listen}/dns?name=r");
    let consumer = Ambassador::with(&consume).start();
    client(consumer.addr("r")).send(b"to the export of TCP").unwrap();
    await_ending(&consumer, "peer-refused");
}

#[test]
fn max_sessions_of_the_export_holds_the_next_flow_until_one_ends() {
    let pair = Pair::start(echo(), "&max-sessions=1&idle-timeout=1s&hold=30s", "&hold=30s");
    let (first, second) = (client(pair.addr()), client(pair.addr()));
    exchange(&first, b"first");
    exchange(&second, b"second");
    assert!(ended(pair.exporter(), "idle") >= 1, "the first flow ended before the second was connected");
}

#[test]
fn status_is_that_of_the_refusal() {
    let pair = Pair::start(echo(), "", "");
    for (path, status) in [
        ("/.well-known/masque/udp/dns/53/", 200),
        ("/.well-known/masque/udp/dns/1/", 200),
        ("/.well-known/masque/udp/other/53/", 404),
        ("/.well-known/masque/udp/dns/0/", 400),
        ("/.well-known/masque/udp/dns/", 400),
        ("/dns", 400),
    ] {
        let answer = pair.raw().request(path);
        assert_eq!(answer.status, status, "{path}");
        let has_capsules = answer.headers.get("capsule-protocol").is_some_and(|value| value == "?1");
        assert_eq!(has_capsules, status == 200, "{:?}", answer.headers);
    }
}

#[test]
fn unknown_capsules_and_contexts_are_skipped() {
    let pair = Pair::start(echo(), "", "");
    let mut raw = pair.raw().connect("dns");
    raw.send(b"\x29\x03abc");
    raw.send(b"\x00\x03\x04xy");
    raw.send(&[&b"\xc0\0\0\0\0\0\0\x29\x80\x01\x86\xa0"[..], &[7; 100_000]].concat());
    raw.send(b"\x00\x03\x00hi");
    assert_eq!(raw.receive(5), b"\x00\x03\x00hi");
}

#[test]
fn capsules_of_one_byte_each_frame_are_joined() {
    let pair = Pair::start(echo(), "", "");
    let mut raw = pair.raw().connect("dns");
    for _ in 0..20 {
        for byte in b"\x00\x06\x00hello" {
            raw.send(&[*byte]);
        }
        assert_eq!(raw.receive(8), b"\x00\x06\x00hello");
    }
}

#[test]
fn malformed_capsule_resets_its_stream_and_no_other() {
    let pair = Pair::start(echo(), "", "");
    let consumer = client(pair.addr());
    exchange(&consumer, b"before");
    for malformed in [
        &b"\x00\x00"[..],
        b"\x00\x80\x01\x00\x00",
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        &[&b"\x00\x80\x00\xff\xf9\x00"[..], &[7; 65_528]].concat(),
    ] {
        let mut raw = pair.raw().connect("dns");
        raw.send(malformed);
        assert_eq!(raw.reset(), Some(h2::Reason::CONNECT_ERROR));
    }
    await_ending(pair.exporter(), "downstream-reset");
    exchange(&consumer, b"after");
    assert_eq!(sessions(pair.exporter()).len(), 1, "the flow of the consumer");
}

#[test]
fn malformed_capsule_of_an_exporter_ends_its_flow_and_no_other() {
    let secret = Secret::new();
    let answers = [&b"\x00\x05\x00good"[..], b"\x29\x01x\x00\x00", b"\x00\x05\x00fine"];
    let exporter = raw::answer_with(&secret, answers.map(<[u8]>::to_vec).into());
    let flags = secret.flags("consumer");
    let consumer =
        Ambassador::with(&format!("--workers 1 {flags} 127.0.0.1:0/udp=peer://{exporter}/dns?name=r"))
            .start();
    let route = consumer.addr("r");
    let [first, second, third] = [(); 3].map(|()| client(route));
    let mut buffer = [0; 16];
    first.set_read_timeout(Some(TIMEOUT)).unwrap();
    first.send(b"hello").unwrap();
    assert_eq!(first.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"good");
    second.send(b"hello").unwrap();
    await_ending(&consumer, "upstream-reset");
    third.set_read_timeout(Some(TIMEOUT)).unwrap();
    third.send(b"hello").unwrap();
    assert_eq!(third.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"fine");
    assert_eq!(sessions(&consumer).len(), 2, "the first and the third flow");
}

#[test]
fn stream_of_tiny_datagrams_does_not_stop_other_flows() {
    let pair = Pair::start(echo(), "", "");
    let consumer = client(pair.addr());
    exchange(&consumer, b"before");
    let mut raw = pair.raw().connect("dns");
    // Not read: responses are dropped once the window and the queue are full.
    for _ in 0..64 {
        raw.send(&b"\x00\x01\x00".repeat(20_000));
        exchange(&consumer, b"while it floods");
    }
    exchange(&consumer, b"after");
    let counter = "ambassador_peer_datagrams_dropped_total{route=\"r\"} ";
    within(TIMEOUT, "dropped datagrams", || {
        let metrics = get(&pair.exporter().admin(), "/metrics").body;
        let dropped = metrics.lines().find_map(|line| line.strip_prefix(counter)).map(str::to_owned);
        if dropped.as_ref().is_some_and(|dropped| dropped != "0") {
            Ok(())
        } else {
            Err(format!("{dropped:?}"))
        }
    });
}

#[test]
fn unanswered_flows_are_evicted_if_there_is_no_descriptor() {
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = service.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, client)) = service.recv_from(&mut buffer) {
            if &buffer[..length] == b"ask" {
                let _ = service.send_to(b"ask", client);
            }
        }
    });
    let pair = Pair::with(addr, "", "", |builder| builder.limited_to(256));
    let route = pair.addr();
    let answered = client(route);
    exchange(&answered, b"ask");
    for n in 0..400 {
        let silent = UdpSocket::bind(format!("127.77.{}.{}:0", n / 250, n % 250 + 1)).unwrap();
        silent.send_to(b"flood", route).unwrap();
        if n % 50 == 49 {
            thread::park_timeout(Duration::from_millis(5));
        }
    }
    exchange(&client(route), b"ask");
    exchange(&answered, b"ask");
    assert!(ended(pair.exporter(), "too-many") > 0);
}

#[test]
fn names_are_resolved_by_a_dns_server_behind_the_tunnel() {
    let dns = needs!(Dns::start());
    dns.has("web.example.com.", 60, &["192.0.2.7"]);
    let pair = Pair::start(dns.addr().parse().unwrap(), "", "");
    let client = client(pair.addr());
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii("web.example.com.").unwrap(), RecordType::A));
    let mut buffer = [0; 512];
    let answer = within(TIMEOUT, "an answer", || {
        client.send(&query.to_vec().unwrap())?;
        let length = client.recv(&mut buffer)?;
        Message::from_vec(&buffer[..length]).map_err(std::io::Error::other)
    });
    let addresses: Vec<_> = answer.answers.iter().map(|record| &record.data).collect();
    assert!(matches!(addresses[..], [RData::A(a)] if a.0.octets() == [192, 0, 2, 7]), "{addresses:?}");
}
