//! Hostile clients: silent ones, plaintext, and bytes that are not TLS.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use ambassador::ending::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::openssl::s_client;
use crate::app::{PATIENCE, Service, TlsPair, greeting};
use crate::support::{Ambassador, Ca, VALID, ask, within};

/// A process of its own has the server's descriptors: those of one process are limited to 20,000 on many machines.
#[test]
fn silent_clients_do_not_keep_others_out_and_are_abandoned() {
    const CLIENTS: u64 = 10_000;
    raise_file_limit();
    let (ca, service) = (Ca::new(), crate::support::Service::new("one"));
    let cert = ca.issue("service", 1, VALID);
    let route = format!("127.0.0.1:0={}?name=x&tls=service", service.addr);
    let server = Ambassador::with(&format!("--certificate service={} {route}", cert.display())).start();
    let addr = server.addr("x");
    let route = format!("127.0.0.1:0=tls://{addr}?name=r&ca={}&sni=service", ca.ca().display());
    let client = Ambassador::with(&route).start();
    let good = client.addr("r");
    let mut silent = Vec::new();
    for n in 0..CLIENTS {
        silent.push(std::net::TcpStream::connect(addr).unwrap());
        if n % 1_000 == 0 {
            assert_eq!(ask(good), "one");
        }
    }
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(ask(good), "one");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    within(PATIENCE, "the end of all silent clients", || {
        let status: serde_json::Value = serde_json::from_slice(&server.verb("status --json").stdout).unwrap();
        let endings = &status["routes"][0]["endings"];
        // On a busy machine also a handshake of the good client, which it has repeated.
        if endings["tls-failed"].as_u64() >= Some(CLIENTS) { Ok(()) } else { Err(endings.to_string()) }
    });
    for mut stream in silent {
        let mut bytes = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed or reset.
        if let Err(error) = stream.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert_eq!(bytes, b"");
    }
    let memory = server.memory();
    assert!(memory < 64 << 20, "{} KB", memory >> 10);
}

/// Sends bytes, and returns what is received until the close or reset.
async fn reply(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reply = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut reply)).await.expect("closed");
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_tls_get_an_alert_and_reach_no_service() {
    let service = Service::named("hi").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let addr = pair.server.addr("x");
    let oversized: Vec<u8> = [&[22, 3, 1, 0xff, 0xff][..], &[1; 0xffff]].concat();
    // A ClientHello of 16 MB, in full records.
    let record = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    let mut endless = record.clone();
    endless[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    endless.extend(record.repeat(20));
    let cases: [(&str, &[u8]); 8] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("an alert", &[21, 3, 1, 0, 2, 2, 40]),
        ("application data", &[23, 3, 3, 0, 4, 1, 2, 3, 4]),
        ("an SSLv2 hello", &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
        ("an oversized record", &oversized),
        ("an endless hello", &endless),
        ("a PROXY header", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
    ];
    for (n, (what, bytes)) in cases.into_iter().enumerate() {
        let reply = reply(addr, bytes).await;
        assert!(reply.is_empty() || reply[0] == 21, "{what}: {reply:?}");
        pair.server.await_ended("x", Ending::TlsFailed, u64::try_from(n + 1).unwrap()).await;
    }
    greeting(pair.addr(), "hi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_clients_get_no_handshake() {
    let service = Service::named("hi").await;
    let pair = TlsPair::new(&service.addr.to_string(), "&hold=0s", "&deny=127.0.0.0/8").await;
    let reply = reply(pair.server.addr("x"), b"").await;
    assert_eq!(reply, b"");
    pair.server.await_ended("x", Ending::Denied, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_while_it_is_held_is_noticed() {
    let refusing = crate::app::refusing_addr().await;
    let pair = TlsPair::new(&refusing.to_string(), "", "&hold=1m").await;
    let client = TcpStream::connect(pair.server.addr("x")).await.unwrap();
    drop(client);
    pair.server.await_ended("x", Ending::TlsFailed, 1).await;
    // Sends close_notify at the end of its input.
    s_client(pair.server.addr("x"), &["-tls1_3"], "Q\n");
    pair.server.await_ended("x", Ending::LeftWhileHeld, 1).await;
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
