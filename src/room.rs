//! Room for descriptors: a session is taken only while there is room for both its sockets.
//!
//! Without it, a flood of connections takes the last descriptors for its downstream sockets, and no session is left one
//! to connect upstream with: all wait, and none is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Left alone for the runtimes, logs, admin connections, sources and pooled pipes; and for the pipes of slow receivers
/// one in 32.
const RESERVED: usize = 64;

/// The descriptors that listeners and sessions may have, all together.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    max: usize,
}

/// Some descriptors of a [`Room`], given back on drop.
#[derive(Debug)]
pub struct Seat {
    room: Arc<Room>,
    descriptors: usize,
}

impl Room {
    /// `limit` is that of getrlimit(2), `RLIMIT_NOFILE`.
    pub fn within(limit: usize) -> Room {
        let reserved = (RESERVED + limit / 32).min(limit / 2);
        Room { used: AtomicUsize::new(0), max: limit - reserved }
    }

    /// `None` when there is no room.
    pub fn seat(self: &Arc<Room>, descriptors: usize) -> Option<Seat> {
        let fits = |used: usize| used.checked_add(descriptors).filter(|used| *used <= self.max);
        self.used.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Seat { room: self.clone(), descriptors })
    }

    /// A seat even where there is no room: for what must be open whatever happens.
    pub fn claim(self: &Arc<Room>, descriptors: usize) -> Seat {
        self.used.fetch_add(descriptors, Relaxed);
        Seat { room: self.clone(), descriptors }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.descriptors, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_come_back_and_never_pass_the_limit() {
        let room = Arc::new(Room::within(128));
        let listener = room.claim(1);
        let seats: Vec<_> = std::iter::from_fn(|| room.seat(2)).collect();
        assert_eq!(seats.len(), 31, "128 less 64 reserved less a listener, by two");
        drop(seats);
        assert!(room.seat(2).is_some());
        drop(listener);
        assert_eq!(room.used.load(Relaxed), 0);
    }

    #[test]
    fn a_tiny_limit_still_leaves_half() {
        assert_eq!(Room::within(16).max, 8);
        assert_eq!(Room::within(20_000).max, 20_000 - 64 - 625);
    }
}
