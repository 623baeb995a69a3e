//! The two directions of a session, and a counter of bytes for each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A direction in which bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the endpoint.
    Up,
    /// From the endpoint to the client.
    Down,
}

/// Bytes relayed in each direction.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// Adds bytes that were relayed.
    pub fn add(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        counter.fetch_add(bytes as u64, Relaxed);
    }

    /// Returns the bytes relayed from the client to the endpoint.
    pub fn up(&self) -> u64 {
        self.up.load(Relaxed)
    }

    /// Returns the bytes relayed from the endpoint to the client.
    pub fn down(&self) -> u64 {
        self.down.load(Relaxed)
    }
}
