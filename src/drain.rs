//! Control of the running process: drain, then force, and reload of its files.
//!
//! ```text
//!   running ──SIGTERM, SIGINT──► draining ──drain timeout, second signal──► forced
//! ```

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The handles that control a running ambassador.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Cancelled to take no new sessions.
    pub stop: CancellationToken,
    /// Cancelled to end all sessions.
    pub force: CancellationToken,
    /// Notified to read the files again.
    pub reload: Arc<Notify>,
}

impl Control {
    /// Installs signal handlers, and returns a future that handles the signals for ever. PID 1 needs the handlers as well: the
    /// kernel ignores signals to it that have none.
    pub fn handle_signals(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let control = self.clone();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => control.stop_or_force("SIGTERM"),
                    Some(()) = interrupt.recv() => control.stop_or_force("SIGINT"),
                    Some(()) = hangup.recv() => {
                        tracing::info!("SIGHUP: reading the files again");
                        control.reload.notify_waiters();
                    }
                    else => return,
                }
            }
        })
    }

    fn stop_or_force(&self, signal: &str) {
        if self.stop.is_cancelled() {
            tracing::warn!("{signal} again: ending all sessions now");
            self.force.cancel();
        } else {
            tracing::info!("{signal}: taking no new sessions");
            self.stop.cancel();
        }
    }
}
