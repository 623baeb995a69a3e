//! Control of the running process: drain, then force, and reload of its files.
//!
//! ```text
//!   running ──SIGTERM, SIGINT──► draining ──drain timeout, second signal──► forced
//! ```

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
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
        let mut stop = StopSignals::install()?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                tokio::select! {
                    signal = stop.recv() => control.stop_or_force(signal),
                    Some(()) = hangup.recv() => {
                        tracing::info!("SIGHUP: reading the files again");
                        control.reload.notify_waiters();
                    }
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

/// The signals that stop the process: SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers. From then on the signals no longer end the process by themselves.
    pub(crate) fn install() -> io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal, and returns its name.
    pub(crate) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
