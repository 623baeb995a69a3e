//! Dials an endpoint, and waits between two attempts.

use std::time::Duration;

/// Between half of `pause` and all of it, so that many sessions that wait for one thing do not ask for it at once.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * random_unit())
}

/// Uniform in [0, 1). Not for secrets.
fn random_unit() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState of a thread has a key of its own.
    let bits = RandomState::new().hash_one(()) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let unit = bits as f64 / (1u64 << 53) as f64;
    unit
}
