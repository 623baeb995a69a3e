//! Headers of datagrams: each has one, as DNS servers expect.

use std::net::{SocketAddr, UdpSocket};

use ambassador::proxy_protocol::{Addresses, Encoder, Transport};
use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

use super::TIMEOUT;
use super::programs::Program;
use crate::support::{Ambassador, Secret, needs, private_ip};

fn ambassador(target: &str, options: &str) -> Ambassador {
    Ambassador::with(&format!("--workers 1 127.0.0.1:0/udp={target}?name=r&send-proxy=v2{options}")).start()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn client_of(addr: SocketAddr) -> UdpSocket {
    let client = socket();
    client.connect(addr).unwrap();
    client
}

fn receive(service: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_535];
    let (length, from) = service.recv_from(&mut bytes).unwrap();
    bytes.truncate(length);
    (bytes, from)
}

fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    Encoder::new(Some(Addresses { source, destination }), Transport::Datagram).into_bytes()
}

#[test]
fn each_datagram_has_a_header() {
    let service = socket();
    let ambassador = ambassador(&service.local_addr().unwrap().to_string(), "");
    let addr = ambassador.addr("r");
    let client = client_of(addr);
    let header = header(client.local_addr().unwrap(), addr);
    for length in [5, 0, 1_200, 30_000, 5] {
        let datagram = vec![7; length];
        client.send(&datagram).unwrap();
        let (received, from) = receive(&service);
        assert!(received == [header.as_slice(), &datagram].concat(), "{length}");
        service.send_to(b"answer", from).unwrap();
        assert_eq!(receive(&client).0, b"answer", "without one");
    }
}

/// They are sent by one call, which the kernel segments.
#[test]
fn datagrams_that_arrive_together_each_have_one() {
    let service = socket();
    let ambassador = ambassador(&service.local_addr().unwrap().to_string(), "");
    let addr = ambassador.addr("r");
    let client = client_of(addr);
    let header = header(client.local_addr().unwrap(), addr);
    // Opens the flow, which waits for no more than a few datagrams.
    client.send(b"x").unwrap();
    assert_eq!(receive(&service).0, [header.as_slice(), b"x"].concat());
    for n in 0..20_u8 {
        client.send(&[n; 100]).unwrap();
    }
    for n in 0..20_u8 {
        assert_eq!(receive(&service).0, [header.as_slice(), &[n; 100]].concat());
    }
}

#[test]
fn datagrams_through_a_tunnel_have_one() {
    let (service, secret, peer) = (socket(), Secret::new(), private_ip());
    let flags = secret.flags("exporter");
    let target = service.local_addr().unwrap();
    let route = format!("peer:dns/udp={target}?send-proxy=v2");
    let _exporter = Ambassador::with(&format!("{flags} --peer-listen {peer}:15008 {route}")).start();
    let flags = secret.flags("dialling");
    let route = format!("127.0.0.1:0/udp=peer://{peer}/dns?name=r");
    let dialling = Ambassador::with(&format!("{flags} {route}")).start();
    let client = client_of(dialling.addr("r"));
    client.send(b"x").unwrap();
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let header = header(client.local_addr().unwrap(), unknown);
    assert_eq!(receive(&service).0, [header.as_slice(), b"x"].concat());
}

fn query() -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("test.example.").unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// It allows only clients with an address of this machine, and forwards nothing.
#[test]
fn dns_server_sees_the_client_of_each_query() {
    let (ip, dir) = (private_ip(), tempfile::tempdir().unwrap());
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "192.0.2.99 test.example\n").unwrap();
    let settings = format!(
        "local-address={ip}\nlocal-port=5300\ndaemon=no\nquiet=no\nthreads=1\nexport-etc-hosts=yes\netc-hosts-file={}\n\
         allow-from=127.0.0.1/32\nproxy-protocol-from=127.0.0.0/8\nsecurity-poll-suffix=\ndnssec=off\n\
         setuid=\nsetgid=\nwrite-pid=no\n",
        hosts.display()
    );
    let server = needs!(Program::recursor(&settings, &format!("{ip}:5300")));
    let ambassador = ambassador(&format!("{ip}:5300"), "");
    let client = client_of(ambassador.addr("r"));
    for _ in 0..3 {
        client.send(&query()).unwrap();
        let answer = Message::from_vec(&receive(&client).0).unwrap();
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
    }
    let own = client.local_addr().unwrap();
    assert!(server.log().contains(&format!("{own} (proxied by 127.")), "{}", server.log());
}
