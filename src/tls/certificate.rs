//! The certificates of this host (`[[certificate]]`): loading, reloading, and choosing one by SNI.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::credentials::{CertificateInfo, CredentialsError, KeyFiles, LoadedKey};

/// A certificate with its key, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// The value of `tls` and `cert`. Several certificates may share a name.
    pub name: String,
    /// The PEM file of the certificate and its chain.
    pub cert: PathBuf,
    /// The PEM file of the key, if it is not in `cert` or beside it.
    pub key: Option<PathBuf>,
}

/// A certificate in use, read again when its files change.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) files: CertificateFiles,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: LoadedKey,
    /// The DNS names in the certificate, in lower case.
    names: Vec<String>,
}

impl Certificate {
    pub(super) fn load(files: &CertificateFiles) -> Result<Certificate, CredentialsError> {
        let loaded = Loaded::of(files.read()?)?;
        Ok(Certificate { files: files.clone(), current: ArcSwap::from_pointee(loaded) })
    }

    /// Reads the files again. Returns whether they have changed. After an error, the previous certificate stays in use.
    pub(super) fn reload(&self) -> Result<bool, CredentialsError> {
        let files = self.files.read()?;
        if files == self.current.load().key.files {
            return Ok(false);
        }
        self.current.store(Arc::new(Loaded::of(files)?));
        Ok(true)
    }

    /// Returns what is shown of the certificate.
    pub(super) fn info(&self) -> CertificateInfo {
        let current = self.current.load();
        CertificateInfo {
            name: self.files.name.clone(),
            identity: current.key.subject.clone(),
            not_after: current.key.not_after,
            path: self.files.cert.clone(),
        }
    }

    /// Returns a warning if every user of this host can read the key.
    pub(super) fn warning(&self) -> Option<String> {
        self.current.load().key.files.warning()
    }
}

/// Displays the files in the syntax of `--certificate`.
impl fmt::Display for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CertificateFiles { name, cert, key } = self;
        write!(f, "{name}={}", cert.display())?;
        key.iter().try_for_each(|key| write!(f, ",{}", key.display()))
    }
}

impl CertificateFiles {
    fn read(&self) -> Result<KeyFiles, CredentialsError> {
        KeyFiles::read(&self.cert, self.key.as_deref())
    }
}

impl Loaded {
    fn of(files: KeyFiles) -> Result<Loaded, CredentialsError> {
        let key = files.load()?;
        let names = key.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Loaded { key, names })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Returns whether the first label may be any (RFC 9525, 6.3).
    fn has_wildcard_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let wildcards = self.names.iter().filter_map(|own| own.strip_prefix("*."));
        parent.is_some_and(|parent| wildcards.into_iter().any(|own| own == parent))
    }
}

/// The certificates of one name, in the order of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Certificates(pub(super) Arc<[Arc<Certificate>]>);

impl Certificates {
    /// Chooses by name, exact before wildcard, and otherwise the first. Among equals, the first whose key the client supports.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let loaded: Vec<_> = self.0.iter().map(|certificate| certificate.current.load()).collect();
        let usable = |wanted: &dyn Fn(&Loaded) -> bool| {
            let mut named = loaded.iter().filter(|loaded| wanted(loaded));
            let found = named.find(|loaded| loaded.key.certified.key.choose_scheme(schemes).is_some());
            found.map(|loaded| Arc::clone(&loaded.key.certified))
        };
        let name = name.map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| {
            usable(&|loaded| loaded.has(name)).or_else(|| usable(&|loaded| loaded.has_wildcard_for(name)))
        });
        named.or_else(|| usable(&|_| true))
    }

    /// Returns whether both are the same values.
    pub(super) fn is_same(&self, other: &Certificates) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&*other.0).all(|(own, other)| Arc::ptr_eq(own, other))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(None, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
