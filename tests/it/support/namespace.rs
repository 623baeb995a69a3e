//! The network namespace of a Docker host, for connections of the test.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[derive(Clone, Debug)]
pub(crate) struct Namespace(PathBuf);

impl Namespace {
    /// Opens a namespace at a path like `/proc/PID/ns/net`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Namespace {
        Namespace(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Moves the calling thread into the namespace permanently.
    pub(crate) fn enter(&self) {
        let file = File::open(&self.0).expect("the namespace of a host that is up");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering it");
    }

    /// Runs a function on a thread in the namespace.
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
