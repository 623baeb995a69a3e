//! The network of a Docker host, for a test's own connections.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[derive(Clone, Debug)]
pub(crate) struct Namespace(PathBuf);

impl Namespace {
    /// As in `/proc/PID/ns/net`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Namespace {
        Namespace(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts the calling thread there, for good.
    pub(crate) fn enter(&self) {
        let file = File::open(&self.0).expect("the namespace of a host that is up");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering it");
    }

    /// Runs this on a thread that is there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                self.enter();
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
