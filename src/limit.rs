//! Limits new sessions per second and client address: a token bucket for each, in a table of fixed size without locks.
//!
//! A bucket is a single number, the time at which it will be full again (GCRA, ITU-T I.371); each session advances it by the time
//! that one token takes to refill. A bucket is therefore one atomic word, and a full one carries no state: the slot of a client
//! that was idle for a second can be reused without losing anything.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::balancer::{client_hash, nth};

/// Buckets that can be in use at one time. A further client reuses the fullest of eight neighbouring slots, so a flood of forged
/// addresses can at worst let a client exceed its rate.
const BUCKETS: usize = 1 << 18;
/// The number of slots in which the bucket of a client may be.
const NEIGHBOURS: usize = 8;

/// The bits of a word that are a time: microseconds, which wrap after twelve days. The rest is a tag of the client.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The size of a bucket: the tokens of one second.
const BURST_MICROS: u64 = 1_000_000;

/// The buckets of one route: 2 MB.
#[derive(Debug)]
pub(crate) struct RateLimit {
    buckets: Box<[AtomicU64]>,
    /// Random, so that clients cannot choose addresses that share their slots.
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
    /// Returns whether a client may begin another session now, and counts it if so.
    pub(crate) fn admits(&self, client: IpAddr, per_second: u32, now: Instant) -> bool {
        let hash = nth(self.seed, client_hash(client));
        let tag = hash & !TIME_MASK;
        // Starts above zero, which is an unused slot.
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

    /// Returns the slot of the client, or the fullest of those it may use.
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

/// Returns how long it takes until the bucket is full. A time further ahead than a whole bucket has passed already.
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
    fn client_has_a_burst_of_one_second_and_then_its_rate() {
        let limit = RateLimit::default();
        let began = limit.began;
        let admitted = |second: f64| {
            (0..100).filter(|_| limit.admits(client(1), 20, began + Duration::from_secs_f64(second))).count()
        };
        assert_eq!([0.0, 0.04, 0.05, 0.1, 0.2, 10.0, 10.5].map(admitted), [20, 0, 1, 1, 2, 20, 10]);
        assert!(limit.admits(client(2), 1, began), "another client has its own bucket");
        assert!(!limit.admits(client(2), 1, began));
        assert!(limit.admits(client(2), 1, began + Duration::from_secs(1)));
    }

    #[test]
    fn buckets_of_a_hundred_thousand_clients_are_kept() {
        let limit = RateLimit::default();
        let now = limit.began;
        assert!((0..100_000).all(|n| limit.admits(client(n), 1, now)));
        let again = (0..100_000).filter(|n| limit.admits(client(*n), 1, now)).count();
        assert!(again < 500, "{again} lost");
    }

    #[test]
    fn wrapping_time_locks_no_client_out() {
        let limit = RateLimit::default();
        for days in [0, 6, 12, 13, 25, 400] {
            let now = limit.began + Duration::from_secs(days * 24 * 3600);
            assert!((0..5).all(|_| limit.admits(client(1), 5, now)), "{days}");
            assert!(!limit.admits(client(1), 5, now), "{days}");
        }
    }
}
