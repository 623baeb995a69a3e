//! A CA in a directory: `ambassador ca`.
//!
//! | file | |
//! |---|---|
//! | `ca.pem` | the certificates of the CA, for `--peer-ca`: the one in use, during a rotation also the previous one |
//! | `ca.key` | their private keys |
//! | `crl.pem` | their revocation lists, for `--peer-crl` |
//! | `issued.json` | every certificate that was issued: a revocation list has serial numbers only |
//!
//! Each change locks the directory, and writes first what the other files depend on, so that it can be repeated after a
//! crash at any point.

mod generation;
mod index;
mod request;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use super::CredentialsError;
use super::atomic::{self, PRIVATE, PUBLIC};
use super::name;
use crate::diagnostic::Mistake;
use crate::regular;
use generation::{GIVEN_NAME_MAX, Generation};
use index::Index;

pub use index::{IssuedCertificate, RfcTime};
pub use request::IssueRequest;

const CERTIFICATES: &str = "ca.pem";
const KEYS: &str = "ca.key";
const REVOCATIONS: &str = "crl.pem";
const INDEX: &str = "issued.json";

/// The limit of a file of the CA: 100,000 certificates in the index.
const FILE_MAX_BYTES: usize = 64 << 20;

/// A CA, locked while this value exists.
pub struct Authority {
    dir: PathBuf,
    /// The one in use first. Never empty.
    generations: Vec<Generation>,
    index: Index,
    _lock: File,
}

/// A certificate of the CA itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuthorityCertificate {
    /// Its name, which the certificates that it issued refer to.
    pub name: String,
    /// The end of its validity.
    pub not_after: RfcTime,
    /// Whether it issues new certificates.
    pub in_use: bool,
}

/// A certificate that was issued.
#[derive(Debug)]
pub struct Issued {
    /// What the index has about it.
    pub certificate: IssuedCertificate,
    /// The file with the certificate, and the key unless there was a request.
    pub path: PathBuf,
}

