//! Who we are to our peers, and which peers we trust: a shared secret, or certificate files.
//!
//! ```text
//!   files ──► Contents ──► Snapshot { our certificate and key, Trust { CAs, CRLs } } ──► rustls configurations
//! ```
//!
//! A snapshot is replaced as a whole, so a handshake uses one state of all files. Both ends of a tunnel authenticate each
//! other, by TLS 1.3 only, without session tickets and early data: a resumed session would bypass a revocation.

mod atomic;
pub mod authority;
mod error;
mod failure;
mod files;
mod identity;
mod key;
mod leaf;
pub mod name;
mod pem;
mod random;
mod refusal;
pub mod secret;
mod snapshot;
mod trust;
mod verifier;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch as watch_channel;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

use crate::address::PeerName;
use crate::events::{EventKind, Events};
use snapshot::Snapshot;
use verifier::{ClientVerifier, ServerVerifier};

pub use error::CredentialsError;
pub use failure::{HandshakeFailure, Reason};
pub use files::CredentialFiles;
pub use identity::{PeerIdentity, Untrusted};
pub use key::{CaFile, KeyFiles, LoadedKey, common_name_of, provider};
pub use refusal::{Refusable, Refusal};
pub use snapshot::CertificateInfo;
pub use trust::CredentialKind;
pub(crate) use watch::warn_of_expiry_of;

/// What authenticates us to peers and peers to us. Reading takes no lock.
#[derive(Debug)]
pub struct Credentials {
    files: CredentialFiles,
    clock: Arc<dyn TimeProvider>,
    current: ArcSwap<Snapshot>,
    generation: watch_channel::Sender<u64>,
    /// Where changes are reported besides the log.
    events: OnceLock<Arc<Events>>,
    /// Why the files could not be read again.
    refused: ArcSwapOption<CredentialsError>,
}

impl Credentials {
    /// Reads the files. Returns an error that names the file and a way out, and contains no secret.
    pub fn load(files: CredentialFiles) -> Result<Credentials, CredentialsError> {
        Credentials::load_with_clock(files, Arc::new(DefaultTimeProvider))
    }

    /// Reads the files, and uses another clock than the system's for validity and renewal.
    pub fn load_with_clock(
        files: CredentialFiles,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Credentials, CredentialsError> {
        let snapshot = Snapshot::new(&files, files.read()?, now(&*clock))?;
        let (generation, _) = watch_channel::channel(0);
        Ok(Credentials {
            files,
            clock,
            current: ArcSwap::from_pointee(snapshot),
            generation,
            events: OnceLock::new(),
            refused: ArcSwapOption::empty(),
        })
    }

    /// Reports changes to `events`, besides the log.
    pub fn report_to(&self, events: Arc<Events>) {
        let _ = self.events.set(events);
    }

    /// Returns why the files could not be read again. The previous credentials are in use.
    pub fn refused(&self) -> Option<Arc<CredentialsError>> {
        self.refused.load_full()
    }

    /// Reads the files again. Returns whether they have changed. On an error the previous credentials stay in use.
    pub fn reload(&self) -> Result<bool, CredentialsError> {
        let contents = self.files.read()?;
        if contents == self.current.load().contents {
            return Ok(false);
        }
        self.replace(Snapshot::new(&self.files, contents, self.now())?);
        Ok(true)
    }

    /// Returns a counter of changes. After a change, [`Credentials::peer`] may have another result for an open tunnel.
    pub fn changes(&self) -> watch_channel::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Returns the configuration to dial a peer, and the name for its handshake. The configuration verifies the peer's
    /// chain and its name.
    pub fn connector(
        &self,
        name: &PeerName,
        alpn: &[&[u8]],
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), CredentialsError> {
        let current = self.current.load();
        let (server_name, sends_name) = server_name(name)?;
        let verifier = ServerVerifier::new(Arc::clone(&current.trust), name.clone());
        let builder =
            ClientConfig::builder_with_details(current.trust.provider().clone(), Arc::clone(&self.clock));
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&current.certified))));
        config.resumption = Resumption::disabled();
        config.enable_sni = sends_name;
        config.alpn_protocols = owned(alpn);
        Ok((Arc::new(config), server_name))
    }

    /// Returns the configuration to accept peers. It requires a certificate that we trust.
    pub fn acceptor(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, CredentialsError> {
        let current = self.current.load();
        let builder =
            ServerConfig::builder_with_details(current.trust.provider().clone(), Arc::clone(&self.clock));
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClientVerifier::new(Arc::clone(&current.trust))))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&current.certified))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = owned(alpn);
        Ok(Arc::new(config))
    }

    /// Returns the identity in a chain, if we trust the chain now. For open tunnels it is called again after each change.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, Untrusted> {
        self.current.load().trust.identity(chain, self.unix_time())
    }

    /// Returns what authenticates peers.
    pub fn kind(&self) -> CredentialKind {
        self.current.load().trust.kind()
    }

    /// Returns our own identity, as peers see it.
    pub fn identity(&self) -> PeerIdentity {
        self.current.load().identity.clone()
    }

    /// Returns the certificates in the files: ours, then the CAs. None with a secret, whose certificates renew themselves.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.current.load().certificates.clone()
    }

    /// Returns what an operator should change, such as the permissions of a key.
    pub fn warnings(&self) -> Vec<String> {
        self.current.load().warnings.clone()
    }

    /// Keeps an event of a change that is in the log.
    fn keep(&self, kind: EventKind) {
        if let Some(events) = self.events.get() {
            events.keep(kind);
        }
    }

    fn replace(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Returns the clock of validity.
    pub fn clock(&self) -> &Arc<dyn TimeProvider> {
        &self.clock
    }

    fn now(&self) -> SystemTime {
        now(&*self.clock)
    }

    fn unix_time(&self) -> UnixTime {
        self.clock.current_time().unwrap_or_else(UnixTime::now)
    }
}

/// Parses the contents of each kind of file of credentials, for fuzzing.
pub fn read_any(file: &[u8]) {
    let _ = secret::parse(file);
    snapshot::read_any(file);
}

/// Returns the identity in a certificate, which must have been verified.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, Untrusted> {
    identity::read(certificate)
}

fn now(clock: &dyn TimeProvider) -> SystemTime {
    let since_epoch = clock.current_time().map_or(Duration::ZERO, |now| Duration::from_secs(now.as_secs()));
    SystemTime::UNIX_EPOCH + since_epoch
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Returns the name for the handshake, and whether it is sent (SNI). An identity need not be a DNS name; then none is sent.
fn server_name(name: &PeerName) -> Result<(ServerName<'static>, bool), CredentialsError> {
    match name {
        PeerName::Host(host) => match ServerName::try_from(host.clone()) {
            Ok(name) => Ok((name, true)),
            Err(_) => Err(CredentialsError::Host(host.clone())),
        },
        PeerName::Identity(identity) => match ServerName::try_from(identity.clone()) {
            Ok(name) => Ok((name, true)),
            Err(_) => Ok((ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()), false)),
        },
    }
}

#[cfg(test)]
mod tests;
