//! The certificates and CAs that routes use, for all threads. Reading takes no lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::ServerName;

use super::accept::Acceptor;
use super::certificate::{Certificate, CertificateFiles, Certificates};
use super::failure::{Side, TlsFailure};
use crate::credentials::{CaFile, CertificateInfo, CredentialsError, Reason};
use crate::diagnostic::{Diagnostic, Mistake};
use crate::ordered::CollectOrdered;
use crate::route::{Options, Route, Target};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Tls>>> = const { RefCell::new(None) };
}

/// The certificates and CAs of a process.
#[derive(Debug, Default)]
pub struct Tls {
    pub(super) certificates: ArcSwap<Named>,
    pub(super) roots: ArcSwap<BTreeMap<Option<PathBuf>, Arc<Roots>>>,
    acceptors: ArcSwap<BTreeMap<AcceptorKey, Acceptor>>,
    /// Counts changes after which an endpoint is to be connected with another configuration.
    generation: AtomicU64,
    failures: Failures,
    /// Notified when there are files to follow.
    pub(super) used: Notify,
    /// Why files could not be read again.
    pub(super) refused: ArcSwap<Vec<CredentialsError>>,
}

/// Failed handshakes of both sides, by reason.
#[derive(Debug)]
struct Failures([[AtomicU64; Reason::ALL.len()]; Side::ALL.len()]);

impl Default for Failures {
    fn default() -> Failures {
        Failures(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

/// CAs, read again when their file changes.
#[derive(Debug)]
pub(super) struct Roots {
    file: ArcSwap<CaFile>,
    parsed: ArcSwap<RootCertStore>,
}

/// What distinguishes the acceptors of two routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AcceptorKey {
    certificate: String,
    ca: Option<PathBuf>,
    peers: Vec<String>,
}

type Named = BTreeMap<String, Certificates>;

/// Certificates that were loaded, to be used by [`Tls::install`].
#[derive(Debug)]
pub struct Prepared(Named);

/// Returns the names of the targets `tls://` that are verified.
fn dialled_names(route: &Route) -> impl Iterator<Item = String> {
    let hosts = route.all_targets().filter_map(|target| match target {
        Target::Tls(host) => Some(host),
        _ => None,
    });
    hosts.map(|host| route.options.sni.clone().unwrap_or_else(|| host.name()))
}

impl Roots {
    fn read(path: Option<&Path>) -> Result<Roots, CredentialsError> {
        let file = CaFile::read(path)?;
        let parsed = file.roots()?;
        Ok(Roots { file: ArcSwap::from_pointee(file), parsed: ArcSwap::from_pointee(parsed) })
    }

    /// Reads the file again. Returns whether it has changed. After an error, the previous CAs stay in use.
    pub(super) fn reload(&self, path: Option<&Path>) -> Result<bool, CredentialsError> {
        let file = CaFile::read(path)?;
        if file == **self.file.load() {
            return Ok(false);
        }
        self.parsed.store(Arc::new(file.roots()?));
        self.file.store(Arc::new(file));
        Ok(true)
    }
}

impl Tls {
    /// Makes this the store of the calling thread.
    pub fn enter(self: Arc<Tls>) {
        CURRENT.set(Some(self));
    }

    /// Returns the store of the calling thread.
    pub(crate) fn current() -> Arc<Tls> {
        CURRENT.with_borrow(Option::clone).unwrap_or_default()
    }

    /// Loads these certificates. Those that are in use already are kept.
    ///
    /// # Errors
    ///
    /// Returns every mistake in their files.
    pub fn prepare(&self, files: &[CertificateFiles]) -> Result<Prepared, Vec<Diagnostic>> {
        let before = self.certificates.load();
        let known = |files: &CertificateFiles| {
            let named = before.get(&files.name)?;
            named.0.iter().find(|certificate| certificate.files == *files).cloned()
        };
        let (mut named, mut mistakes) = (BTreeMap::<String, Vec<_>>::new(), Vec::new());
        for files in files {
            match known(files).map_or_else(|| Certificate::load(files).map(Arc::new), Ok) {
                Ok(certificate) => named.entry(files.name.clone()).or_default().push(certificate),
                Err(error) => mistakes.push(error.into()),
            }
        }
        let named = named.into_iter().map(|(name, found)| (name, Certificates(found.into())));
        if mistakes.is_empty() { Ok(Prepared(named.collect_ordered())) } else { Err(mistakes) }
    }

    /// Returns the files of the certificates in use.
    pub fn configured(&self) -> Vec<CertificateFiles> {
        let certificates = self.certificates.load();
        certificates.values().flat_map(|named| named.0.iter()).map(|one| one.files.clone()).collect()
    }

    /// Uses these certificates instead of those before.
    pub fn install(&self, Prepared(named): Prepared) {
        if named.keys().ne(self.certificates.load().keys())
            || named.values().zip(self.certificates.load().values()).any(|(new, old)| !new.is_same(old))
        {
            self.certificates.store(Arc::new(named));
            self.forget();
            self.used.notify_one();
        }
    }

    /// Returns why these routes cannot use TLS as they are written, with these certificates.
    pub fn refusals<'r>(
        &self,
        certificates: &Prepared,
        routes: impl IntoIterator<Item = &'r Route>,
    ) -> Vec<Diagnostic> {
        routes.into_iter().filter_map(|route| self.refusal_with(&certificates.0, route)).collect()
    }

    /// Drops what was built from files that have changed.
    pub(super) fn forget(&self) {
        self.acceptors.store(Arc::default());
        self.generation.fetch_add(1, Relaxed);
    }

    /// Drops the CAs that none of these routes uses.
    pub fn retain<'r>(&self, routes: impl Iterator<Item = &'r Route>) {
        let used: Vec<_> = routes.flat_map(|route| [&route.options.ca, &route.options.tls_ca]).collect();
        let roots = self.roots.load();
        let is_used = |path: &Option<PathBuf>| path.is_none() || used.contains(&path);
        if !roots.keys().all(is_used) {
            let kept = roots.iter().filter(|(path, _)| is_used(path));
            self.roots.store(Arc::new(kept.map(|(path, roots)| (path.clone(), roots.clone())).collect()));
            self.forget();
        }
    }

