//! A limited number of units, divided fairly among competitors. Pure.
//!
//! Every [`Share`] has a guaranteed part, and may borrow what is free beyond the unused guarantees of the others:
//!
//! ```text
//!   0                                                               max
//!   ├── guaranteed: a ──┼── guaranteed: b ──┼── shared, first come first served ──┤
//!   │ used by a ──►     │ used by b ─────────────────────►                        │
//! ```
//!
//! A share that uses less than its guarantee always gets another unit, with one temporary exception: a guarantee that was given
//! while others still borrowed it, as when a route is opened, is honoured as they return what they borrowed.
//!
//! Uses atomic counters without a lock. Each counter is exact once all concurrent calls have returned. A call that fails may
//! make a concurrent call fail that would have succeeded.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A limited number of units.
#[derive(Debug)]
pub(crate) struct Budget {
    max: u32,
    used: AtomicU32,
    /// The sum over all shares of what is used or guaranteed, whichever is more. Exceeds `max` after a guarantee was given while
    /// others borrowed it.
    committed: AtomicI64,
}

/// The part of a competitor in a [`Budget`]. Without a guarantee it can only borrow.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicU64);

/// The contents of a [`Share`], in one word so that both change together.
#[derive(Clone, Copy)]
struct Usage {
    used: u32,
    guaranteed: u32,
}

const ONE_USED: u64 = 1 << 32;

/// Returns the guarantee of each share: half of `free` is divided among them, the other half can be borrowed. If that is less than
/// `least`, the minimum for any use, more than half is divided.
pub(crate) fn guarantee(free: u32, shares: usize, least: u32) -> u32 {
    match u32::try_from(shares) {
        Ok(shares @ 1..) => (free / 2 / shares).max(least.min(free / shares)),
        _ => 0,
    }
}

impl Budget {
    /// Creates a budget of `max` units.
    pub(crate) fn new(max: usize) -> Budget {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Budget { max, used: AtomicU32::new(0), committed: AtomicI64::new(0) }
    }

    /// Returns the number of units.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// Returns the number of units that are taken.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Takes a unit for each of `shares`, all or none. Borrowing leaves at least `spare` units to others. Returns whether they were
    /// taken.
    pub(crate) fn take<const N: usize>(&self, shares: [&Share; N], spare: u32) -> bool {
        let fits = |used: u32| used.checked_add(N as u32).filter(|used| *used <= self.max);
        if self.used.fetch_update(Relaxed, Relaxed, fits).is_err() {
            return false;
        }
        let borrowed: i64 = shares.iter().map(|share| share.add()).sum();
        if borrowed == 0 || self.borrow(borrowed, spare) {
            return true;
        }
        // Not necessarily what was added, because a guarantee may have changed in between.
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

    /// Returns the units taken for `shares`.
    pub(crate) fn give_back<const N: usize>(&self, shares: [&Share; N]) {
        let removed: i64 = shares.iter().map(|share| share.remove()).sum();
        if removed != 0 {
            self.committed.fetch_add(removed, Relaxed);
        }
        self.used.fetch_sub(N as u32, Relaxed);
    }

    /// Takes units that are in use already, whether or not they are available.
    pub(crate) fn claim(&self, count: u32) {
        self.committed.fetch_add(i64::from(count), Relaxed);
        self.used.fetch_add(count, Relaxed);
    }

    /// Returns units taken by [`Budget::claim`].
    pub(crate) fn unclaim(&self, count: u32) {
        self.committed.fetch_sub(i64::from(count), Relaxed);
        self.used.fetch_sub(count, Relaxed);
    }

    /// Sets the guarantee of a share.
    pub(crate) fn set_guarantee(&self, share: &Share, guaranteed: u32) {
        if share.guaranteed() != guaranteed {
            self.committed.fetch_add(share.set_guarantee(guaranteed), Relaxed);
        }
    }
}

/// Methods that change a share return the change of [`Budget`]'s `committed`.
impl Share {
    /// Returns the number of units that are taken.
    pub(crate) fn used(&self) -> u32 {
        Usage::from(self.0.load(Relaxed)).used
    }

    /// Returns the number of units that are guaranteed.
    pub(crate) fn guaranteed(&self) -> u32 {
        Usage::from(self.0.load(Relaxed)).guaranteed
    }

    fn add(&self) -> i64 {
        let before = Usage::from(self.0.fetch_add(ONE_USED, Relaxed));
        i64::from(before.used >= before.guaranteed)
    }

    fn remove(&self) -> i64 {
        let before = Usage::from(self.0.fetch_sub(ONE_USED, Relaxed));
        -i64::from(before.used > before.guaranteed)
    }

    fn set_guarantee(&self, guaranteed: u32) -> i64 {
        let with = |word: u64| Some(Usage { guaranteed, ..Usage::from(word) }.into());
        let (Ok(word) | Err(word)) = self.0.fetch_update(Relaxed, Relaxed, with);
        let Usage { used, guaranteed: before } = Usage::from(word);
        i64::from(used.max(guaranteed)) - i64::from(used.max(before))
    }
}

impl From<u64> for Usage {
    fn from(word: u64) -> Usage {
        Usage { used: (word >> 32) as u32, guaranteed: word as u32 }
    }
}

impl From<Usage> for u64 {
    fn from(Usage { used, guaranteed }: Usage) -> u64 {
        u64::from(used) << 32 | u64::from(guaranteed)
    }
}

#[cfg(test)]
mod tests;
