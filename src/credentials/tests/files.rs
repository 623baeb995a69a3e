//! Peers with certificates of `ambassador ca`.

use std::fs;
use std::sync::Arc;

use super::support::{
    DAY, HOUR, MINUTE, TestCa, TestClock, handshake, host, identity, loaded, logged, openssl, written,
};
use crate::credentials::authority::IssueRequest;
use crate::credentials::watch::Watched;
use crate::credentials::{CredentialFiles, CredentialKind, Credentials};

/// Two hosts with certificates of one CA.
fn pair(ca: &TestCa, clock: &Arc<TestClock>) -> [Arc<Credentials>; 2] {
    ["host1", "host2"].map(|name| loaded(ca.host(name, clock), clock))
}

#[tokio::test]
async fn certificates_of_one_ca_are_verified_by_host_or_identity() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let mut request = ca.request("host2");
    request.alternative_names = ["host2.example.com", "192.0.2.7", "2001:db8::7"].map(str::to_owned).to_vec();
    ca.open().issue(&request, clock.now()).unwrap();
    let two = loaded(ca.files(ca.path("host2.pem")), &clock);
    let one = loaded(ca.host("host1", &clock), &clock);
    assert_eq!((one.kind(), two.kind()), (CredentialKind::OwnCa, CredentialKind::OwnCa));

    let names = ["host2", "HOST2", "host2.example.com", "192.0.2.7", "2001:db8::7"].map(host);
    for name in names.into_iter().chain([identity("host2")]) {
        assert_eq!(handshake(&one, &name, &two).await.identities(), ("host2", "host1"), "{name:?}");
    }
    for name in [
        host("host1"),
        host("192.0.2.8"),
        host("example.com"),
        identity("host1"),
        identity("HOST2"),
        identity(""),
    ] {
        assert_eq!(
            handshake(&one, &name, &two).await.reasons(),
            ("wrong-name", "refused-certificate"),
            "{name:?}"
        );
    }
    let ends = handshake(&one, &host("host3"), &two).await;
    let message = "peer not trusted: the certificate is that of `host2, host2.example.com`, not of `host3`";
    assert_eq!(ends.client.unwrap_err().message, message);
}

#[tokio::test]
async fn certificate_of_another_ca_is_refused_by_either_side() {
    let clock = TestClock::new();
    let [one, two] = ["host1", "host2"].map(|name| loaded(TestCa::create(&clock).host(name, &clock), &clock));
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("unknown-issuer", "refused-unknown-issuer"));

    // The side that dials trusts both CAs; the other one does not.
    let (ours, theirs) = (TestCa::create(&clock), TestCa::create(&clock));
    let two = loaded(theirs.host("host2", &clock), &clock);
    let both =
        [ours.path("ca/ca.pem"), theirs.path("ca/ca.pem")].map(|path| fs::read(path).unwrap()).concat();
    let bundle = written(ours.dir.path(), "both.pem", both);
    let one = loaded(CredentialFiles { ca: Some(bundle), ..ours.host("host1", &clock) }, &clock);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("refused-unknown-issuer", "unknown-issuer"));
    assert_eq!(ends.client.unwrap_err().help, "add the CA of our certificate to --peer-ca of the peer");
}

#[tokio::test]
async fn certificate_is_refused_before_and_after_its_validity() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = pair(&ca, &clock);
    clock.set_back(4 * MINUTE);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
    clock.set_back(2 * MINUTE);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("not-yet-valid", "refused-expired"));
    clock.advance(365 * DAY);
    let chain = handshake(&one, &host("host2"), &two).await.server_chain;
    assert_eq!(&*one.peer(&chain).unwrap().identity, "host2");
    clock.advance(7 * MINUTE);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("expired", "refused-expired"));
    assert_eq!(one.peer(&chain).unwrap_err().reason().as_str(), "expired", "an open tunnel");
}

#[tokio::test]
async fn certificates_end_with_their_ca() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    clock.advance(3649 * DAY);
    let error = ca.open().issue(&ca.request("host1"), clock.now()).unwrap_err().to_string();
    assert!(error.contains("--days: the CA expires before that, at "), "{error}");
    assert!(
        error.ends_with("help: choose fewer days, or renew the CA with `ambassador ca rotate`"),
        "{error}"
    );
    for name in ["host1", "host2"] {
        ca.open().issue(&IssueRequest { days: 1, ..ca.request(name) }, clock.now()).unwrap();
    }
    let [one, two] = ["host1.pem", "host2.pem"].map(|file| loaded(ca.files(ca.path(file)), &clock));
    clock.advance(DAY - 1);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
}

