//! Pauses between attempts: doubling, and with jitter.

use std::time::Duration;

/// Pauses that double from one attempt to the next, up to a maximum. Without jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with a pause of `min`.
    pub const fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max, next: min }
    }

    /// Returns the pause before the next attempt, and doubles the one after it.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }

    /// Starts again with the shortest pause, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Returns a random duration between half of `pause` and `pause`, so that the attempts of many sessions are spread.
pub fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState of a thread has its own key. Not for secrets.
    jittered_by(pause, RandomState::new().hash_one(()))
}

/// Returns the duration that [`jittered`] returns for these random bits.
pub fn jittered_by(pause: Duration, bits: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "32 bits are exact")]
    let unit = (bits >> 32) as f64 / (1u64 << 32) as f64;
    pause.mul_f64(0.5 + 0.5 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_until_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses = [1, 2, 4, 5, 5].map(Duration::from_secs);
        assert_eq!(pauses.map(|_| backoff.next_pause()), pauses);
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::from_secs(1));
    }
}
