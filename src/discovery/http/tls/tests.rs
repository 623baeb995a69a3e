//! Connections to a TLS server that requests a client certificate, as an engine with `--tlsverify` does.

use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discovery/http/tls/testdata").join(name)
}

/// Whether a server and a client with these files come to terms.
async fn shake(host: &str, ca: &str, cert: &str, verify: bool) -> Result<(), String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificates(&file("ca.pem")).unwrap().remove(0)).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read(&file("server.key")).unwrap()).unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&file("server.pem")).unwrap(), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let accepting = TlsAcceptor::from(Arc::new(server)).accept(accepted);

    let client = ClientFiles { cert: file(&format!("{cert}.pem")), key: file(&format!("{cert}.key")) };
    let config = config(&file(ca), Some(&client), verify)?;
    let (accepted, connected) = futures_util::join!(accepting, handshake(config, host, stream));
    connected?;
    accepted.map(|_| ()).map_err(|error| error.to_string())
}

fn check(outcome: &Result<(), String>, expected: Result<(), &str>) {
    match (outcome, expected) {
        (Ok(()), Ok(())) => {}
        (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
        _ => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn server_certificate_is_verified_with_the_authority() {
    check(&shake("127.0.0.1", "ca.pem", "client", true).await, Ok(()));
    check(&shake("docker.example", "ca.pem", "client", true).await, Ok(()));
    check(&shake("evil.example", "ca.pem", "client", true).await, Err("certificate"));
    check(&shake("127.0.0.1", "other-ca.pem", "client", true).await, Err("certificate"));
}

#[tokio::test]
async fn without_verification_any_server_will_do() {
    check(&shake("evil.example", "other-ca.pem", "client", false).await, Ok(()));
    check(&shake("127.0.0.1", "not-there.pem", "client", false).await, Ok(()));
}

#[tokio::test]
async fn missing_client_certificate_is_not_sent() {
    check(&shake("127.0.0.1", "ca.pem", "not-there", true).await, Err("certificate"));
}

#[tokio::test]
async fn missing_or_invalid_file_is_named() {
    check(&shake("127.0.0.1", "not-there.pem", "client", true).await, Err("not-there.pem"));
    check(&shake("127.0.0.1", "client.key", "client", true).await, Err("holds no certificate"));
}
