//! A CA in a directory, as openssl sees it, and its files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn create(dir: &Path) -> PathBuf {
    let ca = dir.join("ca");
    Authority::create(&ca, "test", SystemTime::now()).unwrap();
    ca
}

fn request(dir: &Path, name: &str) -> IssueRequest {
    IssueRequest {
        name: name.to_owned(),
        days: 30,
        csr: None,
        alternative_names: Vec::new(),
        out: Some(dir.join(format!("{name}.pem"))),
    }
}

fn issue(ca: &Path, request: &IssueRequest) -> Result<IssuedCertificate, String> {
    let issued = Authority::open(ca).unwrap().issue(request, SystemTime::now());
    issued.map(|issued| issued.certificate).map_err(|error| error.to_string())
}

/// Whether openssl succeeds in a directory, and its output.
fn openssl(dir: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()).output();
    let output = output.expect("openssl, which `cargo xtask test` installs");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn openssl_accepts_certificates_for_both_sides_until_they_are_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    issue(&ca, &request(dir.path(), "host1")).unwrap();
    let verify =
        |more: &str| openssl(dir.path(), &format!("verify -x509_strict -CAfile ca/ca.pem {more} host1.pem"));
    for purpose in ["sslserver", "sslclient"] {
        let (is_valid, text) =
            verify(&format!("-purpose {purpose} -crl_check -CRLfile ca/crl.pem -verify_hostname host1"));
        assert!(is_valid, "{text}");
    }
    Authority::open(&ca).unwrap().revoke("host1", SystemTime::now()).unwrap();
    let (is_valid, text) = verify("-crl_check -CRLfile ca/crl.pem");
    assert!(!is_valid && text.contains("certificate revoked"), "{text}");
}

#[test]
fn certificate_has_its_names_usages_validity_and_serial_number() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    let names = ["db.example.com", "192.0.2.1", "2001:db8::1", "host1"].map(str::to_owned).to_vec();
    let issued =
        issue(&ca, &IssueRequest { alternative_names: names, ..request(dir.path(), "host1") }).unwrap();
    let (_, text) = openssl(dir.path(), "x509 -in host1.pem -noout -text -serial -checkend 2591990");
    for expected in [
        "Issuer: O = ambassador ca, CN = test ",
        "Subject: CN = host1\n",
        "NIST CURVE: P-256",
        "URI:spiffe://ambassador/host1, DNS:host1, DNS:db.example.com, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Authority Key Identifier",
        &format!("serial={}\n", issued.serial.to_uppercase()),
        "Certificate will not expire",
    ] {
        assert!(
            text.replace("O=ambassador ca, CN=", "O = ambassador ca, CN = ")
                .replace("CN=host1", "CN = host1")
                .contains(expected),
            "{expected}: {text}"
        );
    }
    let (is_valid, text) = openssl(dir.path(), "x509 -in host1.pem -noout -checkend 2592001");
    assert!(!is_valid, "{text}");
    let (_, text) = openssl(dir.path(), "x509 -in ca/ca.pem -noout -text");
    for expected in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn keys_are_private_and_no_draft_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    issue(&ca, &request(dir.path(), "host1")).unwrap();
    issue(&ca, &request(dir.path(), "host1")).unwrap();
    let mut authority = Authority::open(&ca).unwrap();
    authority.rotate(SystemTime::now()).unwrap();
    assert_eq!(names(dir.path()), ["ca", "host1.pem"]);
    assert_eq!(names(&ca), ["ca.key", "ca.pem", "crl.pem", "issued.json"]);
    let modes = ["ca", "host1.pem", "ca/ca.key", "ca/issued.json"].map(|name| mode(&dir.path().join(name)));
    assert_eq!(modes, [0o700, 0o600, 0o600, 0o600]);
    assert_eq!(["ca/ca.pem", "ca/crl.pem"].map(|name| mode(&dir.path().join(name)) & !0o044), [0o600; 2]);
}

#[test]
fn existing_ca_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    let before = fs::read(ca.join("ca.key")).unwrap();
    let error = Authority::create(&ca, "test", SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("ca.key: exists already: a CA is never replaced\n"), "{error}");
    assert_eq!(fs::read(ca.join("ca.key")).unwrap(), before);
    let missing = Authority::open(&dir.path().join("gone")).err().unwrap().to_string();
    assert!(missing.contains("gone: has no CA\n  help: `ambassador ca init` creates one"), "{missing}");
}

#[test]
fn invalid_requests_issue_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    let valid = request(dir.path(), "host1");
    for name in ["", "../host", "a b", "host\n", "*.example.com", &"a".repeat(65)] {
        let error = issue(&ca, &IssueRequest { name: name.to_owned(), ..valid.clone() }).unwrap_err();
        assert!(error.starts_with("--name: invalid name of a peer"), "{error}");
    }
    for name in ["", "a b", "host:80", "10.0.0.0/8", "*.example.com"] {
        let alternative_names = vec![name.to_owned()];
        let error = issue(&ca, &IssueRequest { alternative_names, ..valid.clone() }).unwrap_err();
        assert!(error.starts_with(&format!("--dns: invalid name `{name}`")), "{error}");
    }
    for days in [0, 3651, u32::MAX] {
        let error = issue(&ca, &IssueRequest { days, ..valid.clone() }).unwrap_err();
        assert!(error.starts_with("--days: invalid number of days"), "{error}");
    }
    let out = Some(dir.path().join("missing/host1.pem"));
    let error = issue(&ca, &IssueRequest { out, ..valid.clone() }).unwrap_err();
    assert!(error.contains("missing/host1.pem: cannot be written: No such file"), "{error}");
    assert_eq!(names(dir.path()), ["ca"]);
}

