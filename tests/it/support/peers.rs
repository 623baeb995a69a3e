//! Credentials of peers, and two ambassadors with tunnels between them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use sha2::{Digest, Sha256};

use super::names::unique;
use super::{Ambassador, private_ip};

/// A file with a secret, in a directory of its own.
pub(crate) struct Secret(tempfile::TempDir);

impl Secret {
    pub(crate) fn new() -> Secret {
        let secret = Secret(tempfile::tempdir().unwrap());
        secret.write(&[&random_secret()]);
        secret
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("secret")
    }

    /// Replaces the file by these lines.
    pub(crate) fn write(&self, lines: &[&str]) {
        write_private(&self.path(), &lines.join("\n"));
    }

    /// Returns the first line.
    pub(crate) fn line(&self) -> String {
        fs::read_to_string(self.path()).unwrap().lines().next().unwrap().to_owned()
    }

    /// Returns the flags of an ambassador that has this secret.
    pub(crate) fn flags(&self, name: &str) -> String {
        format!("--peer-secret-file {} --peer-name {name}", self.path().display())
    }
}

pub(crate) fn random_secret() -> String {
    format!("{:x}", Sha256::digest(format!("{}{:?}", unique("secret"), SystemTime::now())))
}

/// Writes a file of mode 0600, replacing the previous one at once.
fn write_private(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, path).unwrap();
}

/// A CA as `ambassador ca init` makes it, with what it issues as files of a directory.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// The first and the last day of a certificate's validity, from today.
pub(crate) const VALID: [i64; 2] = [-1, 30];

impl Ca {
    pub(crate) fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "ambassador ca");
        params.distinguished_name.push(DnType::CommonName, unique("ca"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let epoch = date_time_ymd(1970, 1, 1);
        (params.not_before, params.not_after) = (epoch + days(-10), epoch + days(3650));
        let (key, dir) = (KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let ca = Ca { issuer: Issuer::new(params, key), dir };
        ca.revoke(&[]);
        ca
    }

    /// Issues a certificate, and returns the file with its key.
    pub(crate) fn issue(&self, name: &str, serial: u64, validity: [i64; 2]) -> PathBuf {
        self.issue_between(name, serial, validity.map(days))
    }

    /// Issues a certificate that expires after this time.
    pub(crate) fn issue_for(&self, name: &str, serial: u64, life: Duration) -> PathBuf {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.issue_between(name, serial, [days(-1), Duration::from_secs((now + life).as_secs())])
    }

    fn issue_between(&self, name: &str, serial: u64, [from, until]: [Duration; 2]) -> PathBuf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = format!("spiffe://ambassador/{name}");
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName(name.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        let epoch = date_time_ymd(1970, 1, 1);
        (params.not_before, params.not_after) = (epoch + from, epoch + until);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.dir.path().join(format!("{name}.pem"));
        write_private(&path, &(certificate.pem() + &key.serialize_pem()));
        path
    }

    /// Replaces the list of revoked serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: epoch + days(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: epoch + days(-1),
            next_update: epoch + days(30),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write_private(
            &self.dir.path().join("crl.pem"),
            &list.signed_by(&self.issuer).unwrap().pem().unwrap(),
        );
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn crl(&self) -> PathBuf {
        self.dir.path().join("crl.pem")
    }

    /// Returns the flags of an ambassador with a certificate of this CA.
    pub(crate) fn flags(&self, name: &str, serial: u64) -> String {
        let (cert, ca, crl) = (self.issue(name, serial, VALID), self.ca(), self.crl());
        format!("--peer-cert {} --peer-ca {} --peer-crl {}", cert.display(), ca.display(), crl.display())
    }
}

/// Returns the time from 1970 to the beginning of a day, counted from today.
fn days(offset: i64) -> Duration {
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    Duration::from_secs(today.checked_add_signed(offset).unwrap() * 86_400)
}

/// A consumer's and a service's ambassador: the route `r` of the first is the export `x` of the second.
pub(crate) struct Pair {
    pub(crate) exporter: Ambassador,
    pub(crate) dialler: Ambassador,
    /// Of the route `r`.
    pub(crate) addr: SocketAddr,
    /// Where the exporter accepts tunnels.
    pub(crate) peer: SocketAddr,
    pub(crate) secret: Secret,
}

impl Pair {
    /// Starts both, for a service. Options are written as `&option=value`.
    pub(crate) fn new(service: &str, export_options: &str, route_options: &str) -> Pair {
        let secret = Secret::new();
        let peer: SocketAddr = format!("{}:15008", private_ip()).parse().unwrap();
        let exporter = exporter(&secret, peer, service, export_options);
        let dialler = dialler(&secret, peer, route_options);
        let addr = dialler.addr("r");
        Pair { exporter, dialler, addr, peer, secret }
    }
}

fn exporter(secret: &Secret, peer: SocketAddr, service: &str, options: &str) -> Ambassador {
    let flags = secret.flags("exporter");
    Ambassador::with(&format!("{flags} --peer-listen {peer} peer:x={service}?name=x{options}")).start()
}

fn dialler(secret: &Secret, peer: SocketAddr, options: &str) -> Ambassador {
    let flags = secret.flags("dialler");
    Ambassador::with(&format!("{flags} 127.0.0.1:0=peer://{peer}/x?name=r{options}")).start()
}
