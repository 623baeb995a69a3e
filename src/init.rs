//! The duty of process 1 of a container: to reap processes whose parents have ended.

use std::convert::Infallible;
use std::future::pending;

use rustix::process::{Pid, WaitOptions, getpid, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Reaps orphans, such as those of `docker exec`, until the future is dropped. Does nothing unless this is process 1. The
/// program starts no children of its own, so no exit status is lost.
pub(crate) async fn reap_orphans() -> Infallible {
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
        // Several children may end with one signal.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if child.recv().await.is_none() {
            return pending().await;
        }
    }
}
