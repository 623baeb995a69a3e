//! A bounded number of things, divided fairly among those that compete for them.
//!
//! Every [`Share`] has a guaranteed part, and may borrow what is free beyond the unused guarantees of the others:
//!
//! ```text
//!   0                                                               max
//!   ├── guaranteed: a ──┼── guaranteed: b ──┼──── anyone's, first come ────┤
//!   │ used by a ──►     │ used by b ─────────────────────►                 │
//! ```
//!
//! A share that uses less than its guarantee always gets one more. The one exception passes: where a guarantee was given
//! while others still borrowed it, as when a route is opened, it is honoured as they return what they borrowed.
//!
//! Counters alone, no lock. Each is exact once the calls under way have returned; a call that fails may meanwhile make
//! another fail that would have fitted.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub struct Budget {
    max: u32,
    used: AtomicU32,
    /// The sum over all shares of what is used or guaranteed, whichever is more. Above `max` after a guarantee was given
    /// of what others had borrowed.
    committed: AtomicI64,
}

/// One competitor's part of a [`Budget`]. Without a guarantee it can only borrow.
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

/// What a [`Share`] holds in one word, so that both change together.
#[derive(Clone, Copy)]
struct State {
    used: u32,
    guaranteed: u32,
}

const ONE_USED: u64 = 1 << 32;

/// What each of so many shares is guaranteed of what is free: half of it is divided among them, the other half is left to
/// be borrowed. Where that is less than `least`, which nothing can be done without, more than half is divided.
pub fn guarantee(free: u32, shares: usize, least: u32) -> u32 {
    match u32::try_from(shares) {
        Ok(shares @ 1..) => (free / 2 / shares).max(least.min(free / shares)),
        _ => 0,
    }
}

impl Budget {
    pub fn new(max: usize) -> Budget {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Budget { max, used: AtomicU32::new(0), committed: AtomicI64::new(0) }
    }

    pub fn max(&self) -> u32 {
        self.max
    }

    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Takes one for each of `shares`, all or none. What is borrowed leaves `spare` to the others.
    pub fn take<const N: usize>(&self, shares: [&Share; N], spare: u32) -> bool {
        let fits = |used: u32| used.checked_add(N as u32).filter(|used| *used <= self.max);
        if self.used.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return false;
        }
        let borrowed: i64 = shares.iter().map(|share| share.add()).sum();
        if borrowed == 0 || self.borrow(borrowed, spare) {
            return true;
        }
        // Not simply what was added: a guarantee may have changed in between.
        let removed: i64 = shares.iter().map(|share| share.remove()).sum();
        self.committed.fetch_add(borrowed + removed, Relaxed);
        self.used.fetch_sub(N as u32, Relaxed);
        false
    }

    fn borrow(&self, count: i64, spare: u32) -> bool {
        let limit = i64::from(self.max.saturating_sub(spare));
        let fits = |committed: i64| Some(committed + count).filter(|committed| *committed <= limit);
        self.committed.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Returns what was taken.
    pub fn give_back<const N: usize>(&self, shares: [&Share; N]) {
        let removed: i64 = shares.iter().map(|share| share.remove()).sum();
        if removed != 0 {
            self.committed.fetch_add(removed, Relaxed);
        }
        self.used.fetch_sub(N as u32, Relaxed);
    }

    /// Takes what exists already, whether or not it fits.
    pub fn claim(&self, count: u32) {
        self.committed.fetch_add(i64::from(count), Relaxed);
        self.used.fetch_add(count, Relaxed);
    }

    pub fn unclaim(&self, count: u32) {
        self.committed.fetch_sub(i64::from(count), Relaxed);
        self.used.fetch_sub(count, Relaxed);
    }

    pub fn set_guarantee(&self, share: &Share, guaranteed: u32) {
        if share.guaranteed() != guaranteed {
            self.committed.fetch_add(share.set_guarantee(guaranteed), Relaxed);
        }
    }
}

/// What changes a share returns by how much that changes what the budget is committed to.
impl Share {
    pub fn used(&self) -> u32 {
        State::from(self.0.load(Relaxed)).used
    }

    pub fn guaranteed(&self) -> u32 {
        State::from(self.0.load(Relaxed)).guaranteed
    }

    fn add(&self) -> i64 {
        let before = State::from(self.0.fetch_add(ONE_USED, Relaxed));
        i64::from(before.used >= before.guaranteed)
    }

    fn remove(&self) -> i64 {
        let before = State::from(self.0.fetch_sub(ONE_USED, Relaxed));
        -i64::from(before.used > before.guaranteed)
    }

    fn set_guarantee(&self, guaranteed: u32) -> i64 {
        let with = |word: u64| Some(State { guaranteed, ..State::from(word) }.into());
        let (Ok(word) | Err(word)) = self.0.fetch_update(Relaxed, Relaxed, with);
        let State { used, guaranteed: before } = State::from(word);
        i64::from(used.max(guaranteed)) - i64::from(used.max(before))
    }
}

impl From<u64> for State {
    fn from(word: u64) -> State {
        State { used: (word >> 32) as u32, guaranteed: word as u32 }
    }
}

impl From<State> for u64 {
    fn from(State { used, guaranteed }: State) -> u64 {
        u64::from(used) << 32 | u64::from(guaranteed)
    }
}

#[cfg(test)]
mod tests;
