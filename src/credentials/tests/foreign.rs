//! Certificates that openssl made, as a PKI or a SPIFFE agent would, and strangers.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::{DAY, TestCa, TestClock, handshake, host, identity, loaded, openssl, written};
use crate::credentials::trust::provider;
use crate::credentials::{CredentialFiles, CredentialKind, Credentials, HandshakeFailure};

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// Makes a CA `NAME.pem` with the key `NAME.key`.
fn foreign_ca(dir: &Path, name: &str, key: &str) {
    let subject = format!("-subj /O=Example/CN={name}");
    openssl(
        dir,
        &format!("req -x509 -newkey {key} -nodes -keyout {name}.key -out {name}.pem -days 30 {subject}"),
    );
}

/// Makes a certificate with these alternative names and its key, in one file.
fn foreign_leaf(dir: &Path, ca: &str, name: &str, key: &str, names: &str) {
    let extensions =
        format!("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nsubjectAltName={names}\n");
    fs::write(dir.join("extensions"), extensions).unwrap();
    openssl(dir, &format!("req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /O=Example"));
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -days 10 -extfile extensions -out {name}.crt"
        ),
    );
    join(dir, name, &[&format!("{name}.crt"), &format!("{name}.key")]);
}

fn join(dir: &Path, name: &str, parts: &[&str]) {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| fs::read(dir.join(part)).unwrap()).collect();
    written(dir, &format!("{name}.pem"), parts.concat());
}

fn files(dir: &Path, name: &str, ca: &str) -> CredentialFiles {
    let path = |name: &str| Some(dir.join(format!("{name}.pem")));
    CredentialFiles { cert: path(name), ca: path(ca), ..CredentialFiles::default() }
}

#[tokio::test]
async fn spiffe_ids_without_dns_names_are_identities() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    for (key, ca_key) in [(P256, P256), ("rsa:2048", "rsa:2048"), (P256, "rsa:2048"), ("ed25519", P256)] {
        foreign_ca(dir.path(), "ca", ca_key);
        foreign_leaf(dir.path(), "ca", "web", key, "URI:spiffe://example.org/ns/default/sa/web");
        foreign_leaf(dir.path(), "ca", "db", key, "URI:spiffe://example.org/ns/default/sa/db");
        let [web, db] = ["web", "db"].map(|name| loaded(files(dir.path(), name, "ca"), &clock));
        assert_eq!(web.kind(), CredentialKind::ForeignCa);
        let ends = handshake(&web, &identity("spiffe://example.org/ns/default/sa/db"), &db).await;
        let expected = ("spiffe://example.org/ns/default/sa/db", "spiffe://example.org/ns/default/sa/web");
        assert_eq!(ends.identities(), expected, "{key} {ca_key}");
        for wrong in [identity("db"), identity("spiffe://example.org/ns/default/sa/web"), host("db")] {
            let ends = handshake(&web, &wrong, &db).await;
            assert_eq!(ends.reasons(), ("wrong-name", "refused-certificate"), "{wrong:?}");
        }
    }
}

#[test]
fn key_is_read_from_the_file_beside_the_certificate_as_other_programs_write_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    let dir = dir.path();
    foreign_ca(dir, "ca", P256);
    foreign_leaf(dir, "ca", "one", P256, "DNS:one");
    foreign_leaf(dir, "ca", "two", P256, "DNS:two");
    for (cert, key) in [("tls.crt", "tls.key"), ("svid.pem", "svid_key.pem")] {
        fs::copy(dir.join("one.crt"), dir.join(cert)).unwrap();
        written(dir, key, fs::read(dir.join("one.key")).unwrap());
        let files = CredentialFiles { cert: Some(dir.join(cert)), ..files(dir, "one", "ca") };
        let credentials = loaded(files, &clock);
        assert_eq!(
            credentials.warnings(),
            Vec::<String>::new(),
            "the key is private, the certificate is not"
        );
        // The certificate and its key are replaced one after the other.
        fs::copy(dir.join("two.crt"), dir.join(cert)).unwrap();
        let error = credentials.reload().unwrap_err().to_string();
        assert!(error.contains("the private key does not belong to the first certificate"), "{error}");
        written(dir, key, fs::read(dir.join("two.key")).unwrap());
        assert_eq!(credentials.reload(), Ok(true));
        assert_eq!(&*credentials.identity().identity, "two");
    }
}

