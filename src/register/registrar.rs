//! The control loop: keeps the registry equal to the containers of this host.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::desired::{Choice, Desired, desired};
use super::registry::{Registry, RegistryError};
use crate::backoff::{Backoff, jittered};
use crate::discovery::{Snapshot, SourceUpdate};

/// A registry that was unavailable is found again within a TTL of ten seconds.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The time limit of one synchronization, after which updates of Docker are handled: longer than the timeout of one request.
const SYNC_MAX: Duration = Duration::from_secs(6);

/// The time limit for withdrawing everything at the end: well below the ten seconds after which Docker kills a container.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(4);

pub(super) struct Registrar {
    choice: Choice,
    registry: Registry,
    ttl: Duration,
    stop: CancellationToken,
    /// `None` until Docker's first snapshot.
    desired: Option<Desired>,
    /// When to renew next, or to retry.
    due: Instant,
    /// `None` while the registry is available.
    backoff: Option<Backoff>,
    /// The last synchronization exceeded its time limit.
    is_incomplete: bool,
}

#[derive(PartialEq)]
enum Synced {
    Completely,
    Partly,
}

impl Registrar {
    pub(super) fn new(
        choice: Choice,
        registry: Registry,
        ttl: Duration,
        stop: CancellationToken,
    ) -> Registrar {
        Registrar {
            choice,
            registry,
            ttl,
            stop,
            desired: None,
            due: Instant::now(),
            backoff: None,
            is_incomplete: false,
        }
    }

    /// Runs until it is stopped, and withdraws everything then.
    pub(super) async fn run(mut self, mut updates: mpsc::Receiver<SourceUpdate>) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(update) = updates.recv() => self.handle_update(update),
                () = sleep_until(self.next_step()), if self.desired.is_some() => {}
            }
            // Removed endpoints must not be delayed by added ones.
            while let Ok(update) = updates.try_recv() {
                self.handle_update(update);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.step() => {}
            }
        }
        self.withdraw_all().await;
    }

    fn handle_update(&mut self, update: SourceUpdate) {
        match update {
            SourceUpdate::Snapshot(Snapshot::Docker(containers)) => {
                let now = desired(&containers, &self.choice);
                let before = self.desired.replace(now.clone()).unwrap_or_default();
                report_new(&before.problems, &now.problems);
            }
            SourceUpdate::Lost { source, why } => {
                tracing::warn!(source, why, "source unavailable; keeping its last snapshot registered");
            }
            SourceUpdate::Panicked { source, why } => {
                tracing::error!(source, why, "source panicked; keeping its last snapshot registered");
            }
            _ => {}
        }
    }

    /// Returns when the next step is due without an update.
    fn next_step(&self) -> Instant {
        match self.backoff {
            Some(_) => self.due,
            None if self.is_incomplete => Instant::now(),
            None => self.registry.retry_at().map_or(self.due, |retry| retry.min(self.due)),
        }
    }

    async fn step(&mut self) {
        let Some(desired) = &self.desired else { return };
        let now = Instant::now();
        let due = now >= self.due;
        if self.backoff.is_some() && !due {
            return;
        }
        let done = async {
            if due {
                self.registry.keep_alive().await?;
            }
            // Must not delay the next renewal.
            let limit = SYNC_MAX.min(self.ttl / 3);
            let synced = timeout(limit, self.registry.sync(&desired.entries)).await;
            synced.map_or(Ok(Synced::Partly), |synced| synced.map(|()| Synced::Completely))
        };
        match done.await {
            Ok(synced) => {
                self.is_incomplete = synced == Synced::Partly;
                self.succeeded(due.then_some(now));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&mut self, renewed_at: Option<Instant>) {
        if self.backoff.take().is_some() {
            tracing::info!("registry available again");
        }
        // From the start of the renewal, which takes time if there are many entries.
        if let Some(start) = renewed_at {
            self.due = start + self.ttl / 3;
        }
    }

    fn failed(&mut self, error: &RegistryError) {
        if self.backoff.is_none() {
            let (why, ttl) = (error.to_string(), humantime::format_duration(self.ttl));
            tracing::warn!(why, "registry unavailable; its entries expire in {ttl}");
        }
        let backoff = self.backoff.get_or_insert(Backoff::new(BACKOFF_MIN, BACKOFF_MAX));
        self.due = Instant::now() + jittered(backoff.next_pause());
    }

    async fn withdraw_all(&mut self) {
        match timeout(DEREGISTER_TIMEOUT, self.registry.withdraw_all()).await {
            Ok(Ok(())) => tracing::info!("stopped: all entries are withdrawn"),
            Ok(Err(error)) => {
                let why = error.to_string();
                tracing::warn!(why, "cannot withdraw the entries: they expire with their TTL");
            }
            Err(_) => tracing::warn!("the registry does not respond: the entries expire with their TTL"),
        }
    }
}

/// Logs each problem once.
fn report_new(before: &BTreeSet<String>, now: &BTreeSet<String>) {
    for problem in now.difference(before) {
        tracing::warn!("{problem}");
    }
}

#[cfg(test)]
mod tests;
