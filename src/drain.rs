//! How the process is told to stop: drain first, then force. And to read its files again.
//!
//! ```text
//!   running ──SIGTERM, SIGINT──► draining ──drain timeout, second signal──► forced
//! ```

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The handles by which a running ambassador is controlled.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// No new sessions.
    pub stop: CancellationToken,
    /// No sessions.
    pub force: CancellationToken,
    /// Files are to be read again.
    pub reload: Arc<Notify>,
}

impl Control {
    /// Obeys the process's signals, for ever. Installing the handlers is what makes them work as PID 1 too, where the
    /// kernel ignores a signal that nobody handles.
    pub fn obey_signals(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let control = self.clone();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => control.step_down("SIGTERM"),
                    Some(()) = interrupt.recv() => control.step_down("SIGINT"),
                    Some(()) = hangup.recv() => {
                        tracing::info!("SIGHUP: reading the files again");
                        // Every file that is followed has somebody who waits.
                        control.reload.notify_waiters();
                    }
                    else => return,
                }
            }
        })
    }

    fn step_down(&self, signal: &str) {
        if self.stop.is_cancelled() {
            tracing::warn!("{signal} again: ending all sessions now");
            self.force.cancel();
        } else {
            tracing::info!("{signal}: taking no new sessions");
            self.stop.cancel();
        }
    }
}
