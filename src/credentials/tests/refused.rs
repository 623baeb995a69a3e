//! A refusal that arrives after the handshake.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::{TestCa, TestClock, host, loaded};
use crate::credentials::Refusable;

#[tokio::test]
async fn reason_of_a_refusal_is_kept() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = ["host1", "host2"].map(|name| loaded(ca.host(name, &clock), &clock));
    ca.open().revoke("host1", clock.now()).unwrap();
    assert_eq!(two.reload(), Ok(true));
    let (near, far) = tokio::io::duplex(64 << 10);
    let (config, name) = one.connector(&host("host2"), &[b"h2"]).unwrap();
    let (stream, refused) = tokio::join!(
        TlsConnector::from(config).connect(name, near),
        TlsAcceptor::from(two.acceptor(&[b"h2"]).unwrap()).accept(far)
    );
    assert!(refused.is_err());
    let mut stream = Refusable::new(stream.unwrap());
    let refusal = stream.refusal();
    assert_eq!(refusal.failure(one.kind()), None);
    stream.read_u8().await.unwrap_err();
    let failure = refusal.failure(one.kind()).unwrap();
    assert_eq!(failure.reason.as_str(), "refused-revoked", "{failure:?}");
}

#[tokio::test]
async fn stream_without_a_refusal_is_unchanged() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = ["host1", "host2"].map(|name| loaded(ca.host(name, &clock), &clock));
    let (near, far) = tokio::io::duplex(64 << 10);
    let (config, name) = one.connector(&host("host2"), &[b"h2"]).unwrap();
    let (near, far) = tokio::join!(
        TlsConnector::from(config).connect(name, near),
        TlsAcceptor::from(two.acceptor(&[b"h2"]).unwrap()).accept(far)
    );
    let (mut near, mut far) = (Refusable::new(near.unwrap()), Refusable::new(far.unwrap()));
    near.write_all(b"ping").await.unwrap();
    near.shutdown().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "ping");
    drop(far);
    assert_eq!(near.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(near.refusal().failure(one.kind()), None, "an end of the connection is no TLS error");
}
