//! Keeps the files of certificates and CAs current, and warns before certificates expire.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::store::Tls;
use crate::credentials::{CertificateInfo, CredentialsError, warn_of_expiry_of};
use crate::events::{EventKind, Events};

/// A new certificate is to be used within a second. The files are read each time: a notification would miss changes on network
/// file systems and behind bind mounts.
const PERIOD: Duration = Duration::from_millis(500);

/// How often the log warns of the end of a certificate.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The errors of the previous reading, so that each is logged once, when it occurs the second time in a row: a file that is being
/// written is complete soon.
#[derive(Debug, Default)]
struct Watched {
    errors: BTreeMap<String, (CredentialsError, bool)>,
    /// When and of which certificates `warn_of_expiry` has warned.
    warned: Option<(SystemTime, Vec<CertificateInfo>)>,
}

impl Tls {
    /// Follows the files and the clock. Never completes.
    pub async fn watch(self: Arc<Tls>, events: Arc<Events>) -> Infallible {
        let mut watched = Watched::default();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        loop {
            // An idle process has no timer.
            while self.is_unused() {
                self.used.notified().await;
            }
            ticks.tick().await;
            self.tick(&mut watched, &events);
        }
    }

    fn tick(&self, watched: &mut Watched, events: &Events) {
        let mut errors = self.reload_certificates(events);
        errors.extend(self.reload_roots());
        watched.failed(self, errors, events);
        self.warn_of_expiry(watched, events);
    }

    fn reload_certificates(&self, events: &Events) -> Vec<(String, CredentialsError)> {
        let mut errors = Vec::new();
        for certificate in self.certificates.load().values().flat_map(|named| named.0.iter()) {
            let CertificateInfo { name, path, .. } = certificate.info();
            match certificate.reload() {
                Ok(false) => {}
                Ok(true) => {
                    let CertificateInfo { identity, not_after, .. } = certificate.info();
                    let until = humantime::format_rfc3339_seconds(not_after).to_string();
                    tracing::info!(name, identity, until, "certificate reloaded");
                    certificate.warning().inspect(|warning| tracing::warn!("{warning}"));
                    events.keep(EventKind::CertificateReloaded { certificate: name, identity, until });
                }
                Err(error) => errors.push((path.display().to_string(), error)),
            }
        }
        errors
    }

    fn reload_roots(&self) -> Vec<(String, CredentialsError)> {
        let (mut errors, mut is_changed) = (Vec::new(), false);
        for (path, roots) in self.roots.load().iter() {
            match roots.reload(path.as_deref()) {
                Ok(changed) => is_changed |= changed,
                Err(error) => {
                    let path = path.as_ref().map(|path| path.display().to_string());
                    errors.push((path.unwrap_or_default(), error));
                }
            }
        }
        if is_changed {
            tracing::info!("CAs of TLS reloaded");
            self.forget();
        }
        errors
    }

    fn warn_of_expiry(&self, watched: &mut Watched, events: &Events) {
        let (now, certificates) = (SystemTime::now(), self.infos());
        let is_recent = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < WARN_EVERY);
        if watched.warned.as_ref().is_some_and(|(at, of)| is_recent(at) && *of == certificates) {
            return;
        }
        watched.warned = Some((now, certificates.clone()));
        for certificate in certificates {
            if warn_of_expiry_of(&certificate, now) {
                let CertificateInfo { name: certificate, identity, not_after, path: _ } = certificate;
                let until = humantime::format_rfc3339_seconds(not_after).to_string();
                events.keep(EventKind::CertificateExpiring { certificate, identity, until });
            }
        }
    }

    /// Returns what an operator should change, such as the permissions of a key.
    pub fn warnings(&self) -> Vec<String> {
        let certificates = self.certificates.load();
        certificates.values().flat_map(|named| named.0.iter()).filter_map(|one| one.warning()).collect()
    }
}

impl Watched {
    fn failed(&mut self, tls: &Tls, errors: Vec<(String, CredentialsError)>, events: &Events) {
        let mut before = std::mem::take(&mut self.errors);
        for (path, error) in errors {
            let known = before.remove(&path).filter(|(known, _)| *known == error);
            let is_again = known.is_some();
            if let Some((_, false)) = known {
                let why = error.one_line();
                tracing::error!("certificate or CA not reloaded, the previous one stays in use: {why}");
                events.keep(EventKind::CertificateRefused { why });
            }
            self.errors.insert(path, (error, is_again));
        }
        let refused = self.errors.values().filter(|(_, is_again)| *is_again);
        let refused: Vec<CredentialsError> = refused.map(|(error, _)| error.clone()).collect();
        if refused != **tls.refused.load() {
            tls.refused.store(Arc::new(refused));
        }
    }
}