#[tokio::test]
async fn dns_name_is_the_identity_without_a_uri_and_intermediate_cas_are_followed() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    let dir = dir.path();
    foreign_ca(dir, "root", P256);
    fs::write(dir.join("extensions"), "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n").unwrap();
    openssl(dir, &format!("req -newkey {P256} -nodes -keyout middle.key -out middle.csr -subj /CN=middle"));
    openssl(
        dir,
        "x509 -req -in middle.csr -CA root.pem -CAkey root.key -days 20 -extfile extensions -out middle.pem",
    );
    foreign_leaf(dir, "middle", "web", P256, "DNS:web.example,DNS:www.example");
    foreign_leaf(dir, "middle", "db", P256, "DNS:db.example,IP:192.0.2.1");
    // The key first, then the chain.
    join(dir, "db", &["db.key", "db.crt", "middle.pem"]);
    let [web, db] = ["web", "db"].map(|name| loaded(files(dir, name, "root"), &clock));
    let warning = "web.pem: the certificate was issued by an unknown CA; peers that have our files refuse it";
    assert!(
        web.warnings()[0].ends_with(warning),
        "the intermediate certificate is missing: {:?}",
        web.warnings()
    );
    assert_eq!(handshake(&web, &host("db.example"), &db).await.reasons().1, "unknown-issuer");

    join(dir, "web", &["web.crt", "middle.pem", "web.key"]);
    assert_eq!(web.reload(), Ok(true));
    assert_eq!(web.warnings(), Vec::<String>::new());
    for name in [host("db.example"), host("192.0.2.1"), identity("db.example")] {
        assert_eq!(handshake(&web, &name, &db).await.identities(), ("db.example", "web.example"), "{name:?}");
    }
}

#[tokio::test]
async fn certificate_ends_with_the_last_certificate_of_its_ca() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    let dir = dir.path();
    foreign_ca(dir, "ca", P256);
    // The same key, and a shorter life.
    let subject = "-subj /O=Example/CN=ca";
    openssl(dir, &format!("req -x509 -key ca.key -out short.pem -days 1 {subject}"));
    foreign_leaf(dir, "ca", "web", P256, "DNS:web");
    foreign_leaf(dir, "ca", "db", P256, "DNS:db");
    join(dir, "both", &["ca.pem", "short.pem"]);
    let [short, both] = ["short", "both"].map(|ca| loaded(files(dir, "web", ca), &clock));
    let db = loaded(files(dir, "db", "ca"), &clock);
    assert_eq!(handshake(&short, &host("db"), &db).await.identities(), ("db", "web"));
    clock.advance(DAY);
    assert_eq!(handshake(&short, &host("db"), &db).await.reasons(), ("expired", "refused-expired"));
    assert_eq!(handshake(&both, &host("db"), &db).await.identities(), ("db", "web"));
}

#[tokio::test]
async fn certificate_for_servers_only_cannot_dial() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    foreign_ca(dir.path(), "ca", P256);
    let server = "DNS:web\nextendedKeyUsage=serverAuth";
    foreign_leaf(dir.path(), "ca", "web", P256, server);
    foreign_leaf(dir.path(), "ca", "db", P256, "DNS:db");
    let [web, db] = ["web", "db"].map(|name| loaded(files(dir.path(), name, "ca"), &clock));
    assert_eq!(handshake(&db, &host("web"), &web).await.identities(), ("web", "db"));
    let ends = handshake(&web, &host("db"), &db).await;
    assert_eq!(ends.reasons(), ("refused-certificate", "bad-certificate"));
}

