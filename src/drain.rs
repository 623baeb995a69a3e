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

/// The signals that the running ambassador handles.
#[derive(Debug)]
pub struct Signals {
    stop: StopSignals,
    hangup: Signal,
}

impl Signals {
    /// Installs the handlers, before anything is bound: a signal to a process that has just started must not end it abruptly, and
    /// the kernel ignores signals to PID 1 that have no handler. Signals that arrive before [`Signals::handle`] are kept.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals { stop: StopSignals::install()?, hangup: signal(SignalKind::hangup())? })
    }

    /// Handles the signals for ever.
    pub async fn handle(mut self, control: Control) {
        loop {
            tokio::select! {
                signal = self.stop.recv() => control.stop_or_force(signal),
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the files again");
                    control.reload.notify_waiters();
                }
            }
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
