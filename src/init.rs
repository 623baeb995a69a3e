//! What the kernel expects of process 1, as which it runs in a container: to reap what other processes leave behind.

use std::convert::Infallible;
use std::future::pending;

use rustix::process::{Pid, WaitOptions, getpid, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Reaps the children of processes that have ended, such as those of `docker exec`, for ever. Does nothing unless this is
/// process 1. It has no children of its own, whose status somebody would miss.
pub async fn reap_orphans() -> Infallible {
    if getpid() != Pid::INIT {
        return pending().await;
    }
    let mut child = match signal(SignalKind::child()) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%error, "cannot reap orphans");
            return pending().await;
        }
    };
    loop {
        // One signal may stand for many children.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if child.recv().await.is_none() {
            return pending().await;
        }
    }
}