    /// Returns why a route cannot use TLS as it is written.
    pub fn refusal(&self, route: &Route) -> Option<Diagnostic> {
        self.refusal_with(&self.certificates.load(), route)
    }

    fn refusal_with(&self, certificates: &Named, route: &Route) -> Option<Diagnostic> {
        let Options { tls, tls_ca, tls_peers, cert, ca, .. } = &route.options;
        let mut names = [("tls", tls), ("cert", cert)]
            .into_iter()
            .filter_map(|(option, name)| Some((option, name.as_ref()?)));
        if let Some((option, name)) = names.find(|(_, name)| !certificates.contains_key(*name)) {
            return Some(unknown_certificate(option, name).at(&route.origin));
        }
        if !tls_peers.is_empty() && tls_ca.is_none() {
            let mistake =
                Mistake::new("`tls-peers` needs `tls-ca`: the CAs that issue the certificates of clients");
            return Some(mistake.help("add `tls-ca=FILE`").at(&route.origin));
        }
        let names = dialled_names(route).try_for_each(|name| server_name(&name).map(drop));
        let dials = ca.is_some() || dialled_names(route).next().is_some();
        let roots = [(tls_ca.is_some(), tls_ca), (dials, ca)].into_iter().filter(|(is_needed, _)| *is_needed);
        let read = roots.map(|(_, path)| self.roots(path.as_deref()).map(drop));
        let failed = [names].into_iter().chain(read).find_map(Result::err)?;
        Some(match failed {
            CredentialsError::Files(diagnostic) => *diagnostic,
            other => Mistake::new(other.to_string()).at(&route.origin),
        })
    }

