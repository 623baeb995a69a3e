//! A stream of consecutive connections, each with one request.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::wait::pause;
use super::{Namespace, eventually};

/// The pause between two requests: hundreds per second, which leaves time for other processes on two cores.
const PACE: Duration = Duration::from_millis(2);

pub(crate) type Ask = fn(SocketAddr) -> io::Result<String>;

/// The results so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The number of each reply.
    pub(crate) answers: BTreeMap<String, usize>,
    pub(crate) failures: Vec<String>,
    pub(crate) longest: Duration,
}

impl Report {
    pub(crate) fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    /// Returns the number of this reply.
    pub(crate) fn answers_of(&self, answer: &str) -> usize {
        self.answers.get(answer).copied().unwrap_or(0)
    }
}

/// Sends requests until it is dropped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    asker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Locked during each request.
    asking: Mutex<()>,
    report: Mutex<Report>,
}

impl Load {
    /// Starts sending requests from a namespace to an address, and waits for the first reply.
    pub(crate) fn start(from: &Namespace, addr: SocketAddr, ask: Ask) -> Load {
        from.run(|| eventually("a first answer", || ask(addr)));
        let shared = Arc::new(Shared::default());
        let asker = thread::spawn({
            let (shared, from) = (Arc::clone(&shared), from.clone());
            move || {
                from.enter();
                shared.ask_on(addr, ask);
            }
        });
        Load { shared, asker: Some(asker) }
    }

    /// Returns a guard that suspends requests: a request is lost if its server is killed, with or without the
    /// ambassador.
    pub(crate) fn pause(&self) -> MutexGuard<'_, ()> {
        self.shared.asking.lock().expect("the asker lives")
    }

    pub(crate) fn report(&self) -> Report {
        self.shared.report.lock().expect("the asker lives").clone()
    }

    /// Waits for this many more replies; panics on a failure.
    pub(crate) fn more(&self, answers: usize) {
        let before = self.report().answered();
        eventually("more answers", || match self.report() {
            report if report.answered() >= before + answers || !report.failures.is_empty() => Ok(()),
            report => Err(format!("{report:?}")),
        });
        let failures = self.report().failures;
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// Ends the stream.
    pub(crate) fn stop(mut self) -> Report {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(asker) = self.asker.take() {
            asker.join().ok();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn ask_on(&self, addr: SocketAddr, ask: Ask) {
        let load_started = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            self.ask_once(addr, ask, load_started);
            pause(PACE);
        }
    }

    fn ask_once(&self, addr: SocketAddr, ask: Ask, load_started: Instant) {
        let _asking = self.asking.lock().expect("a test that has not failed");
        let started = Instant::now();
        let answer = ask(addr);
        let mut report = self.report.lock().expect("a test that has not failed");
        report.longest = report.longest.max(started.elapsed());
        match answer {
            Ok(answer) => *report.answers.entry(answer).or_default() += 1,
            Err(why) => report.failures.push(format!("at {:?}: {why}", load_started.elapsed())),
        }
    }
}
