//! Headers to endpoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;

use ambassador::proxy_protocol::{Addresses, LOCAL, UNKNOWN, encode_v1, parse};

use super::{CLIENT, Endpoint, SERVICE, accepting, ambassador, connect, logged, pair, send, v1, v2};
use crate::support::Ambassador;

/// Returns the header for a connection of this client to a listener.
fn header_of(client: &TcpStream, listener: SocketAddr) -> String {
    encode_v1(Some(Addresses { source: client.local_addr().unwrap(), destination: listener }))
}

#[test]
fn header_comes_before_the_first_byte() {
    let endpoint = Endpoint::new();
    for version in ["v1", "v2"] {
        let ambassador = ambassador(endpoint.addr, &format!("&send-proxy={version}"));
        let mut client = connect(ambassador.addr("r"));
        let mut service = endpoint.accept();
        let mut bytes = [0; 200];
        let length = service.read(&mut bytes).unwrap();
        let header =
            parse(&bytes[..length]).unwrap().expect("a whole header before the client has sent a byte");
        assert_eq!(header.length, length);
        assert_eq!(encode_v1(header.addresses), header_of(&client, ambassador.addr("r")));
        client.write_all(b"x").unwrap();
        service.read_exact(&mut bytes[..1]).unwrap();
    }
}

#[test]
fn header_is_sent_to_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let ambassador = ambassador(format!("unix:{}", path.display()), "&send-proxy=v1");
    let client = send(ambassador.addr("r"), b"x");
    let (mut service, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    service.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, (header_of(&client, ambassador.addr("r")) + "x").into_bytes());
}

#[test]
fn client_without_an_address_is_unknown() {
    let (endpoint, dir) = (Endpoint::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.sock");
    for (version, header) in [("v1", UNKNOWN), ("v2", LOCAL)] {
        let route = format!("{}={}?send-proxy={version}", path.display(), endpoint.addr);
        let _ambassador = Ambassador::with(&route).start();
        drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
        assert_eq!(endpoint.receive(), header);
    }
}

#[test]
fn header_received_is_passed_on() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "&send-proxy=v2&proxy-tlv=unique-id");
    let addr = ambassador.addr("r");
    let fields: [(u8, &[u8]); 3] = [(0x02, b"a.example.com"), (0x05, b"id"), (0xea, &[7; 2000])];
    drop(send(addr, &v2(CLIENT, &fields)));
    assert_eq!(endpoint.receive(), v2(CLIENT, &fields));
    drop(send(addr, &v1(CLIENT)));
    let header = endpoint.receive();
    let header = parse(&header).unwrap().unwrap();
    assert_eq!(header.addresses, Some(pair(CLIENT, SERVICE)));
    let fields: Vec<_> = header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.len())).collect();
    assert_eq!(fields, [(0x05, 32)], "a unique ID of our own");
}

#[test]
fn health_checks_send_a_header_that_names_no_client() {
    let endpoint = Endpoint::new();
    for (options, header) in [("v1", UNKNOWN), ("v2", LOCAL), ("v2&health-proxy=off", b"")] {
        let options = format!("&send-proxy={options}&health=redis&health-interval=20ms");
        let ambassador = ambassador(endpoint.addr, &options);
        let mut check = endpoint.accept();
        let mut bytes = vec![0; header.len() + 14];
        check.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [header, b"*1\r\n$4\r\nPING\r\n"].concat());
        drop(ambassador);
        // What is still in the backlog.
        endpoint.listener.set_nonblocking(true).unwrap();
        while endpoint.listener.accept().is_ok() {}
        endpoint.listener.set_nonblocking(false).unwrap();
    }
}

#[test]
fn header_is_sent_to_the_endpoint_that_accepts() {
    let endpoint = Endpoint::new();
    let targets = format!("unix:/nonexistent/service.sock,{}", endpoint.addr);
    let ambassador = ambassador(targets, "&send-proxy=v1&balance=round-robin");
    for _ in 0..2 {
        let client = send(ambassador.addr("r"), b"x");
        assert_eq!(endpoint.receive(), (header_of(&client, ambassador.addr("r")) + "x").into_bytes());
    }
    logged(&ambassador, &["attempts=2", "ending=finished"]);
}

#[test]
fn mistakes_name_the_way_out() {
    let check = |route: &str| {
        let command =
            std::process::Command::new(env!("CARGO_BIN_EXE_ambassador")).args(["check", route]).output();
        String::from_utf8(command.unwrap().stderr).unwrap()
    };
    for (route, mistake, help) in [
        (
            "53/udp=a?send-proxy=v1",
            "`send-proxy=v1` is not supported on the UDP listener `53/udp`",
            "`send-proxy=v2`",
        ),
        ("80=a?proxy-tlv=ssl", "`proxy-tlv` has no effect", "`send-proxy=v2`"),
        ("53/udp=a?accept-proxy=10.0.0.0/8", "`accept-proxy` is not supported", "remove it"),
        ("/run/a.sock=a?accept-proxy=10.0.0.0/8", "on a unix socket", "`accept-proxy=unix`"),
    ] {
        let text = check(route);
        assert!(text.contains(mistake) && text.contains(help), "{route}: {text}");
    }
}
