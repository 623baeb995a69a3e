//! The control plane's part of TLS: certificates are read and followed.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::events::Events;
use crate::tls::Tls;

/// Reads the certificates, and the CAs of the written routes.
///
/// # Errors
///
/// Returns every file that cannot be used, and every route that cannot use TLS as it is written.
pub fn read_certificates(config: &Config) -> Result<Tls, Vec<Diagnostic>> {
    let tls = Tls::default();
    let certificates = tls.prepare(&config.settings.certificates)?;
    let refusals = tls.refusals(&certificates, config.written());
    tls.install(certificates);
    if refusals.is_empty() { Ok(tls) } else { Err(refusals) }
}

/// Follows the files and the clock.
pub(super) fn follow(tls: Arc<Tls>, events: Arc<Events>) -> AbortOnDropHandle<()> {
    let following = async move {
        tls.watch(events).await;
    };
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    AbortOnDropHandle::new(tokio::spawn(following))
}
