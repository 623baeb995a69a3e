//! epoll for a single thread: descriptors in, tokens out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

const EVENTS: usize = 256;

pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// An event on a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) token: u64,
    pub(super) readable: bool,
    /// The peer has closed or the connection is broken: read until the error.
    pub(super) ended: bool,
}

impl Poll {
    pub(super) fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Registers edge-triggered for reading and writing: no further system call in a connection's life.
    pub(super) fn watch_edges(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Registers level-triggered for reading.
    pub(super) fn watch_input(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Returns no events after a timeout or a signal.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        self.events.clear();
        let limit = limit
            .map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns an event by index, so that its handler can register other descriptors.
    pub(super) fn ready(&self, index: usize) -> Ready {
        let Event { flags, data, .. } = self.events[index];
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        Ready { token: data.u64(), readable: flags.contains(EventFlags::IN), ended: flags.intersects(ended) }
    }
}

/// Converts "would block" to `None`.
pub(super) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