impl Authority {
    /// Creates a CA in a new or empty directory. Never replaces one.
    pub fn create(dir: &Path, name: &str, now: SystemTime) -> Result<(), CredentialsError> {
        check_name(name).map_err(|mistake| CredentialsError::in_flag("name", mistake))?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| unwritable(dir, &error))?;
        let lock = lock(dir)?;
        if let Some(existing) =
            [KEYS, CERTIFICATES].map(|file| dir.join(file)).iter().find(|path| path.exists())
        {
            let mistake = Mistake::new("exists already: a CA is never replaced");
            let help = "use another directory with --dir, or `ambassador ca rotate` for a new key";
            return Err(CredentialsError::in_file(existing, mistake.help(help)));
        }
        let generations = vec![Generation::create(name, now)?];
        let authority = Authority { dir: dir.to_owned(), generations, index: Index::default(), _lock: lock };
        authority.write_index()?;
        authority.write_keys()?;
        authority.write_certificates()?;
        authority.write_revocations(now)
    }

    /// Opens the CA of a directory, and waits until no other process has it open.
    pub fn open(dir: &Path) -> Result<Authority, CredentialsError> {
        if !dir.join(CERTIFICATES).exists() {
            let mistake =
                Mistake::new("has no CA").help("`ambassador ca init` creates one; --dir names its directory");
            return Err(CredentialsError::in_file(dir, mistake));
        }
        let lock = lock(dir)?;
        let (certificates, keys, index) = (dir.join(CERTIFICATES), dir.join(KEYS), dir.join(INDEX));
        let generations = generation::read(&certificates, &read(&certificates)?, &keys, &read(&keys)?)?;
        let index =
            Index::parse(&read(&index)?).map_err(|mistake| CredentialsError::in_file(&index, mistake))?;
        Ok(Authority { dir: dir.to_owned(), generations, index, _lock: lock })
    }

    /// Issues a certificate, and writes it to a file, which is replaced.
    pub fn issue(&mut self, request: &IssueRequest, now: SystemTime) -> Result<Issued, CredentialsError> {
        let (certificate, pem, mode) = request.sign(self.in_use()?, now)?;
        // First the index: every certificate that exists can be revoked.
        self.index.add(certificate.clone(), now);
        self.write_index()?;
        let path = request.path();
        atomic::write(&path, pem.as_bytes(), mode).map_err(|error| unwritable(&path, &error))?;
        Ok(Issued { certificate, path })
    }

    /// Revokes a certificate by serial number, or all of a name. Returns them. Revoking again writes the list again.
    pub fn revoke(
        &mut self,
        name_or_serial: &str,
        now: SystemTime,
    ) -> Result<Vec<IssuedCertificate>, CredentialsError> {
        let revoked = self.index.revoke(name_or_serial, now);
        if revoked.is_empty() {
            let mistake = Mistake::new(format!(
                "this CA has issued no certificate with the name or serial number `{name_or_serial}`"
            ));
            return Err(CredentialsError::in_file(
                &self.dir.join(INDEX),
                mistake.help("`ambassador ca list` shows all"),
            ));
        }
        // First the index: a later list is written from it.
        self.write_index()?;
        self.write_revocations(now)?;
        Ok(revoked)
    }

    /// Creates a new key. Until [`Authority::finish_rotation`], hosts with the new `ca.pem` trust certificates of both.
    pub fn rotate(&mut self, now: SystemTime) -> Result<(), CredentialsError> {
        if self.generations.len() > 1 {
            let mistake = Mistake::new("a rotation is in progress")
                .help("finish it first: `ambassador ca rotate --finish`");
            return Err(CredentialsError::in_file(&self.path(CERTIFICATES), mistake));
        }
        let new = Generation::create(self.in_use()?.given_name(), now)?;
        self.generations.insert(0, new);
        // A key without a certificate is ignored; a certificate without a key is an error.
        self.write_keys()?;
        self.write_certificates()?;
        self.write_revocations(now)
    }

    /// Removes the previous key, and what it issued from the index. Refuses while a name has a valid certificate only from the previous key.
    pub fn finish_rotation(&mut self, now: SystemTime) -> Result<(), CredentialsError> {
        let in_use = self.in_use()?.name.clone();
        if self.generations.len() < 2 {
            let mistake =
                Mistake::new("no rotation is in progress").help("`ambassador ca rotate` begins one");
            return Err(CredentialsError::in_file(&self.path(CERTIFICATES), mistake));
        }
        let waiting = self.index.names_without(&in_use, now);
        if !waiting.is_empty() {
            let mistake =
                Mistake::new(format!("no certificate of the new CA was issued for: {}", waiting.join(", ")));
            let help =
                "issue one for each (`ambassador ca issue NAME`), or revoke those that are not used any more";
            return Err(CredentialsError::in_file(&self.path(INDEX), mistake.help(help)));
        }
        self.generations.truncate(1);
        self.write_certificates()?;
        self.write_keys()?;
        self.index.keep_only(&in_use);
        self.write_index()?;
        self.write_revocations(now)
    }

    /// Returns the certificates that were issued, by name and time.
    pub fn issued(&self) -> Vec<IssuedCertificate> {
        self.index.sorted()
    }

    /// Returns the certificates of the CA itself.
    pub fn certificates(&self) -> Vec<AuthorityCertificate> {
        let shown = |(n, generation): (usize, &Generation)| AuthorityCertificate {
            name: generation.name.clone(),
            not_after: RfcTime(generation.not_after),
            in_use: n == 0,
        };
        self.generations.iter().enumerate().map(shown).collect()
    }

    /// Returns the file for `--peer-ca`.
    pub fn bundle_path(&self) -> PathBuf {
        self.path(CERTIFICATES)
    }

    /// Returns the file for `--peer-crl`.
    pub fn revocations_path(&self) -> PathBuf {
        self.path(REVOCATIONS)
    }

    fn in_use(&self) -> Result<&Generation, CredentialsError> {
        let none = || CredentialsError::in_file(&self.path(CERTIFICATES), Mistake::new("has no certificate"));
        self.generations.first().ok_or_else(none)
    }

    fn write_certificates(&self) -> Result<(), CredentialsError> {
        let certificates: String = self.generations.iter().map(Generation::pem).collect();
        self.write(CERTIFICATES, certificates.as_bytes(), PUBLIC)
    }

    fn write_keys(&self) -> Result<(), CredentialsError> {
        let keys: String = self.generations.iter().map(Generation::key_pem).collect();
        self.write(KEYS, keys.as_bytes(), PRIVATE)
    }

    fn write_revocations(&self, now: SystemTime) -> Result<(), CredentialsError> {
        let mut lists = String::new();
        for generation in &self.generations {
            lists.push_str(&generation.revocation_list(&self.index.revoked_by(&generation.name, now), now)?);
        }
        self.write(REVOCATIONS, lists.as_bytes(), PUBLIC)
    }

    fn write_index(&self) -> Result<(), CredentialsError> {
        self.write(INDEX, self.index.to_json().as_bytes(), PRIVATE)
    }

    fn write(&self, file: &str, contents: &[u8], mode: u32) -> Result<(), CredentialsError> {
        let path = self.path(file);
        atomic::write(&path, contents, mode).map_err(|error| unwritable(&path, &error))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
}

/// Checks the name of a CA.
pub fn check_name(name: &str) -> Result<(), Mistake> {
    if name.len() > GIVEN_NAME_MAX {
        return Err(Mistake::new(format!("a name of {} characters", name.len())).help("choose up to 55"));
    }
    name::check(name)
}

fn lock(dir: &Path) -> Result<File, CredentialsError> {
    let file = File::open(dir).map_err(|error| CredentialsError::unreadable(dir, &error))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| unwritable(dir, &error.into()))?;
    Ok(file)
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    regular::read(path, FILE_MAX_BYTES).map_err(|error| CredentialsError::unreadable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> CredentialsError {
    let mistake = Mistake::new(format!("cannot be written: {error}"));
    CredentialsError::in_file(path, mistake.help("check that its directory exists and belongs to you"))
}

#[cfg(test)]
mod tests;
