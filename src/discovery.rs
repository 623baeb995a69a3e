//! Where routes and endpoints come from, and what happens while a source is away.
//!
//! A [`Source`] publishes whole snapshots. *Failing* and *empty* are two different things: a source that fails
//! publishes nothing, so the last snapshot stands; one that publishes an empty snapshot empties.

pub mod consul;
pub mod containers;
pub mod dns;
pub mod docker;
pub mod etcd;
pub mod file;
pub mod http;
pub mod label;
pub mod state;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::address::EndpointSpec;
use crate::route::{Route, Target};
use containers::Containers;

/// Endpoints of one target that are used, as many as a file of endpoints has lines at most. A DNS answer over TCP (64 KB)
/// holds 6,400 addresses, but SRV records multiply them.
pub(crate) const ENDPOINTS_MAX: usize = 16_384;

/// All that one source knows, at one moment.
#[derive(Clone, Debug)]
pub enum Snapshot {
    /// The configuration file, read without a mistake.
    File(Vec<Route>),
    Docker(Arc<Containers>),
    /// The endpoints of a target that has a source of its own. Empty: it has none, and that is an answer.
    Target {
        target: Target,
        endpoints: Vec<EndpointSpec>,
        /// Why there is none, where the source can say more than that.
        problem: Option<String>,
    },
}

impl Snapshot {
    /// The name of the source that published it, as [`Source::name`].
    pub fn source(&self) -> String {
        match self {
            Snapshot::File(_) => "file".to_owned(),
            Snapshot::Docker(_) => "docker".to_owned(),
            Snapshot::Target { target, .. } => target.to_string(),
        }
    }
}

/// What the control loop hears from a source.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    Snapshot(Snapshot),
    /// The configuration file was refused or cannot be read; the routes of the last good one stay in use.
    FileRefused {
        why: String,
    },
    /// The source failed; what it published last stands.
    Lost {
        source: String,
        why: String,
    },
    /// The source panicked: a mistake in this program. It is run again, and what it published last stands.
    Panicked {
        source: String,
        why: String,
    },
    /// The source is away for so long that what it published last is no longer to be believed, but this; it is still
    /// lost.
    Expired(Snapshot),
}

/// The sending half that a source publishes through.
#[derive(Clone, Debug)]
pub struct Publisher {
    source: String,
    news: mpsc::Sender<SourceUpdate>,
    /// Since the run began.
    published: bool,
    /// So that the control loop is told once.
    lost: bool,
}

/// The control loop is gone: the process is on its way out.
#[derive(Debug)]
pub struct Stopped;

impl Publisher {
    pub fn new(source: impl Into<String>, news: mpsc::Sender<SourceUpdate>) -> Publisher {
        Publisher { source: source.into(), news, published: false, lost: false }
    }

    /// Hands a whole snapshot to the control loop; waits while that is busy.
    pub async fn publish(&mut self, snapshot: Snapshot) -> Result<(), Stopped> {
        self.published = true;
        self.lost = false;
        self.news.send(SourceUpdate::Snapshot(snapshot)).await.map_err(|_| Stopped)
    }

    /// Says that the source failed, unless that was said already: for those that go on trying by themselves.
    pub async fn lost(&mut self, why: String) -> Result<(), Stopped> {
        if std::mem::replace(&mut self.lost, true) {
            return Ok(());
        }
        let source = self.source.clone();
        self.news.send(SourceUpdate::Lost { source, why }).await.map_err(|_| Stopped)
    }

    /// Reports that the configuration file was refused: every time, since each has reasons of its own.
    pub async fn refuse(&mut self, why: String) -> Result<(), Stopped> {
        self.news.send(SourceUpdate::FileRefused { why }).await.map_err(|_| Stopped)
    }

    /// Says that the source panicked: every time, since each is to be counted.
    async fn panicked(&mut self, why: String) -> Result<(), Stopped> {
        self.lost = true;
        let source = self.source.clone();
        self.news.send(SourceUpdate::Panicked { source, why }).await.map_err(|_| Stopped)
    }

    /// Takes back what was published, without having anything new to say.
    pub async fn expire(&mut self, snapshot: Snapshot) -> Result<(), Stopped> {
        self.news.send(SourceUpdate::Expired(snapshot)).await.map_err(|_| Stopped)
    }
}

/// Something that knows, and can lose touch.
pub trait Source: Send {
    /// As logs and `ambassador_discovery_up` name it: `docker`, `redis:6379`.
    fn name(&self) -> String;

    /// Publishes snapshots for as long as it can; returns why it no longer can. Begins anew when it is called again, also
    /// after a panic, which leaves `self` as it was at that moment.
    fn run(&mut self, publisher: &mut Publisher) -> impl Future<Output = SourceError> + Send;

    /// Comes back when somebody waits for what this source may know by now: then it is tried again before its back-off
    /// is over, but not within [`WANTED_FLOOR`]. Never, for one that hears of changes as they happen.
    fn wanted(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Tried again, with back-off.
    #[error("{0}")]
    Failed(String),
    /// The control loop is gone; not tried again.
    #[error("stopped")]
    Stopped,
}

impl From<Stopped> for SourceError {
    fn from(Stopped: Stopped) -> SourceError {
        SourceError::Stopped
    }
}

/// First and longest pause between two attempts at a source. A local Docker daemon restarts in seconds; a source that
/// is down for an hour shall still be found within ten seconds of its return.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A held session has ten seconds by default: it shall not spend them waiting for a back-off.
const WANTED_FLOOR: Duration = Duration::from_secs(1);

/// Follows a source until the handle is dropped.
pub fn follow(source: impl Source + 'static, news: mpsc::Sender<SourceUpdate>) -> AbortOnDropHandle<()> {
    follow_by(source, news, crate::backoff::jittered)
}

/// The same, with a jitter of the caller's choice.
pub fn follow_by(
    source: impl Source + 'static,
    news: mpsc::Sender<SourceUpdate>,
    jittered: impl Fn(Duration) -> Duration + Send + 'static,
) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    let task = tokio::spawn(supervise(source, news, jittered));
    AbortOnDropHandle::new(task)
}

/// Runs a source for ever: retries with jittered back-off, says once when it is lost and once when it is back. A panic
/// ends a run like a failure does.
async fn supervise(
    mut source: impl Source,
    news: mpsc::Sender<SourceUpdate>,
    jittered: impl Fn(Duration) -> Duration,
) {
    let mut publisher = Publisher::new(source.name(), news);
    let mut backoff = BACKOFF_MIN;
    loop {
        publisher.published = false;
        let ended = AssertUnwindSafe(source.run(&mut publisher)).catch_unwind().await;
        if publisher.published && ended.is_ok() {
            backoff = BACKOFF_MIN;
        }
        let told = match ended {
            Ok(SourceError::Stopped) => return,
            Ok(SourceError::Failed(why)) => publisher.lost(why).await,
            Err(panic) => publisher.panicked(panic_message(&*panic)).await,
        };
        if told.is_err() {
            return;
        }
        rest(jittered(backoff), WANTED_FLOOR, source.wanted()).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked, which is a mistake in this program: {}", text.unwrap_or("no message"))
}

/// Pauses; once the floor is passed, for no longer than until it is wanted.
async fn rest(pause: Duration, floor: Duration, wanted: impl Future<Output = ()>) {
    let floor = pause.min(floor);
    tokio::time::sleep(floor).await;
    tokio::select! {
        () = tokio::time::sleep(pause - floor) => {}
        () = wanted => {}
    }
}

#[cfg(test)]
mod tests;
