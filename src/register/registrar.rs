//! The loop: what Docker says goes in, what the registry has follows.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::wanted::{Choice, Wanted, wanted};
use crate::connect::jittered;
use crate::discovery::{News, Snapshot};

/// A registry that was away is found again before a TTL of ten seconds has passed.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

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
}

impl Registrar {
    pub(super) fn new(
        choice: Choice,
        registry: Registry,
        ttl: Duration,
        stop: CancellationToken,
    ) -> Registrar {
        Registrar { choice, registry, ttl, stop, wanted: None, due: Instant::now(), backoff: None }
    }

    /// Until it is stopped.
    pub(super) async fn run(mut self, mut news: mpsc::Receiver<News>) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(news) = news.recv() => self.learn(news),
                () = sleep_until(self.due), if self.wanted.is_some() => {}
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

    fn learn(&mut self, news: News) {
        match news {
            News::Snapshot(Snapshot::Docker(containers)) => {
                let now = wanted(&containers, &self.choice);
                let before = self.wanted.replace(now.clone()).unwrap_or_default();
                complain(&before.problems, &now.problems);
            }
            News::Lost { source, why } => {
                tracing::warn!(source, why, "source lost; what it said last stays registered");
            }
            _ => {}
        }
    }

    async fn step(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        let due = Instant::now() >= self.due;
        if self.backoff.is_some() && !due {
            return;
        }
        let done = async {
            if due {
                self.registry.keep_alive().await?;
            }
            self.registry.sync(&wanted.entries).await
        };
        match done.await {
            Ok(()) => self.succeeded(due),
            Err(why) => self.failed(&why),
        }
    }

    fn succeeded(&mut self, kept_alive: bool) {
        if self.backoff.take().is_some() {
            tracing::info!("the registry is back");
        }
        if kept_alive {
            self.due = Instant::now() + self.ttl / 3;
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
