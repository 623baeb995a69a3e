//! Threads that are stuck, busy, or idle.

use std::sync::mpsc;

use super::*;

const QUICK: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(30);

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < TIMEOUT, "timeout: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A runtime whose thread blocks on request.
struct Blockable {
    jobs: tokio::sync::mpsc::UnboundedSender<mpsc::Receiver<()>>,
    metrics: RuntimeMetrics,
}

impl Blockable {
    fn start(monitor: &StallMonitor) -> Blockable {
        let (runtime, guard) = monitor.runtime("blockable").unwrap();
        let (jobs, mut queue) = tokio::sync::mpsc::unbounded_channel::<mpsc::Receiver<()>>();
        let metrics = runtime.metrics();
        thread::spawn(move || {
            runtime.block_on(async {
                while let Some(job) = queue.recv().await {
                    let _ = job.recv();
                }
            });
            drop(guard);
        });
        Blockable { jobs, metrics }
    }

    /// Blocks its thread until the value is dropped.
    fn block(&self) -> mpsc::Sender<()> {
        let (release, job) = mpsc::channel();
        self.jobs.send(job).unwrap();
        release
    }
}

fn stalls(monitor: &StallMonitor) -> u64 {
    monitor.counts().read().iter().map(|(_, count)| count).sum()
}

#[test]
fn blocked_thread_is_counted_once_per_stall() {
    let monitor = StallMonitor::with(QUICK, QUICK).unwrap();
    let thread = Blockable::start(&monitor);
    for n in 1..=2 {
        let release = thread.block();
        eventually("a stall", || stalls(&monitor) >= n);
        thread::park_timeout(5 * QUICK);
        assert_eq!(stalls(&monitor), n, "a stall that lasts is counted once");
        drop(release);
        eventually("parked", || Reading::of(&thread.metrics).is_parked());
    }
    assert_eq!(monitor.counts().read(), [("blockable".to_owned(), stalls(&monitor))]);
    drop(thread);
    eventually("a thread that has ended is not monitored", || monitor.counts().read().is_empty());
}

#[test]
fn monitor_sleeps_while_all_threads_are_parked_and_wakes_with_the_first() {
    let monitor = StallMonitor::with(QUICK, QUICK).unwrap();
    let thread = Blockable::start(&monitor);
    for n in 1..=3 {
        eventually("the monitor sleeps", || !monitor.shared.is_awake.load(Relaxed));
        // Long enough for its last comparison, after which only a thread that wakes can wake it.
        thread::park_timeout(5 * QUICK);
        assert!(!monitor.shared.is_awake.load(Relaxed), "it stays asleep while the threads are parked");
        let release = thread.block();
        eventually("a stall", || stalls(&monitor) >= n);
        drop(release);
    }
}

#[test]
fn counters_of_a_thread_that_is_always_busy_change() {
    let monitor = StallMonitor::with(TIMEOUT, QUICK).unwrap();
    let (runtime, _guard) = monitor.runtime("busy").unwrap();
    let (metrics, end) = (runtime.metrics(), Arc::new(AtomicBool::new(false)));
    let ended = end.clone();
    let busy = thread::spawn(move || {
        runtime.block_on(async {
            while !ended.load(Relaxed) {
                tokio::task::yield_now().await;
            }
        });
    });
    for _ in 0..20 {
        let before = Reading::of(&metrics);
        eventually("its counters change", || Reading::of(&metrics).busy > before.busy);
        assert_eq!(Reading::of(&metrics).parks_and_unparks, before.parks_and_unparks, "it never parks");
    }
    end.store(true, Relaxed);
    busy.join().unwrap();
}

#[test]
fn only_a_thread_that_neither_parks_nor_progresses_for_the_threshold_is_stalled() {
    let (busy, began) = (Duration::from_millis(7), Instant::now());
    let reading = |parks_and_unparks, busy| Reading { parks_and_unparks, busy };
    let at = |ms| began + Duration::from_millis(ms);
    let mut progress = Progress { reading: reading(2, busy), since: began, is_stalled: false };
    let mut judge = |reading, ms| progress.judge(reading, at(ms), Duration::from_secs(1));
    assert_eq!(judge(reading(2, busy), 999), None);
    assert_eq!(judge(reading(2, 2 * busy), 1_000), None, "busy");
    assert_eq!(judge(reading(3, 2 * busy), 9_000), None, "parked");
    assert_eq!(judge(reading(3, 2 * busy), 19_000), None, "still parked");
    assert_eq!(judge(reading(4, 2 * busy), 20_000), None, "just woken");
    assert_eq!(judge(reading(4, 2 * busy), 21_000), Some(Verdict::Stalled(Duration::from_secs(1))));
    assert_eq!(judge(reading(4, 2 * busy), 25_000), None, "once");
    assert_eq!(judge(reading(4, 3 * busy), 26_000), Some(Verdict::Recovered(Duration::from_secs(6))));
}