#[test]
fn request_contributes_its_key_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    for (n, key) in
        ["ec -pkeyopt ec_paramgen_curve:P-256", "rsa:2048", "ed25519", "ec -pkeyopt ec_paramgen_curve:P-384"]
            .iter()
            .enumerate()
    {
        let names = "-addext subjectAltName=DNS:evil.example -addext basicConstraints=CA:TRUE -addext keyUsage=keyCertSign";
        let made = openssl(
            dir.path(),
            &format!("req -newkey {key} -nodes -keyout {n}.key -out {n}.csr -subj /CN=evil {names}"),
        );
        assert!(made.0, "{}", made.1);
        let csr = Some(dir.path().join(format!("{n}.csr")));
        issue(&ca, &IssueRequest { csr, ..request(dir.path(), &format!("host{n}")) }).unwrap();
        let (_, text) = openssl(dir.path(), &format!("x509 -in host{n}.pem -noout -text"));
        let is_ours =
            text.contains(&format!("DNS:host{n}")) && !text.contains("evil") && !text.contains("CA:TRUE");
        assert!(is_ours, "{text}");
        let [file, key] = [format!("host{n}.pem"), format!("{n}.key")].map(|name| dir.path().join(name));
        let certificate = fs::read_to_string(&file).unwrap();
        assert!(!certificate.contains("PRIVATE"), "{certificate}");
        let both = certificate + &fs::read_to_string(key).unwrap();
        super::super::pem::certified_key(&file, both.as_bytes(), None).unwrap();
    }
    let weak = openssl(dir.path(), "req -newkey rsa:1024 -nodes -keyout weak.key -out weak.csr -subj /CN=a");
    assert!(weak.0, "{}", weak.1);
    let der = openssl(dir.path(), "req -in 0.csr -outform der -out 0.der");
    assert!(der.0, "{}", der.1);
    let mut forged = fs::read(dir.path().join("0.der")).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("forged.csr"), super::super::pem::encode("CERTIFICATE REQUEST", &forged))
        .unwrap();
    fs::write(dir.path().join("none.csr"), "").unwrap();
    for (name, expected) in [
        ("weak", "weak.csr: the signature is not that of its key"),
        ("forged", "forged.csr: the signature is not that of its key"),
        ("none", "none.csr: has no certificate signing request"),
        ("missing", "missing.csr: cannot be read: No such file"),
    ] {
        let csr = Some(dir.path().join(format!("{name}.csr")));
        let error = issue(&ca, &IssueRequest { csr, ..request(dir.path(), "host") }).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(Authority::open(&ca).unwrap().issued().len(), 4);
}

#[test]
fn certificates_issued_at_the_same_time_are_all_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (ca, request) = (&ca, request(dir.path(), &format!("host{n}")));
            scope.spawn(move || issue(ca, &request).unwrap());
        }
    });
    assert_eq!(Authority::open(&ca).unwrap().issued().len(), 8);
}

#[test]
fn unknown_name_is_not_revoked_and_revoking_again_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    let serial = issue(&ca, &request(dir.path(), "host1")).unwrap().serial;
    let mut authority = Authority::open(&ca).unwrap();
    let error = authority.revoke("host2", SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("issued no certificate with the name or serial number `host2`\n"), "{error}");
    for what in ["host1", &serial, &serial.to_uppercase()] {
        assert_eq!(authority.revoke(what, SystemTime::now()).unwrap().len(), 1);
    }
}

#[test]
fn interrupted_rotation_and_lost_files_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    let (pem, key) = (fs::read(ca.join("ca.pem")).unwrap(), fs::read(ca.join("ca.key")).unwrap());
    let now = SystemTime::now();
    Authority::open(&ca).unwrap().rotate(now).unwrap();
    let error = Authority::open(&ca).unwrap().rotate(now).unwrap_err().to_string();
    assert!(error.contains("a rotation is in progress\n"), "{error}");
    let certificates = Authority::open(&ca).unwrap().certificates();
    assert_eq!(certificates.iter().map(|found| found.in_use).collect::<Vec<_>>(), [true, false]);
    assert!(certificates.iter().all(|found| found.name.starts_with("test ") && found.name.len() == 13));

    // Interrupted after the keys: the rotation did not happen, and can be repeated.
    fs::write(ca.join("ca.pem"), &pem).unwrap();
    assert_eq!(Authority::open(&ca).unwrap().certificates().len(), 1);
    issue(&ca, &request(dir.path(), "host1")).unwrap();
    Authority::open(&ca).unwrap().rotate(now).unwrap();

    fs::write(ca.join("ca.key"), &key).unwrap();
    let error = Authority::open(&ca).err().unwrap().to_string();
    assert!(error.contains("ca.key: has no key for `O=ambassador ca, CN=test "), "{error}");
    fs::write(ca.join("ca.pem"), &pem).unwrap();
    assert!(
        Authority::open(&ca)
            .unwrap()
            .finish_rotation(now)
            .unwrap_err()
            .to_string()
            .contains("no rotation is in progress")
    );
    fs::write(ca.join("issued.json"), "").unwrap();
    let error = Authority::open(&ca).err().unwrap().to_string();
    assert!(error.contains("issued.json: is not an index: "), "{error}");
}

#[test]
fn rotation_does_not_wait_for_expired_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let ca = create(dir.path());
    issue(&ca, &request(dir.path(), "host1")).unwrap();
    let later = SystemTime::now() + 31 * DAY;
    let mut authority = Authority::open(&ca).unwrap();
    authority.rotate(later).unwrap();
    authority.finish_rotation(later).unwrap();
    assert_eq!(authority.certificates().len(), 1);
}
