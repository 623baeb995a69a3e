//! New sessions a second, of one client address: a token bucket each, in a table that does not grow and takes no lock.
//!
//! A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371): each session moves it on by the time
//! that one token takes to come back. So a bucket is one atomic word, and a full bucket is no bucket at all: the place of a
//! client that was quiet for a second can be given away and nothing is forgotten.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::balancer::{client_hash, nth};

/// Clients whose buckets are not full at one time. One more, and the fullest of its eight neighbours is let go: a flood of
/// invented addresses can at worst let a client have more than its rate.
const BUCKETS: usize = 1 << 18;
/// Where one client's bucket may be.
const NEIGHBOURS: usize = 8;

/// The time in a word: microseconds, twelve days, then round again. What is left tells clients apart.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// A bucket holds what comes back in a second.
const BURST_MICROS: u64 = 1_000_000;

/// The buckets of one route: 2 MB.
#[derive(Debug)]
pub struct RateLimit {
    buckets: Box<[AtomicU64]>,
    /// So that nobody can choose addresses which crowd one neighbourhood.
    seed: u64,
    began: Instant,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        use std::hash::{BuildHasher, RandomState};
        RateLimit {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            seed: RandomState::new().hash_one(()),
            began: Instant::now(),
        }
    }
}

impl RateLimit {
    /// Whether this client may begin one more session now.
    pub fn admits(&self, client: IpAddr, per_second: u32, now: Instant) -> bool {
        let hash = nth(self.seed, client_hash(client));
        let tag = hash & !TIME_MASK;
        // From one on, since an empty word is zero.
        let micros = now.saturating_duration_since(self.began).as_micros() + BURST_MICROS as u128;
        let now = u64::try_from(micros).unwrap_or(u64::MAX) & TIME_MASK;
        let token = (BURST_MICROS / u64::from(per_second.max(1))).max(1);
        let Some(bucket) = self.bucket(hash, tag, now) else { return true };
        let take = |word: u64| {
            let missing = if word & !TIME_MASK == tag { missing(word, now) } else { 0 };
            (missing + token <= BURST_MICROS).then(|| tag | (now + missing + token) & TIME_MASK)
        };
        bucket.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// The client's own, or the fullest of its neighbourhood.
    fn bucket(&self, hash: u64, tag: u64, now: u64) -> Option<&AtomicU64> {
        let first = usize::try_from(hash & TIME_MASK).unwrap_or(0) % (BUCKETS / NEIGHBOURS) * NEIGHBOURS;
        let neighbours = self.buckets.get(first..first + NEIGHBOURS)?;
        let own = neighbours.iter().find(|bucket| {
            let word = bucket.load(Relaxed);
            word & !TIME_MASK == tag && missing(word, now) > 0
        });
        own.or_else(|| neighbours.iter().min_by_key(|bucket| missing(bucket.load(Relaxed), now)))
    }
}

/// How long until the bucket is full. A time further off than any bucket takes is long past.
fn missing(word: u64, now: u64) -> u64 {
    let ahead = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    if ahead <= BURST_MICROS { ahead } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_client_has_a_burst_of_a_second_and_then_its_rate() {
        let limit = RateLimit::default();
        let began = limit.began;
        let admitted = |second: f64| {
            (0..100).filter(|_| limit.admits(client(1), 20, began + Duration::from_secs_f64(second))).count()
        };
        assert_eq!([0.0, 0.04, 0.05, 0.1, 0.2, 10.0, 10.5].map(admitted), [20, 0, 1, 1, 2, 20, 10]);
        assert!(limit.admits(client(2), 1, began), "others have their own");
        assert!(!limit.admits(client(2), 1, began));
        assert!(limit.admits(client(2), 1, began + Duration::from_secs(1)));
    }

    #[test]
    fn a_hundred_thousand_clients_keep_their_buckets() {
        let limit = RateLimit::default();
        let now = limit.began;
        assert!((0..100_000).all(|n| limit.admits(client(n), 1, now)));
        let again = (0..100_000).filter(|n| limit.admits(client(*n), 1, now)).count();
        assert!(again < 500, "{again} forgotten");
    }

    #[test]
    fn time_goes_round_and_nobody_is_locked_out() {
        let limit = RateLimit::default();
        for days in [0, 6, 12, 13, 25, 400] {
            let now = limit.began + Duration::from_secs(days * 24 * 3600);
            assert!((0..5).all(|_| limit.admits(client(1), 5, now)), "{days}");
            assert!(!limit.admits(client(1), 5, now), "{days}");
        }
    }
}
