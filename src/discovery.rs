//! The sources of routes and endpoints, and their supervision.
//!
//! A [`Source`] publishes whole snapshots. Failing and publishing an empty snapshot are different: a source that fails publishes
//! nothing, so its last snapshot is kept; an empty snapshot removes its endpoints.

pub mod consul;
pub mod dns;
pub mod docker;
pub(crate) mod endpoint_resolver;
pub mod etcd;
pub mod file;
pub mod http;
pub(crate) mod peers;
pub(crate) mod state;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::address::EndpointSpec;
use crate::backoff::Backoff;
use crate::route::{Route, Target};
use docker::Containers;

/// Endpoints of one target that are used, as many as a file of endpoints has lines at most. A DNS response over TCP (64 KB)
/// contains up to 6,400 addresses, but SRV records multiply them.
pub(crate) const ENDPOINTS_MAX: usize = 16_384;

/// The whole state of one source.
#[derive(Clone, Debug, PartialEq)]
pub enum Snapshot {
    /// The routes of the configuration file, which has no mistake.
    File(Vec<Route>),
    /// The containers of the Docker engine.
    Docker(Arc<Containers>),
    /// The endpoints of a target that has a source of its own. An empty list removes all of them.
    Target {
        /// The target, which identifies the source.
        target: Target,
        /// The endpoints the target currently resolves to.
        endpoints: Vec<EndpointSpec>,
        /// Why there is none, if the source knows more than that.
        problem: Option<String>,
    },
}

impl Snapshot {
    /// Returns the name of its source, as [`Source::name`].
    pub fn source(&self) -> String {
        match self {
            Snapshot::File(_) => "file".to_owned(),
            Snapshot::Docker(_) => "docker".to_owned(),
            Snapshot::Target { target, .. } => target.to_string(),
        }
    }

    /// Returns the endpoints of a target.
    fn endpoints(&self) -> Option<&[EndpointSpec]> {
        match self {
            Snapshot::Target { endpoints, .. } => Some(endpoints),
            Snapshot::File(_) | Snapshot::Docker(_) => None,
        }
    }
}

/// A message of a source to the control loop.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    /// The source is available; this replaces its last snapshot.
    Snapshot(Snapshot),
    /// The configuration file is invalid or cannot be read; the routes of the last valid one stay in use.
    FileRefused {
        /// At most ten of the mistakes, separated by `; `, for people.
        why: String,
    },
    /// The source failed; its last snapshot is kept.
    Lost {
        /// The name of the source, as [`Source::name`].
        source: String,
        /// The reason, for people.
        why: String,
    },
    /// The source panicked, which is a defect of this program. It is run again, and its last snapshot is kept.
    Panicked {
        /// The name of the source, as [`Source::name`].
        source: String,
        /// The message of the panic.
        why: String,
    },
    /// The source has failed for so long that this replaces its last snapshot; it is still lost.
    Expired(Snapshot),
}

/// When a source last answered, whether or not with a change. Written by its publisher, and read without a lock.
#[derive(Clone, Debug)]
pub struct LastAnswer(Arc<Answered>);

#[derive(Debug)]
struct Answered {
    since: Instant,
    /// The same moment.
    since_at: SystemTime,
    /// Milliseconds after `since`, plus 1. Zero without an answer.
    ms: AtomicU64,
}

impl Default for LastAnswer {
    fn default() -> LastAnswer {
        let (since, since_at) = (Instant::now(), SystemTime::now());
        LastAnswer(Arc::new(Answered { since, since_at, ms: AtomicU64::new(0) }))
    }
}

impl LastAnswer {
    /// Records that the source has answered.
    pub fn record(&self) {
        let ms = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.0.ms.store(ms.saturating_add(1), Relaxed);
    }

    /// Returns how long ago the last answer was. `None` without one.
    pub fn age(&self) -> Option<Duration> {
        Some(self.0.since.elapsed().saturating_sub(self.offset()?))
    }

    /// Returns the time of the last answer. `None` without one.
    pub fn at(&self) -> Option<SystemTime> {
        self.0.since_at.checked_add(self.offset()?)
    }

