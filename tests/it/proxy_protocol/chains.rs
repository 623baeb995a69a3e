//! Headers between ambassadors, and through a tunnel.

use ambassador::proxy_protocol::{encode_v1, parse};

use super::{CLIENT, Endpoint, accepting, ambassador, connect, logged, pair, send, v1, v2};
use crate::support::Pair;

#[test]
fn client_and_fields_pass_through_a_chain() {
    let endpoint = Endpoint::new();
    let last = accepting(&endpoint, "&send-proxy=v2");
    let middle = ambassador(last.addr("r"), "&send-proxy=v2&accept-proxy=127.0.0.0/8");
    let first = ambassador(middle.addr("r"), "&send-proxy=v2&proxy-tlv=unique-id");
    let client = send(first.addr("r"), b"x");
    let received = endpoint.receive();
    let header = parse(&received).unwrap().unwrap();
    assert_eq!(&received[header.length..], b"x");
    // The connection may have ended, and has no peer any more.
    let (own, listener) = (client.local_addr().unwrap(), first.addr("r"));
    assert_eq!(header.addresses, Some(pair(&own.to_string(), &listener.to_string())));
    assert_eq!(header.tlvs.iter().map(|tlv| tlv.value.len()).collect::<Vec<_>>(), [32], "a unique ID");
    for ambassador in [&first, &middle, &last] {
        logged(ambassador, &[&format!("client={own}"), "ending=finished"]);
    }
}

#[test]
fn client_of_a_header_is_known_behind_a_tunnel() {
    let endpoint = Endpoint::new();
    let export = "&send-proxy=v2&proxy-tlv=identity";
    let pair = Pair::new(&endpoint.addr.to_string(), export, "&accept-proxy=127.0.0.0/8");
    drop(send(pair.addr, &[v2(CLIENT, &[]).as_slice(), b"x"].concat()));
    let received = endpoint.receive();
    let header = parse(&received).unwrap().unwrap();
    assert_eq!(&received[header.length..], b"x");
    assert_eq!(encode_v1(header.addresses), "PROXY TCP4 192.0.2.7 0.0.0.0 4242 0\r\n");
    let fields: Vec<_> =
        header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.escape_ascii().to_string())).collect();
    assert_eq!(fields, [(0xd0, "dialler".to_owned())], "the identity of the peer");
    for ambassador in [&pair.dialler, &pair.exporter] {
        logged(ambassador, &[&format!("client={CLIENT}"), "bytes_up=1 ", "ending=finished"]);
    }
}

/// The header is the first of the bytes in the tunnel: for the service behind the peer, not for the peer.
#[test]
fn header_to_a_peer_is_the_beginning_of_the_stream() {
    let endpoint = Endpoint::new();
    let pair = Pair::new(&endpoint.addr.to_string(), "", "&send-proxy=v1&accept-proxy=127.0.0.0/8");
    drop(send(pair.addr, &[v1(CLIENT).as_slice(), b"x"].concat()));
    assert_eq!(endpoint.receive(), [v1(CLIENT).as_slice(), b"x"].concat());
    drop(connect(pair.addr));
}