#[tokio::test]
async fn revoked_peer_is_refused_by_either_side_and_untrusted_in_open_tunnels() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = pair(&ca, &clock);
    let chain = handshake(&one, &host("host2"), &two).await.server_chain;
    ca.open().revoke("host2", clock.now()).unwrap();
    assert_eq!(one.reload(), Ok(true));
    assert_eq!(one.peer(&chain).unwrap_err().reason().as_str(), "revoked");
    let forth = handshake(&one, &host("host2"), &two).await;
    let back = handshake(&two, &host("host1"), &one).await;
    assert_eq!(
        (forth.reasons(), back.reasons()),
        (("revoked", "refused-revoked"), ("refused-revoked", "revoked"))
    );
    assert_eq!(
        back.client.unwrap_err().help,
        "issue this host a new certificate: `ambassador ca issue NAME`"
    );

    // A new certificate for the name is valid.
    let two = loaded(ca.host("host2", &clock), &clock);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
}

#[tokio::test]
async fn revocation_lists_of_other_cas_and_overdue_ones_cut_no_peer() {
    let clock = TestClock::new();
    let (ca, other) = (TestCa::create(&clock), TestCa::create(&clock));
    let [_, two] = pair(&ca, &clock);
    let lists = [&other, &ca].map(|ca| fs::read(ca.path("ca/crl.pem")).unwrap());
    for (list, text) in [("other", lists[0].clone()), ("both", lists.concat())] {
        let crl = Some(written(ca.dir.path(), list, text));
        let one = loaded(CredentialFiles { crl, ..ca.files(ca.path("host1.pem")) }, &clock);
        assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"), "{list}");
    }
    // Valid for an hour.
    let config = "[ca]\ndefault_ca = x\n[x]\ndatabase = index.txt\ndefault_md = sha256\ncrlnumber = number\n";
    for (file, text) in [("openssl.cnf", config), ("index.txt", ""), ("number", "01")] {
        fs::write(ca.path(file), text).unwrap();
    }
    let from = "-keyfile ca/ca.key -cert ca/ca.pem -crlhours 1 -out overdue.pem";
    openssl(ca.dir.path(), &format!("ca -config openssl.cnf -gencrl {from}"));
    let crl = Some(ca.path("overdue.pem"));
    let overdue = loaded(CredentialFiles { crl, ..ca.files(ca.path("host1.pem")) }, &clock);
    assert_eq!(logged(|| overdue.tick(&mut Watched::default())), "");
    clock.advance(2 * HOUR);
    assert_eq!(handshake(&overdue, &host("host2"), &two).await.identities(), ("host2", "host1"));
    let log = logged(|| overdue.tick(&mut Watched::default()));
    assert!(log.contains(" WARN revocation list of `O=ambassador ca, CN=test "), "{log}");
    assert!(log.contains("` is overdue since ") && log.contains("; it stays in use path="), "{log}");

    let without = loaded(CredentialFiles { crl: None, ..ca.files(ca.path("host1.pem")) }, &clock);
    assert_eq!(handshake(&without, &host("host2"), &two).await.identities(), ("host2", "host1"));
}

#[tokio::test]
async fn ca_is_rotated_in_steps_while_all_hosts_stay_connected() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = pair(&ca, &clock);
    let both = async |step: &str| {
        for credentials in [&one, &two] {
            credentials.reload().unwrap();
        }
        assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"), "{step}");
        assert_eq!(handshake(&two, &host("host1"), &one).await.identities(), ("host1", "host2"), "{step}");
    };
    ca.open().rotate(clock.now()).unwrap();
    both("both hosts trust both keys").await;
    ca.host("host1", &clock);
    both("one host has a certificate of the new key").await;
    let error = ca.open().finish_rotation(clock.now()).unwrap_err().to_string();
    assert!(error.contains("issued.json: no certificate of the new CA was issued for: host2\n"), "{error}");
    ca.host("host2", &clock);
    both("both hosts have certificates of the new key").await;
    let old = fs::read(ca.path("ca/ca.pem")).unwrap();
    ca.open().finish_rotation(clock.now()).unwrap();
    assert_eq!(one.reload(), Ok(true));
    both("the old key is removed").await;

    // A host that has still both CAs trusts a host that has only the new one, and the reverse.
    let bundle = Some(written(ca.dir.path(), "old.pem", old));
    let late = loaded(CredentialFiles { ca: bundle, ..ca.files(ca.path("host2.pem")) }, &clock);
    assert_eq!(handshake(&one, &host("host2"), &late).await.identities(), ("host2", "host1"));
    let names = late.certificates().into_iter().map(|found| found.name).collect::<Vec<_>>();
    assert_eq!(names, ["peer-cert", "peer-ca", "peer-ca-2"]);
}

#[tokio::test]
async fn certificate_of_the_previous_key_can_be_revoked_during_a_rotation() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = pair(&ca, &clock);
    ca.open().rotate(clock.now()).unwrap();
    ca.host("host1", &clock);
    ca.open().revoke("host2", clock.now()).unwrap();
    assert_eq!(one.reload(), Ok(true));
    two.reload().unwrap();
    assert_eq!(handshake(&two, &host("host1"), &one).await.reasons(), ("refused-revoked", "revoked"));
    ca.open().finish_rotation(clock.now()).unwrap();
    one.reload().unwrap();
    assert_eq!(
        handshake(&two, &host("host1"), &one).await.reasons(),
        ("refused-unknown-issuer", "unknown-issuer")
    );
}
