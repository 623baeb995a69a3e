//! Peers with a shared secret.

use std::path::Path;
use std::sync::Arc;

use super::support::{DAY, HOUR, MINUTE, TestClock, handshake, host, identity, loaded, written};
use crate::credentials::watch::Watched;
use crate::credentials::{CredentialFiles, CredentialKind, Credentials};

const ONE: &str = "8f14e45fceea167a5a36dedd4bea2543f1c9645dbc14efddc7d8a322685f26eb";
const TWO: &str = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k=";

fn host_with(dir: &Path, name: &str, secrets: &[&str], clock: &Arc<TestClock>) -> Arc<Credentials> {
    let secret = written(dir, &format!("secret-of-{name}"), secrets.join("\n"));
    loaded(CredentialFiles { secret: Some(secret), name: Some(name.to_owned()), ..Default::default() }, clock)
}

#[tokio::test]
async fn hosts_with_the_same_secret_see_each_others_names() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let [one, two] = ["host1", "host2"].map(|name| host_with(dir.path(), name, &[ONE], &clock));
    for name in [host("any.example"), host("192.0.2.1"), host("2001:db8::1"), identity("host2")] {
        assert_eq!(handshake(&one, &name, &two).await.identities(), ("host2", "host1"));
    }
    assert_eq!(one.kind(), CredentialKind::Secret);
    assert_eq!(one.certificates(), []);
    assert_eq!(one.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn identity_is_required_also_with_a_secret() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let [one, two] = ["host1", "host2"].map(|name| host_with(dir.path(), name, &[ONE], &clock));
    let ends = handshake(&one, &identity("host3"), &two).await;
    assert_eq!(ends.reasons(), ("wrong-name", "refused-certificate"));
    let message = ends.client.unwrap_err().message;
    assert_eq!(message, "peer not trusted: the certificate is that of `host2`, not of `host3`");
}

#[tokio::test]
async fn different_secrets_are_refused_with_a_way_out_on_both_sides() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let one = host_with(dir.path(), "host1", &[ONE], &clock);
    let two = host_with(dir.path(), "host2", &[TWO], &clock);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("unknown-issuer", "refused-unknown-issuer"));
    let different = "the hosts have different secrets: copy the same --peer-secret-file to both";
    assert_eq!([ends.client.unwrap_err().help, ends.server.unwrap_err().help], [different; 2]);
}

#[tokio::test]
async fn secrets_are_rotated_in_either_order_of_hosts() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    // Accept the new one, use the new one, drop the old one: one host is always a step ahead.
    let steps: [&[&str]; 4] = [&[ONE], &[ONE, TWO], &[TWO, ONE], &[TWO]];
    for step in steps.windows(2) {
        let behind = host_with(dir.path(), "behind", step[0], &clock);
        let ahead = host_with(dir.path(), "ahead", step[1], &clock);
        let forth = handshake(&behind, &host("ahead"), &ahead).await;
        let back = handshake(&ahead, &host("behind"), &behind).await;
        assert_eq!(
            (forth.identities(), back.identities()),
            (("ahead", "behind"), ("behind", "ahead")),
            "{step:?}"
        );
    }
    let [first, last] = [steps[0], steps[3]].map(|secrets| host_with(dir.path(), "host", secrets, &clock));
    assert_eq!(handshake(&first, &host("last"), &last).await.reasons().0, "unknown-issuer");
}

#[tokio::test]
async fn clocks_may_differ_by_five_minutes_and_no_more() {
    let (dir, fast, slow) = (tempfile::tempdir().unwrap(), TestClock::new(), TestClock::new());
    fast.advance(4 * MINUTE);
    let one = host_with(dir.path(), "host1", &[ONE], &fast);
    let two = host_with(dir.path(), "host2", &[ONE], &slow);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
    slow.set_back(2 * MINUTE);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("refused-expired", "not-yet-valid"));
    assert_eq!(ends.client.unwrap_err().help, "compare the clocks of both hosts");
    slow.set_back(2 * DAY);
    assert_eq!(handshake(&two, &host("host1"), &one).await.reasons(), ("not-yet-valid", "refused-expired"));
}

#[tokio::test]
async fn certificate_is_renewed_at_half_its_life_and_when_the_clock_is_set_back() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let [one, two] = ["host1", "host2"].map(|name| host_with(dir.path(), name, &[ONE], &clock));
    let (changes, mut watched, first) = (one.changes(), Watched::default(), one.identity());
    clock.advance(12 * HOUR - 1);
    one.tick(&mut watched);
    assert_eq!((one.identity(), *changes.borrow()), (first.clone(), 0));
    clock.advance(1);
    one.tick(&mut watched);
    let second = one.identity();
    assert_eq!(
        (second.not_after, *changes.borrow()),
        (first.not_after + std::time::Duration::from_secs(12 * HOUR), 1)
    );
    assert_ne!(second.serial, first.serial);

    // The peer, which was not watched, is expired after a day; the renewed one is not.
    clock.advance(12 * HOUR + 1);
    let ends = handshake(&one, &host("host2"), &two).await;
    assert_eq!(ends.reasons(), ("expired", "refused-expired"));
    two.tick(&mut watched);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));

    // A host that started with a wrong clock.
    clock.set_back(300 * DAY);
    one.tick(&mut watched);
    two.tick(&mut watched);
    assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
}

#[tokio::test]
async fn peer_of_an_open_tunnel_is_untrusted_after_its_secret_is_removed() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let [one, two] = ["host1", "host2"].map(|name| host_with(dir.path(), name, &[ONE], &clock));
    let chain = handshake(&one, &host("host2"), &two).await.server_chain;
    let mut changes = one.changes();
    assert_eq!(one.reload(), Ok(false));
    host_with(dir.path(), "host1", &[TWO, ONE], &clock);
    assert_eq!(one.reload(), Ok(true));
    changes.changed().await.unwrap();
    assert_eq!(&*one.peer(&chain).unwrap().identity, "host2");
    host_with(dir.path(), "host1", &[TWO], &clock);
    assert_eq!(one.reload(), Ok(true));
    changes.changed().await.unwrap();
    assert_eq!(one.peer(&chain).unwrap_err().reason().as_str(), "unknown-issuer");
}
