//! Files that change while they are in use.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::support::{DAY, TestCa, TestClock, handshake, host, loaded, logged, written};
use crate::credentials::watch::Watched;
use crate::credentials::{CredentialFiles, Credentials, CredentialsError};

#[tokio::test(start_paused = true)]
async fn revocation_takes_effect_within_a_second() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = ["host1", "host2"].map(|name| loaded(ca.host(name, &clock), &clock));
    let chain = handshake(&one, &host("host2"), &two).await.server_chain;
    let mut changes = one.changes();
    let revoked = async {
        tokio::time::sleep(Duration::from_millis(5300)).await;
        ca.open().revoke("host2", clock.now()).unwrap();
        timeout(Duration::from_secs(1), changes.changed()).await.unwrap().unwrap();
        one.peer(&chain).unwrap_err().reason().as_str()
    };
    tokio::select! {
        never = Arc::clone(&one).watch() => match never {},
        reason = revoked => assert_eq!(reason, "revoked"),
    }
}

#[test]
fn volume_whose_link_is_swapped_is_read_again() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    for (volume, name) in [("..1", "host1"), ("..2", "host2")] {
        ca.host(name, &clock);
        fs::create_dir(ca.path(volume)).unwrap();
        fs::rename(ca.path(&format!("{name}.pem")), ca.path(&format!("{volume}/tls.pem"))).unwrap();
    }
    symlink("..1", ca.path("..data")).unwrap();
    symlink("..data/tls.pem", ca.path("tls.pem")).unwrap();
    let credentials = loaded(ca.files(ca.path("tls.pem")), &clock);
    assert_eq!(&*credentials.identity().identity, "host1");
    symlink("..2", ca.path("..data_tmp")).unwrap();
    fs::rename(ca.path("..data_tmp"), ca.path("..data")).unwrap();
    let log = logged(|| credentials.tick(&mut Watched::default()));
    assert!(log.contains("INFO peer credentials reloaded identity=host2 serial="), "{log}");
    assert_eq!(&*credentials.identity().identity, "host2");
}

#[tokio::test]
async fn broken_file_leaves_the_previous_credentials_in_use_and_is_reported_once() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let [one, two] = ["host1", "host2"].map(|name| loaded(ca.host(name, &clock), &clock));
    let whole = fs::read(ca.path("host1.pem")).unwrap();
    let mut watched = Watched::default();
    let certificate_alone = whole.len() - 100;
    for (file, text) in
        [("host1.pem", &whole[..certificate_alone]), ("host1.pem", b""), ("ca/ca.pem", b"-----")]
    {
        let path = ca.path(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let mut ticks = || logged(|| one.tick(&mut watched));
        assert_eq!(ticks(), "", "the file may be incomplete");
        let error = ticks();
        let kept = "ERROR peer credentials not reloaded, the previous ones stay in use: ";
        assert!(error.contains(kept) && error.contains(file), "{error}");
        assert_eq!(ticks(), "", "reported once");
        assert_eq!(handshake(&one, &host("host2"), &two).await.identities(), ("host2", "host1"));
        fs::write(&path, before).unwrap();
        assert_eq!(ticks(), "");
    }
    fs::remove_file(ca.path("ca/crl.pem")).unwrap();
    let error = one.reload().unwrap_err().one_line();
    assert!(error.contains("crl.pem: cannot be read: No such file or directory"), "{error}");
    assert_eq!(*one.changes().borrow(), 0);
}

#[test]
fn log_warns_daily_in_the_last_week_of_a_certificate() {
    let clock = TestClock::new();
    let ca = TestCa::create(&clock);
    let credentials = loaded(ca.host("host1", &clock), &clock);
    let mut watched = Watched::default();
    let mut tick = || logged(|| credentials.tick(&mut watched));
    clock.advance(357 * DAY);
    assert_eq!(tick(), "");
    clock.advance(2 * DAY);
    let expected = format!(
        "WARN certificate expires in 6days name=\"peer-cert\" identity=\"host1\" path={}\n",
        ca.path("host1.pem").display()
    );
    assert_eq!(tick().trim_start(), expected);
    clock.advance(DAY - 1);
    assert_eq!(tick(), "");
    clock.advance(1);
    assert!(tick().contains("expires in 5days"));
    clock.advance(6 * DAY);
    assert!(tick().contains("ERROR certificate has expired"));

    // A renewed certificate ends the warnings, and one that is warned of is warned of at once.
    ca.host("host1", &clock);
    let log = tick();
    assert!(log.contains("reloaded") && !log.contains("expire"), "{log}");
}

#[test]
fn readable_keys_are_warned_of_but_not_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let secret = written(dir.path(), "secret", crate::credentials::secret::generate().unwrap());
    let files =
        CredentialFiles { secret: Some(secret.clone()), name: Some("a".to_owned()), ..Default::default() };
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = loaded(files.clone(), &clock).warnings();
        let path = secret.display();
        let warning =
            format!("{path}: every user of this host can read it (mode {mode:04o}): `chmod 0600 {path}`");
        assert_eq!(warnings, if is_warned { vec![warning] } else { vec![] }, "{mode:o}");
    }
}

#[test]
fn files_that_do_not_go_together_are_explained() {
    let path = || Some("/nonexistent".into());
    let none = CredentialFiles::default;
    for (files, expected) in [
        (none(), "--peer-secret-file: peers require a secret or a certificate"),
        (
            CredentialFiles { secret: path(), cert: path(), ..none() },
            "--peer-secret-file: a secret and certificate files cannot",
        ),
        (
            CredentialFiles { secret: path(), crl: path(), ..none() },
            "--peer-secret-file: a secret and certificate files cannot",
        ),
        (CredentialFiles { cert: path(), ..none() }, "--peer-cert: requires --peer-ca"),
        (CredentialFiles { ca: path(), ..none() }, "--peer-ca: requires --peer-cert"),
        (CredentialFiles { crl: path(), ..none() }, "--peer-crl: requires --peer-cert and --peer-ca"),
        (
            CredentialFiles { cert: path(), ca: path(), name: Some("a".to_owned()), ..none() },
            "--peer-name: has no effect",
        ),
        (
            CredentialFiles { secret: path(), ..none() },
            "/nonexistent: cannot be read: No such file or directory",
        ),
    ] {
        let error = Credentials::load(files).unwrap_err();
        assert!(
            error.to_string().starts_with(expected) && error.to_string().contains("\n  help: "),
            "{error}"
        );
        assert!(matches!(error, CredentialsError::Files(_)) && !error.one_line().contains('\n'));
    }
}

#[test]
fn own_name_must_be_valid() {
    let dir = tempfile::tempdir().unwrap();
    let secret = Some(written(dir.path(), "secret", crate::credentials::secret::generate().unwrap()));
    let load = |name: Option<&str>| {
        let files =
            CredentialFiles { secret: secret.clone(), name: name.map(str::to_owned), ..Default::default() };
        Credentials::load(files)
            .map(|loaded| loaded.identity().identity.to_string())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(Some("host-1.example")), Ok("host-1.example".to_owned()));
    assert!(
        load(Some("a b")).unwrap_err().starts_with("--peer-name: invalid name of a peer `a b`\n  help: ")
    );
    let host_name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(load(None), Ok(host_name));
}