#[test]
fn several_uris_or_no_name_are_no_identity() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    foreign_ca(dir.path(), "ca", P256);
    let load = |names: &str| {
        foreign_leaf(dir.path(), "ca", "leaf", P256, names);
        Credentials::load_with_clock(files(dir.path(), "leaf", "ca"), Arc::clone(&clock) as _)
    };
    for names in ["URI:spiffe://a/b,URI:spiffe://a/c", "IP:192.0.2.1", "email:a@example.com"] {
        let error = load(names).unwrap_err().to_string();
        assert!(error.contains("leaf.pem: the certificate names no identity"), "{names}: {error}");
    }
    for (names, expected) in [
        ("DNS:a,URI:spiffe://ambassador/b", "b"),
        ("URI:spiffe://ambassador/a/b", "a/b"),
        ("URI:https://example.com/a", "https://example.com/a"),
        ("DNS:*.example.com,DNS:b", "*.example.com"),
    ] {
        assert_eq!(&*load(names).unwrap().identity().identity, expected);
    }
}

#[test]
fn keys_of_every_usual_format_are_read() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::late());
    let dir = dir.path();
    foreign_ca(dir, "ca", P256);
    foreign_leaf(dir, "ca", "ec", P256, "DNS:ec");
    foreign_leaf(dir, "ca", "rsa", "rsa:2048", "DNS:rsa");
    openssl(dir, "ec -in ec.key -out sec1.key");
    openssl(dir, "rsa -in rsa.key -traditional -out pkcs1.key");
    join(dir, "sec1", &["ec.crt", "sec1.key"]);
    join(dir, "pkcs1", &["rsa.crt", "pkcs1.key"]);
    for name in ["ec", "rsa", "sec1", "pkcs1"] {
        loaded(files(dir, name, "ca"), &clock);
    }
    openssl(dir, "ec -in ec.key -aes256 -passout pass:x -out encrypted.key");
    join(dir, "encrypted", &["ec.crt", "encrypted.key"]);
    openssl(dir, "pkcs8 -topk8 -in ec.key -passout pass:x -out encrypted-pkcs8.key");
    join(dir, "encrypted-pkcs8", &["ec.crt", "encrypted-pkcs8.key"]);
    join(dir, "swapped", &["ec.crt", "rsa.key"]);
    join(dir, "no-key", &["ec.crt"]);
    join(dir, "no-certificate", &["ec.key"]);
    for (name, expected) in [
        ("encrypted", "the private key is encrypted, and there is no passphrase\n  help: decrypt it with"),
        ("encrypted-pkcs8", "the private key is encrypted"),
        (
            "swapped",
            "the private key does not belong to the first certificate\n  help: put our own certificate first",
        ),
        ("no-key", "has no private key\n  help: append it, or put it beside the certificate"),
        ("no-certificate", "has no certificate\n  help: it must be a PEM file"),
    ] {
        let error = Credentials::load(files(dir, name, "ca")).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}.pem: {expected}")), "{error}");
    }
    let error = Credentials::load(files(dir, "ec", "rsa")).unwrap_err().to_string();
    assert!(error.contains("rsa.pem: `O=Example` is not the certificate of a CA\n"), "{error}");
}

/// A stranger's handshake with a host: the failure that the host sees, and the stranger.
async fn stranger(server: &Credentials, config: ClientConfig) -> (HandshakeFailure, HandshakeFailure) {
    let (near, far) = duplex(64 << 10);
    let accepting = TlsAcceptor::from(server.acceptor(&[b"h2"]).unwrap()).accept(far);
    let dialling = async {
        let name = ServerName::try_from("host1").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await
    };
    let (accepted, dialled) = tokio::join!(accepting, dialling);
    let failure = |error: io::Error| HandshakeFailure::of(&error, server.kind());
    (failure(accepted.map(|_| ()).unwrap_err()), failure(dialled.unwrap_err()))
}

fn without_certificate(
    verifier: Arc<dyn ServerCertVerifier>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    builder.with_no_client_auth()
}

#[tokio::test]
async fn strangers_are_refused() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let server = loaded(ca.host("host1", &clock), &clock);
    let verifier = Arc::new(crate::credentials::verifier::ServerVerifier::new(
        Arc::clone(&server.current.load().trust),
        host("host1"),
    ));
    let reasons = |(server, client): (HandshakeFailure, HandshakeFailure)| {
        (server.reason.as_str(), client.reason.as_str())
    };

    let anonymous = stranger(&server, without_certificate(verifier.clone(), &TLS13)).await;
    assert_eq!(reasons(anonymous), ("no-certificate", "refused-no-certificate"));
    let old = stranger(&server, without_certificate(verifier.clone(), &TLS12)).await;
    assert_eq!(reasons(old), ("version", "version"));
    let mut other_protocol = without_certificate(verifier, &TLS13);
    other_protocol.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(reasons(stranger(&server, other_protocol).await), ("alpn", "alpn"));
}

