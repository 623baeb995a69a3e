//! Threads that are stuck, busy and idle.

use std::sync::mpsc;

use super::*;

const QUICK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// A runtime that does as it is asked, one question after the other.
struct Obedient {
    jobs: tokio::sync::mpsc::UnboundedSender<mpsc::Receiver<()>>,
    metrics: RuntimeMetrics,
}

impl Obedient {
    fn start(monitor: &StallMonitor) -> Obedient {
        let (runtime, watched) = monitor.runtime("obedient").unwrap();
        let (jobs, mut queue) = tokio::sync::mpsc::unbounded_channel::<mpsc::Receiver<()>>();
        let metrics = runtime.metrics();
        thread::spawn(move || {
            runtime.block_on(async {
                while let Some(job) = queue.recv().await {
                    let _ = job.recv();
                }
            });
            drop(watched);
        });
        Obedient { jobs, metrics }
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
fn a_blocked_thread_is_counted_once_for_each_stall() {
    let monitor = StallMonitor::with(QUICK, QUICK).unwrap();
    let thread = Obedient::start(&monitor);
    for n in 1..=2 {
        let release = thread.block();
        eventually("a stall", || stalls(&monitor) >= n);
        thread::park_timeout(5 * QUICK);
        assert_eq!(stalls(&monitor), n, "a stall that lasts is one");
        drop(release);
        eventually("parked", || Reading::of(&thread.metrics).is_parked());
    }
    assert_eq!(monitor.counts().read(), [("obedient".to_owned(), stalls(&monitor))]);
    drop(thread);
    eventually("a thread that has ended is not watched", || monitor.counts().read().is_empty());
}

#[test]
fn the_monitor_sleeps_while_all_threads_do_and_wakes_with_the_first() {
    let monitor = StallMonitor::with(QUICK, QUICK).unwrap();
    let thread = Obedient::start(&monitor);
    for n in 1..=3 {
        eventually("the monitor sleeps", || !monitor.shared.is_awake.load(Relaxed));
        // Long enough for its last look, after which only a thread that wakes can wake it.
        thread::park_timeout(5 * QUICK);
        assert!(!monitor.shared.is_awake.load(Relaxed), "at rest it stays asleep");
        let release = thread.block();
        eventually("a stall", || stalls(&monitor) >= n);
        drop(release);
    }
}

#[test]
fn a_thread_that_is_busy_without_a_pause_moves_its_counters() {
    let monitor = StallMonitor::with(PATIENCE, QUICK).unwrap();
    let (runtime, _watched) = monitor.runtime("busy").unwrap();
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
        eventually("its counters move", || Reading::of(&metrics).busy > before.busy);
        assert_eq!(Reading::of(&metrics).parks_and_unparks, before.parks_and_unparks, "it never parks");
    }
    end.store(true, Relaxed);
    busy.join().unwrap();
}

#[test]
fn only_a_thread_that_neither_parks_nor_moves_for_the_threshold_is_stalled() {
    let (busy, began) = (Duration::from_millis(7), Instant::now());
    let reading = |parks_and_unparks, busy| Reading { parks_and_unparks, busy };
    let at = |ms| began + Duration::from_millis(ms);
    let mut progress = Progress { reading: reading(2, busy), since: began, is_stalled: false };
    let mut judge = |reading, ms| progress.judge(reading, at(ms), Duration::from_secs(1));
    assert_eq!(judge(reading(2, busy), 999), None);
    assert_eq!(judge(reading(2, 2 * busy), 1_000), None, "busy");
    assert_eq!(judge(reading(3, 2 * busy), 9_000), None, "parked");
    assert_eq!(judge(reading(3, 2 * busy), 19_000), None, "parked still");
    assert_eq!(judge(reading(4, 2 * busy), 20_000), None, "just woken");
    assert_eq!(judge(reading(4, 2 * busy), 21_000), Some(Verdict::Stalled(Duration::from_secs(1))));
    assert_eq!(judge(reading(4, 2 * busy), 25_000), None, "once");
    assert_eq!(judge(reading(4, 3 * busy), 26_000), Some(Verdict::Recovered(Duration::from_secs(6))));
}
