//! nginx in front of an ambassador, and behind one.

use std::io::Write;

use super::programs::Program;
use super::{Endpoint, accepting, ambassador, connect, is_healthy, logged};
use crate::support::{http_get, needs, private_ip};

#[test]
fn client_of_nginx_in_front_is_ours() {
    let (endpoint, front) = (Endpoint::new(), format!("{}:8080", private_ip()));
    let ambassador = accepting(&endpoint, "");
    let addr = ambassador.addr("r");
    let blocks = format!("stream {{ server {{ listen {front}; proxy_pass {addr}; proxy_protocol on; }} }}\n");
    let _nginx = needs!(Program::nginx(&blocks, &front));
    let mut client = connect(front.parse().unwrap());
    client.write_all(b"x").unwrap();
    let own = client.local_addr().unwrap();
    drop(client);
    assert_eq!(endpoint.receive_ending(b"x"), b"x");
    logged(&ambassador, &[&format!("client={own}"), "bytes_up=1 "]);
}

#[test]
fn nginx_behind_sees_the_client() {
    for version in ["v1", "v2"] {
        let back = format!("{}:8080", private_ip());
        let blocks = format!(
            "http {{ access_log off; server {{ listen {back} proxy_protocol; location / {{ return 200 \
             \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\"; }} }} }}\n"
        );
        let _nginx = needs!(Program::nginx(&blocks, &back));
        let options = format!("&send-proxy={version}&health=http:/&health-interval=50ms");
        let ambassador = ambassador(&back, &options);
        let addr = ambassador.addr("r");
        let answer = http_get(addr).unwrap();
        assert!(answer.starts_with("127.0.0.1:") && answer.ends_with(&addr.to_string()), "{answer}");
        is_healthy(&ambassador);
    }
}
