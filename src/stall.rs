//! Notices a thread that is stuck: in a blocking call, or in a computation without an end.
//!
//! tokio counts how often a runtime parks and how long it was busy, and updates both whenever it looks for I/O. A runtime that
//! is not parked and whose counters have not moved for [`THRESHOLD`] has been inside one poll for so long: it is stalled.
//! A thread that is merely busy looks for I/O every few tasks, and is not.
//!
//! A thread of its own compares the counters every [`PERIOD`] while any runtime does something. When all are parked it
//! sleeps without a timer, and the next runtime to wake wakes it: at rest nothing ticks.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime, RuntimeMetrics};

/// A client notices a second; no poll of ours takes a tenth of that.
const THRESHOLD: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(1);

/// Watches the runtimes that it makes, until it is dropped.
#[derive(Debug)]
pub struct StallMonitor {
    shared: Arc<Shared>,
    thread: Thread,
}

/// How often each thread was stalled.
#[derive(Clone, Debug, Default)]
pub struct StallCounts(Option<Arc<Shared>>);

/// A thread that is watched until this is dropped.
#[derive(Debug)]
pub struct Watched {
    shared: Arc<Shared>,
    runtime: Arc<Watch>,
}

#[derive(Debug)]
struct Shared {
    /// Cleared when all runtimes are parked: then whoever wakes first wakes the monitor.
    is_awake: AtomicBool,
    has_ended: AtomicBool,
    threshold: Duration,
    period: Duration,
    /// Locked by the monitor, when a thread begins or ends, and to show the counts.
    watched: Mutex<Vec<Arc<Watch>>>,
}

/// One runtime and its thread.
struct Watch {
    name: String,
    metrics: RuntimeMetrics,
    stalls: AtomicU64,
}

impl StallMonitor {
    pub fn start() -> io::Result<StallMonitor> {
        StallMonitor::with(THRESHOLD, PERIOD)
    }

    fn with(threshold: Duration, period: Duration) -> io::Result<StallMonitor> {
        let shared = Arc::new(Shared {
            is_awake: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            threshold,
            period,
            watched: Mutex::default(),
        });
        let looking = shared.clone();
        let handle = thread::Builder::new().name("stalls".to_owned()).spawn(move || looking.run())?;
        Ok(StallMonitor { shared, thread: handle.thread().clone() })
    }

    /// A single-threaded runtime for a thread of this `name`, which runs it at once and drops the second value at its end: it
    /// is watched so long.
    pub fn runtime(&self, name: &str) -> io::Result<(Runtime, Watched)> {
        let (shared, monitor) = (self.shared.clone(), self.thread.clone());
        let wake = move || {
            if !shared.is_awake.load(Relaxed) && !shared.is_awake.swap(true, Relaxed) {
                monitor.unpark();
            }
        };
        let runtime = Builder::new_current_thread().enable_all().on_thread_unpark(wake).build()?;
        let metrics = runtime.metrics();
        let watch = Arc::new(Watch { name: name.to_owned(), metrics, stalls: AtomicU64::new(0) });
        self.shared.watched().push(watch.clone());
        Ok((runtime, Watched { shared: self.shared.clone(), runtime: watch }))
    }

    pub fn counts(&self) -> StallCounts {
        StallCounts(Some(self.shared.clone()))
    }
}

impl Drop for StallMonitor {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Relaxed);
        self.thread.unpark();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.watched().retain(|watch| !Arc::ptr_eq(watch, &self.runtime));
    }
}

impl StallCounts {
    /// By the name of the thread.
    pub fn read(&self) -> Vec<(String, u64)> {
        let watched = self.0.iter().flat_map(|shared| shared.watched().clone());
        watched.map(|watch| (watch.name.clone(), watch.stalls.load(Relaxed))).collect()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Vec<Arc<Watch>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the monitor is dropped.
    fn run(&self) {
        let mut seen: Vec<(Arc<Watch>, Progress)> = Vec::new();
        let mut looked = Instant::now();
        while !self.has_ended.load(Relaxed) {
            let now = Instant::now();
            if now - looked > 2 * self.period {
                // The monitor itself was late, as after a SIGSTOP: what the others did meanwhile is unknown.
                seen.clear();
            }
            looked = now;
            if self.look(&mut seen, now) {
                self.is_awake.store(true, Relaxed);
                thread::park_timeout(self.period);
            } else if self.is_awake.swap(false, Relaxed) {
                // One period more, by which time each thread sees that the monitor is about to sleep, or is seen to have woken.
                thread::park_timeout(self.period);
            } else {
                thread::park();
                looked = Instant::now();
            }
        }
    }

    /// Compares each runtime with what it was. Returns whether any did something since, or does now.
    fn look(&self, seen: &mut Vec<(Arc<Watch>, Progress)>, now: Instant) -> bool {
        let watched = self.watched().clone();
        seen.retain(|(known, _)| watched.iter().any(|watch| Arc::ptr_eq(watch, known)));
        let mut is_busy = false;
        for watch in watched {
            let reading = Reading::of(&watch.metrics);
            match seen.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &watch)) {
                Some((_, progress)) => {
                    is_busy |= progress.reading != reading || !reading.is_parked();
                    watch.note(progress.judge(reading, now, self.threshold));
                }
                None => {
                    is_busy = true;
                    seen.push((watch, Progress { reading, since: now, is_stalled: false }));
                }
            }
        }
        is_busy
    }
}

impl Watch {
    fn note(&self, verdict: Option<Verdict>) {
        let thread = &self.name;
        match verdict {
            Some(Verdict::Stalled(time)) => {
                self.stalls.fetch_add(1, Relaxed);
                let for_ms = time.as_millis();
                tracing::error!(thread, for_ms, "thread stalled: it serves nothing until it goes on");
            }
            Some(Verdict::Recovered(time)) => {
                tracing::warn!(thread, after_ms = time.as_millis(), "thread recovered from a stall");
            }
            None => {}
        }
    }
}

/// The counters of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// Odd while it is parked.
    parks_and_unparks: u64,
    busy: Duration,
}

impl Reading {
    fn of(metrics: &RuntimeMetrics) -> Reading {
        Reading {
            parks_and_unparks: metrics.worker_park_unpark_count(0),
            busy: metrics.worker_total_busy_duration(0),
        }
    }

    fn is_parked(self) -> bool {
        self.parks_and_unparks % 2 == 1
    }
}

/// What is known of a runtime from one look to the next.
struct Progress {
    reading: Reading,
    /// When it was first seen like this.
    since: Instant,
    is_stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stalled(Duration),
    Recovered(Duration),
}

impl Progress {
    fn judge(&mut self, reading: Reading, now: Instant, threshold: Duration) -> Option<Verdict> {
        let time = now.saturating_duration_since(self.since);
        if reading != self.reading || reading.is_parked() {
            let was_stalled =
                std::mem::replace(self, Progress { reading, since: now, is_stalled: false }).is_stalled;
            return was_stalled.then_some(Verdict::Recovered(time));
        }
        if self.is_stalled || time < threshold {
            return None;
        }
        self.is_stalled = true;
        Some(Verdict::Stalled(time))
    }
}

#[cfg(test)]
mod tests;
