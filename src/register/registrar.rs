//! The loop: what Docker says goes in, what the registry has follows.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::wanted::{Choice, Wanted, wanted};
use crate::backoff::jittered;
use crate::discovery::{Snapshot, SourceUpdate};

/// A registry that was away is found again before a TTL of ten seconds has passed.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What Docker tells is heard at the latest after this long, whatever the registry leaves unanswered: longer than it is
/// waited for any one answer.
const SYNC_MAX: Duration = Duration::from_secs(6);

/// For taking everything back at the end: well under the ten seconds that Docker leaves us.
const FAREWELL: Duration = Duration::from_secs(4);

pub(super) struct Registrar {
    choice: Choice,
    registry: Registry,
    ttl: Duration,
    stop: CancellationToken,
    /// `None` until Docker has answered.
    wanted: Option<Wanted>,
    /// When the registry is next told that we live, or asked whether it is back.
    due: Instant,
    /// The pause after the next failure; `None` while there is none.
    backoff: Option<Duration>,
    /// There was more to write than there was time for.
    unfinished: bool,
}

#[derive(PartialEq)]
enum Written {
    All,
    InPart,
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
            wanted: None,
            due: Instant::now(),
            backoff: None,
            unfinished: false,
        }
    }

    /// Until it is stopped.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<SourceUpdate>) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(news) = news.recv() => self.learn(news),
                () = sleep_until(self.next()), if self.wanted.is_some() => {}
            }
            // What a container left must not wait for what another joined.
            while let Ok(news) = news.try_recv() {
                self.learn(news);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.step() => {}
            }
        }
        self.farewell().await;
    }

    fn learn(&mut self, news: SourceUpdate) {
        match news {
            SourceUpdate::Snapshot(Snapshot::Docker(containers)) => {
                let now = wanted(&containers, &self.choice);
                let before = self.wanted.replace(now.clone()).unwrap_or_default();
                complain(&before.problems, &now.problems);
            }
            SourceUpdate::Lost { source, why } => {
                tracing::warn!(source, why, "source lost; what it said last stays registered");
            }
            SourceUpdate::Panicked { source, why } => {
                tracing::error!(source, why, "source panicked; what it said last stays registered");
            }
            _ => {}
        }
    }

    /// When there is something to do without any news.
    fn next(&self) -> Instant {
        match self.backoff {
            Some(_) => self.due,
            None if self.unfinished => Instant::now(),
            None => self.registry.retry_at().map_or(self.due, |retry| retry.min(self.due)),
        }
    }

    async fn step(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        let now = Instant::now();
        let due = now >= self.due;
        if self.backoff.is_some() && !due {
            return;
        }
        let done = async {
            if due {
                self.registry.keep_alive().await?;
            }
            // It must not keep what is registered from being renewed in time.
            let time = SYNC_MAX.min(self.ttl / 3);
            let written = timeout(time, self.registry.sync(&wanted.entries)).await;
            written.map_or(Ok(Written::InPart), |written| written.map(|()| Written::All))
        };
        match done.await {
            Ok(written) => {
                self.unfinished = written == Written::InPart;
                self.succeeded(due.then_some(now));
            }
            Err(why) => self.failed(&why),
        }
    }

    fn succeeded(&mut self, kept_alive: Option<Instant>) {
        if self.backoff.take().is_some() {
            tracing::info!("the registry is back");
        }
        // From when it began: renewing many takes time of its own.
        if let Some(began) = kept_alive {
            self.due = began + self.ttl / 3;
        }
    }

    fn failed(&mut self, why: &str) {
        if self.backoff.is_none() {
            let ttl = humantime::format_duration(self.ttl);
            tracing::warn!(why, "the registry is lost; what it has of ours ends in {ttl} if it stays so");
        }
        let pause = self.backoff.unwrap_or(BACKOFF_MIN);
        self.backoff = Some((pause * 2).min(BACKOFF_MAX));
        self.due = Instant::now() + jittered(pause);
    }

    async fn farewell(&mut self) {
        match timeout(FAREWELL, self.registry.end()).await {
            Ok(Ok(())) => tracing::info!("stopped: nothing is registered any more"),
            Ok(Err(why)) => {
                tracing::warn!(why, "what is registered cannot be taken back: it ends with its TTL");
            }
            Err(_) => tracing::warn!("the registry does not answer: what is registered ends with its TTL"),
        }
    }
}

/// Each once.
fn complain(before: &BTreeSet<String>, now: &BTreeSet<String>) {
    for problem in now.difference(before) {
        tracing::warn!("{problem}");
    }
}

#[cfg(test)]
mod tests;