    fn offset(&self) -> Option<Duration> {
        self.0.ms.load(Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

/// Sends the updates of one source to the control loop.
#[derive(Clone, Debug)]
pub struct Publisher {
    source: String,
    updates: mpsc::Sender<SourceUpdate>,
    answered: LastAnswer,
    /// Whether a snapshot was published in this run of the source.
    published: bool,
    /// Whether the source is lost, so that this is reported once.
    lost: bool,
    /// The snapshot that the control loop uses.
    last: Option<Snapshot>,
}

/// The control loop has ended, because the process is about to exit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

impl Publisher {
    pub(crate) fn new(source: impl Into<String>, updates: mpsc::Sender<SourceUpdate>) -> Publisher {
        let (source, answered) = (source.into(), LastAnswer::default());
        Publisher { source, updates, answered, published: false, lost: false, last: None }
    }

    /// Returns what the source records its answers in: each time that it has learned its current state, changed or not.
    pub fn answered(&self) -> &LastAnswer {
        &self.answered
    }

    /// Sends a snapshot to the control loop; waits while its queue is full.
    pub async fn publish(&mut self, snapshot: Snapshot) -> Result<(), Stopped> {
        self.published = true;
        self.lost = false;
        self.last = Some(snapshot.clone());
        self.send(SourceUpdate::Snapshot(snapshot)).await
    }

    /// Sends a snapshot, unless the control loop has the same one already. The first of a run, and the first after a failure,
    /// are always sent: they report that the source is available again.
    pub async fn publish_changed(&mut self, snapshot: Snapshot) -> Result<(), Stopped> {
        if self.published && !self.lost && self.last.as_ref() == Some(&snapshot) {
            return Ok(());
        }
        self.publish(snapshot).await
    }

    /// Reports that the source failed, unless that was reported already: for sources that retry by themselves.
    pub async fn lost(&mut self, why: String) -> Result<(), Stopped> {
        if std::mem::replace(&mut self.lost, true) {
            return Ok(());
        }
        let source = self.source.clone();
        self.send(SourceUpdate::Lost { source, why }).await
    }

    /// Reports that the configuration file is invalid: every time, because the reasons differ.
    pub async fn refuse(&mut self, why: String) -> Result<(), Stopped> {
        self.send(SourceUpdate::FileRefused { why }).await
    }

    /// Reports that the source panicked: every time, because panics are counted.
    async fn panicked(&mut self, why: String) -> Result<(), Stopped> {
        self.lost = true;
        let source = self.source.clone();
        self.send(SourceUpdate::Panicked { source, why }).await
    }

    /// Replaces the last snapshot of a source that is lost, unless it has the same endpoints. Does nothing before the first
    /// snapshot.
    pub async fn expire(&mut self, snapshot: Snapshot) -> Result<(), Stopped> {
        if self.last.as_ref().is_none_or(|last| last.endpoints() == snapshot.endpoints()) {
            return Ok(());
        }
        self.last = Some(snapshot.clone());
        self.send(SourceUpdate::Expired(snapshot)).await
    }

    async fn send(&self, update: SourceUpdate) -> Result<(), Stopped> {
        self.updates.send(update).await.map_err(|_| Stopped)
    }
}

/// A source of routes or endpoints.
pub trait Source: Send {
    /// Returns its name in logs and in `ambassador_discovery_up`: `docker`, `redis:6379`.
    fn name(&self) -> String;

    /// Publishes snapshots until it fails. It is called again after that, also after a panic, which leaves `self` as it was at
    /// that moment.
    fn run(&mut self, publisher: &mut Publisher) -> impl Future<Output = SourceError> + Send;

    /// Completes when a new attempt is worthwhile before the back-off has ended, for example because a session waits for an
    /// endpoint; it then follows at once, but not within [`EARLY_RETRY_MIN`]. Never completes for a source that is notified of
    /// changes.
    fn retry_requested(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Why a source ended.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It failed, and is run again with back-off. The reason is for people alone.
    #[error("{0}")]
    Failed(String),
    /// The control loop has ended; the source is not run again.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The shortest and the longest pause between two runs of a source. A local Docker daemon restarts in seconds; a source that was
/// unavailable for an hour is found within ten seconds of its return.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The shortest pause before an early retry. A session is held for ten seconds by default, which a back-off must not use up.
const EARLY_RETRY_MIN: Duration = Duration::from_secs(1);

/// Runs a source until the handle is dropped.
pub fn follow(source: impl Source + 'static, updates: mpsc::Sender<SourceUpdate>) -> AbortOnDropHandle<()> {
    follow_by(source, updates, crate::backoff::jittered)
}

/// Runs a source as [`follow`] does. Returns the time of its last answer as well.
pub(crate) fn follow_observed(
    source: impl Source + 'static,
    updates: mpsc::Sender<SourceUpdate>,
) -> (AbortOnDropHandle<()>, LastAnswer) {
    let publisher = Publisher::new(source.name(), updates);
    let answered = publisher.answered.clone();
    (spawn(supervise(source, publisher, crate::backoff::jittered)), answered)
}

/// Runs a source as [`follow`] does, with this jitter.
pub fn follow_by(
    source: impl Source + 'static,
    updates: mpsc::Sender<SourceUpdate>,
    jittered: impl Fn(Duration) -> Duration + Send + 'static,
) -> AbortOnDropHandle<()> {
    let publisher = Publisher::new(source.name(), updates);
    spawn(supervise(source, publisher, jittered))
}

fn spawn(supervised: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    let task = tokio::spawn(supervised);
    AbortOnDropHandle::new(task)
}

/// Runs a source again whenever it fails or panics, with jittered back-off. Reports each failure once.
async fn supervise(
    mut source: impl Source,
    mut publisher: Publisher,
    jittered: impl Fn(Duration) -> Duration,
) {
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
    loop {
        publisher.published = false;
        let ended = AssertUnwindSafe(source.run(&mut publisher)).catch_unwind().await;
        if publisher.published && ended.is_ok() {
            backoff.reset();
        }
        let reported = match ended {
            Ok(SourceError::Stopped(Stopped)) => return,
            Ok(SourceError::Failed(why)) => publisher.lost(why).await,
            Err(panic) => publisher.panicked(panic_message(&*panic)).await,
        };
        if reported.is_err() {
            return;
        }
        pause(jittered(backoff.next_pause()), EARLY_RETRY_MIN, source.retry_requested()).await;
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("the source panicked, which is a defect of this program: {}", text.unwrap_or("no message"))
}

/// Waits for `pause`, or for `early` if that completes sooner, but at least for `min` (or `pause`, if that is shorter).
async fn pause(pause: Duration, min: Duration, early: impl Future<Output = ()>) {
    let min = pause.min(min);
    tokio::time::sleep(min).await;
    tokio::select! {
        () = tokio::time::sleep(pause - min) => {}
        () = early => {}
    }
}

/// Waits for a request that is in flight; for ever if there is none.
async fn in_flight<T>(request: &mut Option<BoxFuture<'static, T>>) -> T {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
