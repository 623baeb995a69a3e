//! Detects threads that are stuck: in a blocking call, or in an endless computation.
//!
//! tokio counts how often a runtime parks and how long it was busy, and updates both whenever it polls for I/O. A runtime that
//! is not parked and whose counters have not changed for [`THRESHOLD`] has spent that time in one poll: it is stalled. A thread
//! that is merely busy polls for I/O every few tasks.
//!
//! A separate thread compares the counters every [`PERIOD`] while any runtime is active. When all are parked it sleeps without
//! a timer until a runtime wakes it: an idle process has no periodic wakeup.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime, RuntimeMetrics};

/// Clients notice a delay of a second. No poll of this program takes a tenth of that.
const THRESHOLD: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(1);

/// Monitors the runtimes that it creates until it is dropped.
#[derive(Debug)]
pub struct StallMonitor {
    shared: Arc<MonitorState>,
    thread: Thread,
}

/// The number of stalls of each thread.
#[derive(Clone, Debug, Default)]
pub struct StallCounts(Option<Arc<MonitorState>>);

/// Keeps a thread monitored until it is dropped.
#[derive(Debug)]
pub struct MonitorGuard {
    shared: Arc<MonitorState>,
    runtime: Arc<MonitoredRuntime>,
}

#[derive(Debug)]
struct MonitorState {
    /// False while all runtimes are parked. The first runtime to wake then wakes the monitor.
    is_awake: AtomicBool,
    has_ended: AtomicBool,
    threshold: Duration,
    period: Duration,
    /// Locked by the monitor, when a thread starts or ends, and to read the counts.
    runtimes: Mutex<Vec<Arc<MonitoredRuntime>>>,
}

/// One runtime and its thread.
struct MonitoredRuntime {
    name: String,
    metrics: RuntimeMetrics,
    stalls: AtomicU64,
}

impl StallMonitor {
    /// Starts the monitor's thread.
    pub fn start() -> io::Result<StallMonitor> {
        StallMonitor::with(THRESHOLD, PERIOD)
    }

    fn with(threshold: Duration, period: Duration) -> io::Result<StallMonitor> {
        let shared = Arc::new(MonitorState {
            is_awake: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            threshold,
            period,
            runtimes: Mutex::default(),
        });
        let state = shared.clone();
        let handle = thread::Builder::new().name("stalls".to_owned()).spawn(move || state.run())?;
        Ok(StallMonitor { shared, thread: handle.thread().clone() })
    }

    /// Builds a single-threaded runtime for a thread of this `name`. It is monitored until the guard is dropped: the thread must
    /// run it at once, and drop the guard when it ends.
    pub fn runtime(&self, name: &str) -> io::Result<(Runtime, MonitorGuard)> {
        let (shared, monitor) = (self.shared.clone(), self.thread.clone());
        let wake = move || {
            if !shared.is_awake.load(Relaxed) && !shared.is_awake.swap(true, Relaxed) {
                monitor.unpark();
            }
        };
        let runtime = Builder::new_current_thread().enable_all().on_thread_unpark(wake).build()?;
        let metrics = runtime.metrics();
        let monitored =
            Arc::new(MonitoredRuntime { name: name.to_owned(), metrics, stalls: AtomicU64::new(0) });
        self.shared.runtimes().push(monitored.clone());
        Ok((runtime, MonitorGuard { shared: self.shared.clone(), runtime: monitored }))
    }

    /// Returns the number of stalls, live.
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

impl Drop for MonitorGuard {
    fn drop(&mut self) {
        self.shared.runtimes().retain(|runtime| !Arc::ptr_eq(runtime, &self.runtime));
    }
}

impl StallCounts {
    /// Returns the number of stalls of each thread, with the name of the thread.
    pub fn read(&self) -> Vec<(String, u64)> {
        let runtimes = self.0.iter().flat_map(|shared| shared.runtimes().clone());
        runtimes.map(|runtime| (runtime.name.clone(), runtime.stalls.load(Relaxed))).collect()
    }
}

impl fmt::Debug for MonitoredRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitoredRuntime").field("name", &self.name).finish_non_exhaustive()
    }
}

impl MonitorState {
    fn runtimes(&self) -> MutexGuard<'_, Vec<Arc<MonitoredRuntime>>> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the monitor is dropped.
    fn run(&self) {
        let mut seen: Vec<(Arc<MonitoredRuntime>, Progress)> = Vec::new();
        let mut last = Instant::now();
        while !self.has_ended.load(Relaxed) {
            let now = Instant::now();
            if now - last > 2 * self.period {
                // The monitor itself was late, as after a SIGSTOP: the progress of the others is unknown.
                seen.clear();
            }
            last = now;
            if self.compare(&mut seen, now) {
                self.is_awake.store(true, Relaxed);
                thread::park_timeout(self.period);
            } else if self.is_awake.swap(false, Relaxed) {
                // Another period. By its end each thread sees that the monitor is about to sleep, or is seen to be awake.
                thread::park_timeout(self.period);
            } else {
                thread::park();
                last = Instant::now();
            }
        }
    }

    /// Compares each runtime with its last reading. Returns whether any has been active since.
    fn compare(&self, seen: &mut Vec<(Arc<MonitoredRuntime>, Progress)>, now: Instant) -> bool {
        let runtimes = self.runtimes().clone();
        seen.retain(|(known, _)| runtimes.iter().any(|runtime| Arc::ptr_eq(runtime, known)));
        let mut is_active = false;
        for runtime in runtimes {
            let reading = Reading::of(&runtime.metrics);
            match seen.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &runtime)) {
                Some((_, progress)) => {
                    is_active |= progress.reading != reading || !reading.is_parked();
                    runtime.report(progress.judge(reading, now, self.threshold));
                }
                None => {
                    is_active = true;
                    seen.push((runtime, Progress { reading, since: now, is_stalled: false }));
                }
            }
        }
        is_active
    }
}

impl MonitoredRuntime {
    /// Counts and logs a verdict.
    fn report(&self, verdict: Option<Verdict>) {
        let thread = &self.name;
        match verdict {
            Some(Verdict::Stalled(time)) => {
                self.stalls.fetch_add(1, Relaxed);
                let for_ms = time.as_millis();
                tracing::error!(thread, for_ms, "thread stalled: it serves nothing until it recovers");
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
    /// Odd while the runtime is parked.
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

/// The progress of a runtime between two comparisons.
struct Progress {
    reading: Reading,
    /// When this reading was first taken.
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
