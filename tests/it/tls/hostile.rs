//! Hostile clients: silent ones, plaintext, and bytes that are not TLS.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador::ending::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::openssl::s_client;
use crate::app::{PATIENCE, Service, TlsPair, greeting};

/// More than the unfinished handshakes of two workers.
const SILENT: usize = 2_500;

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_do_not_keep_others_out_and_are_abandoned() {
    let service = Service::named("hi").await;
    let pair = TlsPair::new(&service.addr.to_string(), "", "").await;
    let addr = pair.server.addr("x");
    let mut silent = Vec::new();
    for n in 0..SILENT {
        silent.push(TcpStream::connect(addr).await.unwrap());
        if n % 500 == 0 {
            greeting(pair.addr(), "hi").await;
        }
    }
    let began = std::time::Instant::now();
    for _ in 0..10 {
        greeting(pair.addr(), "hi").await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let total = u64::try_from(SILENT).unwrap();
    pair.server.await_ended("x", Ending::TlsFailed, total).await;
    for stream in &mut silent {
        let mut bytes = Vec::new();
        // Closed or reset.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("closed");
        assert_eq!(bytes, b"");
    }
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
