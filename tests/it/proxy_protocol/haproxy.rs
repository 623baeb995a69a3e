//! HAProxy in front of an ambassador, and behind one.

use std::io::{Read, Write};

use ambassador::proxy_protocol::parse;
use ambassador::proxy_protocol::tlv::kind;

use super::programs::{Program, send_by_tls};
use super::{CLIENT, Endpoint, accepting, ambassador, connect, is_healthy, logged, v2};
use crate::support::{Ca, VALID, http_get, needs, private_ip};

#[test]
fn client_of_haproxy_in_front_is_ours() {
    for (option, is_v2) in [("send-proxy", false), ("send-proxy-v2", true)] {
        let (endpoint, front) = (Endpoint::new(), format!("{}:8080", private_ip()));
        let ambassador = accepting(&endpoint, if is_v2 { "&send-proxy=v2" } else { "&send-proxy=v1" });
        let addr = ambassador.addr("r");
        let config = format!("listen l\n  mode tcp\n  bind {front}\n  server s {addr} {option}\n");
        let _haproxy = needs!(Program::haproxy(&config, &front));
        let mut client = connect(front.parse().unwrap());
        client.write_all(b"x").unwrap();
        let own = client.local_addr().unwrap();
        drop(client);
        let received = endpoint.receive_ending(b"x");
        logged(&ambassador, &[&format!("client={own}"), "bytes_up=1 ", "ending=finished"]);
        let header = parse(&received).unwrap().unwrap();
        let addresses = header.addresses.unwrap();
        assert_eq!((addresses.source, addresses.destination), (own, front.parse().unwrap()));
        assert_eq!(received.starts_with(b"PROXY"), !is_v2);
    }
}

#[test]
fn fields_of_haproxy_in_front_are_passed_on_to_the_endpoint() {
    let (ca, endpoint, front) = (Ca::new(), Endpoint::new(), format!("{}:8443", private_ip()));
    let ambassador = accepting(&endpoint, "&send-proxy=v2&proxy-tlv=unique-id,ssl,authority,identity");
    let (addr, certificate, ca_file) = (ambassador.addr("r"), ca.issue("front", 8, VALID), ca.ca());
    let config = format!(
        "frontend f\n  mode tcp\n  bind {front} ssl crt {} ca-file {} verify required alpn h2\n  unique-id-format id-%pid\n  \
         default_backend b\nbackend b\n  mode tcp\n  server s {addr} send-proxy-v2 proxy-v2-options \
         ssl,cert-cn,ssl-cipher,authority,unique-id,crc32c\n",
        certificate.display(),
        ca_file.display()
    );
    let _haproxy = needs!(Program::haproxy(&config, &front));
    send_by_tls(&ca, &front, "-tls1_3");
    let received = endpoint.receive_ending(b"x\n");
    let header = parse(&received).unwrap().unwrap();
    assert_eq!(header.addresses.unwrap().destination.to_string(), front);
    let fields: Vec<_> =
        header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.escape_ascii().to_string())).collect();
    let value = |kind| &fields.iter().find(|(found, _)| *found == kind).unwrap().1;
    assert_eq!(value(kind::AUTHORITY), "a.example.com");
    assert_eq!(value(kind::ALPN), "h2");
    assert!(value(kind::UNIQUE_ID).starts_with("id-"));
    assert!(value(kind::SSL).contains("TLSv1.") && value(kind::SSL).contains("client"), "{fields:?}");
    assert!(fields.iter().all(|(kind, _)| *kind != kind::CRC32C), "{fields:?}");
}

/// Answers with the addresses and fields that it has received.
pub(super) const ECHO: &str = "http-request return status 200 content-type text/plain lf-string \
                    \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"";

#[test]
fn haproxy_behind_sees_the_client() {
    for version in ["v1", "v2"] {
        let back = format!("{}:8080", private_ip());
        let plain = format!("{}:8081", private_ip());
        let config =
            format!("frontend f\n  mode http\n  bind {back} accept-proxy\n  bind {plain}\n  {ECHO}\n");
        let _haproxy = needs!(Program::haproxy(&config, &plain));
        let options =
            format!("&send-proxy={version}&accept-proxy=127.0.0.0/8&health=http:/&health-interval=50ms");
        let ambassador = ambassador(&back, &options);
        let mut client = connect(ambassador.addr("r"));
        let fields: [(u8, &[u8]); 2] = [(kind::AUTHORITY, b"a.example.com"), (kind::UNIQUE_ID, b"id")];
        client.write_all(&[v2(CLIENT, &fields).as_slice(), b"GET / HTTP/1.0\r\n\r\n"].concat()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let expected = match version {
            "v1" => "192.0.2.7:4242 192.0.2.99:443",
            _ => "192.0.2.7:4242 192.0.2.99:443 a.example.com id",
        };
        assert_eq!(answer.split("\r\n\r\n").nth(1).map(str::trim_end), Some(expected), "{answer}");
        is_healthy(&ambassador);
        assert!(http_get(plain.parse().unwrap()).is_ok());
    }
}
