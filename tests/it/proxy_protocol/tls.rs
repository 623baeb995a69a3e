//! Routes that terminate TLS: what they add to a header, and a header before the handshake.

use std::io::{Read, Write};
use std::path::Path;

use ambassador::proxy_protocol::parse;
use ambassador::proxy_protocol::tlv::kind;

use super::haproxy::ECHO;
use super::programs::{Program, send_by_tls};
use super::{Endpoint, ambassador, connect, is_healthy, logged};
use crate::support::{Ambassador, Ca, VALID, needs, private_ip};

fn terminating(ca: &Ca, endpoint: &Endpoint, options: &str) -> Ambassador {
    let (certificate, ca_file) = (ca.issue("front", 8, VALID), ca.ca());
    let fields = "send-proxy=v2&proxy-tlv=ssl,authority,identity";
    let route = format!(
        "127.0.0.1:0={}?name=r&tls=web&tls-ca={}&{fields}{options}",
        endpoint.addr,
        ca_file.display()
    );
    Ambassador::with(&format!("--certificate web={} {route}", certificate.display())).start()
}

fn openssl() -> Result<(), String> {
    if Path::new("/usr/bin/openssl").exists() { Ok(()) } else { Err("no openssl here".to_owned()) }
}

/// Returns the fields that the endpoint received before the line of the client.
fn received(endpoint: &Endpoint) -> Vec<(u8, String)> {
    let bytes = endpoint.receive_ending(b"x\n");
    let header = parse(&bytes).unwrap().unwrap();
    assert_eq!(&bytes[header.length..], b"x\n");
    header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.escape_ascii().to_string())).collect()
}

#[test]
fn header_contains_how_the_client_uses_tls() {
    needs!(openssl());
    let (ca, endpoint) = (Ca::new(), Endpoint::new());
    let ambassador = terminating(&ca, &endpoint, "");
    for (version, expected) in [("-tls1_3", ["TLSv1.3", "TLS_"]), ("-tls1_2", ["TLSv1.2", "ECDHE-ECDSA-"])] {
        send_by_tls(&ca, &ambassador.addr("r").to_string(), version);
        let fields = received(&endpoint);
        let kinds: Vec<u8> = fields.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [kind::SSL, kind::AUTHORITY, kind::IDENTITY]);
        let [ssl, authority, identity] = [0, 1, 2].map(|n| &fields[n].1);
        assert!(ssl.starts_with("\\x07\\x00\\x00\\x00\\x00") && ssl.contains("client"), "{ssl}");
        assert!(expected.iter().all(|word| ssl.contains(word)), "{ssl}");
        assert_eq!((authority.as_str(), identity.as_str()), ("a.example.com", "client"));
    }
}

#[test]
fn header_to_an_endpoint_precedes_the_handshake() {
    let (ca, back) = (Ca::new(), format!("{}:8443", private_ip()));
    let (certificate, ca_file) = (ca.issue("back", 9, VALID), ca.ca());
    let config = format!(
        "frontend f\n  mode http\n  bind {back} ssl crt {} accept-proxy\n  {ECHO}\n",
        certificate.display()
    );
    let _haproxy = needs!(Program::haproxy(&config, &back));
    let options = format!("&ca={}&sni=back&health=tcp&health-interval=50ms", ca_file.display());
    let ambassador = ambassador(format!("tls://{back}"), &format!("&send-proxy=v2{options}"));
    let mut client = connect(ambassador.addr("r"));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (own, listener) = (client.local_addr().unwrap(), ambassador.addr("r"));
    assert!(answer.contains(&format!("\r\n\r\n{own} {listener}")), "{answer}");
    is_healthy(&ambassador);
}

/// nginx passes on bytes, so the TLS client is that of the ambassador.
#[test]
fn header_precedes_the_handshake() {
    needs!(openssl());
    let (ca, endpoint, front) = (Ca::new(), Endpoint::new(), format!("{}:8443", private_ip()));
    let ambassador = terminating(&ca, &endpoint, "&accept-proxy=127.0.0.0/8&allow=127.0.0.0/8");
    let addr = ambassador.addr("r");
    let blocks = format!("stream {{ server {{ listen {front}; proxy_pass {addr}; proxy_protocol on; }} }}\n");
    let _nginx = needs!(Program::nginx(&blocks, &front));
    send_by_tls(&ca, &front, "-tls1_3");
    assert_eq!(received(&endpoint).len(), 3);
    logged(&ambassador, &["peer=client", "bytes_up=2 "]);
}
