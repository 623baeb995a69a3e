//! Pauses between attempts, with jitter.

use std::time::Duration;

/// Between half of `pause` and all of it, so that many sessions that wait for one thing do not ask for it at once.
pub fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState of a thread has a key of its own. Not for secrets.
    jittered_by(pause, RandomState::new().hash_one(()))
}

/// The same, by bits of the caller's choice.
pub fn jittered_by(pause: Duration, bits: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "32 bits are exact")]
    let unit = (bits >> 32) as f64 / (1u64 << 32) as f64;
    pause.mul_f64(0.5 + 0.5 * unit)
}