/// The certificate of one host with the key of another.
fn without_its_key(certificate: &Credentials, key: &Credentials) -> Arc<SingleCertAndKey> {
    let [certificate, key] = [certificate, key].map(|host| Arc::clone(&host.current.load().certified));
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(certificate.cert.clone(), Arc::clone(&key.key))))
}

#[tokio::test]
async fn certificate_without_its_key_is_refused_by_either_side() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = ["host1", "host2"].map(|name| loaded(ca.host(name, &clock), &clock));

    let (near, far) = duplex(64 << 10);
    let (config, name) = one.connector(&host("host2"), &[b"h2"]).unwrap();
    let mut thief = ClientConfig::clone(&config);
    thief.client_auth_cert_resolver = without_its_key(&one, &two);
    let dialling = TlsConnector::from(Arc::new(thief)).connect(name.clone(), near);
    let (accepted, _) =
        tokio::join!(TlsAcceptor::from(two.acceptor(&[b"h2"]).unwrap()).accept(far), dialling);
    let failure = HandshakeFailure::of(&accepted.map(|_| ()).unwrap_err(), two.kind());
    assert_eq!(failure.reason.as_str(), "bad-certificate");

    let (near, far) = duplex(64 << 10);
    let mut thief = ServerConfig::clone(&two.acceptor(&[b"h2"]).unwrap());
    thief.cert_resolver = without_its_key(&two, &one);
    let (dialled, _) = tokio::join!(
        TlsConnector::from(config).connect(name, near),
        TlsAcceptor::from(Arc::new(thief)).accept(far)
    );
    let failure = HandshakeFailure::of(&dialled.map(|_| ()).unwrap_err(), one.kind());
    assert_eq!(failure.reason.as_str(), "bad-certificate");
}

#[tokio::test]
async fn other_protocols_and_silence_are_told_apart() {
    let clock = TestClock::new();
    let server = loaded(TestCa::create(&clock).host("host1", &clock), &clock);
    for (bytes, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "not-tls"),
        ("SSH-2.0-OpenSSH\r\n", "not-tls"),
        ("*1\r\n$4\r\nPING\r\n", "not-tls"),
        ("", "closed"),
    ] {
        let (mut near, far) = duplex(64 << 10);
        near.write_all(bytes.as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let accepted = TlsAcceptor::from(server.acceptor(&[b"h2"]).unwrap()).accept(far).await;
        let failure = HandshakeFailure::of(&accepted.map(|_| ()).unwrap_err(), server.kind());
        assert_eq!(failure.reason.as_str(), expected, "{bytes}: {failure:?}");

        let (mut near, far) = duplex(64 << 10);
        near.write_all(bytes.as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let (config, name) = server.connector(&host("host2"), &[b"h2"]).unwrap();
        let dialled = TlsConnector::from(config).connect(name, far).await;
        let failure = HandshakeFailure::of(&dialled.map(|_| ()).unwrap_err(), server.kind());
        assert_eq!(failure.reason.as_str(), expected, "{bytes}: {failure:?}");
    }
}

#[tokio::test]
async fn server_without_tls_1_3_is_refused() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let client = loaded(ca.host("host1", &clock), &clock);
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12]).unwrap();
    let certified = Arc::clone(&client.current.load().certified);
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let server = builder.with_no_client_auth().with_cert_resolver(resolver);
    let (near, far) = duplex(64 << 10);
    let (config, name) = client.connector(&host("host1"), &[b"h2"]).unwrap();
    let (dialled, _) = tokio::join!(
        TlsConnector::from(config).connect(name, near),
        TlsAcceptor::from(Arc::new(server)).accept(far)
    );
    let failure = HandshakeFailure::of(&dialled.map(|_| ()).unwrap_err(), client.kind());
    assert_eq!(failure.reason.as_str(), "version");
}
