//! Certificates of routes and failed handshakes, for `status` and `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::exposition::{Exposition, Kind};
use super::peers::CertificateStatus;
use crate::credentials::{Credentials, CredentialsError};
use crate::escape::escaped;
use crate::reconcile::Overview;
use crate::tls::Side;

/// The certificates of routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsStatus {
    /// The certificates in use.
    pub certificates: Vec<CertificateStatus>,
    /// Why files of certificates or CAs could not be read again.
    pub refused: Vec<String>,
    /// What should be changed, such as the permissions of a key.
    pub warnings: Vec<String>,
}

impl TlsStatus {
    /// Returns `None` if no route has a certificate or CAs.
    pub(super) fn of(overview: &Overview, now: SystemTime) -> Option<TlsStatus> {
        let tls = &overview.tls;
        (!tls.is_unused()).then(|| TlsStatus {
            certificates: tls.infos().into_iter().map(|info| CertificateStatus::of(info, now)).collect(),
            refused: tls.refused().iter().map(CredentialsError::one_line).collect(),
            warnings: tls.warnings(),
        })
    }

    /// Returns what an operator should know, one line each.
    pub(super) fn text(&self) -> String {
        let TlsStatus { certificates, refused, warnings } = self;
        let refused = refused
            .iter()
            .map(|why| format!("certificate or CA not reloaded, the previous one stays in use: {why}"));
        let notes = certificates.iter().filter_map(CertificateStatus::note).chain(refused);
        notes.chain(warnings.iter().cloned()).fold(String::new(), |mut text, note| {
            let _ = writeln!(text, "{}", escaped(&note));
            text
        })
    }
}

/// Writes the failed handshakes, and when certificates expire: those of routes, and those for peers.
pub(super) fn metrics(to: &mut Exposition, overview: &Overview) {
    let now = SystemTime::now();
    if !overview.tls.is_unused() {
        let help = "Failed TLS handshakes with clients and endpoints that are not peers, by reason.";
        to.family("ambassador_tls_handshake_failures_total", Kind::Counter, help);
        for side in Side::ALL {
            for (reason, count) in overview.tls.failures(side) {
                to.sample(&[("side", side.as_str()), ("reason", reason.as_str())], count);
            }
        }
    }
    let credentials = overview.peering.as_ref().and_then(|peering| peering.peers.credentials());
    if credentials.is_some() || !overview.tls.is_unused() {
        let is_refused = |credentials: &Arc<Credentials>| credentials.refused().is_some();
        let is_successful = overview.tls.refused().is_empty() && !credentials.is_some_and(is_refused);
        let help = "Whether the last attempt to read secrets, certificates and CAs succeeded.";
        to.single(
            "ambassador_credentials_last_reload_successful",
            Kind::Gauge,
            help,
            u8::from(is_successful),
        );
    }
    let of_peers = credentials.map(|credentials| credentials.certificates()).unwrap_or_default();
    let certificates: Vec<_> = of_peers.into_iter().chain(overview.tls.infos()).collect();
    if !certificates.is_empty() || overview.peering.is_some() {
        let help = "Seconds until the certificate expires; negative afterwards.";
        to.family("ambassador_certificate_expiry_seconds", Kind::Gauge, help);
        for certificate in certificates {
            let certificate = CertificateStatus::of(certificate, now);
            to.sample(&[("name", &certificate.name)], certificate.expires_in_seconds);
        }
    }
}
