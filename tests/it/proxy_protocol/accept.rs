//! Headers from clients that must send one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::{CLIENT, Endpoint, accepting, ambassador, connect, logged, send, v1, v2};
use crate::support::Ambassador;

#[test]
fn source_of_the_header_is_the_client() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "");
    for header in [v1(CLIENT), v2(CLIENT, &[]), v2(CLIENT, &[(0x04, &[0; 300])])] {
        let mut client = connect(ambassador.addr("r"));
        client.write_all(&[header.as_slice(), b"PROXY TCP4"].concat()).unwrap();
        let mut service = endpoint.accept();
        let mut bytes = [0; 10];
        service.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"PROXY TCP4", "what follows the header is the session's");
        let sessions = String::from_utf8(ambassador.verb("sessions").stdout).unwrap();
        assert!(sessions.contains(CLIENT), "{sessions}");
    }
    let done = ["client=192.0.2.7:4242", "bytes_up=10 ", "ending=finished"];
    logged(&ambassador, &done);
}

#[test]
fn connection_that_names_no_client_keeps_its_address() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "&allow=127.0.0.0/8");
    let local_with_addresses = {
        let mut header = v2(CLIENT, &[]);
        header[12] = 0x20;
        header
    };
    let datagram = {
        let mut header = v2(CLIENT, &[]);
        header[13] = 0x12;
        header
    };
    let unknown = b"PROXY UNKNOWN what ever\r\n".to_vec();
    for header in [local_with_addresses, datagram, unknown, ambassador::proxy_protocol::LOCAL.to_vec()] {
        let client = send(ambassador.addr("r"), &[header.as_slice(), b"x"].concat());
        assert_eq!(endpoint.receive(), b"x");
        logged(&ambassador, &[&format!("client={}", client.local_addr().unwrap()), "bytes_up=1 "]);
    }
}

#[test]
fn rules_apply_to_the_client_of_the_header() {
    let endpoint = Endpoint::new().closing();
    let rules = "accept-proxy=127.0.0.0/8&allow=192.0.2.0/24,2001:db8::/32&deny=192.0.2.8&rate=2";
    let routes = format!("127.0.0.1:0={endpoint}?name=a&{rules} 127.0.0.2:0={endpoint}?name=b&{rules}");
    let ambassador = Ambassador::with(&routes).start();
    let [a, b] = ["a", "b"].map(|route| ambassador.addr(route));
    for (addr, client, ending) in [
        (a, "192.0.2.7:1", "finished"),
        (a, "192.0.2.7:2", "finished"),
        (a, "192.0.2.7:3", "rate-limited"),
        (a, "192.0.2.8:4", "denied"),
        (b, "198.51.100.1:5", "denied"),
        (b, "[2001:db8::1]:6", "finished"),
        (b, "[::ffff:192.0.2.9]:7", "finished"),
    ] {
        drop(send(addr, &v2(client, &[])));
        let shown = client.replace("[::ffff:192.0.2.9]", "192.0.2.9");
        logged(&ambassador, &[&format!("client={shown} "), &format!("ending={ending}")]);
    }
}

#[test]
fn endpoint_is_chosen_by_the_hash_of_the_source() {
    let endpoints = [Endpoint::new().closing(), Endpoint::new().closing()];
    let targets = format!("{},{}", endpoints[0], endpoints[1]);
    let ambassador = ambassador(targets, "&accept-proxy=127.0.0.0/8&balance=source-hash");
    let addr = ambassador.addr("r");
    let endpoint_of = |client: u8| {
        let source = format!("192.0.2.{client}:1");
        drop(send(addr, &v1(&source)));
        let line = logged(&ambassador, &[&format!("client={source} ")]);
        endpoints.iter().position(|endpoint| line.contains(&endpoint.to_string())).unwrap()
    };
    let chosen: Vec<usize> = (1..=16).map(endpoint_of).collect();
    assert!(chosen.contains(&0) && chosen.contains(&1), "{chosen:?}");
}

#[test]
fn bytes_of_other_clients_are_those_of_their_session() {
    let endpoint = Endpoint::new();
    let ambassador = ambassador(endpoint.addr, "&accept-proxy=10.0.0.0/8");
    let sent = [v1(CLIENT).as_slice(), b"x"].concat();
    let client = send(ambassador.addr("r"), &sent);
    assert_eq!(endpoint.receive(), sent);
    logged(&ambassador, &[&format!("client={}", client.local_addr().unwrap()), "ending=finished"]);
}

#[test]
fn header_split_at_every_byte_is_read() {
    let endpoint = Endpoint::new();
    let ambassador = accepting(&endpoint, "");
    for header in [v1(CLIENT), v2(CLIENT, &[(0x05, b"id")])] {
        for split in 1..header.len() {
            let mut client = connect(ambassador.addr("r"));
            client.write_all(&header[..split]).unwrap();
            client.write_all(&header[split..]).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
            assert_eq!(endpoint.receive(), b"x", "{split}");
        }
    }
    let log = ambassador.log();
    assert!(!log.contains("proxy-header"), "{log}");
}

#[test]
fn clients_of_a_unix_socket_send_a_header() {
    let (endpoint, dir) = (Endpoint::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.sock");
    let route = format!("{}={}?name=r&accept-proxy=unix&send-proxy=v1", path.display(), endpoint.addr);
    let ambassador = Ambassador::with(&route).start();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&[v2(CLIENT, &[]).as_slice(), b"x"].concat()).unwrap();
    drop(client);
    assert_eq!(endpoint.receive(), [v1(CLIENT).as_slice(), b"x"].concat());
    logged(&ambassador, &["client=192.0.2.7:4242", "ending=finished"]);
    drop(UnixStream::connect(&path).unwrap());
    logged(&ambassador, &["client=unix", "ending=proxy-header", "closed before"]);
}
