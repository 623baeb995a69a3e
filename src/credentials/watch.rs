//! Keeps the credentials current: reads changed files again, renews our own certificate, warns before certificates expire.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::pem::ListInfo;
use super::snapshot::Snapshot;
use super::{CertificateInfo, Credentials, CredentialsError, PeerIdentity};
use crate::events::EventKind;

/// A revocation is to take effect within a second. The files are read each time, about 10 KB: a notification would miss changes on
/// network file systems and behind bind mounts.
const PERIOD: Duration = Duration::from_millis(500);

/// From when on the log warns of the end of a certificate, and how often.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the watch has logged, so that it is logged once.
#[derive(Debug, Default)]
pub(super) struct Watched {
    error: Option<CredentialsError>,
    is_error_logged: bool,
    warned: Option<SystemTime>,
}

impl Credentials {
    /// Follows the files and the clock. Never completes.
    pub async fn watch(self: Arc<Self>) -> Infallible {
        let mut watched = Watched::default();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.log_warnings();
        loop {
            ticks.tick().await;
            self.tick(&mut watched);
        }
    }

    pub(super) fn tick(&self, watched: &mut Watched) {
        match self.reload() {
            Ok(true) => {
                *watched = Watched::default();
                self.log_change("peer credentials reloaded");
                self.refused.store(None);
                let PeerIdentity { identity, not_after, .. } = self.identity();
                self.keep(EventKind::CredentialsReloaded {
                    identity: identity.to_string(),
                    until: rfc3339(not_after),
                });
            }
            Ok(false) => {
                watched.error = None;
                self.refused.store(None);
            }
            Err(error) => {
                if watched.failed(&error) {
                    self.keep(EventKind::CredentialsRefused { why: error.one_line() });
                    self.refused.store(Some(Arc::new(error)));
                }
            }
        }
        self.renew();
        self.warn_of_expiry(watched);
    }

    /// Issues a new certificate when ours is due. The secret stays.
    fn renew(&self) {
        let current = self.current.load_full();
        let now = self.now();
        if !current.is_renewal_due(now) {
            return;
        }
        match Snapshot::new(&self.files, current.contents.clone(), now) {
            Ok(renewed) => {
                self.replace(renewed);
                self.log_change("peer certificate renewed");
            }
            Err(error) => tracing::error!("peer certificate not renewed: {}", error.one_line()),
        }
    }

    fn log_change(&self, event: &str) {
        let own = self.identity();
        let until = humantime::format_rfc3339_seconds(own.not_after);
        tracing::info!(identity = %own.identity, serial = own.serial, %until, "{event}");
        self.log_warnings();
    }

    fn log_warnings(&self) {
        self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    }

    fn warn_of_expiry(&self, watched: &mut Watched) {
        let now = self.now();
        let is_recent = |warned: SystemTime| now.duration_since(warned).is_ok_and(|age| age < WARN_EVERY);
        if watched.warned.is_some_and(is_recent) {
            return;
        }
        watched.warned = Some(now);
        for certificate in self.certificates() {
            if warn_of_expiry_of(&certificate, now) {
                let CertificateInfo { name: certificate, identity, not_after, path: _ } = certificate;
                self.keep(EventKind::CertificateExpiring {
                    certificate,
                    identity,
                    until: rfc3339(not_after),
                });
            }
        }
        for list in &self.current.load().lists {
            warn_if_overdue(list, now);
        }
    }
}

impl Watched {
    /// Logs an error when it occurs the second time in a row: a file that is being written is complete soon. Returns whether it was
    /// logged.
    fn failed(&mut self, error: &CredentialsError) -> bool {
        if self.error.as_ref() != Some(error) {
            *self = Watched { error: Some(error.clone()), is_error_logged: false, warned: self.warned };
            return false;
        }
        let is_due = !std::mem::replace(&mut self.is_error_logged, true);
        if is_due {
            tracing::error!(
                "peer credentials not reloaded, the previous ones stay in use: {}",
                error.one_line()
            );
        }
        is_due
    }
}

/// An overdue list is still used: see `trust`.
fn warn_if_overdue(list: &ListInfo, now: SystemTime) {
    let ListInfo { issuer, next_update, path } = list;
    if let Some(due) = next_update.filter(|due| *due < now) {
        let due = humantime::format_rfc3339_seconds(due);
        tracing::warn!(path = %path.display(), "revocation list of `{issuer}` is overdue since {due}; it stays in use");
    }
}

/// Logs a certificate that expires soon. Returns whether it does.
pub(crate) fn warn_of_expiry_of(certificate: &CertificateInfo, now: SystemTime) -> bool {
    let CertificateInfo { name, identity, not_after, path } = certificate;
    let path = path.display();
    match not_after.duration_since(now) {
        Ok(left) if left > WARN_BEFORE => return false,
        Ok(left) => {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs() / 60 * 60));
            tracing::warn!(name, identity, %path, "certificate expires in {left}");
        }
        Err(_) => tracing::error!(name, identity, %path, "certificate has expired"),
    }
    true
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