    /// Returns what a route with `tls` presents and requires.
    ///
    /// # Errors
    ///
    /// Fails if the certificate is not configured, or a file cannot be used.
    pub fn acceptor(&self, options: &Options) -> Result<Acceptor, CredentialsError> {
        let key = AcceptorKey {
            certificate: options.tls.clone().unwrap_or_default(),
            ca: options.tls_ca.clone(),
            peers: options.tls_peers.clone(),
        };
        if let Some(known) = self.acceptors.load().get(&key) {
            return Ok(known.clone());
        }
        let roots = key.ca.as_deref().map(|ca| self.roots(Some(ca))).transpose()?;
        let acceptor = Acceptor::new(self.certificates(&key.certificate)?, roots, &key.peers)?;
        let added = |acceptors: &Arc<BTreeMap<AcceptorKey, Acceptor>>| {
            let mut acceptors = BTreeMap::clone(acceptors);
            acceptors.insert(key.clone(), acceptor.clone());
            acceptors
        };
        self.acceptors.rcu(added);
        Ok(acceptor)
    }

    /// Returns the certificates of a name.
    pub(super) fn certificates(&self, name: &str) -> Result<Certificates, CredentialsError> {
        let found = self.certificates.load().get(name).cloned();
        found.ok_or_else(|| CredentialsError::Tls(format!("no certificate has the name `{name}`")))
    }

    /// Returns the CAs of a file, by default those of the system.
    pub(super) fn roots(&self, path: Option<&Path>) -> Result<Arc<RootCertStore>, CredentialsError> {
        let path = path.map(Path::to_owned);
        if let Some(known) = self.roots.load().get(&path) {
            return Ok(known.parsed.load_full());
        }
        let roots = Arc::new(Roots::read(path.as_deref())?);
        let added = |known: &Arc<BTreeMap<Option<PathBuf>, Arc<Roots>>>| {
            let mut known = BTreeMap::clone(known);
            known.insert(path.clone(), roots.clone());
            known
        };
        self.roots.rcu(added);
        self.used.notify_one();
        Ok(roots.parsed.load_full())
    }

    /// Returns whether there are no certificates and no CAs.
    pub fn is_unused(&self) -> bool {
        self.certificates.load().is_empty() && self.roots.load().is_empty()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Counts a failed handshake.
    pub fn count(&self, failure: TlsFailure) {
        let Failures([clients, endpoints]) = &self.failures;
        let counts = match failure.side {
            Side::Client => clients,
            Side::Endpoint => endpoints,
        };
        if let Some(count) = counts.get(usize::from(failure.code())) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Returns the number of failed handshakes of a side by reason.
    pub fn failures(&self, side: Side) -> impl Iterator<Item = (Reason, u64)> {
        let Failures([clients, endpoints]) = &self.failures;
        let counts = match side {
            Side::Client => clients,
            Side::Endpoint => endpoints,
        };
        Reason::ALL.into_iter().zip(counts).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// Returns the certificates in use. Further ones of a name have a number.
    pub fn infos(&self) -> Vec<CertificateInfo> {
        let numbered = |(n, certificate): (usize, &Arc<Certificate>)| {
            let info = certificate.info();
            let name = if n == 0 { info.name } else { format!("{}-{}", info.name, n + 1) };
            CertificateInfo { name, ..info }
        };
        let certificates = self.certificates.load();
        certificates.values().flat_map(|named| named.0.iter().enumerate().map(numbered)).collect()
    }

    /// Returns why files could not be read again. What was read before is in use.
    pub fn refused(&self) -> Arc<Vec<CredentialsError>> {
        self.refused.load_full()
    }
}

fn unknown_certificate(option: &str, name: &str) -> Mistake {
    Mistake::new(format!("unknown certificate `{name}` of `{option}`")).help(format!(
        "set `--certificate {name}=CERT[,KEY]`, or add `[[certificate]]` with `name = \"{name}\"`, `cert` and `key` to the file"
    ))
}

/// Parses the name that is verified and sent.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, CredentialsError> {
    // A name of DNS may end with a dot, one in a certificate does not.
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| CredentialsError::Host(name.to_owned()))
}
