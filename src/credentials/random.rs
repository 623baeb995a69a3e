//! Random bytes from the operating system.

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};

/// Returns random bytes. Fails if the operating system has none.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}
